"""Write what every lesson begins with: the badge under its title, and the cell that installs the course on Colab.

python tools/lesson_tops.py  after a change of user, repo or tag in settings.ini
"""
import json, re
from pathlib import Path

from lesson_table import badge, module_of, settings

ROOT = Path(__file__).resolve().parents[1]
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
begin("{number}")"""


def first_cell(path):
    "Return the source of a lesson's first code cell."
    return CELL.format(number=Path(path).stem[:2], module=module_of(path), **settings())


def with_badge(title, path):
    "Put a lesson's badge under the sentence below its title, in place of an earlier one."
    bare = re.sub(r'\n\n\[!\[Open in Colab\].*', '', title)
    return re.sub(
        r'^> .*', lambda sentence: f'{sentence[0]}\n\n{badge(path)}', bare, count=1, flags=re.M
    )


def write(path):
    "Renew the badge and the first code cell of one notebook."
    lesson = json.loads(path.read_text(encoding='utf-8'))
    title = next(c for c in lesson['cells'] if ''.join(c['source']).startswith('# '))
    first = next(c for c in lesson['cells'] if c['cell_type'] == 'code')
    for cell, text in (title, with_badge(''.join(title['source']), path)), (first, first_cell(path)):
        cell['source'] = text.splitlines(keepends=True)
    path.write_text(
        json.dumps(lesson, indent=1, ensure_ascii=False, sort_keys=True) + '\n', encoding='utf-8'
    )


if __name__ == '__main__':
    for path in sorted((ROOT / 'nbs').glob('[0-9]*.ipynb')): write(path)
