"""The emulator against sums in double precision, models of another library, and files of scores."""
import itertools

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logsumexp

from domain_llm.bench.losses import token_losses
from domain_llm.bench.scores import score_cases
from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config
from domain_llm.model.weights import save_model
from domain_llm.research.upscale import UpScaled, interpolate, load_upscaled
from domain_llm.text.synthetic import SyntheticScience
from domain_llm.tokens.tokenizer import train_tokenizer


def tiny(seed, vocab_size=7, n_embd=8):
    "Make a GPT-2 whose random weights are large enough to matter."
    torch.manual_seed(seed)
    model = GPT2(GPT2Config(vocab_size, n_layer=1, n_head=2, n_embd=n_embd, n_ctx=64))
    for p in model.parameters(): p.data.mul_(20)
    return model.eval()


def by_hand(models, weights, ids, top_p=None):
    "Compute the emulator's log-probabilities in double precision, without torch."
    with torch.no_grad(): logits = [m(ids) for m in models]
    large, tuned, base = (log_softmax(getattr(z, 'logits', z).double().numpy(), -1) for z in logits)
    if top_p:
        for place in np.ndindex(tuned.shape[:2]):
            order, total = np.argsort(-tuned[place]), 0.0
            for token in order:
                if total >= top_p: base[place][token] = large[place][token]
                total += np.exp(tuned[place][token])
    return log_softmax(large + weights * (tuned - base), -1)


@pytest.mark.parametrize('beta, top_p', [(1, None), (0.3, None), (2, None), (1, 0.8), (0.5, 0.95)])
def test_it_is_the_product_that_one_computes_by_hand(beta, top_p):
    models = [tiny(0, n_embd=16), tiny(1), tiny(2)]
    ids = torch.randint(7, (3, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(): found = UpScaled(*models, beta, top_p)(ids)
    assert np.allclose(found, by_hand(models, beta, ids, top_p), atol=1e-4)


@pytest.mark.parametrize('top_p', [None, 0.9])
def test_identities_hold_for_any_models(top_p):
    large, tuned, base = tiny(0, n_embd=16), tiny(1), tiny(2)
    ids = torch.randint(7, (3, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        pairs = [(UpScaled(large, tuned, large, 1, top_p), tuned),     # the large one is the base
                 (UpScaled(large, tuned, base, 0, top_p), large)]      # nothing of it is added
        if not top_p: pairs.append((UpScaled(large, base, base, 1.3), large))   # nothing changed
        for made, wanted in pairs:
            assert torch.allclose(made(ids), wanted(ids).log_softmax(-1), atol=1e-4)


def test_a_pair_of_versions_is_scored_with_the_normaliser_of_each_place():
    models, versions = [tiny(0, n_embd=16), tiny(1), tiny(2)], [[0, 3, 1, 6, 2], [0, 5, 1, 6, 2]]
    one, two, three = ([line.sum() for line in token_losses(m, versions)] for m in models)
    naive = np.array(one) + two - three
    with torch.no_grad():
        logs = [log_softmax(m(torch.tensor(versions)).double().numpy(), -1) for m in models]
    z = logsumexp(logs[0] + logs[1] - logs[2], -1)[:, :4].sum(1)     # of the places before a word
    found = [line.sum() for line in token_losses(UpScaled(*models), versions)]
    assert np.allclose(found, naive + z, atol=1e-3)
    assert abs(z[0] - z[1]) > 0.01                                     # it does not cancel


def test_models_of_transformers_are_added_and_scored():
    transformers = pytest.importorskip('transformers')
    def theirs(seed, width):
        torch.manual_seed(seed)
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(
            vocab_size=7, n_positions=16, n_embd=width, n_layer=1, n_head=2,
            initializer_range=0.7, bos_token_id=0, eos_token_id=0)).eval()
    models = theirs(0, 16), theirs(1, 8), theirs(2, 8)
    ids = torch.tensor([[0, 3, 1, 6, 2], [0, 1, 1, 5, 4]])
    wanted = by_hand(models, 1, ids)
    losses = token_losses(UpScaled(*models), ids.tolist())
    for row, line, p in zip(ids.numpy(), losses, wanted):
        assert np.allclose(line, -p[np.arange(4), row[1:]], atol=1e-4)
    assert UpScaled(*models).cfg.n_ctx == 16


def test_the_probabilities_of_all_texts_add_up_to_one():
    model = UpScaled(tiny(0), tiny(1), tiny(2), 1.7)
    texts = [[0, *rest] for rest in itertools.product(range(7), repeat=3)]
    total = sum(np.exp(-line.sum()) for line in token_losses(model, texts, 400))
    assert abs(total - 1) < 1e-5


def test_it_writes_what_it_finds_likely():
    model = UpScaled(tiny(0), tiny(1), tiny(2))
    prompts = torch.zeros(4000, 1, dtype=torch.long)
    often = model.generate(prompts, 1, seed=0)[:, 1].bincount(minlength=7) / 4000
    with torch.no_grad(): p = model(prompts[:1])[0, 0].exp()
    assert (often - p).abs().max() < 4 * 0.5 / 4000**0.5
    best = model.generate(prompts[:1], 5, temperature=0)
    with torch.no_grad(): assert (model(best[:, :-1]).argmax(-1) == best[:, 1:]).all()


def test_weights_of_several_tunings_add_up():
    base, first, second = tiny(0), tiny(1), tiny(2)
    ids = torch.tensor([[0, 3, 1, 6]])
    with torch.no_grad():
        found = interpolate(base, [(first, 0.4), (second, 1.5)])(ids)
        logs = [log_softmax(m(ids).double().numpy(), -1) for m in (base, first, second)]
    wanted = log_softmax(-0.9 * logs[0] + 0.4 * logs[1] + 1.5 * logs[2], -1)
    assert np.allclose(found, wanted, atol=1e-4)
    assert interpolate(base, []) is base


@pytest.fixture
def folders(tmp_path):
    "Save models of one tokenizer, and one of another tokenizer with as many tokens."
    texts = SyntheticScience(0).papers(200)
    one, other = train_tokenizer(texts, 400), train_tokenizer([t[::-1] for t in texts], 400)
    for name, i, cut in ('large', 0, one), ('tuned', 1, one), ('base', 2, one), ('odd', 3, other):
        save_model(tiny(i, cut.get_vocab_size()), tmp_path / name, cut)
    return tmp_path


def test_only_models_of_one_tokenizer_are_loaded(folders):
    names = [str(folders / name) for name in ('large', 'tuned', 'base', 'odd')]
    model, cut = load_upscaled(*names[:3], beta=0.5)
    assert model.beta == 0.5 and cut.get_vocab_size() == model.cfg.vocab_size == 400
    own, _ = load_upscaled(names[0], names[1], names[0])
    assert own.large is own.base and own.tuned is not own.base
    for three in (names[0], names[3], names[2]), (names[0], names[1], names[3]):
        with pytest.raises(ValueError, match='odd should have the tokenizer of .*large'):
            load_upscaled(*three)


def test_scores_of_another_beta_do_not_go_on_with_the_first(folders):
    model, cut = load_upscaled(*(str(folders / name) for name in ('large', 'tuned', 'base')))
    cases, path = SyntheticScience(0).cases()[:3], folders / 'scores.parquet'
    def score(beta, *top_p):
        three = UpScaled(model.large, model.tuned, model.base, beta, *top_p)
        return score_cases(three, cut, cases, prompt='', path=path)
    first = score(1.0)
    assert first.meta['model'] == 'UpScaled' and first.meta['dtype'] == 'float32'
    assert (score(1.0).frame.original == first.frame.original).all()
    for how in (2.0,), (1.0, 0.9):
        with pytest.raises(ValueError, match='should hold the scores of this model'): score(*how)
