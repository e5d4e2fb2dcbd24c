"""Batches that only the step decides: random sizes, long shuffles, and memory over a full pass."""
import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import domain_llm.tokens.dataset as tk
from domain_llm.tokens.dataset import Batches
from token_texts import script


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_window_once_an_epoch_whatever_the_number_of_processes(data):
    T, rows, world_size = (data.draw(st.integers(1, highest)) for highest in (9, 6, 4))
    windows, seed = data.draw(st.integers(rows * world_size, 90)), data.draw(st.integers(0, 9))
    line = np.arange(windows * T + 1 + data.draw(st.integers(0, T - 1)))
    B = rows * world_size
    one, steps = Batches(line, T, B * T, seed), 2 * windows // B + 1
    several = [Batches(line, T, B * T, seed, rank, world_size) for rank in range(world_size)]
    seen = []
    for step in range(steps):
        ids, targets = one[step]                                  # (B, T) each
        assert ids.shape == targets.shape == (B, T) and ids.dtype == np.int64
        assert (targets == ids + 1).all() and (ids[:, 0] % T == 0).all()
        assert (ids == one[step][0]).all()
        for rank, each in enumerate(several):
            assert (each[step][0] == ids[rank::world_size]).all()
            assert each[step][0].shape == (rows, T)
        seen += (ids[:, 0] // T).tolist()
    for epoch in range(len(seen) // windows):
        assert sorted(seen[epoch * windows:(epoch + 1) * windows]) == list(range(windows))
    # no other step was asked for before
    assert (Batches(line, T, B * T, seed)[steps - 1][0] == ids).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5000), st.integers(0, 5), st.integers(0, 5))
def test_the_shuffle_is_a_permutation(n, seed, epoch):
    order = tk._order(np.arange(n), n, seed, epoch)
    assert (np.sort(order) == np.arange(n)).all()
    if n >= 20:
        assert (order != tk._order(np.arange(n), n, seed, epoch + 1)).any()
        assert (order != tk._order(np.arange(n), n, seed + 1, epoch)).any()
    some = np.arange(n)[::7]
    # each place on its own
    assert (tk._order(some, n, seed, epoch) == order[some]).all()


def unevenness(n, draws=1000):
    "Give chi-square per degree of freedom of where windows stand, and of which follows which."
    at, after = np.zeros((n, n)), np.zeros((n, n))
    for k in range(draws):
        order = tk._order(np.arange(n), n, k // 2, k % 2)         # over seeds and over epochs
        at[np.arange(n), order] += 1
        after[order[:-1], order[1:]] += 1
    pairs, wanted = after[~np.eye(n, dtype=bool)], draws / n
    places = ((at - wanted) ** 2 / wanted).sum() / (n - 1) ** 2
    return places, ((pairs - wanted) ** 2 / wanted).sum() / len(pairs)


@pytest.mark.parametrize('n', [5, 31, 64, 100])
def test_every_window_is_as_likely_at_every_place_and_after_every_other(n, monkeypatch):
    places, neighbours = unevenness(n)
    assert places < 1.05 + 5 * 2**0.5 / (n - 1) and neighbours < 1.3 + 5 * 2**0.5 / (n - 1)
    # the same test of a sloppy one
    monkeypatch.setattr(tk, '_mix', lambda x: x * np.uint64(0x9e3779b97f4a7c15))
    places, neighbours = unevenness(n)
    assert max(places, neighbours) > 2 * (1 + 5 * 2**0.5 / (n - 1))


@pytest.mark.parametrize('n', [10_007, 65_536, 97_656, 1_000_000])
def test_a_long_shuffle_has_no_drift_and_no_neighbours(n):
    order = tk._order(np.arange(n), n, 0, 0).astype(float)
    assert abs(np.corrcoef(order, np.arange(n))[0, 1]) * n**0.5 < 4.5
    for lag in (1, 2, 12, int(n**0.5), int(n**0.5) + 1):
        assert abs(np.corrcoef(order[:-lag], order[lag:])[0, 1]) * n**0.5 < 4.5
    assert (np.abs(np.diff(order)) == 1).sum() < 15               # two are expected
    # each stretch visits the whole corpus
    tenths = np.array([np.bincount((part * 10 // n).astype(int), minlength=10)
                       for part in np.array_split(order, 50)])
    assert abs(((tenths - n / 500)**2 / (n / 500)).sum() - 441) < 5 * (2 * 441)**0.5


FLAT = """
import json, os, sys, numpy as np
from domain_llm.ground.files import file_sha256
from domain_llm.tokens.dataset import Batches, TokenFile
os.chdir(sys.argv[1])
n = 60_000_000
np.arange(n, dtype=np.uint16).tofile('train.bin')
shard = dict(file='train.bin', tokens=n, documents=1, sha256=file_sha256('train.bin'))
train = dict(tokens=n, documents=1, shards=[shard])
open('meta.json', 'w').write(json.dumps(dict(
    dtype='uint16', vocab_size=65536, eos_token_id=0, splits=dict(train=train))))
def rss():
    pages = int(open('/proc/self/statm').read().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 1e6
batches = Batches(TokenFile('.'), 1024, 65_536)
for step in range(50): batches[step]
start = rss()
print(max(rss() - start for step in range(n // 65_536) if batches[step]))
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_memory_is_flat_over_a_full_pass(tmp_path):
    assert float(script(FLAT, tmp_path)) < 12                     # MB, of a file of 120
