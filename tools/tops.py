"""Write what every lesson begins with: its badge, and the cell that installs it on Colab."""
import json, re

from notebooks import module_of, settings

COLAB = 'https://colab.research.google.com'
NEXT = (
    'The first cell prepares Colab and does nothing elsewhere: it installs the course where it is '
    'missing and leaves every package that is there as it is. Then it says what this lesson costs '
    'on the device it finds.'
)
CELL = """#| default_exp {module}
import subprocess, sys
from importlib.util import find_spec

if 'google.colab' in sys.modules and not find_spec('domain_llm'):
    subprocess.run('pip list --format=freeze > /tmp/have.txt && pip install -q -c /tmp/have.txt '
                   'git+https://github.com/{user}/{repo}@{tag}', shell=True, check=True)

from domain_llm.ground.course import begin
begin('{number}')"""


def badge(path):
    "Link a lesson to Colab, by the names in settings.ini."
    cfg = settings()
    lesson = f"{COLAB}/github/{cfg['user']}/{cfg['repo']}/blob/{cfg['tag']}/nbs/{path.name}"
    return f'[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({lesson})'


def first_cell(path):
    "Return the source of a lesson's first code cell."
    return CELL.format(number=path.stem[:2], module=module_of(path), **settings())


def with_badge(title, path):
    "Put a lesson's badge under the sentence below its title, in place of an earlier one."
    bare = re.sub(r'\n\n\[!\[Open in Colab\].*', '', title)
    sentence = re.search(r'^> .*', bare, re.M)
    return f'{bare[:sentence.end()]}\n\n{badge(path)}{bare[sentence.end():]}'


def with_top(path):
    "Return a lesson as the text of its file, with its badge and first code cell made anew."
    lesson = json.loads(path.read_text(encoding='utf-8'))
    title = next(c for c in lesson['cells'] if ''.join(c['source']).startswith('# '))
    first = next(c for c in lesson['cells'] if c['cell_type'] == 'code')
    title['source'] = with_badge(''.join(title['source']), path).splitlines(keepends=True)
    first['source'] = first_cell(path).splitlines(keepends=True)
    return json.dumps(lesson, indent=1, ensure_ascii=False, sort_keys=True) + '\n'
