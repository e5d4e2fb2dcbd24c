"""Foresight beside scikit-learn and statsmodels, and on curves whose ends are known."""
import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from domain_llm.research.foresight import (
    PENALTIES, evaluation_network, half_widths, left_out, power_law_end, ridge, ridge_path,
    stop_early)
from domain_llm.train.runs import forecast_end


@pytest.fixture
def data():
    "Draw 120 runs of 24 settings, of which the settings decide a part."
    rng = np.random.default_rng(0)
    group = np.arange(120) % 24
    x = np.column_stack([rng.normal(size=24)[group], rng.normal(3, 50, 120), rng.random(120)])
    return x, np.sin(2 * x[:, 0]) + x[:, 1] / 50 + rng.normal(0, 0.1, 120), group


@pytest.mark.parametrize('n, p', [(60, 12), (24, 50)])
def test_ridge_with_several_penalties_is_that_of_scikit_learn(n, p):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p))
    Y, new = X[:, :2] + rng.normal(size=(n, 2)), rng.normal(size=(7, p))
    for penalty, told in zip(PENALTIES, ridge_path(X + 4, Y, new + 4)):
        assert np.allclose(told, Ridge(alpha=penalty).fit(X, Y).predict(new), atol=1e-6)


@pytest.mark.parametrize('penalty', [0.01, 1, 30])
def test_ridge_is_that_of_scikit_learn(data, penalty):
    x, y, _ = data
    theirs = make_pipeline(StandardScaler(), Ridge(penalty)).fit(x[:80], y[:80])
    assert np.allclose(ridge(x[:80], y[:80], penalty)(x), theirs.predict(x), atol=1e-6)


def test_whole_settings_are_left_out_as_scikit_learn_does(data):
    x, y, group = data
    judge = make_pipeline(StandardScaler(), Ridge(1.0))
    theirs = cross_val_predict(judge, x, y, groups=group, cv=LeaveOneGroupOut())
    assert np.allclose(left_out(x, y, group, ridge, folds=24), theirs, atol=1e-6)


def test_sciences_are_left_out_beside_settings_as_scikit_learn_would(data):
    x, y, group = data
    science = np.arange(120) // 24                     # each setting once in each of five
    apart = (group[:, None] != group) & (science[:, None] != science)
    judge = make_pipeline(StandardScaler(), Ridge(1.0))
    theirs = [judge.fit(x[some], y[some]).predict(x[[i]])[0] for i, some in enumerate(apart)]
    assert np.allclose(left_out(x, y, group, ridge, 24, science), theirs, atol=1e-6)


def test_the_network_is_about_as_good_as_scikit_learns(data):
    x, y, group = data
    out = group >= 18
    net = MLPRegressor(hidden_layer_sizes=(16,), activation='tanh', alpha=0.1, max_iter=3000,
                       random_state=0)
    judge = make_pipeline(StandardScaler(), net)
    theirs = np.abs(judge.fit(x[~out], y[~out]).predict(x[out]) - y[out]).mean()
    ours = np.abs(np.asarray(evaluation_network(x[~out], y[~out])(x[out])) - y[out]).mean()
    assert ours < 1.3 * theirs
    assert ours < 0.7 * np.abs(ridge(x[~out], y[~out])(x[out]) - y[out]).mean()


def test_the_network_passes_gradients_to_its_inputs(data):
    import torch
    x, y, _ = data
    forecast = evaluation_network(x, y)
    at = torch.tensor(x[:5], dtype=torch.float32, requires_grad=True)
    forecast(at).sum().backward()
    ahead = (at.detach() + torch.tensor([1e-2, 0, 0]), at.detach() - torch.tensor([1e-2, 0, 0]))
    slope = (forecast(ahead[0]) - forecast(ahead[1])) / 2e-2
    assert torch.allclose(at.grad[:, 0], slope, atol=2e-2)


def test_the_forecast_of_a_fall_is_a_regression_through_the_origin():
    rng = np.random.default_rng(1)
    for n in 3, 5, 12:
        falls, rests, own = rng.normal(2, 1, n), rng.normal(1, 0.3, n), 1.7
        others = [[(0.3, 4 + fall), (0.6, 4), (1, 4 - rest)] for fall, rest in zip(falls, rests)]
        judge = sm.OLS(rests, falls[:, None]).fit().get_prediction([[own]])
        mean, (low, high) = judge.predicted_mean[0], judge.conf_int(obs=True, alpha=0.1)[0]
        found = forecast_end([(0.3, 5 + own), (0.6, 5)], others, level=0.9)
        assert np.allclose(found, (5 - mean, 5 - high, 5 - low))


def test_shuffled_ends_give_no_skill(data):
    x, y, group = data
    shuffled = np.random.default_rng(2).permutation(y)
    found = left_out(x, shuffled, group, ridge)
    assert np.abs(found - shuffled).mean() > 0.95 * np.abs(shuffled - shuffled.mean()).mean()


def test_a_power_law_is_recovered_from_its_beginning():
    x = np.linspace(0.02, 0.4, 60)
    for a, b, c in (2.5, 0.3, 0.7), (1, 2, 0.2), (3, 0.01, 1.5):
        assert np.isclose(power_law_end(x, a + b * x**-c, 1.0), a + b, rtol=5e-3)


def test_intervals_come_from_other_settings_alone():
    group = np.repeat([0, 1, 2], 50)
    errors = np.r_[np.full(50, 9.0), np.linspace(-1, 1, 100)]
    widths = half_widths(errors, group, 0.9)
    assert np.allclose(widths[:50], 0.9, atol=0.02) and widths[50:].min() > 8.9


def test_stopping_by_the_truth_costs_nothing_and_by_its_reverse_most():
    ends = np.random.default_rng(3).random(20)
    assert stop_early(ends, ends, 0.4, 1) == dict(saved=pytest.approx(0.57), regret=0)
    worst = stop_early(-ends, ends, 0.4, 1)['regret']
    assert worst == ends.max() - ends.min()
    assert stop_early(-ends, ends, 0.4, 20) == dict(saved=0, regret=0)
