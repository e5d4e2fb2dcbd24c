"""Write the pages that nobody writes by hand, or say which are not what their sources give."""
import claims, readme, tops
from notebooks import ROOT, lessons

PAGES = {  # in this order, for README.md counts on the lessons and lists nbs/claims.md
    'nbs/claims.md': claims.page,
    'DID_NOT_WORK.md': readme.did_not_work,
    'README.md': readme.readme,
}


def made():
    "Yield each file that is made from others, and its text: the tops of the lessons, then pages."
    for path in lessons(): yield path, tops.with_top(path)
    for name, make in PAGES.items(): yield ROOT / name, make()


def stale():
    "List the files whose text is not what their sources give."
    return [path for path, text in made()
            if not path.exists() or path.read_text(encoding='utf-8') != text]


def write():
    "Write every file that is made from others."
    for path, text in made(): path.write_text(text, encoding='utf-8')
