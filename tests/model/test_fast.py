"""The fast GPT-2 against an independent implementation, the one in transformers; and compiled."""
import pytest
import torch

from domain_llm.model import fast
from domain_llm.model.fast import GPT2, left_pad, try_compile
from domain_llm.model.gpt2 import GPT2Config, PlainGPT2
from noisy_models import noisy, theirs_from

TRANSPOSED = 'c_attn.weight', 'c_proj.weight', 'c_fc.weight'


@pytest.mark.parametrize('Model', [GPT2, PlainGPT2])
def test_logits_loss_and_every_gradient_agree(pair, Model):
    ours, theirs, _ = pair
    if Model is PlainGPT2:
        ours = PlainGPT2(ours.cfg)
        ours.load_state_dict(pair[0].state_dict())
    ids = torch.randint(ours.cfg.vocab_size, (3, ours.cfg.n_ctx))         # (B, T + 1)
    want = theirs(ids).logits                                             # (B, T + 1, V)
    assert (ours(ids) - want).abs().max() < 1e-5 * max(1, want.abs().max().item())
    loss, judge = ours(ids[:, :-1], ids[:, 1:]), theirs(ids, labels=ids).loss
    assert abs(loss.item() - judge.item()) < 1e-5
    loss.backward()
    judge.backward()
    grads = {n.removeprefix('transformer.'): p.grad for n, p in theirs.named_parameters()}
    for name, p in ours.named_parameters():
        want = grads[name].T if name.endswith(TRANSPOSED) else grads[name]
        assert (p.grad - want).abs().max() < 1e-5, name


def test_rotation_agrees_with_llamas():
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
    q, k = torch.randn(2, 1, 3, 5, 8)                                     # (B, H, T, C/H) each
    cos, sin = fast._rotation(torch.arange(5), 8)                         # (T, C/H/2) each
    twice = torch.cat([cos, cos], -1)[None], torch.cat([sin, sin], -1)[None]
    for x, want in zip((q, k), apply_rotary_pos_emb(q, k, *twice)):
        assert torch.allclose(fast._rotate(x, (cos, sin)), want, atol=1e-6)


def test_greedy_text_is_that_of_transformers(small):
    ours, folder = small
    theirs = theirs_from(folder)
    ids, mask = left_pad([torch.randint(1, 60, (n,)).tolist() for n in (4, 8, 2)])
    how = dict(min_new_tokens=20, do_sample=False, pad_token_id=0, eos_token_id=None)
    want = theirs.generate(ids, attention_mask=mask.long(), max_new_tokens=20, **how)
    found = ours.generate(ids, attention_mask=mask, max_new_tokens=20, temperature=0)
    assert torch.equal(found, want)


def test_the_mlps_activation_is_that_of_transformers():
    from transformers.activations import NewGELUActivation
    mlp = fast.FastMLP(GPT2Config(10, 1, 1, 1, 4))
    with torch.no_grad():
        for p in mlp.parameters(): p.zero_()
        mlp.c_fc.weight.fill_(1)
        mlp.c_proj.weight[0, 0].fill_(1)
        x = torch.linspace(-5, 5, 101)[:, None]
        # erf's GELU is up to 5e-4 away
        assert (mlp(x) - NewGELUActivation()(x)).abs().max() < 1e-6


def test_compiling_changes_no_number_or_says_that_it_failed(capsys):
    model, ids = noisy(GPT2Config(60, 1, 2, 16, 32), 0.3), torch.randint(60, (1, 32))
    want = model(ids)
    assert try_compile(model) or 'torch.compile does not work here' in capsys.readouterr().out
    assert torch.allclose(model(ids), want, atol=1e-4)
    assert list(model.state_dict()) == list(GPT2(model.cfg).state_dict())
