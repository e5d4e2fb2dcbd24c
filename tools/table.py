"""Make the front page's table of lessons from the lessons themselves and their run cards."""
import ast, re
from itertools import groupby

from domain_llm.ground.course import KINDS, run_cards
from notebooks import ROOT, lessons, module_of, prose
from tops import badge


def on_the_road(path):
    "Say whether a lesson is on the road: a side room says so before its first section."
    return 'side room' not in prose(path).split('\n## ')[0]


def minutes(card):
    "Write the minutes that a run without data took, or that nobody measured it."
    if card is None: return 'not measured'
    return 'under 1' if card['plain'] < 30 else f"{card['plain'] / 60:.0f}"


def about(part):
    "Read what a part of the package says of itself."
    source = (ROOT / 'domain_llm' / part / '__init__.py').read_text(encoding='utf-8')
    return ast.get_docstring(ast.parse(source))


def row(path, kinds, cards):
    "Write one lesson's row: lesson, ★ on the road, module, question, minutes by device, badge."
    number, text = path.stem[:2], re.search('^# .*', prose(path), re.M | re.S)[0]
    title, question = re.match('# (.+)', text)[1], re.search(r'[A-Z][^.?!\n]*\?', text)[0]
    lesson = f"[{number} {title}]({path.name}){' ★' if on_the_road(path) else ''}"
    times = [minutes(cards.get(number, {}).get(kind)) for kind in kinds]
    told = [lesson, f'`{module_of(path)}`', question, *times, badge(path)]
    return '| ' + ' | '.join(told) + ' |'


def table():
    "Return a table for each part of the course in Markdown, with links as seen from nbs/."
    cards = run_cards()
    kinds = [kind for kind in KINDS if any(kind in card for card in cards.values())]
    head = ['lesson', 'module', 'the question it answers',
            *(f'minutes on a {kind}' for kind in kinds), 'open']
    top = '| ' + ' | '.join(head) + ' |\n|' + '---|' * len(head)
    parts = groupby(lessons(), lambda path: module_of(path).split('.')[0])
    return '\n\n'.join(
        '\n'.join([f'**{about(part)}**\n', top, *(row(p, kinds, cards) for p in paths)])
        for part, paths in parts)
