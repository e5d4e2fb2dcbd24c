"""Ids that no short cut changes: random texts, all of Unicode and other tokenizers as judges."""
import random, tempfile
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import domain_llm.tokens.dataset as tk
from domain_llm.tokens.dataset import TokenFile, paper_rows, write_tokens
from token_texts import ANY, CAREFUL, EOS, TEXTS, TOKENIZER, judge


@settings(max_examples=150, deadline=None)
@given(st.lists(ANY, max_size=4))
def test_pieces_give_the_ids_of_encode_batch(texts):
    encode = tk._Encoder(TOKENIZER, np.dtype('uint16'), EOS)
    wanted = [e.ids for e in CAREFUL.encode_batch(texts, add_special_tokens=False)]
    assert [np.frombuffer(encode(text), 'uint16').tolist() for text in texts] == wanted
    long = ''.join(texts) * 3
    cuts = list(tk._stretches(long, n_chars=3))
    assert ''.join(cuts) == long
    assert [i for c in cuts for i in CAREFUL.encode(c).ids] == CAREFUL.encode(long).ids


def test_no_character_of_unicode_moves_a_cut():
    cut = tk._PIECES.findall
    rule = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
    for c in (*range(0x3100), *range(0x3100, 0x110000, 61)):
        if 0xD800 <= c < 0xE000: continue
        text = f';{chr(c)} {chr(c)}x{chr(c)}\n{chr(c)};{chr(c)}'
        assert ''.join(cut(text)) == text
        pieces = [p for piece in cut(text) for p, _ in rule(piece)]
        assert [p for p, _ in rule(text)] == pieces, hex(c)


def other_tokenizers():
    "Make tokenizers whose tokens can lie across a space."
    plain = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(special_tokens=['<|endoftext|>'], show_progress=False)
    plain.train_from_iterator(['ab ab ab ab cd ab ab'] * 9, trainer)
    meta = Tokenizer(models.BPE(unk_token='<unk>'))
    meta.pre_tokenizer, meta.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    meta.normalizer = normalizers.NFKC()
    trainer = trainers.BpeTrainer(special_tokens=['<|endoftext|>', '<unk>'], show_progress=False)
    meta.train_from_iterator(TEXTS, trainer)
    prefix, added = (Tokenizer.from_str(TOKENIZER.to_str()) for _ in range(2))
    prefix.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    added.add_tokens(['ab cd', 'rat 3'])
    return dict(whole_text=plain, metaspace=meta, prefix=prefix, added=added)


@pytest.mark.parametrize('name', other_tokenizers())
def test_other_tokenizers_give_the_ids_of_encode_batch_too(tmp_path, name):
    tokenizer = other_tokenizers()[name]
    texts = ['ab ab cd', 'ﬁne  ab cd', 'rat 3 froze', *TEXTS[:5]]
    careful = Tokenizer.from_str(tokenizer.to_str())
    careful.encode_special_tokens = True
    eos = tokenizer.token_to_id('<|endoftext|>')
    write_tokens({'train': texts}, tokenizer, tmp_path / 'box')
    assert TokenFile(tmp_path / 'box').ids[:].tolist() == judge(texts, careful, eos)


@settings(max_examples=30, deadline=None)
@given(st.lists(ANY, max_size=12), st.integers(1, 60))
def test_tiny_and_empty_documents_in_shards_of_any_size(texts, shard_chars):
    with tempfile.TemporaryDirectory() as home:
        write_tokens({'train': iter(texts)}, TOKENIZER, f'{home}/box', shard_chars=shard_chars)
        tokens = TokenFile(f'{home}/box')
        assert tokens.ids[:].tolist() == judge(texts)
        assert tokens.meta['splits']['train']['documents'] == len(texts)
        for a, b in ((0, 5), (3, -2), (-4, None), (5, 5), (-1, 2)):
            assert tokens.ids[a:b].tolist() == judge(texts)[a:b]
        del tokens


def test_a_column_of_a_dataset_is_read_as_it_is(tmp_path):
    datasets = pytest.importorskip('datasets')
    column = datasets.Dataset.from_dict(dict(text=TEXTS))['text']
    write_tokens({'train': column}, TOKENIZER, tmp_path / 'box')
    assert TokenFile(tmp_path / 'box').ids.tolist() == judge(TEXTS)


@pytest.mark.parametrize('spt', [False, True])
def test_rows_of_the_paper_are_those_of_its_pipeline(tmp_path, spt):
    datasets = pytest.importorskip('datasets')
    rng, words = random.Random(1), ['amygdala', 'insula', 'froze', ',', '7']
    texts = [' '.join(rng.choices(words, k=rng.choice([0, 3, 40, 3000]))) for _ in range(2200)]
    cutting = Tokenizer.from_str(TOKENIZER.to_str())
    cutting.enable_truncation(1023 if spt else 1024)
    mark = [TOKENIZER.token_to_id('¥')] if spt else []
    def tokenize(batch):
        encoded = cutting.encode_batch(batch['text'])
        pieces = [piece.ids + mark for e in encoded for piece in (e, *e.overflowing)]
        line = list(chain(*pieces))
        return dict(row=[line[i:i + 1024] for i in range(0, len(line), 1024)])
    datasets.disable_progress_bars()
    corpus = datasets.Dataset.from_dict(dict(text=texts))
    wanted = corpus.map(tokenize, batched=True, remove_columns=['text'])['row']
    how = dict(layout='paper-spt', eos='¥') if spt else dict(layout='paper')
    write_tokens({'train': texts}, TOKENIZER, tmp_path / 'box', shard_chars=3_000_000, **how)
    tokens = TokenFile(tmp_path / 'box')
    rows = [tokens.ids[a:b].tolist() for a, b in paper_rows(tokens).tolist()]
    assert len(tokens.maps) > 1 and rows == list(wanted)
