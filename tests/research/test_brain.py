"""What lesson 78 cannot show in a cell: scikit-learn and SciPy as judges."""
import numpy as np
import pytest
import torch
from scipy.stats import gamma
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, PredefinedSplit

from domain_llm.model.weights import hidden_states, save_model, stored_model
from domain_llm.research.brain import (
    compress, encode, group_folds, haemodynamic, synthetic_brain, to_scans, unseen_words,
    word_states)
from domain_llm.research.foresight import PENALTIES


def drawn(seed=0, n=240, p=12):
    "Draw numbers, two responses to them, and groups of six rows."
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    return X, X[:, :2] + rng.normal(size=(n, 2)), np.repeat(np.arange(n // 6), 6)


def test_encode_is_a_nested_search_of_scikit_learn():
    X, Y, groups = drawn(1)
    fit = encode([X], Y, groups, folds=5, inner=4)
    for k in range(5):
        out = fit.fold == k
        cut = PredefinedSplit(group_folds(groups[~out], 4, 1))
        for column in range(2):
            sizes = np.bincount(cut.test_fold)
            search = GridSearchCV(Ridge(), dict(alpha=PENALTIES), cv=cut,
                                  scoring='neg_mean_squared_error')
            search.fit(X[~out], Y[~out, column])
            told = search.predict(X[out])
            assert len({*sizes}) == 1                  # so that their mean is ours
            assert np.allclose(fit.predicted[out, column], told - told.mean(), atol=1e-8)
            actual = Y[out, column]
            assert np.allclose(fit.actual[out, column], actual - actual.mean())


def test_what_a_nuisance_explains_is_taken_out_by_the_training_part_alone():
    X, Y, groups = drawn(2)
    Z = np.random.default_rng(3).normal(size=(len(X), 3)) + X[:, :3]
    fit = encode([X], Y, groups, nuisance=Z, folds=4, inner=2)
    for k in range(4):
        out = fit.fold == k
        left = Y[out] - LinearRegression().fit(Z[~out], Y[~out]).predict(Z[out])
        assert np.allclose(fit.actual[out], left - left.mean(0))


def test_groups_are_dealt_whole_and_evenly():
    groups = np.random.default_rng(0).integers(0, 23, 300)
    fold = group_folds(groups, 5)
    assert all(len({*fold[groups == g]}) == 1 for g in np.unique(groups))
    count = np.bincount([fold[groups == g][0] for g in np.unique(groups)])
    assert count.max() - count.min() <= 1
    theirs = GroupKFold(5).split(groups, groups=groups)
    assert len([*theirs]) == len({*fold})
    assert (group_folds(groups, 5, 1) != fold).any()


def test_components_are_those_of_scikit_learn():
    X = np.random.default_rng(4).normal(size=(1, 80, 30)) @ np.diag(np.arange(1, 31)) + 5
    own, = compress(X, 6)
    judge = PCA(6).fit_transform((X[0] - X[0].mean(0)) / X[0].std(0))
    signs = np.sign((own * judge).sum(0))
    assert np.allclose(own * signs, judge / np.sqrt(judge.var(0).mean()), atol=1e-3)


def test_scans_are_those_of_a_convolution_with_the_gamma_densities_of_scipy():
    rng, step = np.random.default_rng(5), 0.01
    times, numbers = np.sort(rng.integers(0, 4000, 50)) * step, rng.normal(size=(50, 3))
    fine = np.zeros((8000, 3))
    for at, row in zip(np.rint(times / step).astype(int), numbers): fine[at] += row
    t = np.arange(0, 40, step)
    shape = gamma.pdf(t, 6) - gamma.pdf(t, 16) / 6
    assert np.allclose(haemodynamic(t), shape)
    smeared = np.column_stack([np.convolve(column, shape)[:8000] for column in fine.T])
    assert np.allclose(to_scans(numbers, times, 30), smeared[::200][:30], atol=1e-3)


def test_a_word_that_another_part_has_is_not_unseen():
    brain = synthetic_brain(['the cat sat', 'the dog ran', 'a cat ran'])
    found = unseen_words(brain.words, np.array([0, 0, 0, 1, 1, 1, 0, 0, 0]))
    assert brain.words.word[found].tolist() == ['cat', 'sat', 'dog', 'a', 'cat']


def test_states_are_the_same_in_transformers_and_in_any_batch(tmp_path):
    transformers = pytest.importorskip('transformers')
    toy, tokenizer = stored_model()
    save_model(toy, tmp_path / 'model', tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'model').eval()
    cut = transformers.AutoTokenizer.from_pretrained(tmp_path / 'model')
    brain = synthetic_brain(['Muscimol in the amygdala: licking fell.', 'Cooling, striatum.',
                             'After theta-burst stimulation in the insula, freezing rose.'])
    ours = word_states(toy, tokenizer, brain)
    assert ours.shape == (3, len(brain.words), 128)
    assert np.allclose(ours, word_states(theirs, cut, brain), atol=1e-3)
    assert np.allclose(ours, word_states(toy, tokenizer, brain, batch_size=1), atol=1e-3)
    with torch.no_grad():
        alone = hidden_states(toy, torch.tensor([[0, *tokenizer.encode(brain.texts[1]).ids]]))
    last = alone[1][0, -2].numpy()                          # 'striatum', before the full stop
    row = np.flatnonzero(brain.words.word == 'striatum')[0]
    assert np.allclose(ours[1, row], last, atol=1e-3)


def test_states_are_asked_for_where_the_model_is(monkeypatch):
    def asked(model, ids):
        assert ids.is_meta
        return [torch.zeros(*ids.shape, 4).bfloat16()]
    monkeypatch.setattr('domain_llm.research.brain.hidden_states', asked)
    toy, tokenizer = stored_model()
    brain = synthetic_brain(['A zymurgist walked.'])
    assert word_states(toy.to('meta'), tokenizer, brain).shape == (1, 3, 4)


def test_the_state_of_a_word_is_that_of_its_last_token():
    toy, tokenizer = stored_model()
    brain = synthetic_brain(['A zymurgist walked.', 'Nothing.'])
    begun = tokenizer.encode('A zymurgist').ids
    assert len(begun) > 3
    with torch.no_grad(): alone = hidden_states(toy, torch.tensor([[0, *begun]]))
    for layer, states in zip(alone, word_states(toy, tokenizer, brain)):
        assert np.allclose(layer[0, -1], states[1], atol=1e-3)


def test_layers_are_chosen_with_whole_groups_held_out():
    rng = np.random.default_rng(6)
    groups = np.repeat(np.arange(30), 8)
    honest = rng.normal(size=(240, 3))
    leaky = rng.normal(size=(30, 40))[groups] + 0.1 * rng.normal(size=(240, 40))
    response = 0.5 * honest[:, :1] + rng.normal(size=(30, 1))[groups]
    fit = encode([leaky, honest], response, groups, folds=6, inner=4)
    assert (fit.layers == 1).all()
    assert (encode([leaky, honest], response, np.arange(240), folds=6, inner=4).layers == 0).all()
