"""Write nbs/claims.md: every claim in the committed outputs of the lessons, with the date of the run that measured it.

python tools/claims.py          writes nbs/claims.md
python tools/claims.py --check  fails when nbs/claims.md is not what the outputs and the run cards give
"""
import json, re, sys
from pathlib import Path

from domain_llm.ground.course import run_cards

ROOT = Path(__file__).resolve().parents[1]
LINE = re.compile(r'^✓ (.*) \(measured (.*?)(?:, stated (.*?) ± (\S+))?\)$', re.M)
HEAD = """<!-- made by tools/claims.py from the outputs of the lessons -->

# Claims

Every measured statement of the course: the sentence, what the last stored run measured, and what the sentence states.
A claim that does not hold stops the build ([lesson 00](00_course.ipynb) builds `claim`), so these are claims that held.
"""


def claims_of(path):
    "Read the claims from a lesson's outputs: sentence, measured, stated, tolerance."
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    printed = [''.join(o.get('text', [])) for c in cells for o in c.get('outputs', [])]
    return dict.fromkeys(found for text in printed for found in LINE.findall(text))


def section(path, cards):
    "Write one lesson's claims as a table, under its title and the date of its run."
    title = re.search(r'"# (.+?)\\n"', path.read_text(encoding='utf-8'))[1]
    card = cards.get(path.stem[:2], {}).get('CPU')
    when = (
        f"Measured on {card['date']} ({card['machine']})."
        if card
        else 'The date of this run was not stored.'
    )
    rows = [
        f"| {text} | {measured} | {f'{stated} ± {tol}' if tol else measured} |"
        for text, measured, stated, tol in (
            [part.replace('|', r'\|') for part in found] for found in claims_of(path)
        )
    ]
    head = [f'## [{path.stem[:2]} {title}]({path.name})', '', when, '']
    return '\n'.join([*head, '| claim | measured | stated |', '|---|---|---|', *rows, ''])


def page():
    "Write the whole page."
    cards = run_cards()
    return '\n'.join(
        [
            HEAD,
            *(
                section(p, cards)
                for p in sorted((ROOT / 'nbs').glob('[0-9]*.ipynb'))
                if claims_of(p)
            ),
        ]
    )


if __name__ == '__main__':
    target = ROOT / 'nbs/claims.md'
    if '--check' in sys.argv:
        agree = target.exists() and target.read_text(encoding='utf-8') == page()
        sys.exit(
            0
            if agree
            else "nbs/claims.md differs from the lessons' outputs: run python tools/claims.py"
        )
    target.write_text(page(), encoding='utf-8')
