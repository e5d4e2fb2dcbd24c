"""Weights that go to transformers and come back, and files that are refused."""
import json, pickle
from unittest.mock import patch

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from domain_llm.model import weights
from domain_llm.model.fast import MODERN, GPT2
from domain_llm.model.gpt2 import GPT2Config, PlainGPT2
from domain_llm.model.weights import hidden_states, load_model, save_model
from domain_llm.tokens.tokenizer import EOS, load_tokenizer, save_tokenizer, train_tokenizer
from noisy_models import noisy, theirs_from


def test_their_checkpoint_loads_here(pair):
    ours, theirs, tmp_path = pair
    theirs.save_pretrained(tmp_path / 'theirs')
    again = load_model(tmp_path / 'theirs')
    assert (
        all(
            torch.equal(a, b)
            for a, b in zip(ours.state_dict().values(), again.state_dict().values())
        )
        and not again.training
    )
    # it can be trained on
    again(torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, 3, dtype=torch.long)).backward()


def test_shards_old_bins_and_prefixes_load(small, tmp_path):
    ours, folder = small
    theirs = theirs_from(folder)
    theirs.save_pretrained(tmp_path / 'shards', max_shard_size='5KB')
    assert len(list((tmp_path / 'shards').glob('*.safetensors'))) > 1
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin/config.json').write_text((folder / 'config.json').read_text())
    # lm_head.weight too
    torch.save(
        {f'_orig_mod.module.{n}': t for n, t in theirs.state_dict().items()},
        tmp_path / 'bin/pytorch_model.bin',
    )
    for name in ('shards', 'bin'):
        again = load_model(tmp_path / name)
        assert again.cfg == ours.cfg and all(
            torch.equal(a, again.state_dict()[n]) for n, a in ours.state_dict().items()
        )
    next((tmp_path / 'shards').glob('*-00002-of-*')).unlink()
    with pytest.raises(FileNotFoundError, match='00002.*copy it'): load_model(tmp_path / 'shards')


class Evil:
    def __reduce__(self): return exec, ("open('harm', 'w')",)


def test_a_bin_that_carries_code_is_refused_and_the_code_not_run(small, monkeypatch):
    _, folder = small
    monkeypatch.chdir(folder)
    (folder / 'model.safetensors').unlink()
    (folder / 'pytorch_model.bin').write_bytes(pickle.dumps({'wte.weight': Evil()}))
    with pytest.raises(ValueError, match='cannot be read'): load_model(folder)
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
        (folder / 'config.json').write_text(
            json.dumps({k: v for k, v in (config | changes).items() if v != 'lost'})
        )
    return act


def halve(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:150])


BROKEN = {
    'missing': (
        break_tensors(lambda t: t.pop('transformer.ln_f.weight')),
        r'ln_f.weight should be \[16\] but the file has no such tensor',
    ),
    'extra': (
        break_tensors(lambda t: t.update({'transformer.h.7.x': torch.zeros(1)})),
        r'h.7.x should be no such tensor but the file has \[1\]',
    ),
    'misshapen': (
        break_tensors(lambda t: t.update({'transformer.wpe.weight': torch.zeros(31, 16)})),
        r'wpe.weight should be \[32, 16\] but the file has \[31, 16\]',
    ),
    'untied head': (
        break_tensors(lambda t: t.update({'lm_head.weight': torch.zeros(60, 16)})),
        'lm_head.weight should equal',
    ),
    'tensors cut short': (halve('model.safetensors'), 'cut short'),
    'config cut short': (halve('config.json'), 'cut short'),
    'another activation': (
        break_config(activation_function='relu'),
        "activation_function = gelu_new .* 'relu'",
    ),
    'another kind of model': (break_config(model_type='llama'), "model_type = gpt2 .* 'llama'"),
    'another width inside': (break_config(n_inner=17), 'n_inner'),
    'no width': (break_config(n_embd='lost'), 'should give n_embd'),
    'no config': (
        lambda folder: (folder / 'config.json').unlink(),
        'config.json should be .*, but there is no such',
    ),
    'no tensors': (lambda folder: (folder / 'model.safetensors').unlink(), 'has no tensors'),
}


@pytest.mark.parametrize('act, message', BROKEN.values(), ids=BROKEN)
def test_a_checkpoint_that_does_not_fit_is_refused_in_a_sentence(act, message, small):
    _, folder = small
    act(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error: load_model(folder)
    assert '\n' not in str(error.value)


def test_a_plain_name_is_looked_up_on_the_hub_and_a_path_is_not(small, tmp_path):
    import huggingface_hub
    ours, folder = small
    with patch.object(huggingface_hub, 'snapshot_download', return_value=str(folder)) as fetch:
        assert load_model('somebody/model').cfg == ours.cfg and fetch.call_args.args == (
            'somebody/model',
        )
    with patch.object(huggingface_hub, 'snapshot_download', side_effect=OSError('no network')):
        with pytest.raises(FileNotFoundError, match='no folder somebody/model.*OSError'):
            load_model('somebody/model')
    with patch.object(huggingface_hub, 'snapshot_download', side_effect=AssertionError):
        with pytest.raises(FileNotFoundError, match='there is no'): load_model(tmp_path / 'nothing')


@pytest.mark.parametrize('changes', [dict(bias=False), dict(dropout=0.1)], ids=str)
def test_variants_with_a_gpt2_layout_come_back_and_agree(changes, tmp_path):
    ours = noisy(GPT2Config(60, 2, 2, 16, 32, **changes)).eval()
    save_model(ours, tmp_path / 'model')
    theirs, ids = theirs_from(tmp_path / 'model'), torch.randint(60, (2, 32))
    assert (ours(ids) - theirs(ids).logits).abs().max() < 1e-5
    again = load_model(tmp_path / 'model')
    assert again.cfg == ours.cfg and torch.equal(again(ids), ours(ids))


def test_model_and_tokenizer_in_one_folder(small, tmp_path):
    tokenizer = train_tokenizer(['muscimol in the amygdala'] * 5, 300)
    save_model(small[0], tmp_path / 'both', tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / 'both')
    assert theirs('the amygdala')['input_ids'] == tokenizer.encode('the amygdala').ids
    assert load_model(tmp_path / 'both').cfg == theirs_cfg(tmp_path / 'both') == small[0].cfg


def theirs_cfg(folder):
    return weights._own_config(transformers.AutoConfig.from_pretrained(folder).to_dict(), folder)


def test_tokenizer_loads_with_the_right_end_of_text(tmp_path):
    texts = ['muscimol in the amygdala', 'the hippocampus of rats'] * 10
    ours = train_tokenizer(texts, 300)
    save_tokenizer(ours, tmp_path / 'tokenizer')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / 'tokenizer')
    assert (
        theirs.eos_token == EOS
        and theirs.eos_token_id == ours.token_to_id(EOS) == theirs.bos_token_id == 0
    )
    text = 'the amygdala, naïve 日本 of rats\n\n x'
    assert (
        theirs(text)['input_ids'] == ours.encode(text).ids
        and theirs.decode(ours.encode(text).ids) == text
    )


def test_a_stored_truncation_is_switched_off(tmp_path):
    tokenizer = train_tokenizer(['a b c d e f'], 300)
    tokenizer.enable_truncation(3)
    save_tokenizer(tokenizer, tmp_path / 'tokenizer')
    assert len(load_tokenizer(tmp_path / 'tokenizer').encode('a b c d e f').ids) > 3


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_computes_saves_and_loads(dtype, small, tmp_path):
    model, _ = small
    ids = torch.randint(60, (2, 33))
    want = model(ids[:, :-1], ids[:, 1:])
    model.to(dtype)
    loss = model(ids[:, :-1], ids[:, 1:])
    loss.backward()
    assert (
        abs(loss - want) < 0.1
        and model.wte.weight.grad.dtype == dtype
        and model(ids[:, :-1]).dtype == dtype
    )
    assert model.generate(ids[:, :4], 5, 0).shape == (2, 9)
    save_model(model, tmp_path / 'half')
    assert json.loads((tmp_path / 'half/config.json').read_text())['torch_dtype'] == str(
        dtype
    ).removeprefix('torch.')
    assert load_model(tmp_path / 'half').wte.weight.dtype == torch.float32


def test_the_plain_model_is_saved_in_the_same_words(tmp_path):
    plain = noisy(GPT2Config(60, 2, 2, 16, 32), Model=PlainGPT2)
    save_model(plain, tmp_path / 'plain')
    again = load_model(tmp_path / 'plain')
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in plain.state_dict().items())
    theirs, ids = theirs_from(tmp_path / 'plain'), torch.randint(60, (2, 32))
    assert (plain(ids) - theirs(ids).logits).abs().max() < 1e-5


@pytest.mark.parametrize('Model', [GPT2, PlainGPT2])
def test_our_hidden_states_are_those_of_transformers(pair, Model):
    ours, theirs, _ = pair
    model = Model(ours.cfg).eval()
    model.load_state_dict(ours.state_dict())
    ids = torch.randint(
        ours.cfg.vocab_size, (3, ours.cfg.n_ctx), generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        found, wanted = (
            hidden_states(model, ids),
            theirs(ids, output_hidden_states=True).hidden_states,
        )
        assert len(found) == len(wanted) == ours.cfg.n_layer + 1
        for a, b in zip(found, wanted):
            assert torch.allclose(a, b, atol=1e-4 * b.abs().max().item())
        assert all(torch.equal(a, b) for a, b in zip(hidden_states(theirs, ids), wanted))
        assert torch.equal(model.logits(found[-1]), model(ids))


def test_hidden_states_of_a_llama_and_of_our_modern_model():
    config = transformers.LlamaConfig(
        vocab_size=60,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
    )
    ids = torch.arange(10)[None]
    with torch.no_grad():
        assert (
            len(hidden_states(transformers.AutoModelForCausalLM.from_config(config).eval(), ids))
            == 4
        )
        model = noisy(GPT2Config(60, 2, 2, 16, 32, **MODERN), 0.3).eval()
        states = hidden_states(model, ids)
        # positions are turned in, not added
        assert torch.equal(states[0], model.wte(ids))
        assert torch.equal(states[-1], model.ln_f(model.h[1](states[1], last_reading(model, ids))))


def last_reading(model, ids):
    "What the blocks are told beside the vectors, caught on the way."
    seen = []
    hook = model.h[-1].register_forward_pre_hook(lambda block, inputs: seen.append(inputs[1]))
    model.hidden(ids)
    hook.remove()
    return seen[0]


def test_listening_leaves_nothing_behind_and_gradients_flow(small):
    model, _ = small
    hidden_states(model, torch.arange(5)[None])[1].sum().backward()
    assert (
        model.h[0].mlp.c_fc.weight.grad.abs().sum() > 0 and model.h[1].mlp.c_fc.weight.grad is None
    )
    with pytest.raises(ValueError, match='at most 32'):
        hidden_states(model, torch.zeros(1, 33, dtype=torch.long))
    assert not any(block._forward_pre_hooks for block in model.h)
