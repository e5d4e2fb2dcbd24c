"""Few shots: scikit-learn judges the table and the area, and an adapter leaves the model alone."""
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from domain_llm.experts.together import auroc
from domain_llm.model.fast import GPT2
from domain_llm.research.reach import answers_about
from domain_llm.research.scarce import draw_shots, few_shot, fit_logistic, last_word_loss
from domain_llm.text.synthetic import SyntheticScience
from domain_llm.train.rows import ROW_MODEL


@pytest.mark.parametrize('penalty', [0.1, 1, 10])
def test_the_regression_is_that_of_scikit_learn(penalty):
    rng = np.random.default_rng(0)
    for n, d in (5, 8), (16, 32), (200, 3):
        x, y = rng.normal(size=(n, d)), np.arange(n) % 3 == 0
        judge = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000).fit(x, y)
        found = fit_logistic(x, y, penalty)
        assert np.allclose(found, np.r_[judge.intercept_, judge.coef_[0]], atol=1e-5)


def test_the_area_is_that_of_scikit_learn_whatever_the_nats():
    rng = np.random.default_rng(1)
    nats, rises = rng.normal(size=96).round(1) * 3, rng.random(96) < 0.3        # with ties
    assert np.isclose(auroc(nats, rises), roc_auc_score(rises, nats))


def model_and_rows(k=8):
    torch.manual_seed(3)
    science = SyntheticScience(2)
    shots, _ = draw_shots(4, k, seed=5)
    rows = [[*prompt, word] for prompt, word, _ in science.row_cases(shots)]
    return GPT2(ROW_MODEL).eval(), rows


@torch.no_grad()
def loss_of(model, rows):
    ids = torch.tensor(rows)
    return float(last_word_loss(model, ids[:, :-1], ids[:, 1:]))


def test_shots_are_true_findings_about_the_region():
    _, rows = model_and_rows(96)
    science = SyntheticScience(2)
    for zero, m, r, b, word in rows:
        assert zero == 0 and r == 25 + 4
        assert (word % 2 == 1) == (science.direction((m - 1, 4, b - 33)) > 0)


def test_the_loss_counts_the_last_word_alone():
    model, rows = model_and_rows()
    rows = torch.tensor(rows)
    words = model(rows[:, :-1])[:, -1].log_softmax(-1)
    by_hand = -words[torch.arange(len(rows)), rows[:, -1]].mean()
    targets = rows[:, 1:].clone()
    assert torch.isclose(last_word_loss(model, rows[:, :-1], targets), by_hand, atol=1e-5)
    targets[:, :-1] = 7
    assert torch.isclose(last_word_loss(model, rows[:, :-1], targets), by_hand, atol=1e-5)


def test_an_adapter_begins_as_nothing_and_leaves_the_weights():
    pytest.importorskip('peft')
    model, rows = model_and_rows()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    kept = few_shot(model, rows, 'LoRA', lr=0.0, steps=2)
    assert np.array_equal(answers_about(kept, 4), answers_about(model, 4))
    tuned = few_shot(model, rows, 'LoRA')
    plain = {name.removeprefix('model.').replace('.base_layer', ''): p
             for name, p in tuned.state_dict().items() if 'lora_' not in name}
    assert plain.keys() == before.keys()
    assert all(torch.equal(p, before[name]) for name, p in plain.items())
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert loss_of(tuned, rows) < loss_of(model, rows) - 0.5


@pytest.mark.parametrize('how, learned', [('whole', None), ('row', {25 + 4})])
def test_what_may_move_moves_and_learns_the_shots(how, learned):
    model, rows = model_and_rows()
    tuned = few_shot(model, rows, how, lr=0.05)
    assert loss_of(tuned, rows) < loss_of(model, rows) - 0.02
    moved = {name for name, p in tuned.state_dict().items()
             if not torch.equal(p, model.state_dict()[name])}
    assert moved == {'wte.weight'} if learned else len(moved) > 10
    if learned:
        rows_moved = (tuned.wte.weight != model.wte.weight).any(1).nonzero().flatten()
        assert set(rows_moved.tolist()) == learned
