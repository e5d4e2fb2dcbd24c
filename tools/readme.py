"""Write README.md from nbs/index.ipynb, and DID_NOT_WORK.md from what lessons and benchmarks say about it.

python tools/readme.py          writes both
python tools/readme.py --check  fails when one of them is not what its sources give
"""
import ast, json, re, sys
from pathlib import Path

from lesson_table import table

ROOT = Path(__file__).parent.parent
FOLDERS = {  # folder: its phrase, and the files that are named with theirs
    'nbs': ('the lessons, from which `domain_llm/` is exported', '*.ipynb *.md'),
    'domain_llm': ('the library; do not edit it by hand', ''),
    'tests': (
        'what a cell cannot show: other processes, kills, bad input, other libraries as judges',
        '*.py',
    ),
    'benchmarks': ('scripts that measure, and what they found', '*.py *.md'),
    'tools': ('what makes the pages that nobody writes by hand', '*.py'),
    'examples': ('many machines', '*'),
    '.': ('the rest', '.ci/run [CD]*.md CITATION.cff MANIFEST.in settings.ini setup.py'),
}


def cells_of(notebook):
    "Read a notebook's cells, each with its source as one string."
    cells = json.loads(notebook.read_text(encoding='utf-8'))['cells']
    return [cell | {'source': ''.join(cell['source'])} for cell in cells]


def at_root(text):
    "Rewrite the links of a notebook's Markdown for the folder above."
    text = re.sub(r'\]\((?!https?://|#)', '](nbs/', text)
    return text.replace('src="images/', 'src="nbs/images/').replace('](nbs/../', '](')


def cell_text(cell):
    "Give a cell as Markdown, or '' when it is hidden."
    source = cell['source']
    if re.search(r'^#\|\s*hide', source, re.M): return ''
    if cell['cell_type'] == 'markdown': return at_root(source)
    code = re.sub(r'^#\|.*\n?', '', source, flags=re.M).strip()
    printed = ''.join(
        ''.join(o.get('text', o.get('data', {}).get('text/plain', ''))) for o in cell['outputs']
    )
    shown = (
        [('python', code)] if code and not re.search(r'^#\|\s*echo:\s*false', source, re.M) else []
    )
    return '\n\n'.join(
        f'```{kind}\n{text.rstrip()}\n```' for kind, text in shown + [('text', printed)] if text
    )


def opening(path):
    "Find the text in which a file says what it is: a title, a docstring, or a first comment."
    if path.suffix == '.ipynb':
        return re.search(r'^# (.+)', '\n'.join(c['source'] for c in cells_of(path)), re.M)[1]
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.py': return ast.get_docstring(ast.parse(text)) or ''
    found = re.search(r'^# (.+)', text, re.M)
    return found[1] if found else ''


def phrase(path):
    "Give a file's first sentence about itself."
    said = re.split(r'(?<=\w)\.(?=\s|$)|\n', opening(path), maxsplit=1)[0].strip().rstrip('.')
    if not said:
        sys.exit(
            f'{path.name} should begin with a docstring, a title or a comment that says what it is'
        )
    return said


def listed(folder, words, patterns):
    "List a folder's files with a phrase each, folded below the folder's own."
    files = sorted(
        {p for pattern in patterns.split() for p in (ROOT / folder).glob(pattern) if p.is_file()}
    )
    name = f'`{folder}/`: {words}' if folder != '.' else words
    if not files: return name
    head = re.sub(r'`([^`]*)`', r'<code>\1</code>', name)
    rows = [f'- [`{p.relative_to(ROOT)}`]({p.relative_to(ROOT)}): {phrase(p)}' for p in files]
    return f'<details><summary>{head}</summary>\n\n' + '\n'.join(rows) + '\n\n</details>'


def tree():
    "List the project's files, each with the phrase that it has for itself."
    return '\n\n'.join(listed(folder, *about) for folder, about in FOLDERS.items())


def readme():
    "Make README.md: the index with the lesson table and the file tree in their places."
    text = '\n\n'.join(t for t in map(cell_text, cells_of(ROOT / 'nbs/index.ipynb')) if t)
    for mark, made in {'<!-- lessons -->': at_root(table()), '<!-- files -->': tree()}.items():
        if text.count(mark) != 1: sys.exit(f'nbs/index.ipynb should have the mark {mark} once')
        text = text.replace(mark, made)
    return f'<!-- made from nbs/index.ipynb by tools/readme.py; edit that notebook -->\n\n{text}\n'


def failures(notebook):
    "Give what a lesson says did not work, under a link to it; '' when it says nothing."
    prose = '\n\n'.join(c['source'] for c in cells_of(notebook) if c['cell_type'] == 'markdown')
    found = re.search(r'^## What did not work\n(.*?)(?=^## |\Z)', prose, re.M | re.S)
    return (
        f'## [{phrase(notebook)}](nbs/{notebook.name})\n\n{at_root(found[1].strip())}'
        if found
        else ''
    )


def missed(results):
    "Give each sentence of the benchmarks' results that owns to a bar not reached or a figure not measured."
    text = '\n'.join(l for l in results.splitlines() if not l.startswith('|'))
    owns = re.compile(r'\b(bars?|goals?)\b.*\b(not|miss\w*)\b|\*not measured\*|\bmissed\b')
    said = [(part.split('\n')[0], s.strip()) for part in re.split(r'^## ', text, flags=re.M)[1:]
            for s in re.split(r'(?<=\.)\s+|\n\n+', part.partition('\n')[2]) if owns.search(s)]
    return '\n'.join(f"- {head}: {' '.join(s.split())}" for head, s in said)


def log():
    "Make DID_NOT_WORK.md: the lessons' own sections of that name, and the bars that benchmarks missed."
    lessons = [t for t in map(failures, sorted((ROOT / 'nbs').glob('[0-9]*.ipynb'))) if t]
    bars = missed((ROOT / 'benchmarks/RESULTS.md').read_text(encoding='utf-8'))
    head = (
        "<!-- made by tools/readme.py; edit the lessons and benchmarks/RESULTS.md -->\n\n# What "
        "did not work\n\nWhat was tried and is not there: the lessons' own sections of that name, "
        "and what the benchmarks missed."
    )
    return '\n\n'.join([head, *lessons, f'## [Benchmarks](benchmarks/RESULTS.md)\n\n{bars}']) + '\n'


def main(check):
    "Write both pages, or say which of them is stale."
    for name, make in {'DID_NOT_WORK.md': log, 'README.md': readme}.items():
        path, text = ROOT / name, make()
        if not check: path.write_text(text, encoding='utf-8')
        elif not path.exists() or path.read_text(encoding='utf-8') != text:
            sys.exit(f'{name} is not what its sources give: run python tools/readme.py')


if __name__ == '__main__': main('--check' in sys.argv)
