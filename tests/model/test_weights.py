"""Weights and tokenizers that go to transformers and come back."""
from dataclasses import replace

import pytest
import torch
import transformers

from domain_llm.model import weights
from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config, PlainGPT2
from domain_llm.model.weights import hidden_states, load_gpt2, save_model
from domain_llm.tokens.tokenizer import EOS, load_tokenizer, save_tokenizer, train_tokenizer
from noisy_models import noisy, theirs_from


def same_weights(model, other):
    there = other.state_dict()
    return all(torch.equal(t, there[name]) for name, t in model.state_dict().items())


def test_their_checkpoint_loads_here(pair):
    ours, theirs, tmp_path = pair
    theirs.save_pretrained(tmp_path / 'theirs')
    again = load_gpt2(tmp_path / 'theirs')
    assert same_weights(ours, again) and not again.training
    ids = torch.zeros(1, 3, dtype=torch.long)
    again(ids, ids).backward()                                # it can be trained on


def test_shards_old_bins_and_prefixes_load(small, tmp_path):
    ours, folder = small
    theirs = theirs_from(folder)
    theirs.save_pretrained(tmp_path / 'shards', max_shard_size='5KB')
    assert len(list((tmp_path / 'shards').glob('*.safetensors'))) > 1
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin/config.json').write_text((folder / 'config.json').read_text())
    prefixed = {f'_orig_mod.module.{n}': t for n, t in theirs.state_dict().items()}
    assert '_orig_mod.module.lm_head.weight' in prefixed
    torch.save(prefixed, tmp_path / 'bin/pytorch_model.bin')
    for name in ('shards', 'bin'):
        again = load_gpt2(tmp_path / name)
        assert again.cfg == ours.cfg and same_weights(ours, again)
    next((tmp_path / 'shards').glob('*-00002-of-*')).unlink()
    with pytest.raises(FileNotFoundError, match='00002.*copy it'): load_gpt2(tmp_path / 'shards')


@pytest.mark.parametrize('changes', [dict(bias=False), dict(dropout=0.1)], ids=str)
def test_variants_with_a_gpt2_layout_come_back_and_agree(changes, tmp_path):
    ours = noisy(GPT2Config(60, 2, 2, 16, 32, **changes)).eval()
    save_model(ours, tmp_path / 'model')
    theirs, ids = theirs_from(tmp_path / 'model'), torch.randint(60, (2, 32))
    assert (ours(ids) - theirs(ids).logits).abs().max() < 1e-5
    again = load_gpt2(tmp_path / 'model')
    assert again.cfg == ours.cfg and torch.equal(again(ids), ours(ids))


KNOWN = (dict(), dict(rotary=True), dict(rotary=True, rms_norm=True))


@pytest.mark.parametrize('relu2', [False, True])
@pytest.mark.parametrize('parts', [
    *({**parts, 'bias': bias} for parts in KNOWN for bias in (True, False)),
    dict(rotary=True, rms_norm=True, qk_norm=True, bias=False)], ids=str)
def test_what_came_after_gpt2_is_what_transformers_calls_by_another_name(parts, relu2, tmp_path):
    ours = noisy(GPT2Config(60, 2, 2, 16, 32, **parts, relu2=relu2), 0.3).eval()
    save_model(ours, tmp_path / 'model')
    theirs, ids = theirs_from(tmp_path / 'model'), torch.randint(60, (2, 32))
    with torch.no_grad():
        assert (ours(ids) - theirs(ids).logits).abs().max() < 1e-5 * ours(ids).abs().max()
        theirs.save_pretrained(tmp_path / 'theirs')
        again = load_gpt2(tmp_path / 'theirs')
        assert torch.allclose(again(ids), ours(ids), rtol=1e-5, atol=1e-5)
    assert replace(again.cfg, bias=ours.cfg.bias) == ours.cfg


@pytest.mark.parametrize('parts', KNOWN, ids=str)
def test_biases_that_another_program_trained_are_kept(parts, tmp_path):
    ours = noisy(GPT2Config(60, 2, 2, 16, 32, **parts, bias=False), 0.3).eval()
    save_model(ours, tmp_path / 'model')
    theirs, ids = theirs_from(tmp_path / 'model'), torch.randint(60, (2, 32))
    for name, p in theirs.named_parameters():
        if name.endswith('bias'): torch.nn.init.normal_(p)
    theirs.save_pretrained(tmp_path / 'tuned')
    again = load_gpt2(tmp_path / 'tuned')
    with torch.no_grad():
        assert torch.allclose(again(ids), theirs(ids).logits, rtol=1e-5, atol=1e-4)
        assert (again(ids) - ours(ids)).abs().max() > 0.1
    assert again.cfg == replace(ours.cfg, bias=True)


def test_the_plain_model_is_saved_in_the_same_words(tmp_path):
    plain = noisy(GPT2Config(60, 2, 2, 16, 32), Model=PlainGPT2)
    save_model(plain, tmp_path / 'plain')
    assert same_weights(plain, load_gpt2(tmp_path / 'plain'))
    theirs, ids = theirs_from(tmp_path / 'plain'), torch.randint(60, (2, 32))
    assert (plain(ids) - theirs(ids).logits).abs().max() < 1e-5


def test_model_and_tokenizer_in_one_folder(small, tmp_path):
    tokenizer = train_tokenizer(['muscimol in the amygdala'] * 5, 300)
    save_model(small[0], tmp_path / 'both', tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / 'both')
    assert theirs('the amygdala')['input_ids'] == tokenizer.encode('the amygdala').ids
    their_config = transformers.AutoConfig.from_pretrained(tmp_path / 'both').to_dict()
    assert load_gpt2(tmp_path / 'both').cfg == small[0].cfg
    assert weights._own_config(their_config, tmp_path) == small[0].cfg


def test_tokenizer_loads_with_the_right_end_of_text(tmp_path):
    ours = train_tokenizer(['muscimol in the amygdala', 'the hippocampus of rats'] * 10, 300)
    save_tokenizer(ours, tmp_path / 'tokenizer')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / 'tokenizer')
    assert theirs.eos_token == EOS
    assert theirs.eos_token_id == ours.token_to_id(EOS) == theirs.bos_token_id == 0
    text = 'the amygdala, naïve 日本 of rats\n\n x'
    assert theirs(text)['input_ids'] == ours.encode(text).ids
    assert theirs.decode(ours.encode(text).ids) == text


def test_a_stored_truncation_is_switched_off(tmp_path):
    tokenizer = train_tokenizer(['a b c d e f'], 300)
    tokenizer.enable_truncation(3)
    save_tokenizer(tokenizer, tmp_path / 'tokenizer')
    assert len(load_tokenizer(tmp_path / 'tokenizer').encode('a b c d e f').ids) > 3


@pytest.mark.parametrize('Model', [GPT2, PlainGPT2])
def test_our_hidden_states_are_those_of_transformers(pair, Model):
    ours, theirs, _ = pair
    model = Model(ours.cfg).eval()
    model.load_state_dict(ours.state_dict())
    rng = torch.Generator().manual_seed(1)
    ids = torch.randint(ours.cfg.vocab_size, (3, ours.cfg.n_ctx), generator=rng)     # (B, T)
    with torch.no_grad():
        found = hidden_states(model, ids)
        wanted = theirs(ids, output_hidden_states=True).hidden_states
        assert len(found) == len(wanted) == ours.cfg.n_layer + 1
        for a, b in zip(found, wanted):
            assert torch.allclose(a, b, atol=1e-4 * b.abs().max().item())
        assert all(torch.equal(a, b) for a, b in zip(hidden_states(theirs, ids), wanted))
        assert torch.equal(model.logits(found[-1]), model(ids))


def test_a_llama_has_hidden_states_too():
    config = transformers.LlamaConfig(vocab_size=60, hidden_size=16, num_hidden_layers=3,
                                      num_attention_heads=2, intermediate_size=32)
    llama = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad(): assert len(hidden_states(llama, torch.arange(10)[None])) == 4
