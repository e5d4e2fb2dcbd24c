"""Token files written by several processes, in bounded memory, also without a main guard."""
import json, subprocess, sys, threading, warnings
from functools import partial

import pytest
from tokenizers import Tokenizer

import domain_llm.tokens.dataset as tk
from domain_llm.text.clean import clean_text
from domain_llm.tokens.dataset import TokenFile, write_tokens
from token_texts import TEXTS, TOKENIZER, contents, interrupted, judge, script


@pytest.mark.parametrize('workers', [1, 2])
def test_further_processes_give_the_same_bytes(tmp_path, workers):
    write = partial(write_tokens, tokenizer=TOKENIZER, shard_chars=50_000)
    write({'train': iter(TEXTS * 30)}, folder=tmp_path / 'here')
    write({'train': iter(TEXTS * 30)}, folder=tmp_path / 'there', workers=workers)
    here, there = contents(tmp_path / 'here'), contents(tmp_path / 'there')
    assert here == there and len(here) > 3


@pytest.mark.parametrize('workers', [0, 2])
def test_what_goes_wrong_with_a_document_is_raised_as_it_is(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(tk, '_batched', partial(tk._batched, n_chars=200))        # many rounds
    spelled = Tokenizer.from_str(TOKENIZER.to_str().replace('"special":true', '"special":false'))
    for n in (0, 3, 900):
        good = (TEXTS * 30)[:n]
        for texts, tokenizer, error, words in (
                (interrupted(TEXTS * 30, n), TOKENIZER, OSError, '^gone$'),
                ([*good, None], TOKENIZER, ValueError, '^each document should be a text, but got'),
                ([*good, 'a <|endoftext|>'], spelled, ValueError, '^the end-of-text token should')):
            with warnings.catch_warnings():
                warnings.simplefilter('error')
                with pytest.raises(error, match=words):
                    write_tokens({'train': texts}, tokenizer, tmp_path / 'box', workers=workers)


def test_documents_are_fetched_where_the_caller_is_and_only_some_ahead(tmp_path, monkeypatch):
    monkeypatch.setattr(tk, '_batched', partial(tk._batched, n_chars=200))
    written, ahead = [], []
    def texts():
        for i, text in enumerate(TEXTS * 30):
            assert threading.current_thread() is threading.main_thread()
            ahead.append(i - len(written))
            yield text
    def lay_out(ids, *more, real=tk._lay_out):
        written.append(ids)
        return real(ids, *more)
    monkeypatch.setattr(tk, '_lay_out', lay_out)
    write_tokens({'train': texts()}, TOKENIZER, tmp_path / 'box', workers=2)
    assert len(written) == 1800 and max(ahead) < 200          # two rounds of 16 batches


def test_a_script_needs_no_main_guard(tmp_path):
    for i in range(4):
        rows = ''.join(json.dumps(dict(text=text)) + '\n' for text in TEXTS[i::4])
        (tmp_path / f'{i}.jsonl').write_text(rows)
    TOKENIZER.save(str(tmp_path / 'tokenizer.json'))
    (tmp_path / 'script.py').write_text("""
print('started')
from tokenizers import Tokenizer
from domain_llm.tokens import dataset
from domain_llm.text import documents
groups = documents._groups
documents._groups = lambda files: groups(files, 1000)      # or one process would read all
texts = documents.read_documents([f'{i}.jsonl' for i in range(4)], workers=2)['text']
dataset.write_tokens({'train': texts}, Tokenizer.from_file('tokenizer.json'), 'box', workers=2)
""")
    done = subprocess.run([sys.executable, 'script.py'], cwd=tmp_path, capture_output=True,
                          text=True, timeout=240)
    assert (done.returncode, done.stdout) == (0, 'started\n'), done.stderr
    cleaned = [clean_text(text) for i in range(4) for text in TEXTS[i::4]]
    assert TokenFile(tmp_path / 'box').ids.tolist() == judge(cleaned)


MEMORY = """
import random, sys, tempfile
from domain_llm.ground.files import peak_memory
from domain_llm.tokens.dataset import write_tokens
from token_texts import TOKENIZER
rng = random.Random(0)
words = [''.join(rng.choices('abcdefghij', k=6)) for _ in range(20_000)]
text = ' '.join(rng.choices(words, k=2000))
def texts(n):
    for i in range(n): yield text[i:] + text[:i]  # each is another text
given = dict(few=texts(10), many=texts(3000))
given = [' '.join(texts(1000))] if sys.argv[1] == 'long' else given[sys.argv[1]]
write_tokens({'train': given}, TOKENIZER, tempfile.mkdtemp() + '/box', workers=int(sys.argv[2]))
print(peak_memory() // 10**6)
"""


@pytest.mark.skipif(sys.platform != 'linux',
                    reason="elsewhere the peak of a child begins with its parent's")
def test_memory_does_not_grow_with_the_corpus():
    few, many, long = (int(script(MEMORY, how, 0)) for how in ('few', 'many', 'long'))
    assert many < few + 25                                    # MB; the text is 42
    assert int(script(MEMORY, 'many', 2)) < few + 40          # two rounds of texts are held
    # one document of 14 MB, as text and bytes, and its ids, of 27, in three places
    assert long < few + 2 * 14 + 3 * 27 + 30


def test_the_module_imports_no_torch():
    names = script('import sys, domain_llm.tokens.dataset; print(*sys.modules)').split()
    assert not {'torch', 'datasets', 'pandas', 'matplotlib', 'transformers'} & set(names)
