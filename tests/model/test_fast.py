"""The fast GPT-2 against an independent implementation, the one in transformers, and against the plain one."""
from unittest.mock import patch

import pytest
import torch
from torch.nn import functional as F

from domain_llm.model import fast
from domain_llm.model.fast import GPT2, MODERN, chunked_cross_entropy, left_pad, try_compile
from domain_llm.model.gpt2 import GPT2Config, num_params
from domain_llm.model.weights import save_model
from noisy_models import noisy, theirs_from


def test_logits_loss_and_every_gradient_agree(pair):
    ours, theirs, _ = pair
    ids = torch.randint(ours.cfg.vocab_size, (3, ours.cfg.n_ctx))
    want = theirs(ids).logits
    assert (ours(ids) - want).abs().max() < 1e-5 * max(1, want.abs().max().item())
    loss, judge = ours(ids[:, :-1], ids[:, 1:]), theirs(ids, labels=ids).loss
    assert abs(loss.item() - judge.item()) < 1e-5
    loss.backward(), judge.backward()
    grads = {n.removeprefix('transformer.'): p.grad for n, p in theirs.named_parameters()}
    for name, p in ours.named_parameters():
        want = (
            grads[name].T
            if name.endswith(('c_attn.weight', 'c_proj.weight', 'c_fc.weight'))
            else grads[name]
        )
        assert (p.grad - want).abs().max() < 1e-5, name


@pytest.mark.parametrize('name', ['rotary', 'rms_norm', 'qk_norm', 'relu2'])
def test_each_modern_part_changes_the_model_keeps_the_mask_and_refuses_to_be_saved(name, tmp_path):
    model, ids = (
        noisy(GPT2Config(60, 2, 2, 16, 32, **{name: True}), 0.3).eval(),
        torch.randint(60, (2, 32)),
    )
    assert num_params(model.cfg) == sum(p.numel() for p in model.parameters())
    changed = ids.clone(); changed[:, -1] = (ids[:, -1] + 1) % 60
    assert torch.equal(model(ids)[:, :-1], model(changed)[:, :-1])
    plain = GPT2(GPT2Config(60, 2, 2, 16, 32)).eval()
    plain.load_state_dict({n: t for n, t in model.state_dict().items()}, strict=False)
    assert (plain(ids) - model(ids)).abs().max() > 1e-3
    with pytest.raises(ValueError, match=name): save_model(model, tmp_path / 'x')
    assert not (tmp_path / 'x').exists()


def test_rotation_agrees_with_llamas():
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
    q, k = torch.randn(2, 1, 3, 5, 8)
    cos, sin = fast._rotation(torch.arange(5), 8)
    want = apply_rotary_pos_emb(
        q, k, torch.cat([cos, cos], -1)[None], torch.cat([sin, sin], -1)[None]
    )
    assert all(
        torch.allclose(fast._rotate(x, (cos, sin)), w, atol=1e-6) for x, w in zip((q, k), want)
    )


def test_dropout_acts_in_training_only():
    model, ids = noisy(GPT2Config(60, 2, 2, 16, 32, dropout=0.2)), torch.randint(60, (2, 32))
    assert not torch.equal(model(ids), model(ids))
    model.eval()
    assert torch.equal(model(ids), model(ids))


@pytest.mark.parametrize('changes', [{}, MODERN, dict(bias=False)], ids=['gpt2', 'modern', 'no biases'])
def test_the_cache_changes_no_token_also_for_prompts_of_different_length(changes):
    model = noisy(GPT2Config(60, 2, 2, 16, 32, **changes), 0.3).eval()
    rows = [torch.randint(60, (n,)).tolist() for n in (3, 9, 1, 6)]
    ids, mask = left_pad(rows)
    for row, line in zip(rows, model.generate(ids, 20, 0, mask=mask)):
        alone = torch.tensor([row])
        for _ in range(20): alone = torch.cat([alone, model(alone)[:, -1:].argmax(-1)], 1)
        assert line[9 - len(row):].tolist() == alone[0].tolist()


def test_greedy_text_is_that_of_transformers(small):
    ours, folder = small
    theirs = theirs_from(folder)
    ids, mask = left_pad([torch.randint(1, 60, (n,)).tolist() for n in (4, 8, 2)])
    want = theirs.generate(
        ids,
        attention_mask=mask.long(),
        max_new_tokens=20,
        min_new_tokens=20,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )
    assert torch.equal(ours.generate(ids, 20, 0, mask=mask), want)


def test_writing_leaves_the_model_as_it_was_even_when_interrupted(small):
    model = small[0].train()
    def stop(new): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        model.generate(torch.zeros(1, 2, dtype=torch.long), 3, on_token=stop)
    assert model.training


def test_a_loss_in_pieces_is_the_plain_loss():
    torch.manual_seed(0)
    for V, rows in ((257, 64), (1000, 128), (64, 10_000)):
        x, table = torch.randn(300, 32, requires_grad=True), torch.randn(V, 32, requires_grad=True)
        targets = torch.randint(V, (300,))
        targets[::7] = -100
        want = F.cross_entropy(x @ table.T, targets)
        b = torch.autograd.grad(3 * want, (x, table))
        for aligned in (False, True):
            padded = lambda t, dtype: F.pad(t, (0, 0, 0, -len(t) % 64))
            pad = (
                patch.object(fast, '_aligned', padded)
                if aligned
                else patch.object(fast, '_ALIGN', 64)
            )
            with patch.object(fast, '_MOST', rows * V), pad:
                got = chunked_cross_entropy(x, table, targets)
                a = torch.autograd.grad(3 * got, (x, table), retain_graph=True)
                with pytest.raises(RuntimeError, match='second time'):
                    torch.autograd.grad(got, (x, table))
                with torch.no_grad():
                    assert abs(chunked_cross_entropy(x, table, targets) - want) < 1e-5
            assert abs(got - want) < 1e-5 and all(
                ((p - q).norm() / q.norm()) < 1e-6 and p.shape == q.shape for p, q in zip(a, b)
            )


def test_autocast_agrees_with_plain_autocast(small):
    model, ids = small[0], torch.randint(60, (2, 33))
    with torch.autocast('cpu', torch.bfloat16):
        loss = model(ids[:, :-1], ids[:, 1:])
        plain = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1).float(), ids[:, 1:].flatten())
    a, b = (
        torch.cat([g.flatten() for g in torch.autograd.grad(x, list(model.parameters()))])
        for x in (loss, plain)
    )
    assert abs(loss - plain) < 0.02 and (a - b).norm() / b.norm() < 0.05


def test_block_checkpointing_and_repetition_change_nothing(small):
    model, ids = small[0].train(), torch.randint(60, (2, 33))
    grads = []
    for model.recompute in (False, False, True):
        grads.append(torch.autograd.grad(model(ids[:, :-1], ids[:, 1:]), list(model.parameters())))
    assert all(torch.equal(a, b) and torch.allclose(a, c, atol=1e-6) for a, b, c in zip(*grads))


def test_a_wrong_id_or_target_is_named(small):
    model, ids = small[0], torch.tensor([[5, 60]])
    with pytest.raises(ValueError, match='below vocab_size 60, but got 60'): model(ids)
    with pytest.raises(ValueError, match='below vocab_size 60, but got 60'): model(ids - 1, ids)


def test_compiling_changes_no_number_or_says_that_it_failed(capsys):
    model, ids = noisy(GPT2Config(60, 1, 2, 16, 32), 0.3), torch.randint(60, (1, 32))
    want = model(ids)
    assert try_compile(model) or 'torch.compile does not work here' in capsys.readouterr().out
    assert (torch.allclose(model(ids), want, atol=1e-4)
            and list(model.state_dict()) == list(GPT2(model.cfg).state_dict()))


def test_a_compiler_that_fails_is_a_sentence_and_no_end(capsys):
    model = GPT2(GPT2Config(50, 1, 2, 16, 8))
    with patch.object(torch.nn.Module, 'compile', side_effect=RuntimeError('no compiler')):
        assert not try_compile(model)
    assert 'going on without it' in capsys.readouterr().out
    assert model(torch.zeros(1, 4, dtype=torch.long)).shape == (1, 4, 50)


@pytest.mark.parametrize('n', [1, 63, 64, 65, 1000])
def test_a_loss_in_pieces_cuts_into_about_equal_pieces_that_cover_all_rows(n, monkeypatch):
    monkeypatch.setattr(fast, '_MOST', 64 * 300)
    table = torch.empty(300, 1)
    sizes = [len(piece) for piece in torch.arange(n).split(fast._rows(table, n))]
    assert sum(sizes) == n and max(sizes) <= 64 and len(sizes) == -(-n // 64)


def test_the_tables_two_gradients_are_added_also_for_ids_that_repeat():
    model = noisy(GPT2Config(40, 1, 2, 16, 32))
    # few ids, so each comes often
    ids = torch.randint(5, (3, 32))
    model(ids[:, :-1], ids[:, 1:]).backward()
    logits = model(ids[:, :-1])
    (want,) = torch.autograd.grad(
        F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()), model.wte.weight
    )
    assert torch.allclose(model.wte.weight.grad, want, atol=1e-6)
    model.wte.weight.requires_grad_(False)   # a table that must stay: the rest still learns
    loss = model(ids[:, :-1], ids[:, 1:])
    assert torch.autograd.grad(loss, model.ln_f.weight)[0].abs().sum() > 0


@pytest.fixture
def writer():
    "A model whose large weights leave no two tokens nearly tied."
    return noisy(GPT2Config(50, 2, 2, 32, 48), 0.2).eval()


def naive(model, ids, n):
    for _ in range(n): ids = torch.cat([ids, model(ids)[:, -1].argmax(-1, keepdim=True)], 1)
    return ids


def test_a_row_ends_with_the_stop_token_and_is_filled_up_with_it(writer):
    ids, mask = left_pad([[3, 1, 4, 1, 5], [9, 2], [6, 5, 3]])
    free = writer.generate(ids, 20, 0, mask=mask)
    end = free[0, 7].item()
    for line, whole in zip(writer.generate(ids, 20, 0, mask=mask, stop=end)[:, 5:].tolist(), free[:, 5:].tolist()):
        at = whole.index(end) + 1 if end in whole else len(line)
        assert line[:at] == whole[:at] and set(line[at:]) <= {end}


def test_a_full_context_slides_by_reading_its_newer_half_again(writer):
    full = torch.randint(50, (1, 48))
    first = naive(writer, full, 1)                                                  # (1, 49)
    assert torch.equal(
        writer.generate(full, 2, 0, slide=True)[:, -1], naive(writer, first[:, -24:], 1)[:, -1]
    )
    ids, mask = left_pad([[3, 1, 4, 1, 5], [9, 2], [6, 5, 3]])
    slid = writer.generate(ids, 90, 0, mask=mask, slide=True)
    assert torch.equal(slid[:, :25], writer.generate(ids, 20, 0, mask=mask)) and slid.shape == (
        3,
        95,
    )


@pytest.mark.parametrize('wrong', [dict(temperature=-1), dict(top_k=0), dict(top_p=0.0), dict(n_new=-1),
                                   dict(n_new=100)], ids=str)
def test_what_cannot_be_written_is_refused(wrong, writer):
    with pytest.raises(ValueError):
        writer.generate(torch.zeros(1, 5, dtype=torch.long), **{**dict(n_new=1), **wrong})
    with pytest.raises(ValueError, match='48'): writer(torch.zeros(1, 49, dtype=torch.long))
    with pytest.raises(ValueError): left_pad([[1], []])


def test_the_mlp_bends_as_gpt2s_does():
    from transformers.activations import NewGELUActivation
    mlp = fast.FastMLP(GPT2Config(10, 1, 1, 1, 4))
    with torch.no_grad():
        for p in mlp.parameters(): p.zero_()
        mlp.c_fc.weight.fill_(1), mlp.c_proj.weight[0, 0].fill_(1)
        # erf's GELU is up to 5e-4 away
        x = torch.linspace(-5, 5, 101)[:, None]
        assert (mlp(x) - NewGELUActivation()(x)).abs().max() < 1e-6


@pytest.mark.parametrize('changes', [{}, dict(relu2=True), dict(bias=False)], ids=str)
def test_the_mlps_gradients_are_the_numerical_ones(changes):
    torch.manual_seed(0)
    mlp = fast.FastMLP(GPT2Config(10, 1, 1, 3, 4, **changes)).double()
    x = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: mlp(x), (x, *mlp.parameters()))
