"""What is found inside a model, with other libraries as judges."""
import numpy as np
import pytest
import torch

from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config, PlainGPT2
from domain_llm.model.weights import hidden_states
from domain_llm.research.inside import (
    best_match, keep_components, pair_states, pair_up, patch, principal_components, probe,
    probe_pairs)
from domain_llm.text.synthetic import Case

SMALL = GPT2Config(60, n_layer=2, n_head=2, n_embd=16, n_ctx=12)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[GPT2, PlainGPT2])
def model(request):
    torch.manual_seed(0)
    found = request.param(SMALL).eval()
    for p in found.parameters(): p.data += 0.1 * torch.randn_like(p)  # blocks that do something
    return found


@pytest.mark.parametrize('n, width', [(30, 8), (8, 30)])
def test_components_are_those_of_scikit_learn(n, width):
    decomposition = pytest.importorskip('sklearn.decomposition')
    states = noise(n, width) + 3
    judge, found = decomposition.PCA().fit(states.numpy()), principal_components(states)
    k = min(n - 1, width)
    assert np.allclose(found.share[:k], judge.explained_variance_ratio_[:k], atol=1e-5)
    assert np.allclose(abs(found.scores[:, :k]), abs(judge.transform(states)[:, :k]), atol=1e-4)


@pytest.mark.parametrize('penalty', [0.01, 1.0])
def test_a_probe_predicts_as_scikit_learn_does(penalty):
    linear = pytest.importorskip('sklearn.linear_model')
    selection = pytest.importorskip('sklearn.model_selection')
    states, labels = noise(40, 12), torch.tensor([1, -1] * 20)
    states[:, 0] += 0.7 * labels                             # not so clear that all is right
    groups, right = np.arange(40) // 4, 0
    for fit, out in selection.LeaveOneGroupOut().split(states, labels, groups):
        spread = ((states[fit] - states[fit].mean(0)) ** 2).sum().item()
        judge = linear.Ridge(alpha=penalty * spread).fit(states[fit], labels[fit])
        right += (judge.predict(states[out]) * labels[out].numpy() > 0).sum()
    found = probe(states, labels, groups, penalty, shuffles=5)
    assert 24 < right < 40 and found.right == pytest.approx(right / 40) and found.n == 40


def test_a_probe_finds_what_is_planted_and_nothing_in_noise():
    labels = torch.tensor([1, -1] * 15)
    found = [probe(noise(30, 20, seed=s), labels, pair_up(labels), shuffles=20) for s in range(30)]
    right = np.array([f.right for f in found])
    assert abs(right.mean() - 0.5) < 4 * right.std() / 30 ** 0.5
    assert abs(np.mean([f.by_chance for f in found]) - 0.5) < 0.03
    planted = noise(30, 20) + 4 * labels[:, None]
    assert probe(planted, labels, pair_up(labels)).right == 1


def test_a_search_by_chance_reaches_what_it_says():
    labels = torch.tensor([1, -1] * 12)
    found = [best_match(noise(24, 10, seed=s), labels, 200) for s in range(100)]
    assert 0.88 < np.mean([f.r <= f.by_chance for f in found]) <= 1


def test_patching_with_itself_changes_nothing_and_with_all_of_another_gives_the_other(model):
    one, other = torch.randint(60, (2, 3, 9), generator=torch.Generator().manual_seed(1))
    ours, theirs = hidden_states(model, one), hidden_states(model, other)
    with torch.no_grad(): was, wanted = model(one), model(other)
    assert not torch.allclose(was, wanted, atol=1e-2)
    for layer in 0, 1, 2:
        same = patch(model, one, layer, 4, ours[layer][:, 4])
        assert torch.allclose(same, was, atol=1e-5)
        assert torch.allclose(patch(model, one, layer, slice(None), theirs[layer]), wanted,
                              atol=1e-5)
        later = patch(model, one, layer, 4, theirs[layer][:, 4])
        assert torch.allclose(later[:, :4], was[:, :4], atol=1e-5)
        assert not torch.allclose(later[:, 4], was[:, 4], atol=1e-2)
    with torch.no_grad(): assert torch.equal(model(one), was)        # no hook is left


def test_keeping_all_components_changes_nothing_and_none_makes_names_alike(model):
    names, was = torch.tensor([3, 7, 8, 20]), model.wte.weight.detach().clone()
    with keep_components(model, names, 4) as same:
        assert same is model and torch.allclose(model.wte.weight, was, atol=1e-5)
    with keep_components(model, names, 0):
        alike = model.wte.weight[names]
        assert torch.allclose(alike, alike[:1].expand_as(alike), atol=1e-6)
        rest = [i for i in range(60) if i not in names]
        assert torch.equal(model.wte.weight[rest], was[rest])
    assert torch.equal(model.wte.weight, was)


def test_states_of_a_pair_are_those_of_transformers():
    transformers = pytest.importorskip('transformers')
    from tokenizers import Tokenizer, models, pre_tokenizers
    words = {word: i for i, word in enumerate('we saw that it rose fell there . [UNK]'.split())}
    tokenizer = Tokenizer(models.WordLevel(words, '[UNK]'))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    net = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=9, hidden_size=16, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2)).eval()
    found = pair_states(net, tokenizer, Case('1', 'it rose there .', 'it fell there .'))
    with torch.no_grad():
        for version, word in enumerate(('rose', 'fell')):
            ids = tokenizer.encode('You are a neuroscientist with deep knowledge in neuroscience. '
                                   'Here is an abstract from a neuroscience publication: '
                                   f'it {word} there .').ids
            states = net(torch.tensor([ids]), output_hidden_states=True).hidden_states
            wanted = torch.stack([layer[0, -3:].mean(0) for layer in states])
            assert torch.allclose(found[:, version], wanted, atol=1e-6)


def test_a_probe_of_pairs_is_that_of_scikit_learn_and_chooses_without_the_judges():
    linear = pytest.importorskip('sklearn.linear_model')
    apart = noise(40, 1, 12)
    apart[:, 0, 3] += 0.6
    groups = np.arange(40) // 2                                      # two cases of each abstract
    found = probe_pairs(apart, groups, penalties=(0.1,), folds=5, shuffles=100)
    fold = (np.random.default_rng(0).permutation(20) % 5)[groups]
    for part in range(5):
        fit, out = fold != part, fold == part
        scaled = apart[:, 0] / apart[fit, 0].square().mean(0).sqrt()
        judge = linear.Ridge(alpha=0.1 * scaled[fit].square().sum().item(), fit_intercept=False)
        judge.fit(scaled[fit], np.ones(fit.sum()))
        assert np.allclose(found.margins[out], judge.predict(scaled[out]), atol=1e-4)
    assert abs(found.by_chance.mean() - 0.5) < 0.05
    two = torch.cat([apart, noise(40, 1, 12, seed=5)], 1)
    two[:, 1, 0] += 9                                                # layer 1 tells at once
    assert {layer for layer, _ in probe_pairs(two, groups, folds=5, shuffles=0).chosen} == {1}
