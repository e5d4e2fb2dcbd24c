"""What two lessons promise of one another."""
import json
from pathlib import Path


def test_both_lessons_run_the_same_check():
    nbs = Path(__file__).parents[2] / 'nbs'
    cells = [''.join(cell['source']) for name in ('52_losses', '53_branches')
             for cell in json.loads((nbs / f'{name}.ipynb').read_text(encoding='utf-8'))['cells']]
    first, second = (cell for cell in cells if cell.startswith('def check('))
    assert first == second
    calls = [line for cell in cells for line in cell.splitlines() if line.startswith('check(')]
    assert calls.count('check(token_losses)') == 2 and 'check(branched)' in calls
