"""Fixtures that several parts share."""
import os

import pytest
import torch

# the numbers are those of a CPU, also where there is a GPU; on it the lessons run
os.environ['CUDA_VISIBLE_DEVICES'] = ''
# processes that tests start find the files beside this one
HERE = os.path.dirname(os.path.abspath(__file__))
os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [HERE, os.environ.get('PYTHONPATH')]))


@pytest.fixture(scope='module')
def one_thread():
    "Compute on one thread: the model here is too small for more."
    was = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(was)


LONGEST = 'jupyter', 'torchrun', 'ranks', 'killed_runs', 'cli'  # tests/*/test_….py


def pytest_collection_modifyitems(items):
    "Begin with what takes longest, so that workers side by side end together."
    items.sort(key=lambda item: item.path.stem not in [f'test_{name}' for name in LONGEST])
