"""GPT-2 against an independent implementation: the one in transformers."""
import json, pickle
from unittest.mock import patch

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from domain_llm import gpt2
from domain_llm.gpt2 import GPT2, GPT2Config, MODERN, chunked_cross_entropy, left_pad, num_params, try_compile
from domain_llm.tokenizer import EOS, load_tokenizer, save_tokenizer, train_tokenizer

SHAPES = {'toy': (2, 4, 128, 64, 300), 'gpt2, 2 layers': (2, 12, 768, 48, 1000),
          'gpt2-medium, 1 layer': (1, 16, 1024, 32, 500),
          'gpt2-large, 1 layer': (1, 20, 1280, 32, 500), 'odd': (1, 3, 33, 17, 257)}


def noisy(cfg, std=0.05):
    "Make a model none of whose weights is zero or one, so that no error can hide."
    torch.manual_seed(0)
    model = GPT2(cfg)
    for p in model.parameters(): torch.nn.init.normal_(p, std=std)
    return model


def theirs_from(folder): return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(params=SHAPES)
def pair(request, tmp_path):
    n_layer, n_head, n_embd, n_ctx, vocab = SHAPES[request.param]
    ours = noisy(GPT2Config(vocab, n_layer, n_head, n_embd, n_ctx))
    ours.save_pretrained(tmp_path / 'model')
    return ours, theirs_from(tmp_path / 'model'), tmp_path


@pytest.fixture
def small(tmp_path):
    "A small model and the folder it was saved to."
    model = noisy(GPT2Config(60, 2, 2, 16, 32), 0.3).eval()
    model.save_pretrained(tmp_path / 'model')
    return model, tmp_path / 'model'


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
        want = grads[name].T if name.endswith(('c_attn.weight', 'c_proj.weight', 'c_fc.weight')) else grads[name]
        assert (p.grad - want).abs().max() < 1e-5, name


def test_their_checkpoint_loads_here(pair):
    ours, theirs, tmp_path = pair
    theirs.save_pretrained(tmp_path / 'theirs')
    again = GPT2.from_pretrained(tmp_path / 'theirs')
    assert (all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), again.state_dict().values()))
            and not again.training)
    again(torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, 3, dtype=torch.long)).backward()   # it can be trained on


def test_shards_old_bins_and_prefixes_load(small, tmp_path):
    ours, folder = small
    theirs = theirs_from(folder)
    theirs.save_pretrained(tmp_path / 'shards', max_shard_size='5KB')
    assert len(list((tmp_path / 'shards').glob('*.safetensors'))) > 1
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin/config.json').write_text((folder / 'config.json').read_text())
    # lm_head.weight too
    torch.save({f'_orig_mod.module.{n}': t for n, t in theirs.state_dict().items()}, tmp_path / 'bin/pytorch_model.bin')
    for name in ('shards', 'bin'):
        again = GPT2.from_pretrained(tmp_path / name)
        assert (again.cfg == ours.cfg
                and all(torch.equal(a, again.state_dict()[n]) for n, a in ours.state_dict().items()))
    next((tmp_path / 'shards').glob('*-00002-of-*')).unlink()
    with pytest.raises(FileNotFoundError, match='00002.*copy it'): GPT2.from_pretrained(tmp_path / 'shards')


class Evil:
    def __reduce__(self): return exec, ("open('harm', 'w')",)


def test_a_bin_that_carries_code_is_refused_and_the_code_not_run(small, monkeypatch):
    _, folder = small
    monkeypatch.chdir(folder)
    (folder / 'model.safetensors').unlink()
    (folder / 'pytorch_model.bin').write_bytes(pickle.dumps({'wte.weight': Evil()}))
    with pytest.raises(ValueError, match='cannot be read'): GPT2.from_pretrained(folder)
    assert not (folder / 'harm').exists()


def break_tensors(change):
    def act(folder):
        tensors = load_file(folder / 'model.safetensors')
        change(tensors)
        save_file(tensors, folder / 'model.safetensors')
    return act


def break_config(**changes):
    def act(folder):
        config = json.loads((folder / 'config.json').read_text())
        (folder / 'config.json').write_text(json.dumps({k: v for k, v in (config | changes).items() if v != 'lost'}))
    return act


def halve(name): return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:150])


BROKEN = {
    'missing': (break_tensors(lambda t: t.pop('transformer.ln_f.weight')),
                r'ln_f.weight should be \[16\] but the file has no such tensor'),
    'extra': (break_tensors(lambda t: t.update({'transformer.h.7.x': torch.zeros(1)})),
              r'h.7.x should be no such tensor but the file has \[1\]'),
    'misshapen': (break_tensors(lambda t: t.update({'transformer.wpe.weight': torch.zeros(31, 16)})),
                  r'wpe.weight should be \[32, 16\] but the file has \[31, 16\]'),
    'untied head': (break_tensors(lambda t: t.update({'lm_head.weight': torch.zeros(60, 16)})),
                    'lm_head.weight should equal'),
    'tensors cut short': (halve('model.safetensors'), 'cut short'),
    'config cut short': (halve('config.json'), 'cut short'),
    'another activation': (break_config(activation_function='relu'), "activation_function = gelu_new .* 'relu'"),
    'another kind of model': (break_config(model_type='llama'), "model_type = gpt2 .* 'llama'"),
    'another width inside': (break_config(n_inner=17), 'n_inner'),
    'no width': (break_config(n_embd='lost'), 'should give n_embd'),
    'no config': (lambda folder: (folder / 'config.json').unlink(), 'config.json should be .* but there is no such file'),
    'no tensors': (lambda folder: (folder / 'model.safetensors').unlink(), 'has no tensors'),
}


@pytest.mark.parametrize('act, message', BROKEN.values(), ids=BROKEN)
def test_a_checkpoint_that_does_not_fit_is_refused_in_a_sentence(act, message, small):
    _, folder = small
    act(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error: GPT2.from_pretrained(folder)
    assert '\n' not in str(error.value)


def test_a_plain_name_is_looked_up_on_the_hub_and_a_path_is_not(small, tmp_path):
    import huggingface_hub
    ours, folder = small
    with patch.object(huggingface_hub, 'snapshot_download', return_value=str(folder)) as fetch:
        assert GPT2.from_pretrained('somebody/model').cfg == ours.cfg and fetch.call_args.args == ('somebody/model',)
    with patch.object(huggingface_hub, 'snapshot_download', side_effect=OSError('no network')):
        with pytest.raises(FileNotFoundError, match='no folder somebody/model.*OSError'):
            GPT2.from_pretrained('somebody/model')
    with patch.object(huggingface_hub, 'snapshot_download', side_effect=AssertionError):
        with pytest.raises(FileNotFoundError, match='there is no'): GPT2.from_pretrained(tmp_path / 'nothing')


@pytest.mark.parametrize('changes', [dict(bias=False), dict(dropout=0.1)], ids=str)
def test_variants_with_a_gpt2_layout_come_back_and_agree(changes, tmp_path):
    ours = noisy(GPT2Config(60, 2, 2, 16, 32, **changes)).eval()
    ours.save_pretrained(tmp_path / 'model')
    theirs, ids = theirs_from(tmp_path / 'model'), torch.randint(60, (2, 32))
    assert (ours(ids) - theirs(ids).logits).abs().max() < 1e-5
    again = GPT2.from_pretrained(tmp_path / 'model')
    assert again.cfg == ours.cfg and torch.equal(again(ids), ours(ids))


@pytest.mark.parametrize('name', ['rotary', 'rms_norm', 'qk_norm', 'relu2'])
def test_each_modern_part_changes_the_model_keeps_the_mask_and_refuses_to_be_saved(name, tmp_path):
    model, ids = noisy(GPT2Config(60, 2, 2, 16, 32, **{name: True}), 0.3).eval(), torch.randint(60, (2, 32))
    assert num_params(model.cfg) == sum(p.numel() for p in model.parameters())
    changed = ids.clone(); changed[:, -1] = (ids[:, -1] + 1) % 60
    assert torch.equal(model(ids)[:, :-1], model(changed)[:, :-1])
    plain = GPT2(GPT2Config(60, 2, 2, 16, 32)).eval()
    plain.load_state_dict({n: t for n, t in model.state_dict().items()}, strict=False)
    assert (plain(ids) - model(ids)).abs().max() > 1e-3
    with pytest.raises(ValueError, match=name): model.save_pretrained(tmp_path / 'x')
    assert not (tmp_path / 'x').exists()


def test_rotation_agrees_with_llamas():
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
    q, k = torch.randn(2, 1, 3, 5, 8)
    cos, sin = gpt2._rotation(torch.arange(5), 8)
    want = apply_rotary_pos_emb(q, k, torch.cat([cos, cos], -1)[None], torch.cat([sin, sin], -1)[None])
    assert all(torch.allclose(gpt2._rotate(x, (cos, sin)), w, atol=1e-6) for x, w in zip((q, k), want))


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
    want = theirs.generate(ids, attention_mask=mask.long(), max_new_tokens=20, min_new_tokens=20, do_sample=False,
                           pad_token_id=0, eos_token_id=None)
    assert torch.equal(ours.generate(ids, 20, 0, mask=mask), want)


def test_top_k_and_top_p_keep_what_transformers_keeps():
    from transformers import TopKLogitsWarper, TopPLogitsWarper
    logits = torch.randn(20, 50) * 3
    for p in (0.1, 0.5, 0.9, 0.99):
        assert torch.equal(gpt2._nucleus(logits, p).isfinite(), TopPLogitsWarper(p)(None, logits).isfinite())
    for seed in range(50):
        new = gpt2._choice(1.0, 5, None, seed, 'cpu')(logits)
        assert TopKLogitsWarper(5)(None, logits).gather(1, new[:, None]).isfinite().all()


def test_writing_leaves_the_model_as_it_was_even_when_interrupted(small):
    model = small[0].train()
    def stop(new): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): model.generate(torch.zeros(1, 2, dtype=torch.long), 3, on_token=stop)
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
            pad = patch.object(gpt2, '_aligned', padded) if aligned else patch.object(gpt2, '_ALIGN', 64)
            with patch.object(gpt2, '_MOST', rows * V), pad:
                got = chunked_cross_entropy(x, table, targets)
                a = torch.autograd.grad(3 * got, (x, table), retain_graph=True)
                with pytest.raises(RuntimeError, match='second time'): torch.autograd.grad(got, (x, table))
                with torch.no_grad(): assert abs(chunked_cross_entropy(x, table, targets) - want) < 1e-5
            assert (abs(got - want) < 1e-5
                    and all(((p - q).norm() / q.norm()) < 1e-6 and p.shape == q.shape for p, q in zip(a, b)))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_computes_saves_and_loads(dtype, small, tmp_path):
    model, _ = small
    ids = torch.randint(60, (2, 33))
    want = model(ids[:, :-1], ids[:, 1:])
    model.to(dtype)
    loss = model(ids[:, :-1], ids[:, 1:])
    loss.backward()
    assert abs(loss - want) < 0.1 and model.wte.weight.grad.dtype == dtype and model(ids[:, :-1]).dtype == dtype
    assert model.generate(ids[:, :4], 5, 0).shape == (2, 9)
    model.save_pretrained(tmp_path / 'half')
    assert json.loads((tmp_path / 'half/config.json').read_text())['torch_dtype'] == str(dtype).removeprefix('torch.')
    assert GPT2.from_pretrained(tmp_path / 'half').wte.weight.dtype == torch.float32


def test_autocast_agrees_with_plain_autocast(small):
    model, ids = small[0], torch.randint(60, (2, 33))
    with torch.autocast('cpu', torch.bfloat16):
        loss = model(ids[:, :-1], ids[:, 1:])
        plain = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1).float(), ids[:, 1:].flatten())
    a, b = (torch.cat([g.flatten() for g in torch.autograd.grad(x, list(model.parameters()))]) for x in (loss, plain))
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


def test_model_and_tokenizer_in_one_folder(small, tmp_path):
    tokenizer = train_tokenizer(['muscimol in the amygdala'] * 5, 300)
    small[0].save_pretrained(tmp_path / 'both', tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / 'both')
    assert theirs('the amygdala')['input_ids'] == tokenizer.encode('the amygdala').ids
    assert GPT2.from_pretrained(tmp_path / 'both').cfg == theirs_cfg(tmp_path / 'both') == small[0].cfg


def theirs_cfg(folder): return gpt2._own_config(transformers.AutoConfig.from_pretrained(folder).to_dict(), folder)


def test_tokenizer_loads_with_the_right_end_of_text(tmp_path):
    texts = ['muscimol in the amygdala', 'the hippocampus of rats'] * 10
    ours = train_tokenizer(texts, 300)
    save_tokenizer(ours, tmp_path / 'tokenizer')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / 'tokenizer')
    assert theirs.eos_token == EOS and theirs.eos_token_id == ours.token_to_id(EOS) == theirs.bos_token_id == 0
    text = 'the amygdala, naïve 日本 of rats\n\n x'
    assert theirs(text)['input_ids'] == ours.encode(text).ids and theirs.decode(ours.encode(text).ids) == text


def test_a_stored_truncation_is_switched_off(tmp_path):
    tokenizer = train_tokenizer(['a b c d e f'], 300)
    tokenizer.enable_truncation(3)
    save_tokenizer(tokenizer, tmp_path / 'tokenizer')
    assert len(load_tokenizer(tmp_path / 'tokenizer').encode('a b c d e f').ids) > 3


def test_initial_weights_have_gpt2s_spread():
    model = GPT2(GPT2Config(5000, 6, 8, 256, 128))
    for name, p in model.named_parameters():
        want = 0.02 / 12 ** 0.5 if name.endswith('c_proj.weight') else 0.02
        if p.dim() == 2: assert abs(p.std().item() / want - 1) < 0.03 and abs(p.mean().item()) < want / 20, name
        else: assert torch.all(p == (1 if 'ln' in name and name.endswith('weight') else 0)), name


@pytest.mark.parametrize('wrong', [dict(n_layer=0), dict(eos_token_id=50257), dict(dropout=1.0), dict(dropout=-.1),
                                   dict(n_embd=36, rotary=True)], ids=str)
def test_contradictions_are_refused_when_the_configuration_is_made(wrong):
    with pytest.raises(ValueError): GPT2Config(**wrong)
    with pytest.raises(ValueError, match='gpt2-xl'): GPT2Config.preset('huge', 10)


@pytest.mark.parametrize('n', [1, 63, 64, 65, 1000])
def test_a_loss_in_pieces_cuts_into_about_equal_pieces_that_cover_all_rows(n, monkeypatch):
    monkeypatch.setattr(gpt2, '_MOST', 64 * 300)
    table = torch.empty(300, 1)
    sizes = [len(piece) for piece in torch.arange(n).split(gpt2._rows(table, n))]
    assert sum(sizes) == n and max(sizes) <= 64 and len(sizes) == -(-n // 64)


def test_the_tables_two_gradients_are_added_also_for_ids_that_repeat():
    model = noisy(GPT2Config(40, 1, 2, 16, 32))
    ids = torch.randint(5, (3, 32))                                                # few ids, so each comes often
    model(ids[:, :-1], ids[:, 1:]).backward()
    logits = model(ids[:, :-1])
    want, = torch.autograd.grad(F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()), model.wte.weight)
    assert torch.allclose(model.wte.weight.grad, want, atol=1e-6)
    model.wte.weight.requires_grad_(False)   # a table that must stay: the rest still learns
    loss = model(ids[:, :-1], ids[:, 1:])
    assert torch.autograd.grad(loss, model.ln_f.weight)[0].abs().sum() > 0


def test_sampling_keeps_its_promises():
    p = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    kept = lambda top_p: gpt2._nucleus(p, top_p).isfinite().sum().item()
    assert (kept(0.8), kept(0.81), kept(1.0)) == (2, 3, 4)
    draws = torch.stack([gpt2._choice(1.0, 2, None, s, 'cpu')(p) for s in range(300)])
    assert set(draws.flatten().tolist()) == {0, 1} and abs((draws == 0).float().mean() - 0.625) < 0.1


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
    assert torch.equal(writer.generate(full, 2, 0, slide=True)[:, -1], naive(writer, first[:, -24:], 1)[:, -1])
    ids, mask = left_pad([[3, 1, 4, 1, 5], [9, 2], [6, 5, 3]])
    slid = writer.generate(ids, 90, 0, mask=mask, slide=True)
    assert torch.equal(slid[:, :25], writer.generate(ids, 20, 0, mask=mask)) and slid.shape == (3, 95)


@pytest.mark.parametrize('wrong', [dict(temperature=-1), dict(top_k=0), dict(top_p=0.0), dict(n_new=-1),
                                   dict(n_new=100)], ids=str)
def test_what_cannot_be_written_is_refused(wrong, writer):
    with pytest.raises(ValueError): writer.generate(torch.zeros(1, 5, dtype=torch.long), **{**dict(n_new=1), **wrong})
    with pytest.raises(ValueError, match='48'): writer(torch.zeros(1, 49, dtype=torch.long))
    with pytest.raises(ValueError): left_pad([[1], []])


def test_the_mlp_bends_as_gpt2s_does():
    from transformers.activations import NewGELUActivation
    mlp = gpt2.MLP(GPT2Config(10, 1, 1, 1, 4))
    with torch.no_grad():
        for p in mlp.parameters(): p.zero_()
        mlp.c_fc.weight.fill_(1), mlp.c_proj.weight[0, 0].fill_(1)
        x = torch.linspace(-5, 5, 101)[:, None]                                    # erf's GELU is up to 5e-4 away
        assert (mlp(x) - NewGELUActivation()(x)).abs().max() < 1e-6


@pytest.mark.parametrize('changes', [{}, dict(relu2=True), dict(bias=False)], ids=str)
def test_the_mlps_gradients_are_the_numerical_ones(changes):
    torch.manual_seed(0)
    mlp = gpt2.MLP(GPT2Config(10, 1, 1, 3, 4, **changes)).double()
    x = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: mlp(x), (x, *mlp.parameters()))
