"""The outcome of a run that nobody disturbed."""
import pytest
import torch
from small_runs import run


@pytest.fixture(scope='module')
def reference(tmp_path_factory):
    torch.set_num_threads(1)
    return run(tmp_path_factory.mktemp('reference') / 'run')
