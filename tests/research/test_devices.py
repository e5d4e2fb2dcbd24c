"""Models and states may lie on another device; `meta`, which has no numbers, stands for a GPU."""
import numpy as np
import pytest
import torch

from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config
from domain_llm.model.weights import stored_model
from domain_llm.research.inside import best_match, pair_states, probe, probe_pairs
from domain_llm.research.order import aligned_states, attention_weights, order_losses
from domain_llm.research.reach import answers_about
from domain_llm.text.synthetic import SyntheticScience

ROWS = [[0, 3, 7, 12], [0, 4, 9, 11]]
DRAWN = torch.zeros(20, 3, device='meta')
SIGNS = torch.tensor([1, -1] * 10)


@pytest.fixture
def away():
    "Make a model elsewhere that keeps where its ids were."
    model = GPT2(GPT2Config(512, 1, 2, 16, 128)).eval().to('meta')
    model.devices = set()
    model.check_ids = lambda ids: model.devices.add(ids.device.type)
    return model


@pytest.mark.parametrize('use', [
    lambda model: order_losses(model, ROWS, 'backward'),
    lambda model: aligned_states(model, ROWS, 'backward'),
    lambda model: attention_weights(model, torch.tensor(ROWS, device='meta')),
    lambda model: answers_about(model, 0)])
def test_ids_go_to_the_model_and_numbers_come_back(away, use):
    with pytest.raises(NotImplementedError, match='copy out of meta'): use(away)  # the last step
    assert away.devices == {'meta'}


def test_both_versions_go_to_the_model(away):
    states = pair_states(away, stored_model()[1], SyntheticScience(0).cases()[0])
    assert states.shape == (2, 2, 16) and away.devices == {'meta'}


@pytest.mark.parametrize('use', [
    lambda: best_match(DRAWN, SIGNS, 9),
    lambda: probe(DRAWN, SIGNS, np.arange(20) // 2, shuffles=9),
    lambda: probe_pairs(DRAWN[:, None], np.arange(20), shuffles=9)])
def test_states_from_elsewhere_come_back(use):
    with pytest.raises(NotImplementedError, match='copy out of meta'): use()
