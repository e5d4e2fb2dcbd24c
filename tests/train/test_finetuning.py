"""Finetuning models of two libraries, whole and by adapters, with those libraries as judges."""
import json, os, shutil

import pytest
import torch
from processes import HERE, on_one_rank
from small_runs import BATCHES, TEXT, fresh, outcome, recipe

from domain_llm.model.fast import MODERN, GPT2
from domain_llm.model.gpt2 import GPT2Config, PlainGPT2
from domain_llm.model.models import load_model
from domain_llm.model.weights import save_model
from domain_llm.tokens.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from domain_llm.train.distributed import Trainer
from domain_llm.train.finetuning import (
    LORA_RECIPE, Trainable, add_lora, lora_layers, merged)
from domain_llm.train.pretraining import pretrain
from domain_llm.train.recipe import Device, TrainConfig

transformers, peft = pytest.importorskip('transformers'), pytest.importorskip('peft')
pytestmark = pytest.mark.usefixtures('one_thread')
CPU = Device('cpu', torch.float32, 'a test')
ROWS = BATCHES[0]
IDS = torch.as_tensor(ROWS[0])                                                # (B, T)
LORA = TrainConfig(**{**LORA_RECIPE, 'steps': 8, 'tokens_per_step': 128, 'lr': 3e-2,
                      'eval_every': 4, 'save_every': 3})


def theirs(name):
    "Make a tiny model of transformers with the same random weights each time."
    sizes = dict(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                 intermediate_size=48, max_position_embeddings=16)
    sizes |= dict(gpt2=dict(n_inner=48), opt=dict(ffn_dim=48, word_embed_proj_dim=32)).get(name, {})
    config = transformers.AutoConfig.for_model(name, **sizes)
    torch.manual_seed(3)
    return transformers.AutoModelForCausalLM.from_config(config)


def ours(Model, **changes):
    torch.manual_seed(2)
    return Model(GPT2Config(50, 2, 2, 32, 16, **changes))


MODELS = dict(
    plain=lambda: ours(PlainGPT2), fast=lambda: ours(GPT2), modern=lambda: ours(GPT2, **MODERN),
    **{name: (lambda name=name: theirs(name)) for name in ('llama', 'gpt2', 'gpt_neox', 'opt')})


@pytest.mark.parametrize('where', ['attention', 'feed-forward', 'both'])
@pytest.mark.parametrize('name', MODELS)
def test_every_adapted_layer_is_heard_learns_and_is_merged(name, where):
    bare = MODELS[name]()
    if not hasattr(bare, 'cfg'): bare = Trainable(bare)
    with torch.no_grad(): before = bare.eval()(IDS)
    model = add_lora(MODELS[name](), where=where, dropout=0.0).eval()
    with torch.no_grad(): assert torch.equal(model(IDS), before)             # B is zero
    trainer = Trainer(model, LORA, device=CPU)
    for step in (2, 3): trainer.update(BATCHES[step], step)
    model.eval()
    learned = {n: p for n, p in model.named_parameters() if p.requires_grad}
    n_layers = 2 * len(lora_layers(MODELS[name](), where))
    assert len(learned) == 2 * n_layers and all('lora_' in n for n in learned)
    model(*map(torch.as_tensor, ROWS)).backward()
    assert all(p.grad.abs().sum() > 0 for p in learned.values())
    with torch.no_grad():
        apart = model(*map(torch.as_tensor, ROWS)), bare(*map(torch.as_tensor, ROWS))
        assert abs(apart[0] - apart[1]) > 1e-4
        adapted, weights = model(IDS), {n: p.clone() for n, p in model.named_parameters()}
        with merged(model) as whole:
            assert not any('lora_' in n for n, _ in whole.named_parameters())
            assert torch.allclose(whole(IDS), adapted, atol=1e-5)
        assert all(torch.equal(p, weights[n]) for n, p in model.named_parameters())
        # each layer by itself
        for n, p in learned.items():
            if 'lora_B' not in n: continue
            kept = p.clone()
            p.zero_()
            assert not torch.equal(model(IDS), adapted), n
            p.copy_(kept)


def test_a_layer_that_a_model_computes_past_is_refused_by_name(monkeypatch):
    def past(self, x): return torch.nn.functional.linear(
        torch.nn.functional.gelu(self.c_fc(x)), self.c_proj.weight)
    monkeypatch.setattr('domain_llm.model.gpt2.MLP.forward', past)
    with pytest.raises(ValueError, match=r'past that of model.h.0.mlp.c_proj'):
        add_lora(ours(PlainGPT2))


def base(tmp_path, kind):
    "Write a small model with its tokenizer, and give its folder."
    tokenizer = train_tokenizer(['rats learn and rest and eat'] * 3, 257 + 10)
    torch.manual_seed(4)
    V = tokenizer.get_vocab_size()
    if kind == 'llama':
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
            vocab_size=V, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=16, eos_token_id=0))
        model.save_pretrained(tmp_path / 'base')
    else:
        changes = MODERN if kind == 'modern' else {}
        save_model(GPT2(GPT2Config(V, 2, 2, 32, 16, **changes)), tmp_path / 'base')
    save_tokenizer(tokenizer, tmp_path / 'base')
    return tmp_path / 'base'


@pytest.mark.parametrize('kind', ['llama', 'gpt2', 'modern'])
def test_model_and_adapter_are_loaded_by_us_and_by_transformers(tmp_path, kind):
    folder = base(tmp_path, kind)
    model, tokenizer = load_model(folder)
    if kind == 'llama': model = Trainable(model, tokenizer)
    adapted = add_lora(model)
    pretrain(adapted, BATCHES, LORA, tmp_path / 'run', TEXT[:200], device=CPU)
    if kind != 'llama':
        for name in ('model', 'best'): save_tokenizer(tokenizer, tmp_path / 'run' / name)
    with torch.no_grad():
        wanted, before = adapted.eval()(IDS), load_model(folder)[0](IDS)
        assert not torch.allclose(getattr(before, 'logits', before), wanted, atol=1e-3)
        for place in ('model', 'adapter'):
            found = load_model(tmp_path / 'run' / place)[0](IDS)
            found = getattr(found, 'logits', found)
            assert torch.allclose(found, wanted, atol=1e-5), place
        plain = transformers.AutoModelForCausalLM.from_pretrained(folder)
        judge = peft.PeftModel.from_pretrained(plain, tmp_path / 'run/adapter').eval()
        assert torch.allclose(judge(IDS).logits, wanted, atol=1e-5)
        merged_by_us = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'run/model')
        assert torch.allclose(merged_by_us.eval()(IDS).logits, wanted, atol=1e-5)


@pytest.mark.parametrize('change', [lambda model: model, add_lora], ids=['whole', 'adapter'])
def test_either_kind_of_tokenizer_is_saved_beside_a_model(tmp_path, change):
    base(tmp_path, 'llama')
    net, known = load_model(tmp_path / 'base')
    plain = load_tokenizer(tmp_path / 'base')
    own = change(Trainable(net, plain))
    for given in None, known, plain:
        save_model(own, tmp_path / 'saved', given)
        assert load_model(tmp_path / 'saved')[1].get_vocab() == plain.get_vocab()
        shutil.rmtree(tmp_path / 'saved')


def adapter_run(folder, start=fresh, **how):
    pretrain(add_lora(start()), BATCHES, LORA, folder, TEXT[:200], device=CPU, **how)
    adapter = (folder / 'adapter/adapter_model.safetensors').read_bytes()
    return outcome(folder), adapter


def test_an_adapter_resumes_bit_for_bit_and_on_its_base_alone(tmp_path):
    from safetensors import safe_open
    wanted = adapter_run(tmp_path / 'alone')
    def stop(model, step):
        if step == 4: raise InterruptedError('stop here')
        return {}
    with pytest.raises(InterruptedError): adapter_run(tmp_path / 'a', evaluate=stop)
    state = tmp_path / 'a/checkpoints/step-00000003/state.safetensors'
    with safe_open(state, 'pt') as file: assert all('lora_' in n for n in file.keys())
    def other():
        torch.manual_seed(9)
        return GPT2(fresh().cfg)
    kept = state.read_bytes()
    with pytest.raises(ValueError, match='go on from the model with whose weights it began'):
        adapter_run(tmp_path / 'a', other)
    assert state.read_bytes() == kept
    torch.rand(5)
    assert adapter_run(tmp_path / 'a') == wanted
    config = json.loads((tmp_path / 'a/config.json').read_text())
    assert len(config['frozen']) == 64 and config['model']['adapter'].startswith('LoRA r 8')


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_an_adapter_that_was_killed_ends_as_one_left_alone(tmp_path):
    found = on_one_rank(tmp_path, HERE / 'killed_run.py', 'adapter', 1)
    assert found == dict(threads=1)


def test_a_model_that_is_frozen_in_part_resumes_too(tmp_path):
    def top():
        model = fresh()
        model.requires_grad_(False).h[1].requires_grad_(True)
        return model
    def run(folder, **how):
        model = top()
        pretrain(model, BATCHES, recipe(steps=6, save_every=2), folder, device=CPU, **how)
        return model.state_dict()
    def stop(model, step):
        if step == 4: raise InterruptedError('stop here')
        return {}
    wanted = run(tmp_path / 'alone')
    with pytest.raises(InterruptedError): run(tmp_path / 'a', evaluate=stop)
    found = run(tmp_path / 'a')
    assert all(torch.equal(found[n], t) for n, t in wanted.items())
    assert torch.equal(found['wte.weight'], fresh().wte.weight)
    assert not torch.equal(found['h.1.ln_1.weight'], fresh().h[1].ln_1.weight)


def test_what_is_not_for_an_adapter_is_refused():
    for what in (dict(muon_lr=0.02), dict(compile=True), dict(shard=True)):
        config = TrainConfig(**{**LORA_RECIPE, 'steps': 1, 'tokens_per_step': 128, **what})
        with pytest.raises(ValueError, match=f'`{next(iter(what))}` should be left out'):
            Trainer(add_lora(fresh()), config, device=CPU)
    with pytest.raises(ValueError, match='should be in float32'): Trainable(theirs('llama').half())
    with pytest.raises(ValueError, match='`where` should be one of'): add_lora(fresh(), where='mlp')
    with pytest.raises(ValueError, match='finetune it whole'): add_lora(ours(GPT2, rms_norm=True))


def test_memory_that_runs_out_halves_and_then_recomputes(monkeypatch):
    model = add_lora(theirs('llama'), dropout=0.0)
    once = Trainer(model, LORA, device=CPU)
    wanted = once.update(BATCHES[2], 2)
    model, tried = add_lora(theirs('llama'), dropout=0.0), []
    forward = type(model.model).forward
    def small(self, ids, targets=None):
        tried.append(len(ids))
        if len(ids) > 1 or not self.recompute: raise torch.OutOfMemoryError('no')
        return forward(self, ids, targets)
    monkeypatch.setattr(type(model.model), 'forward', small)
    again = Trainer(model, LORA, device=CPU).update(BATCHES[2], 2)              # loss, and norm
    assert all(abs(a - b) < 1e-4 * b for a, b in zip(again, wanted))
    assert model.recompute and {8, 4, 2, 1} <= set(tried)


def test_text_is_written_as_reading_it_whole_would_write_it():
    model = Trainable(theirs('llama')).eval()
    ids = IDS[:2, :4]
    for _ in range(6): ids = torch.cat([ids, model(ids)[:, -1].argmax(-1, keepdim=True)], 1)
    assert torch.equal(model.generate(IDS[:2, :4], 6, temperature=0), ids)
    assert torch.equal(*(model.generate(IDS[:2, :4], 6, 0.8, seed=1) for _ in range(2)))
