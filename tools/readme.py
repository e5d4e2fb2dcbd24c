"""Make README.md from nbs/index.ipynb, and DID_NOT_WORK.md from what lessons and benchmarks say."""
import ast, re, sys

from notebooks import ROOT, cells, lessons, printed, prose
from table import table

FOLDERS = {  # folder: its phrase, and the files that are named with theirs
    'nbs': ('the lessons, from which `domain_llm/` is exported', '*.ipynb *.md'),
    'domain_llm': ('the library; do not edit it by hand', ''),
    'tests': (
        'what a cell cannot show: other processes, kills, bad input, other libraries as judges',
        '**/*.py',
    ),
    'benchmarks': ('scripts that measure, and what they found', '*.py *.md'),
    'tools': ('one program, `python tools`, for what nobody should do by hand', '*.py'),
    'examples': ('many machines', '*'),
    '.': ('the rest', '.ci/[!c]* [CD]*.md CITATION.cff MANIFEST.in settings.ini setup.py'),
}


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
    if re.search(r'^#\|\s*echo:\s*false', source, re.M): code = ''
    blocks = [('python', code), ('text', printed(cell))]
    return '\n\n'.join(f'```{kind}\n{text.rstrip()}\n```' for kind, text in blocks if text)


def opening(path):
    "Find the text in which a file says what it is: a title, a docstring, or a first comment."
    if path.suffix == '.ipynb': return re.search(r'^# (.+)', prose(path), re.M)[1]
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.py': return ast.get_docstring(ast.parse(text)) or ''
    found = re.search(r'^# (.+)', text, re.M)
    return found[1] if found else ''


def phrase(path):
    "Give a file's first sentence about itself."
    said = re.split(r'(?<=[\w`])\.(?=\s|$)|\n', opening(path), maxsplit=1)[0].strip().rstrip('.')
    if said: return said
    sys.exit(f'{path.name} should begin with a docstring, a title or a comment that says what it '
             'is, but has none: write one')


def listed(folder, words, patterns):
    "List a folder's files with a phrase each, folded below the folder's own."
    found = {p for pattern in patterns.split() for p in (ROOT / folder).glob(pattern)}
    name = f'`{folder}/`: {words}' if folder != '.' else words
    if not found: return name
    head = re.sub(r'`([^`]*)`', r'<code>\1</code>', name)
    files = {p.relative_to(ROOT).as_posix(): p for p in found if p.is_file()}
    rows = [f'- [`{at}`]({at}): {phrase(path)}' for at, path in sorted(files.items())]
    return f'<details><summary>{head}</summary>\n\n' + '\n'.join(rows) + '\n\n</details>'


def tree():
    "List the project's files, each with the phrase that it has for itself."
    return '\n\n'.join(listed(folder, *about) for folder, about in FOLDERS.items())


def readme():
    "Make README.md: the index with the lesson table and the file tree in their places."
    text = '\n\n'.join(t for t in map(cell_text, cells(ROOT / 'nbs/index.ipynb')) if t)
    for mark, made in {'<!-- lessons -->': at_root(table()), '<!-- files -->': tree()}.items():
        if text.count(mark) != 1:
            sys.exit(f'nbs/index.ipynb should have the mark {mark} once, but has it '
                     f'{text.count(mark)} times: put it where that list belongs')
        text = text.replace(mark, made)
    top = '<!-- made from nbs/index.ipynb by `python tools pages`; edit that notebook -->'
    return f'{top}\n\n{text}\n'


def failures(lesson):
    "Give what a lesson says did not work, under a link to it; '' when it says nothing."
    found = re.search(r'^## What did not work\n(.*?)(?=^## |\Z)', prose(lesson), re.M | re.S)
    if not found: return ''
    return f'## [{phrase(lesson)}](nbs/{lesson.name})\n\n{at_root(found[1].strip())}'


def missed(results):
    "Give each sentence of the benchmarks' results that owns to a bar missed or not measured."
    text = '\n'.join(line for line in results.splitlines() if not line.startswith('|'))
    owns = re.compile(r'\b(bars?|goals?)\b.*\b(not|miss\w*)\b|\*not measured\*|\bmissed\b')
    said = []
    for part in re.split(r'^## ', text, flags=re.M)[1:]:
        head, _, body = part.partition('\n')
        sentences = re.split(r'(?<=\.)\s+|\n\n+', body)
        said += [f"- {head}: {' '.join(s.split())}" for s in sentences if owns.search(s)]
    return '\n'.join(said)


def did_not_work():
    "Make DID_NOT_WORK.md: the lessons' sections of that name, and the bars that benchmarks missed."
    bars = missed((ROOT / 'benchmarks/RESULTS.md').read_text(encoding='utf-8'))
    head = """<!-- made by `python tools pages`; edit the lessons and benchmarks/RESULTS.md -->

# What did not work

What was tried and is not there: the lessons' own sections of that name, and what the benchmarks
missed."""
    parts = [head, *filter(None, map(failures, lessons())),
             f'## [Benchmarks](benchmarks/RESULTS.md)\n\n{bars}']
    return '\n\n'.join(parts) + '\n'
