"""Any causal model of transformers, scored as a plain loop scores it: one text, one call, one sum.

Nothing of ours takes part in the loop but the cases. The public workflow also runs this file with
the older release of transformers that Colab has.
"""
import math

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from domain_llm.bench import branches
from domain_llm.bench.losses import PROMPT, context_length, fewer_when_full, first_tokens
from domain_llm.bench.scores import score_cases
from domain_llm.model.weights import hidden_states
from domain_llm.text.synthetic import Case, SyntheticScience
from domain_llm.tokens.tokenizer import EOS, save_tokenizer, train_tokenizer

pytestmark = pytest.mark.usefixtures('one_thread')

SIZES = dict(vocab_size=400, hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
KV = dict(**SIZES, num_key_value_heads=1, intermediate_size=48)
FAMILIES = {
    'gpt2': dict(vocab_size=400, n_embd=32, n_layer=2, n_head=2),
    'llama': KV,
    'mistral': KV,
    'qwen2': KV,
    'sliding mistral': dict(**KV, sliding_window=16),
    'gemma': dict(**KV, head_dim=16),
    'gpt_neox': dict(**SIZES, intermediate_size=48),
    'opt': dict(**SIZES, ffn_dim=48, word_embed_proj_dim=32),
    'bloom': dict(vocab_size=400, hidden_size=32, n_layer=2, n_head=2),
    'mamba': dict(vocab_size=400, hidden_size=32, num_hidden_layers=2, state_size=4),
}
WHOLE = 'sliding mistral', 'mamba'      # what they have read cannot be cut back


def random_model(family):
    config = transformers.AutoConfig.for_model(family.split()[-1], **FAMILIES[family])
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    for p in model.parameters(): torch.nn.init.normal_(p, std=0.2)
    return model


def beginning(ids_of):
    "Give a copy of the small tokenizer that puts a token before every text, as Llama's does."
    copy = Tokenizer.from_str(ids_of.to_str())
    copy.add_special_tokens(['<s>'])
    copy.post_processor = TemplateProcessing('<s> $A', special_tokens=[('<s>', 399)])
    return copy


@pytest.fixture(scope='module')
def world():
    "Make nine cases, whose versions part early, late and never, and two tokenizers."
    cases = SyntheticScience(0).cases()[:8]
    cases.append(Case('longer', cases[0].original, cases[0].original + ' So be it.'))
    plain = train_tokenizer([t for c in cases for t in (c.original, c.altered)], 399)
    assert plain.get_vocab_size() == 399
    return cases, {'</s>': plain, '<s>': beginning(plain)}


def plain_loop(model, ids, counted):
    "Read one row of ids in one call; give the mean loss of its last `counted` tokens."
    row = torch.tensor([ids])
    with torch.no_grad(): logits = model(input_ids=row).logits[0].double()
    losses = -torch.log_softmax(logits[:-1], -1)[torch.arange(len(ids) - 1), row[0, 1:]]
    return losses[-counted:].mean().item()


@pytest.mark.parametrize('family', FAMILIES)
def test_every_family_scores_as_a_plain_loop(family, world, capsys):
    (cases, tokenizers), model = world, random_model(family)
    for name, tokenizer in tokenizers.items():
        first = tokenizer.token_to_id('<s>' if name == '<s>' else EOS)
        def ids(text): return tokenizer.encode(text, add_special_tokens=False).ids
        for protocol in 'default', 'paper':
            wanted = []
            for text in (t for c in cases for t in (c.original, c.altered)):
                own, before = ids(' ' + text), ids('In short:')
                if protocol == 'default': row, n = [first, *before, *own], len(own)
                else:
                    row = [*([first] if name == '<s>' else []), *ids('In short: ' + text)]
                    n = len(row) - 1
                wanted.append(plain_loop(model, row, n))
            for how in dict(), dict(share=False), dict(share=False, batch_size=4):
                scores = score_cases(model, tokenizer, cases, protocol, 'In short: ', **how)
                found = np.log(scores.frame[['original', 'altered']].to_numpy().ravel())
                assert np.allclose(found, wanted, rtol=1e-5, atol=0), (name, protocol, how)
                put_there = protocol == 'default' or name == '<s>'
                assert scores.meta['first_id'] == (first if put_there else None)
                said = capsys.readouterr().out
                assert ('more slowly' in said) == (not how and family in WHOLE), said


def test_what_a_model_has_read_is_not_read_again(world, monkeypatch):
    (cases, tokenizers), model, read = world, random_model('llama'), []
    hook = model.model.embed_tokens.register_forward_hook(lambda *a: read.append(a[2].shape[1]))
    rows = [tokenizers['<s>'].encode(PROMPT + t).ids
            for c in cases for t in (c.original, c.altered)]
    with torch.no_grad(): list(branches._kept_losses(model, rows))
    hook.remove()
    new = [len(b) - branches._common(a, b) + 1 for a, b in zip(rows, rows[1:])]
    assert read == [len(rows[0]), *new] and sum(read) < 0.7 * sum(map(len, rows))


def test_both_wrappers_of_one_folder_give_the_same_numbers(world, tmp_path):
    (cases, tokenizers), model = world, random_model('llama')
    for name, tokenizer in tokenizers.items():
        save_tokenizer(tokenizer, tmp_path / 't')
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / 't')
        theirs.pad_token, theirs.padding_side = EOS, 'left'
        theirs(['a b', 'c'], padding='max_length', truncation=True, max_length=3)   # it remembers
        alone = Tokenizer.from_file(str(tmp_path / 't/tokenizer.json'))
        alone.enable_truncation(5)
        for protocol in 'default', 'paper':
            one, two = (score_cases(model, t, cases[:2], protocol) for t in (theirs, alone))
            assert one.frame.equals(two.frame) and one.meta['first_id'] == two.meta['first_id']


def test_what_a_document_begins_with(world):
    plain, begins = world[1].values()
    class Own:
        def __init__(self, **config): self.config = transformers.LlamaConfig(**config)
    assert first_tokens(begins) == ([399], 1) == first_tokens(begins, None, 'paper')
    assert first_tokens(plain) == ([0], 0) and first_tokens(plain, None, 'paper') == ([], 0)
    two = beginning(plain)
    two.post_processor = TemplateProcessing('<s> <s> $A <s>', special_tokens=[('<s>', 399)])
    assert first_tokens(two) == ([399, 399], 2)
    closes = beginning(plain)                               # what only ends a text begins none
    closes.post_processor = TemplateProcessing('$A <s>', special_tokens=[('<s>', 399)])
    assert first_tokens(closes) == ([0], 0)
    nameless = Tokenizer.from_str(plain.to_str().replace(EOS, '</s>'))
    assert first_tokens(nameless, Own(eos_token_id=[0, 7])) == ([0], 0)
    assert first_tokens(nameless, Own(eos_token_id=5)) == ([5], 0)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=nameless, eos_token='</s>')
    assert first_tokens(theirs) == first_tokens(theirs, Own(eos_token_id=999)) == ([0], 0)
    with pytest.raises(ValueError, match='should have an end-of-text token'):
        first_tokens(nameless, Own(eos_token_id=None))


def test_windows_begin_as_the_model_knows_it(world):
    cases, tokenizers = world
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model('gpt_neox', **FAMILIES['gpt_neox'],
                                               max_position_embeddings=24)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for p in model.parameters(): torch.nn.init.normal_(p, std=0.2)
    long = [Case('long', ' '.join(c.original for c in cases), cases[0].altered)]
    for name, tokenizer in tokenizers.items():
        ids = tokenizer.encode(long[0].original, add_special_tokens=False).ids
        scores = score_cases(model, tokenizer, long, prompt='')
        # what the tokenizer puts before every text stands before every window; an end of text that
        # we put there ourselves, between documents, does not
        again = [399] if name == '<s>' else []
        row, size = ([399] if again else [0]) + ids, 24 - len(again)
        losses, start = [], len(again)
        for t in range(1, len(row)):
            while t >= start + size: start += size // 2
            before = row[:t] if start == len(again) else again + row[start:t]
            losses.append(plain_loop(model, [*before, row[t]], 1))
        assert abs(math.log(scores.frame['original'][0]) - np.mean(losses)) < 1e-6 * np.mean(losses)
        assert scores.meta['windowed'] == 1


class Full(torch.nn.Module):
    "Give random logits for at most so many rows, as a GPU with little memory does."
    def __init__(self, rows, vocab_size=400):
        super().__init__()
        torch.manual_seed(0)
        self.rows, self.table, self.sizes = rows, torch.nn.Embedding(vocab_size, vocab_size), []

    def forward(self, ids):
        self.sizes.append(len(ids))
        if len(ids) > self.rows: raise torch.OutOfMemoryError('CUDA out of memory')
        return self.table(ids)


def test_fewer_rows_where_the_memory_is_full(world, capsys):
    cases, tokenizer = world[0], world[1]['</s>']
    wanted = score_cases(Full(99), tokenizer, cases, batch_size=4)
    for rows in 3, 1:
        small = Full(rows)
        found = score_cases(small, tokenizer, cases, batch_size=4)
        assert np.allclose(found.frame['original'], wanted.frame['original'], rtol=1e-6)
        assert 'no memory for 8 at once, so half as many are read' in capsys.readouterr().out
        # it is tried once, not for every group
        assert sum(size > rows for size in small.sizes) <= 3
    with pytest.raises(torch.OutOfMemoryError):
        score_cases(Full(0), tokenizer, cases[:3], batch_size=4)
    assert list(fewer_when_full(lambda group: group, [])) == []


def test_a_flat_row_that_is_too_large_is_read_in_parts(small):
    cases, tokenizer, model = small
    wanted, read = score_cases(model, tokenizer, cases, share=False), []
    def fills(block, inputs):
        read.append(inputs[0].shape[1])
        if max_tokens < inputs[0].shape[1]: raise torch.OutOfMemoryError('CUDA out of memory')
    hook = model.h[1].register_forward_pre_hook(fills)
    try:
        for max_tokens in 200, 100:
            read.clear()
            found = score_cases(model, tokenizer, cases)
            assert np.allclose(found.frame['altered'], wanted.frame['altered'], rtol=1e-5)
            assert max(read) > max_tokens                               # or nothing was tried
    finally: hook.remove()


def test_our_own_mistakes_are_not_taken_for_a_model_that_cannot(world, monkeypatch):
    cases, tokenizer, model = world[0], world[1]['<s>'], random_model('llama')
    monkeypatch.setattr(branches, '_common', lambda a, b: 1 / 0)
    with pytest.raises(ZeroDivisionError): score_cases(model, tokenizer, cases)
    monkeypatch.undo()
    def full(*_): raise torch.OutOfMemoryError('CUDA out of memory')
    model.model.register_forward_pre_hook(full)
    with pytest.raises(torch.OutOfMemoryError): score_cases(model, tokenizer, cases)


def test_nested_and_silent_configurations(world):
    cases, tokenizer = world[0], world[1]['<s>']
    text = transformers.Gemma3TextConfig(**KV, head_dim=16, max_position_embeddings=64)
    vision = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, image_size=28,
                  num_attention_heads=2, patch_size=14, vision_use_head=False)
    nested = transformers.Gemma3Config(text_config=text.to_dict(), vision_config=vision)
    torch.manual_seed(0)
    model = transformers.Gemma3ForConditionalGeneration(nested).eval()
    scores = score_cases(model, tokenizer, cases[:2])
    assert context_length(model) == 64 and scores.meta['windowed'] == 4
    for family in 'bloom', 'mamba': assert context_length(random_model(family)) == math.inf


@pytest.mark.parametrize('family', ['llama', 'opt', 'bloom', 'mamba'])
def test_hidden_states_of_any_family(family):
    with torch.no_grad(): states = hidden_states(random_model(family), torch.arange(9)[None])
    assert len(states) == 3 and {s.shape for s in states} == {(1, 9, 32)}
