"""Fixtures that several test files share."""
import pytest
import torch


@pytest.fixture(scope='module')
def one_thread():
    "Compute on one thread: the model here is too small for more."
    was = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(was)
