"""Signs of memory, judged by transformers."""
import math

import numpy as np
import pytest
import torch

from domain_llm.research.memory import memory_signs, plant, recited


@pytest.fixture(scope='module')
def theirs():
    transformers = pytest.importorskip('transformers', reason='needs transformers')
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=13, n_positions=24, n_embd=16, n_layer=1, n_head=2,
                                     bos_token_id=0, eos_token_id=None, initializer_range=1.0)
    return transformers.GPT2LMHeadModel(config).eval()


def test_a_recitation_is_greedy_text_of_transformers(theirs):
    rows, found = torch.randint(1, 13, (40, 12)).tolist(), []
    for n, row in enumerate(rows):
        written = theirs.generate(torch.tensor([row[:4]]), max_new_tokens=8, do_sample=False,
                                  pad_token_id=0)[0, 4:].tolist()
        row[4:4 + n % 9] = written[:n % 9]                     # some begin as it goes on
        found.append(next((i for i, (a, b) in enumerate(zip(written, row[4:])) if a != b), 8))
    assert {0, 8} <= set(found) and len(set(found)) > 4
    assert recited(theirs, rows, 4).tolist() == found


class Uniform:
    "Find all of 13 tokens equally likely."
    def log_probs(self, ids): return torch.full(ids.shape, -math.log(13))


def test_loss_and_reference_are_those_of_transformers(theirs):
    rows = torch.randint(1, 13, (5, 12)).tolist()
    losses = [theirs(row, labels=row).loss.item() for row in torch.tensor(rows)[:, None]]
    signs = memory_signs(theirs, rows, ['text'] * 5, 4, Uniform())
    assert np.allclose(signs['loss'], np.negative(losses), rtol=1e-4)
    assert np.allclose(signs['reference'], 11 * (math.log(13) - np.array(losses)), atol=1e-3)


def test_planted_papers_are_read_as_often_as_said_and_nothing_else_twice():
    rows = [[0, i] for i in range(500)]
    read, planted = plant(rows, (1, 3, 10), 5)
    counts = {tuple(row): read.count(row) for row in read}
    assert len(read) == 500
    for times, some in planted.items(): assert all(counts[tuple(row)] == times for row in some)
    repeated = {tuple(row) for some in planted.values() for row in some}
    assert all(n == 1 for row, n in counts.items() if row not in repeated)
