"""What lesson 73 cannot show in a cell: statsmodels and transformers as judges."""
import numpy as np
import pandas as pd
import pytest
import torch
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from transformers import AutoModelForCausalLM

from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config, PlainGPT2
from domain_llm.model.weights import save_model
from domain_llm.research.order import (
    aligned_states, attention_weights, order_losses, reorder, restore, sequential_anova)


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
    for model in own, plain:
        ours = attention_weights(model, torch.tensor(ROWS))
        assert len(ours) == len(theirs) == 2
        for a, b in zip(ours, theirs): assert np.allclose(a, b.numpy(), atol=1e-5)


def test_states_of_models_of_transformers_are_aligned_too(both):
    ours, theirs = (aligned_states(model, ROWS, 'permuted', 4) for model in both)
    assert all(np.allclose(a, b, atol=1e-4) for a, b in zip(ours, theirs, strict=True))
    with torch.no_grad():
        read = both[1](torch.tensor(reorder(ROWS, 'permuted', 4)), output_hidden_states=True)
    for layer, states in zip(read.hidden_states, ours):
        assert np.allclose(np.array(restore(layer.tolist(), 'permuted', 4)), states, atol=1e-4)
