"""A short form of benchmarks/hostile.py: fuzzed files for every reader and command."""
import sys
from pathlib import Path


def test_fuzzed_files_bring_no_traceback_no_wait_and_no_loss(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / 'benchmarks')
    import hostile
    counts, faults = hostile.run(inputs=100, minutes=1, seed=1)
    assert not faults, faults[:3]
    assert counts.total() > 10
    sys.modules.pop('hostile')
