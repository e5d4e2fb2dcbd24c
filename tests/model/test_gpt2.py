"""The plain GPT-2, and what it shares with the fast one."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from domain_llm.bench.scores import score_cases
from domain_llm.model.fast import GPT2, MODERN
from domain_llm.model.gpt2 import GPT2Config, PlainGPT2, Sampler
from domain_llm.text.synthetic import SyntheticScience
from domain_llm.tokens.tokenizer import train_tokenizer
from noisy_models import SHAPES, noisy


def same_weights(cfg, std=0.05):
    "Make the plain and the fast model with the same weights."
    plain, fast = noisy(cfg, std, PlainGPT2), GPT2(cfg)
    fast.load_state_dict(plain.state_dict())
    return plain, fast


@pytest.mark.parametrize('shape', SHAPES)
def test_plain_and_fast_agree_in_logits_loss_and_every_gradient(shape):
    n_layer, n_head, n_embd, n_ctx, vocab = SHAPES[shape]
    plain, fast = same_weights(
        GPT2Config(vocab, n_layer, n_head, n_embd, n_ctx, bias=shape != 'odd')
    )
    ids = torch.randint(vocab, (3, n_ctx))
    targets = ids[:, 1:].clone()
    targets[0, 3:] = -100
    targets[1, 5:] = -7                                         # any negative target does not count
    assert torch.allclose(plain(ids), fast(ids), atol=1e-6)
    losses = [model(ids[:, :-1], targets) for model in (plain, fast)]
    assert torch.allclose(*losses)
    for loss in losses: loss.backward()
    for (name, a), b in zip(plain.named_parameters(), fast.parameters()):
        assert (a.grad - b.grad).norm() <= 1e-5 * b.grad.norm() + 1e-9, name


def test_plain_and_fast_begin_with_equal_weights_and_write_equal_text():
    torch.manual_seed(3)
    plain = PlainGPT2(GPT2Config(60, 2, 2, 16, 32))
    torch.manual_seed(3)
    fast = GPT2(plain.cfg)
    assert list(plain.state_dict()) == list(fast.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), fast.parameters()))
    plain, fast = same_weights(GPT2Config(60, 2, 2, 16, 32), 0.3)
    ids = torch.randint(60, (3, 5))
    for how in (dict(temperature=0), dict(seed=1), dict(seed=2, top_k=5), dict(seed=3, top_p=0.8, temperature=1.5)):
        assert torch.equal(plain.generate(ids, 20, **how), fast.generate(ids, 20, **how))
    assert plain.training and fast.training


def test_dropout_acts_in_training_only_and_the_same_in_both():
    cfg = GPT2Config(60, 2, 2, 16, 32, dropout=0.2)
    plain, fast = same_weights(cfg)
    ids, seen = torch.randint(60, (2, 32)), []
    for model in (plain, fast):
        torch.manual_seed(0)
        seen.append(model(ids))
    assert torch.allclose(*seen, atol=1e-6) and not torch.equal(plain(ids), plain(ids))
    plain.eval()
    assert torch.equal(plain(ids), plain(ids))


@pytest.mark.parametrize('name', sorted(set(MODERN) - {'bias'}))
def test_the_plain_model_refuses_what_it_does_not_compute(name):
    cfg = GPT2Config(60, 2, 2, 16, 32, **{name: True})
    with pytest.raises(ValueError, match=f'got {name}: use GPT2'): PlainGPT2(cfg)


@pytest.mark.parametrize('n_prompt, n_new', [(0, 1), (8, 10), (18, 0), (8, -1)])
def test_a_text_that_does_not_fit_is_refused(n_prompt, n_new):
    model = PlainGPT2(GPT2Config(60, 1, 2, 16, 16))
    with pytest.raises(ValueError, match='needs at least 1 token and room'):
        model.generate(torch.zeros(1, n_prompt, dtype=torch.long), n_new)
    assert model.generate(torch.zeros(1, 8, dtype=torch.long), 9).shape == (1, 17)
    with pytest.raises(ValueError, match='at most 16 tokens, but got 17'):
        model(torch.zeros(1, 17, dtype=torch.long))
    for wrong in (torch.tensor([[60]]),), (torch.tensor([[1]]), torch.tensor([[60]])):
        with pytest.raises(ValueError, match='below vocab_size 60, but got 60'): model(*wrong)


def test_the_plain_model_gets_the_scores_of_the_fast_one():
    cases = SyntheticScience(0).cases()[:6]
    tokenizer = train_tokenizer(
        [text for case in cases for text in (case.original, case.altered)], 300
    )
    plain, fast = same_weights(GPT2Config(tokenizer.get_vocab_size(), 1, 2, 16, 256), 0.3)
    a, b = (score_cases(model.eval(), tokenizer, cases) for model in (plain, fast))
    assert np.allclose(a.frame['original'], b.frame['original'], rtol=1e-4)
    assert np.allclose(a.margin, b.margin, rtol=1e-3, atol=1e-4)


def test_both_lessons_run_the_same_check():
    nbs = Path(__file__).parents[2] / 'nbs'
    cells = [''.join(cell['source']) for name in ('30_gpt2', '31_fast')
             for cell in json.loads((nbs / f'{name}.ipynb').read_text(encoding='utf-8'))['cells']]
    first, second = (cell for cell in cells if cell.startswith('def check('))
    assert first == second and 'check(GPT2)' in cells


def test_initial_weights_have_gpt2s_spread():
    model = GPT2(GPT2Config(5000, 6, 8, 256, 128))
    for name, p in model.named_parameters():
        want = 0.02 / 12 ** 0.5 if name.endswith('c_proj.weight') else 0.02
        if p.dim() == 2:
            assert abs(p.std().item() / want - 1) < 0.03 and abs(p.mean().item()) < want / 20, name
        else:
            assert torch.all(p == (1 if 'ln' in name and name.endswith('weight') else 0)), name


@pytest.mark.parametrize('wrong', [dict(n_layer=0), dict(eos_token_id=50257), dict(dropout=1.0), dict(dropout=-.1),
                                   dict(n_embd=36, rotary=True)], ids=str)
def test_contradictions_are_refused_when_the_configuration_is_made(wrong):
    with pytest.raises(ValueError): GPT2Config(**wrong)
    with pytest.raises(ValueError, match='gpt2-xl'): GPT2Config.preset('huge', 10)


def test_top_k_and_top_p_keep_what_transformers_keeps():
    from transformers import TopKLogitsWarper, TopPLogitsWarper
    logits = torch.randn(20, 50) * 3
    for p in (0.1, 0.5, 0.9, 0.99):
        assert torch.equal(
            Sampler(top_p=p).kept(logits).isfinite(), TopPLogitsWarper(p)(None, logits).isfinite()
        )
    for seed in range(50):
        new = Sampler(top_k=5, seed=seed)(logits)
        assert TopKLogitsWarper(5)(None, logits).gather(1, new[:, None]).isfinite().all()


def test_sampling_keeps_its_promises():
    p = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    kept = lambda top_p: Sampler(top_p=top_p).kept(p).isfinite().sum().item()
    assert (kept(0.8), kept(0.81), kept(1.0)) == (2, 3, 4)
    draws = torch.stack([Sampler(top_k=2, seed=s)(p) for s in range(300)])
    assert (
        set(draws.flatten().tolist()) == {0, 1} and abs((draws == 0).float().mean() - 0.625) < 0.1
    )
