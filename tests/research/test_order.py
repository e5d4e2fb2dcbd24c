"""What lesson 73 cannot show in a cell: statsmodels and transformers as judges."""
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from statsmodels.api import Logit, add_constant
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from transformers import AutoModelForCausalLM

from domain_llm.experts.people import logistic
from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config, PlainGPT2
from domain_llm.model.weights import save_model
from domain_llm.research.order import (
    aligned_states, attention_weights, bell_slope, may_turn, order_losses, reorder, restore,
    sequential_anova)


@pytest.mark.parametrize('formula, terms', [
    ('y ~ way * size', dict(way='way', size='size', both='way:size')),
    ('y ~ size + way', dict(size='size', way='way')),
    ('y ~ C(size) + way', dict(sizes='C(size)', way='way'))])
def test_the_analysis_of_variance_is_that_of_statsmodels(formula, terms):
    rng = np.random.default_rng(3)
    data = pd.DataFrame(dict(way=rng.integers(0, 2, 23), size=rng.integers(1, 4, 23)))  # unbalanced
    data['y'] = 0.3 * data.way + data['size'] + rng.normal(size=23)
    columns = {'way': data.way, 'size': data['size'], 'way:size': data.way * data['size'],
               'C(size)': np.column_stack([data['size'] == 2, data['size'] == 3])}
    own = sequential_anova(data.y, {name: columns[term] for name, term in terms.items()})
    judge = anova_lm(ols(formula, data).fit(), typ=1)
    for name, term in terms.items():
        assert np.allclose(own.loc[name], judge.loc[term, ['df', 'F', 'PR(>F)']]), name
    assert own.attrs['df'] == judge.loc['Residual', 'df']


@pytest.fixture(scope='module')
def both(tmp_path_factory):
    "Make a small model of random weights, and the same one as `transformers` loads it."
    torch.manual_seed(0)
    own = GPT2(GPT2Config(50, 2, 2, 16, 12)).eval()
    for p in own.parameters(): torch.nn.init.normal_(p, std=0.3)
    folder = tmp_path_factory.mktemp('small')
    save_model(own, folder / 'model')
    kept = AutoModelForCausalLM.from_pretrained(folder / 'model', attn_implementation='eager')
    return own, kept.eval()


ROWS = [[0, *row] for row in np.random.default_rng(1).integers(1, 50, (5, 11)).tolist()]


@pytest.mark.parametrize('order', ['forward', 'backward', 'permuted'])
def test_losses_are_those_of_transformers_in_each_order(both, order):
    own, judge = both
    with torch.no_grad():
        for row, losses in zip(ROWS, order_losses(own, ROWS, order, 4)):
            read = torch.tensor(reorder([row], order, 4))
            logits = judge(read).logits[0, :-1, 1:]              # (T, V - 1), no end of text
            loss = torch.nn.functional.cross_entropy(logits, read[0, 1:] - 1).item()
            assert abs(losses.sum() / 11 - loss) < 1e-4


def test_attention_is_that_of_transformers(both):
    own, judge = both
    plain = PlainGPT2(own.cfg)
    plain.load_state_dict(own.state_dict())
    with torch.no_grad(): theirs = judge(torch.tensor(ROWS), output_attentions=True).attentions
    judge.set_attn_implementation('sdpa')
    for model in own, plain, judge:
        ours = attention_weights(model, torch.tensor(ROWS))
        assert len(ours) == len(theirs) == 2
        for a, b in zip(ours, theirs): assert np.allclose(a, b.numpy(), atol=1e-5)
    assert judge.config._attn_implementation == 'sdpa'


def test_states_of_models_of_transformers_are_aligned_too(both):
    ours, theirs = (aligned_states(model, ROWS, 'permuted', 4) for model in both)
    assert all(np.allclose(a, b, atol=1e-4) for a, b in zip(ours, theirs, strict=True))
    with torch.no_grad():
        read = both[1](torch.tensor(reorder(ROWS, 'permuted', 4)), output_hidden_states=True)
    for layer, states in zip(read.hidden_states, ours):
        assert np.allclose(np.array(restore(layer.tolist(), 'permuted', 4)), states, atol=1e-4)


def three_seeds(rng):
    "Draw 600 answers to 200 cases of which some are harder to read, and harder."
    case = np.tile(np.arange(200), 3)
    hard = rng.normal(size=200)[case] + 0.1 * rng.normal(size=600)
    skill = rng.normal(size=200)[case] * 2
    return case, 60 * np.exp(0.4 * hard), rng.random(600) < 1 / (1 + np.exp(hard / 2 - skill))


@pytest.mark.parametrize('seed', range(5))
def test_the_odds_of_a_right_answer_are_those_of_statsmodels(seed):
    case, perplexity, right = three_seeds(np.random.default_rng(seed))
    fit = logistic(perplexity, right, [case])
    model = Logit(right.astype(float), add_constant(perplexity))
    groups = dict(groups=case, use_correction=False)
    judge = model.fit(disp=0, cov_type='cluster', cov_kwds=groups)
    assert np.allclose([fit.intercept, fit.slope], judge.params, rtol=1e-6)
    error = judge.bse[1] * np.sqrt(200 / 199)                         # for few clusters
    half = stats.t.ppf(0.975, 199) * error
    ends = np.exp((judge.params[1] + np.array([-half, half])) * perplexity.std())
    assert np.allclose(fit.odds_ratio[1:], ends, rtol=1e-6)
    plain = logistic(perplexity, right)
    assert np.allclose(plain.error, model.fit(disp=0).bse[1], rtol=1e-6)
    assert error > 1.1 * plain.error                      # 600 answers are not 600 cases


@pytest.mark.parametrize('mean, deviation', [(0.5, 1.0), (0.006, 0.026), (-0.02, 0.05)])
def test_a_bell_curve_has_the_slope_that_statsmodels_finds(mean, deviation):
    margins = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000, mean, deviation)
    sure = add_constant(np.abs(margins))
    judge = Logit((margins > 0).astype(float), sure).fit(disp=0).params
    assert np.allclose([0, bell_slope(margins) * deviation], judge * [1, deviation], atol=0.02)


def test_no_error_of_a_size_turns_what_may_not_turn():
    rng = np.random.default_rng(2)
    perplexities = np.exp(rng.normal(4, 0.3, (400, 1)) + rng.normal(0, 0.01, (400, 2)))
    may, turned = may_turn(perplexities, 0.005), np.zeros(400, bool)
    for _ in range(300):
        off = perplexities * np.exp(rng.uniform(-0.005, 0.005, perplexities.shape))
        turned |= off.argmin(1) != perplexities.argmin(1)
    assert not (turned & ~may).any() and turned.sum() > 0.8 * may.sum() and 0.2 < may.mean() < 0.9
