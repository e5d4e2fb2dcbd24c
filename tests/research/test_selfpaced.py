"""What lesson 76 cannot show in a cell: the published rule once more, and whole runs."""
import numpy as np
import pytest
import torch
from scipy.special import softmax

from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config, PlainGPT2
from domain_llm.research.selfpaced import batch_weights, confidence, easiest, self_paced
from domain_llm.tokens.dataset import Batches
from domain_llm.train.pretraining import pretrain
from domain_llm.train.recipe import FAST_RECIPE, TrainConfig
from domain_llm.train.rows import train_on_rows

SMALL = dict(vocab_size=49, n_layer=1, n_head=2, n_embd=16, n_ctx=16)


def by_the_published_code(log_probs, counts, k):
    "Follow the authors' `_monte_carlo_sample` and `train_step` line by line, in NumPy."
    log_probs = np.where(counts, log_probs, 0)                                       # (S, B, T)
    S, B, T = log_probs.shape
    least = log_probs.reshape(S, -1).min(1)
    by_token = (1 - (log_probs / least[:, None, None]).var(0, ddof=1)) ** k
    sums = log_probs.sum(2)
    by_sentence = (1 - (sums / sums.min(1)[:, None]).var(0, ddof=1)) ** k
    factors = by_token * by_sentence[:, None]
    weights = softmax(np.where(counts, factors, -np.inf).ravel()).reshape(B, T) * counts.sum()
    return factors, weights


@pytest.mark.parametrize('k', [1, 2, 7])
def test_factors_and_weights_are_those_of_the_published_code(k):
    rng = np.random.default_rng(k)
    counts = rng.random((6, 9)) > 0.2
    log_probs = -rng.gamma(2, 1.5, (5, 6, 9))
    factors, weights = by_the_published_code(log_probs, counts, k)
    own = confidence(torch.tensor(np.where(counts, -log_probs, 0)), k)
    assert np.allclose(own[counts], factors[counts])
    assert np.allclose(batch_weights(own, torch.tensor(counts)), weights)


def test_the_gradient_is_that_of_the_weighted_words_of_the_plain_model():
    torch.manual_seed(0)
    fast = GPT2(GPT2Config(**SMALL))
    plain = PlainGPT2(GPT2Config(**SMALL))
    plain.load_state_dict(fast.state_dict())
    ids, targets = torch.randint(49, (2, 4, 16))
    targets[:, 12:] = -1
    varied = torch.rand(4, 16)
    weights = batch_weights(varied, targets >= 0)
    fast(ids, targets, weights).backward()
    log_p = plain(ids).log_softmax(-1).gather(2, targets.clamp(min=0)[..., None])[..., 0]
    (-(weights * log_p).sum() / (targets >= 0).sum()).backward()
    for a, b in zip(fast.parameters(), plain.parameters()):
        assert torch.allclose(a.grad, b.grad, atol=1e-6)


def test_without_dropout_a_run_ends_with_the_weights_of_a_plain_one(tmp_path):
    text = np.random.default_rng(0).integers(1, 49, 2000).astype(np.uint16)
    config = TrainConfig(**{**FAST_RECIPE, 'steps': 4, 'tokens_per_step': 112})
    ends = []
    for i, loss in enumerate((None, self_paced(3))):
        torch.manual_seed(1)
        model = GPT2(GPT2Config(**SMALL))
        pretrain(model, Batches(text, 16, 112), config, tmp_path / str(i), loss=loss)
        ends.append(model)
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in ends)))


def test_with_dropout_the_weights_differ_and_the_run_repeats():
    rows = torch.randint(49, (40, 17), generator=torch.Generator().manual_seed(0)).tolist()
    shape = GPT2Config(**SMALL, dropout=0.2)
    runs = [train_on_rows(rows, 3, 8, model=shape, loss=loss)[0]
            for loss in (self_paced(), self_paced(), None)]
    first, again, plain = ([p.detach() for p in run.parameters()] for run in runs)
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, plain))


def test_only_the_easiest_rows_are_learned_from():
    torch.manual_seed(0)
    model = GPT2(GPT2Config(**SMALL))
    ids, targets = torch.randint(1, 40, (2, 4, 16))
    nats = torch.stack([model(i[None], t[None]) for i, t in zip(ids, targets)])
    wanted = torch.autograd.grad(nats.sort().values[:3].mean(), list(model.parameters()))
    easiest(0.75)(model, ids, targets).backward()
    for p, by_hand in zip(model.parameters(), wanted):
        assert torch.allclose(p.grad, by_hand, atol=1e-6)
