"""Runs that are killed without warning end as if they had been left alone, bit for bit."""
import os

import pytest
from processes import ENV, HERE, in_a_process

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
SCRIPT = HERE / 'killed_run.py'


@pytest.mark.parametrize('threads', sorted({1, 2, os.cpu_count()}))
def test_killed_at_random_moments(tmp_path, threads):
    "With each number of threads also two runs that nobody disturbed are equal."
    # threads that wait leave the cores to others
    env = {**ENV, 'OMP_NUM_THREADS': str(threads), 'GOMP_SPINCOUNT': '1000'}
    found = in_a_process(SCRIPT, 'random', threads, cwd=tmp_path, env=env)
    assert found['kills'] >= 10 and found['threads'] == threads


def test_killed_after_each_write_sync_and_rename_of_a_save(tmp_path):
    found = in_a_process(SCRIPT, 'inside', 1, cwd=tmp_path)
    assert found['False'] >= 5 and found['True'] >= 5
