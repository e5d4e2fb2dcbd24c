"""Make the table of lessons for the front page from the lessons themselves and their run cards.

python tools/lesson_table.py  prints it
"""
import ast, json, re
from configparser import ConfigParser
from pathlib import Path

from domain_llm.ground.course import KINDS, run_cards

ROOT = Path(__file__).resolve().parents[1]
COLAB = 'https://colab.research.google.com'


def opening(path):
    "Read a lesson's first Markdown cell, which begins with its title."
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    return next(
        text
        for c in cells
        if c['cell_type'] == 'markdown' and (text := ''.join(c['source'])).startswith('# ')
    )


def settings():
    "Read settings.ini."
    found = ConfigParser(delimiters=['='])
    found.read(ROOT / 'settings.ini', encoding='utf-8')
    return found['DEFAULT']


def badge(path):
    "Link a lesson to Colab, by the names in settings.ini."
    cfg = settings()
    lesson = f"{COLAB}/github/{cfg['user']}/{cfg['repo']}/blob/{cfg['tag']}/nbs/{path.name}"
    return f'[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({lesson})'


def module_of(path):
    "Read which module a lesson exports to."
    return re.search(r'#\| default_exp ([\w.]+)', path.read_text(encoding='utf-8'))[1]


def on_the_road(path):
    "Say whether a lesson is on the road: a side room says so before its first section."
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    text = '\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == 'markdown')
    return 'side room' not in text.split('\n## ')[0]


def minutes(card):
    "Write the minutes that a run without data took, or that nobody measured it."
    return (
        'not measured'
        if card is None
        else 'under 1'
        if card['plain'] < 30
        else f"{card['plain'] / 60:.0f}"
    )


def about(part):
    "Read what a part of the package says of itself."
    return ast.get_docstring(
        ast.parse((ROOT / 'domain_llm' / part / '__init__.py').read_text(encoding='utf-8'))
    )


def row(path, kinds, cards):
    "Write one lesson's row: lesson, ★ on the road, module, question, minutes on each kind of device, badge."
    text, number, module = opening(path), path.stem[:2], module_of(path)
    title, question = re.match('# (.+)', text)[1], re.search(r'[A-Z][^.?!\n]*\?', text)[0]
    lesson = f"[{number} {title}]({path.name}){' ★' if on_the_road(path) else ''}"
    times = [minutes(cards.get(number, {}).get(kind)) for kind in kinds]
    return '| ' + ' | '.join([lesson, f'`{module}`', question, *times, badge(path)]) + ' |'


def table():
    "Return a table for each part of the course in Markdown, with links as seen from nbs/."
    cards = run_cards()
    kinds = [kind for kind in KINDS if any(kind in card for card in cards.values())]
    lessons, parts = sorted((ROOT / 'nbs').glob('[0-9]*.ipynb')), {}
    for path in lessons: parts.setdefault(module_of(path).split('.')[0], []).append(path)
    head = [
        'lesson',
        'module',
        'the question it answers',
        *(f'minutes on a {kind}' for kind in kinds),
        'open',
    ]
    top = '| ' + ' | '.join(head) + ' |\n|' + '---|' * len(head)
    return '\n\n'.join(
        '\n'.join([f'**{about(part)}**\n', top, *(row(p, kinds, cards) for p in paths)])
        for part, paths in parts.items()
    )


if __name__ == '__main__': print(table())
