"""Runs that are killed without warning end as if they had been left alone, bit for bit."""
import os

import pytest
from processes import HERE, on_one_rank

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
SCRIPT = HERE / 'killed_run.py'


def test_killed_at_random_moments(tmp_path):
    assert on_one_rank(tmp_path, SCRIPT, 'random', 1)['kills'] >= 10


@pytest.mark.parametrize('threads', sorted({1, 2, os.cpu_count()}))
def test_weights_are_equal_with_any_number_of_threads_that_stays(tmp_path, threads):
    "Compare two runs that nobody disturbed and one that was killed, bit for bit."
    assert on_one_rank(tmp_path, SCRIPT, 'once', threads) == dict(threads=threads)


def test_killed_after_each_write_sync_and_rename_of_a_save(tmp_path):
    found = on_one_rank(tmp_path, SCRIPT, 'inside', 1)
    assert found['False'] >= 5 and found['True'] >= 5
