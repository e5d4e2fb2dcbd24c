"""Token losses and the token X-ray against rows read alone."""
import json, math
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import random_model

from domain_llm.bench.losses import (
    _windows, context_length, model_device, show_versions, token_losses)
from domain_llm.text.synthetic import Case
from domain_llm.tokens.tokenizer import train_tokenizer

pytestmark = pytest.mark.usefixtures('one_thread')


def test_windows_score_every_token_once_and_fit_the_context():
    for n in range(2, 60):
        for n_ctx in (15, 16):
            windows = _windows(list(range(n)), n_ctx)
            scored = [t for start, end, first in windows for t in range(start + first, end)]
            assert scored == list(range(1, n)) and all(
                end - start <= n_ctx for start, end, _ in windows
            )
            # at least half a context before each
            assert all(first >= n_ctx // 2 for start, _, first in windows if start)


@pytest.mark.parametrize('size', [1, 2, 8])
def test_token_losses_are_those_of_each_row_alone(size):
    model = random_model(50, 32)
    rows = [torch.randint(50, (n,)).tolist() for n in (5, 32, 2, 9, 70)]
    for row, found in zip(rows, token_losses(model, rows, size), strict=True):
        assert found.shape == (len(row) - 1,)
        with torch.no_grad():
            alone = -torch.log_softmax(model(torch.tensor([row[:32]]))[0, :-1], -1)[range(len(row[:32]) - 1), row[1:32]]
        assert np.allclose(found[:31], alone, atol=1e-5)


def test_both_lessons_run_the_same_check():
    nbs = Path(__file__).parents[2] / 'nbs'
    cells = [''.join(cell['source']) for name in ('52_losses', '53_branches')
             for cell in json.loads((nbs / f'{name}.ipynb').read_text(encoding='utf-8'))['cells']]
    first, second = (cell for cell in cells if cell.startswith('def check('))
    assert first == second
    calls = [line for cell in cells for line in cell.splitlines() if line.startswith('check(')]
    assert calls.count('check(token_losses)') == 2 and 'check(branched)' in calls


class LastWord:
    "Find each token as likely as the row's last token says; padding would be that token."
    def log_probs(self, ids): return -(ids[:, -1:] + ids / 100).double()


def test_who_has_log_probs_sees_rows_without_padding_and_without_a_limit():
    rows = [[1, 2, 3], [4, 5], [6, 7, 8], [9, 9, 9, 9], [2, 1], list(range(3000))]
    for size in (1, 2, 8):
        for row, found in zip(rows, token_losses(LastWord(), rows, size), strict=True):
            assert np.allclose(found, row[-1] + np.array(row[1:]) / 100)
    assert context_length(LastWord()) == math.inf and model_device(LastWord()).type == 'cpu'
    assert context_length(random_model(50, 32)) == 32


XRAY = [
    ('freezing rose today', 'freezing fell today'),
    ('it did not change', 'it changed'),
    ('a b c', 'a b c d'),
    ('x', 'y'),
    ('<b>bold</b> & rose', '<b>bold</b> & fell'),
]


@pytest.mark.parametrize('a, b', XRAY)
def test_the_xray_aligns_two_versions_and_its_differences_add_up(a, b):
    tokenizer = train_tokenizer(
        ['freezing rose and fell today it did not change changed a b c d'] * 3, 300
    )
    ids = [tokenizer.encode(t).tokens for t in (a, b)]
    values = [[(7 * i + len(t)) % 5 for i, t in enumerate(tokens)] for tokens in ids]
    view = show_versions(tokenizer, Case('1', a, b), values)
    for k in (0, 1):
        # nothing lost, in order
        assert [v for column in view.columns for _, v in column[k]] == values[k]
        assert ''.join(piece for column in view.columns for piece, _ in column[k]) == (a, b)[k]
    assert sum(d for *_, d in view.columns) == sum(values[1]) - sum(values[0])
    assert repr(view).endswith(f'difference {sum(values[1]) - sum(values[0]):+.1f}')
    drawn = view._repr_html_()
    assert (
        drawn.count('<th scope="row"') >= 3
        and '>difference</th>' in drawn
        and '<b>bold' not in drawn
    )
    # readable without colour
    assert all(f'<rt style="font-size:.7em">{v}</rt>' in drawn for row in values for v in row)


def test_the_xray_shows_a_line_without_a_difference_once():
    tokenizer = train_tokenizer(
        ['the rats were studied for many days and then freezing rose or fell'] * 3, 400
    )
    a = 'the rats were studied for many days and then ' * 2 + 'the rats were studied '
    case = Case('1', a + 'freezing rose', a + 'freezing fell')
    values = [[1.0] * len(tokenizer.encode(t).ids) for t in (case.original, case.altered)]
    drawn = show_versions(tokenizer, case, values)._repr_html_()
    assert (
        drawn.count('>both</th>') >= 1
        and drawn.count('>original</th>') == drawn.count('>altered</th>') == 1
    )
    with pytest.raises(ValueError, match='of altered'):
        show_versions(tokenizer, case, (values[0], values[1][1:]))
