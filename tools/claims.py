"""Make nbs/claims.md: every claim in the lessons' outputs, with the date of its run."""
import re

from domain_llm.ground.course import run_cards
from notebooks import cells, lessons, printed, prose

LINE = re.compile(r'^✓ (.*) \(measured (.*?)(?:, stated (.*?) ± (\S+))?\)$', re.M)
HEAD = """<!-- made by `python tools pages` from the outputs of the lessons -->

# Claims

Every measured statement of the course: the sentence, what the last stored run measured, and what
the sentence states. A claim that does not hold stops the build ([lesson 00](00_course.ipynb) builds
`claim`), so these are claims that held.
"""


def claims_of(path):
    "Read the claims from a lesson's outputs, each once: sentence, measured, stated, tolerance."
    return dict.fromkeys(c for cell in cells(path, 'code') for c in LINE.findall(printed(cell)))


def row(claim):
    "Write a claim as a row of the table."
    text, measured, stated, tolerance = (part.replace('|', r'\|') for part in claim)
    return f"| {text} | {measured} | {f'{stated} ± {tolerance}' if tolerance else measured} |"


def section(path, card):
    "Write one lesson's claims as a table, under its title and the date of its run."
    title = re.search(r'^# (.+)', prose(path), re.M)[1]
    when = 'The date of this run was not stored.'
    if card: when = f"Measured on {card['date']} ({card['machine']})."
    head = [f'## [{path.stem[:2]} {title}]({path.name})', '', when, '']
    top = ['| claim | measured | stated |', '|---|---|---|']
    return '\n'.join([*head, *top, *map(row, claims_of(path)), ''])


def page():
    "Write the whole page."
    cards, claiming = run_cards(), filter(claims_of, lessons())
    return '\n'.join([HEAD, *(section(p, cards.get(p.stem[:2], {}).get('CPU')) for p in claiming)])
