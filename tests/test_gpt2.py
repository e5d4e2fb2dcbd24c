"""GPT-2 against an independent implementation: the one in transformers."""
import pytest
import torch
import transformers

from domain_llm.gpt2 import GPT2, GPT2Config
from domain_llm.tokenizer import EOS, load_tokenizer, save_tokenizer, train_tokenizer

SHAPES = {'toy': (2, 4, 128, 64, 300), 'gpt2, 2 layers': (2, 12, 768, 128, 1000), 'odd': (1, 3, 33, 17, 257)}


@pytest.fixture(params=SHAPES)
def pair(request, tmp_path):
    n_layer, n_head, n_embd, n_ctx, vocab = SHAPES[request.param]
    torch.manual_seed(0)
    ours = GPT2(GPT2Config(vocab, n_layer, n_head, n_embd, n_ctx))
    for p in ours.parameters(): torch.nn.init.normal_(p, std=0.05)     # biases and gains too, so that none can hide
    ours.save_pretrained(tmp_path / 'model')
    return ours, transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'model').eval(), tmp_path


def test_logits_loss_and_every_gradient_agree(pair):
    ours, theirs, _ = pair
    ids = torch.randint(ours.cfg.vocab_size, (3, ours.cfg.n_ctx))
    assert (ours(ids) - theirs(ids).logits).abs().max() < 1e-4
    loss, judge = ours(ids[:, :-1], ids[:, 1:]), theirs(ids, labels=ids).loss
    assert abs(loss.item() - judge.item()) < 1e-5
    loss.backward(), judge.backward()
    grads = {n.removeprefix('transformer.'): p.grad for n, p in theirs.named_parameters()}
    for name, p in ours.named_parameters():
        want = grads[name].T if grads[name].shape != p.shape or name.endswith(('c_attn.weight', 'c_proj.weight', 'c_fc.weight')) else grads[name]
        assert (p.grad - want).abs().max() < 1e-5, name


def test_their_checkpoint_loads_here(pair):
    ours, theirs, tmp_path = pair
    theirs.save_pretrained(tmp_path / 'theirs')
    again = GPT2.from_pretrained(tmp_path / 'theirs')
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), again.state_dict().values())) and not again.training


def test_a_checkpoint_that_does_not_fit_is_refused_in_a_sentence(pair):
    ours, _, tmp_path = pair
    from safetensors.torch import load_file, save_file
    path = tmp_path / 'model/model.safetensors'
    tensors = load_file(path)
    tensors.pop('transformer.ln_f.weight')
    save_file(tensors, path)
    with pytest.raises(ValueError, match='ln_f.weight should be .* no such tensor'): GPT2.from_pretrained(tmp_path / 'model')


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
