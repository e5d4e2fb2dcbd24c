"""Models that come as GGUF files and as adapters: transformers and peft are the judges."""
import json

import pytest
import torch
import transformers

from domain_llm.bench.scores import score_cases
from domain_llm.model.fast import GPT2, MODERN
from domain_llm.model.gpt2 import GPT2Config
from domain_llm.model.models import load_model
from domain_llm.model.weights import save_model
from domain_llm.text.synthetic import SyntheticScience
from domain_llm.tokens.tokenizer import save_tokenizer, train_tokenizer
from domain_llm.train.finetuning import add_lora
from test_real import write_gguf

peft = pytest.importorskip('peft')


@pytest.fixture(scope='module')
def adapted(tmp_path_factory):
    "Save a GPT-2 of ours, an adapter on it that has two tokens more, and what peft computes."
    home = tmp_path_factory.mktemp('models')
    tokenizer = train_tokenizer(['muscimol in the amygdala'] * 3, 300)
    torch.manual_seed(0)
    base = GPT2(GPT2Config(tokenizer.get_vocab_size(), 2, 2, 32, 256)).eval()
    for p in base.parameters(): torch.nn.init.normal_(p, std=0.2)
    save_model(base, home / 'base', tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(home / 'base')
    model = peft.get_peft_model(theirs, peft.LoraConfig(
        r=2, target_modules=['c_attn', 'c_fc'], fan_in_fan_out=True, task_type='CAUSAL_LM'))
    for p in model.parameters():
        if p.requires_grad: torch.nn.init.normal_(p, std=0.2)
    model.save_pretrained(home / 'adapter')
    return home, model.eval(), base


def test_an_adapter_is_merged_where_nothing_is_lost(adapted):
    home, judge, base = adapted
    ids = torch.arange(50)[None]
    with torch.no_grad():
        wanted, model = judge(ids).logits, load_model(home / 'adapter')[0]
        assert type(model) is transformers.GPT2LMHeadModel
        assert torch.allclose(model(ids).logits, wanted, rtol=1e-4, atol=1e-4)
        assert (wanted - base(ids)).abs().max() > 0.1
        half, _ = load_model(home / 'adapter', 'bfloat16')
    assert isinstance(half, peft.PeftModel) and half.dtype == torch.bfloat16
    # and it can be scored as it is
    cases, tokenizer = SyntheticScience(0).cases()[:9], load_model(home / 'base')[1]
    exact, rough = (score_cases(m, tokenizer, cases) for m in (model, half))
    assert abs(exact.log_margin - rough.log_margin).max() < 0.2
    assert rough.meta['dtype'] == 'bfloat16' and exact.meta['dtype'] == 'float32'


def test_an_adapter_may_bring_tokens(adapted):
    home, *_ = adapted
    tokenizer = transformers.AutoTokenizer.from_pretrained(home / 'base')
    tokenizer.add_tokens(['<new>', '<newer>'])
    tokenizer.save_pretrained(home / 'adapter')
    model, found = load_model(home / 'adapter')
    for file in (home / 'adapter').glob('tokenizer*'): file.unlink()
    assert len(found) == len(tokenizer) == model.get_input_embeddings().num_embeddings
    about = json.loads((home / 'adapter/adapter_config.json').read_text())
    nowhere = home / 'nowhere'
    nowhere.mkdir()
    (nowhere / 'adapter_config.json').write_text(json.dumps(
        about | dict(base_model_name_or_path=None)))
    with pytest.raises(ValueError, match='should give base_model_name_or_path'):
        load_model(nowhere)


def test_a_modern_model_that_transformers_has_finetuned_is_theirs(tmp_path):
    tokenizer = train_tokenizer(['muscimol in the amygdala'] * 3, 300)
    save_model(GPT2(GPT2Config(tokenizer.get_vocab_size(), 2, 2, 32, 16, **MODERN)),
               tmp_path / 'base', tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'base').eval()
    for name, p in theirs.named_parameters():
        if '_norm.' in name: torch.nn.init.normal_(p)
    theirs.save_pretrained(tmp_path / 'tuned')
    save_tokenizer(tokenizer, tmp_path / 'tuned')
    model, ids = load_model(tmp_path / 'tuned')[0], torch.arange(16)[None]
    assert isinstance(load_model(tmp_path / 'base')[0], GPT2)
    with torch.no_grad(): assert torch.equal(model(ids).logits, theirs(ids).logits)
    # and what is cut short is refused still
    (tmp_path / 'tuned/model.safetensors').write_bytes(b'cut')
    with pytest.raises(ValueError, match='cut short'): load_model(tmp_path / 'tuned')


def test_an_adapter_names_the_hub_and_no_machine(tmp_path, monkeypatch):
    cache = tmp_path / 'cache'
    tokenizer = train_tokenizer(['muscimol in the amygdala'] * 3, 300)
    save_model(GPT2(GPT2Config(tokenizer.get_vocab_size(), 2, 2, 32, 16)), cache, tokenizer)
    monkeypatch.setattr('huggingface_hub.snapshot_download', lambda *_, **__: str(cache))
    assert add_lora(load_model('some/gpt2')[0]).config.base_model_name_or_path == 'some/gpt2'
    assert add_lora(load_model(cache)[0]).config.base_model_name_or_path == str(cache)


def test_a_gguf_file_is_a_model(tmp_path):
    write_gguf(tmp_path / 'm.gguf')
    ids = torch.arange(20)[None]
    judge = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file='m.gguf', dtype=torch.float32).eval()
    for name in tmp_path, str(tmp_path / 'm.gguf'):
        model, tokenizer = load_model(name)
        assert not model.training and len(tokenizer) <= model.config.vocab_size
        with torch.no_grad(): assert torch.equal(model(ids).logits, judge(ids).logits)


def test_a_gpt2_with_a_tokenizer_of_bert_is_theirs(tmp_path):
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *'学习语言ab']
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=len(words), n_positions=32, n_embd=16, n_layer=1, n_head=2, bos_token_id=2,
        eos_token_id=3)).eval()
    theirs.save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match='should hold a tokenizer.json'):
        load_model(tmp_path)                          # transformers would take an empty one
    (tmp_path / 'vocab.txt').write_text('\n'.join(words) + '\n', 'utf-8')
    (tmp_path / 'tokenizer_config.json').write_text('{"tokenizer_class": "BertTokenizer"}')
    model, tokenizer = load_model(tmp_path)
    ids = torch.tensor([tokenizer('学习 语').input_ids])                       # (1, T)
    assert ids.tolist() == [[2, 5, 6, 7, 3]]
    with torch.no_grad(): assert torch.equal(model(ids).logits, theirs(ids).logits)
