"""Token files that survive a kill at any moment, ids that no shortcut changes, batches that only the step decides."""
import json, os, random, re, subprocess, sys, threading, warnings
from collections import Counter
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import domain_llm.tokens.dataset as tk
import dying
from domain_llm.text.clean import clean_text
from domain_llm.tokens.dataset import (
    Batches, Prefetch, TokenFile, paper_rows, prefetch, write_tokens)
from domain_llm.tokens.ngram import NGram
from domain_llm.tokens.tokenizer import train_tokenizer

TEXTS = [f'rat {i} froze, and the {w} of rat {i * i} did not.  It was\n\nquiet' for i,
         w in enumerate('amygdala insula cortex striatum'.split() * 15)]
TOKENIZER = train_tokenizer(TEXTS, 500)
CAREFUL = Tokenizer.from_str(TOKENIZER.to_str())
CAREFUL.encode_special_tokens = True
EOS = TOKENIZER.token_to_id('<|endoftext|>')


def judge(texts, tokenizer=CAREFUL, eos=EOS):
    "The line of ids by the library's own encode_batch."
    return [
        i
        for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)
        for i in (*e.ids, eos)
    ]


def contents(folder): return {p.name: p.read_bytes() for p in folder.iterdir()}


def script(code, *args, **env):
    "Run code in a process of its own; give what it printed."
    done = subprocess.run(
        [sys.executable, '-c', code, *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


# --- killed and started again

KILLED = """
import builtins, json, os, shutil, sys
from pathlib import Path
import domain_llm.tokens.dataset as tk
import dying
from dying import dying_after
from tests_data import TEXTS, TOKENIZER
home, replacing = Path(sys.argv[1]), sys.argv[2] == 'replacing'
def write(texts):
    return tk.write_tokens({'train': texts, 'validation': texts[:5]}, TOKENIZER, home / 'box', shard_chars=300)
def attempt(texts, limit):
    "Write in a forked process that dies at its call number `limit`; say whether it lived."
    pid = os.fork()
    if not pid:
        counted = dying_after(limit)
        os.replace, os.fsync, os.unlink = counted(os.replace), counted(os.fsync), counted(os.unlink)
        tk._Encoder.__call__ = counted(tk._Encoder.__call__)
        write(texts)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0
def contents(): return {p.name: p.read_bytes() for p in (home / 'box').iterdir()}
old_texts = [text.upper() for text in TEXTS]
write(old_texts); old = contents(); shutil.rmtree(home / 'box')
write(TEXTS); new = contents(); shutil.rmtree(home / 'box')
seen, lived, limit = set(), False, 0
while not lived:
    if replacing: write(old_texts)
    lived = attempt(TEXTS, limit)
    if (home / 'box').exists():
        seen.add('new' if contents() == new else 'old' if contents() == old else 'half')
        for split in ('train', 'validation'): tk.TokenFile(home / 'box', split)
    else: seen.add('none')
    part = next(home.glob('.box.*.part'), home / 'none') / 'meta.json'
    done = sum(len(s['shards']) for s in json.loads(part.read_text())['splits'].values()) if part.exists() else 0
    stamps = {p: p.stat().st_mtime_ns for p in part.parent.glob('*.bin')} if done else {}
    meta = write(TEXTS)
    assert contents() == new and [p.name for p in home.iterdir()] == ['box'], limit
    kept = sum((home / 'box' / p.name).stat().st_mtime_ns == t for p, t in stamps.items())
    if not (replacing and 'new' in seen): assert kept >= done, (limit, kept, done)
    shutil.rmtree(home / 'box')
    limit += 1
tries = 0
while tries < 50 and not attempt(TEXTS, 25): tries += 1                    # killed again and again, it still gets there
assert contents() == new and tries >= 3
print(json.dumps(dict(points=limit, seen=sorted(seen), shards=len(new) - 1, tries=tries)))
"""


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
@pytest.mark.parametrize('how', ['fresh', 'replacing'])
def test_a_kill_at_any_write_sync_or_rename_costs_at_most_one_shard(tmp_path, how):
    (tmp_path / 'tests_data.py').write_text(
        'from test_tokens import TEXTS, TOKENIZER\nTEXTS = TEXTS[:20]\n'
    )
    (tmp_path / 'home').mkdir()
    path = os.pathsep.join([str(tmp_path), os.environ['PYTHONPATH']])
    found = json.loads(
        script(KILLED, tmp_path / 'home', how, PYTHONPATH=path, TOKENIZERS_PARALLELISM='false')
    )
    assert found['shards'] >= 3 and found['points'] > 45 and 'half' not in found['seen']
    assert found['seen'] == (['new', 'none'] if how == 'fresh' else ['new', 'none', 'old'])


def interrupted(texts, after):
    for n, text in enumerate(texts):
        if n == after: raise OSError('gone')
        yield text


@pytest.mark.parametrize('change', ['texts', 'order', 'border', 'tokenizer', 'eos', 'shard_chars', 'layout', 'fewer'])
def test_a_restart_with_anything_else_mixes_nothing(tmp_path, change):
    texts, tokenizer, how = list(TEXTS), TOKENIZER, dict(shard_chars=700)
    with pytest.raises(OSError):
        write_tokens({'train': interrupted(texts, 50)}, tokenizer, tmp_path / 'box', **how)
    if change == 'texts': texts[13] = 'another text'
    if change == 'order': texts[2], texts[3] = texts[3], texts[2]
    if change == 'border': texts[2:4] = [texts[2] + texts[3][:4], texts[3][4:]]
    if change == 'tokenizer': tokenizer = train_tokenizer(TEXTS, 400)
    if change == 'eos': how['eos'] = '!'
    if change == 'shard_chars': how['shard_chars'] = 900
    if change == 'layout': how['layout'] = 'paper'
    if change == 'fewer': texts = texts[:5]
    write_tokens({'train': texts}, tokenizer, tmp_path / 'box', **how)
    write_tokens({'train': texts}, tokenizer, tmp_path / 'fresh', **how)
    assert contents(tmp_path / 'box') == contents(tmp_path / 'fresh')


def test_a_shard_that_rotted_before_the_restart_is_made_again(tmp_path):
    with pytest.raises(OSError):
        write_tokens(
            {'train': interrupted(TEXTS, 50)}, TOKENIZER, tmp_path / 'box', shard_chars=700
        )
    shard, = tmp_path.glob('.box.*.part/train.1.bin')
    shard.write_bytes(shard.read_bytes()[:-2] + b'zz')
    write_tokens({'train': TEXTS}, TOKENIZER, tmp_path / 'box', shard_chars=700)
    assert TokenFile(tmp_path / 'box').ids[:].tolist() == judge(TEXTS)


# --- the ids

SPACES = st.sampled_from(
    [' ', '  ', '\n', '\t', '\r\n', '\u00a0', '\u2003', '\u2028', '\x1c', '\x85', '\u200b']
)
BITS = st.one_of(
    SPACES,
    st.sampled_from(
        ["it's", ';', '…', '3.1', '²½', '<|endoftext|>', '日本', '👩‍🔬', 'Ġ', '\u0301']
    ),
    st.text(max_size=4).filter(lambda t: t.isprintable()),
)
ANY = st.lists(BITS, max_size=25).map(''.join)


@settings(max_examples=150, deadline=None)
@given(st.lists(ANY, max_size=4))
def test_pieces_give_the_ids_of_encode_batch(texts):
    encode = tk._Encoder(TOKENIZER, np.dtype('uint16'), EOS)
    assert [np.frombuffer(encode(t), 'uint16').tolist() for t in texts] == [e.ids
        for e in CAREFUL.encode_batch(texts, add_special_tokens=False)]
    long = ''.join(texts) * 3
    cuts = list(tk._stretches(long, most=3))
    assert (
        ''.join(cuts) == long
        and [i for c in cuts for i in CAREFUL.encode(c).ids] == CAREFUL.encode(long).ids
    )


def test_a_long_document_is_encoded_stretch_by_stretch(monkeypatch):
    text = ' '.join(TEXTS)
    monkeypatch.setattr(tk, '_stretches', partial(tk._stretches, most=50))
    assert len(list(tk._stretches(text))) > 20
    encode = tk._Encoder(TOKENIZER, np.dtype('uint16'), EOS)
    assert np.frombuffer(encode(text), 'uint16').tolist() == CAREFUL.encode(text).ids


def test_no_character_of_unicode_moves_a_cut():
    cut, rule = (
        tk._PIECES.findall,
        pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str,
    )
    for c in (*range(0x3100), *range(0x3100, 0x110000, 61)):
        if 0xD800 <= c < 0xE000: continue
        text = f';{chr(c)} {chr(c)}x{chr(c)}\n{chr(c)};{chr(c)}'
        assert ''.join(cut(text)) == text
        assert [p for p, _ in rule(text)] == [p for piece in cut(text) for p, _ in rule(piece)], (
            hex(c)
        )


def other_tokenizers():
    "Tokenizers whose tokens can lie across a space."
    plain = Tokenizer(models.BPE())
    plain.train_from_iterator(
        ['ab ab ab ab cd ab ab'] * 9,
        trainers.BpeTrainer(special_tokens=['<|endoftext|>'], show_progress=False),
    )
    meta = Tokenizer(models.BPE(unk_token='<unk>'))
    meta.pre_tokenizer, meta.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    meta.normalizer = normalizers.NFKC()
    meta.train_from_iterator(
        TEXTS, trainers.BpeTrainer(special_tokens=['<|endoftext|>', '<unk>'], show_progress=False)
    )
    prefix, added = (Tokenizer.from_str(TOKENIZER.to_str()) for _ in range(2))
    prefix.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    added.add_tokens(['ab cd', 'rat 3'])
    return dict(whole_text=plain, metaspace=meta, prefix=prefix, added=added)


@pytest.mark.parametrize('name', other_tokenizers())
def test_other_tokenizers_give_the_ids_of_encode_batch_too(tmp_path, name):
    tokenizer, texts = (
        other_tokenizers()[name],
        ['ab ab cd', 'ﬁne  ab cd', 'rat 3 froze', *TEXTS[:5]],
    )
    careful = Tokenizer.from_str(tokenizer.to_str())
    careful.encode_special_tokens = True
    eos = tokenizer.token_to_id('<|endoftext|>')
    write_tokens({'train': texts}, tokenizer, tmp_path / 'box')
    assert TokenFile(tmp_path / 'box').ids[:].tolist() == judge(texts, careful, eos)


def test_text_that_spells_the_end_and_a_tokenizer_that_truncates(tmp_path):
    texts, tokenizer = (
        ['one <|endoftext|> two', '<|endoftext|>', ''],
        Tokenizer.from_str(TOKENIZER.to_str()),
    )
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding()
    write_tokens({'train': texts}, tokenizer, tmp_path / 'box')
    # the same tokenizer, but for the truncation
    tokens = TokenFile(tmp_path / 'box', tokenizer=TOKENIZER)
    assert tokens.ids.tolist() == judge(texts) and (tokens.ids == EOS).sum() == 3
    # what was given is left as it was
    assert tokenizer.truncation and not tokenizer.encode_special_tokens


# --- in several processes

@pytest.mark.parametrize('workers', [1, 2])
def test_further_processes_give_the_same_bytes(tmp_path, workers):
    write_tokens({'train': iter(TEXTS * 30)}, TOKENIZER, tmp_path / 'here', shard_chars=50_000)
    write_tokens(
        {'train': iter(TEXTS * 30)},
        TOKENIZER,
        tmp_path / 'there',
        shard_chars=50_000,
        workers=workers,
    )
    assert (
        contents(tmp_path / 'here') == contents(tmp_path / 'there')
        and len(contents(tmp_path / 'here')) > 3
    )


@pytest.mark.parametrize('workers', [0, 2])
def test_what_goes_wrong_with_a_document_is_raised_as_it_is(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(tk, '_batched', partial(tk._batched, most=200))           # many rounds
    spelled = Tokenizer.from_str(TOKENIZER.to_str().replace('"special":true', '"special":false'))
    for n in (0, 3, 900):
        good = (TEXTS * 30)[:n]
        for texts, tokenizer, error, words in (
                (interrupted(TEXTS * 30, n), TOKENIZER, OSError, '^gone$'),
                ([*good, None], TOKENIZER, ValueError, '^each document should be a text, but one '
                                                       'is N'),
                ([*good, 'a <|endoftext|>'], spelled, ValueError, '^a document spells the end-of-')):
            with warnings.catch_warnings():
                warnings.simplefilter('error')
                with pytest.raises(error, match=words):
                    write_tokens({'train': texts}, tokenizer, tmp_path / 'box', workers=workers)


def test_documents_are_fetched_where_the_caller_is_and_only_some_ahead(tmp_path, monkeypatch):
    monkeypatch.setattr(tk, '_batched', partial(tk._batched, most=200))
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


def test_a_worker_that_dies_is_told_and_what_was_written_is_kept(tmp_path, monkeypatch):
    write = partial(write_tokens, {'train': TEXTS}, TOKENIZER, shard_chars=700)
    with monkeypatch.context() as patched, pytest.raises(RuntimeError) as caught:
        patched.setattr(tk, '_encode', dying.encode_or_die)
        write(tmp_path / 'box', workers=2)
    assert re.fullmatch('a process that encoded documents died.*=0 .*is kept', str(caught.value))
    part, = tmp_path.glob('.box.*.part')
    shards = json.loads((part / 'meta.json').read_text())['splits']['train']['shards']
    kept = {shard['file']: (part / shard['file']).stat().st_mtime_ns for shard in shards}
    assert len(kept) > 2
    write(tmp_path / 'box', workers=2)
    assert {name: (tmp_path / 'box' / name).stat().st_mtime_ns for name in kept} == kept
    write(tmp_path / 'here')
    assert contents(tmp_path / 'box') == contents(tmp_path / 'here')


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


@settings(max_examples=30, deadline=None)
@given(st.lists(ANY, max_size=12), st.integers(1, 60))
def test_tiny_and_empty_documents_in_shards_of_any_size(texts, shard_chars):
    import tempfile
    with tempfile.TemporaryDirectory() as home:
        write_tokens({'train': iter(texts)}, TOKENIZER, f'{home}/box', shard_chars=shard_chars)
        tokens = TokenFile(f'{home}/box')
        assert tokens.ids[:].tolist() == judge(texts) and tokens.meta['splits']['train']['documents'] == len(texts)
        for a, b in ((0, 5), (3, -2), (-4, None), (5, 5), (-1, 2)):
            assert tokens.ids[a:b].tolist() == judge(texts)[a:b]
        del tokens


def test_a_column_of_a_dataset_is_read_as_it_is(tmp_path):
    datasets = pytest.importorskip('datasets')
    write_tokens(
        {'train': datasets.Dataset.from_dict(dict(text=TEXTS))['text']}, TOKENIZER, tmp_path / 'box'
    )
    assert TokenFile(tmp_path / 'box').ids.tolist() == judge(TEXTS)


MEMORY = """
import random, sys, tempfile
from domain_llm.ground.files import peak_memory
from domain_llm.tokens.dataset import write_tokens
from test_tokens import TOKENIZER
rng = random.Random(0)
words = [''.join(rng.choices('abcdefghij', k=6)) for _ in range(20_000)]
def texts(n):
    for _ in range(n): yield ' '.join(rng.choices(words, k=2000))
given = texts(3000) if sys.argv[1] == 'many' else [' '.join(texts(1000))] if sys.argv[1] == 'long' else texts(10)
write_tokens({'train': given}, TOKENIZER, tempfile.mkdtemp() + '/box', workers=int(sys.argv[2]))
print(peak_memory() // 10**6)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason="elsewhere the peak of a child begins with "
                                                    "its parent's")
def test_memory_does_not_grow_with_the_corpus():
    few, many, long = (int(script(MEMORY, how, 0)) for how in ('few', 'many', 'long'))
    assert many < few + 25                         # MB; the text is 42
    assert int(script(MEMORY, 'many', 2)) < few + 40                  # two rounds of texts are held
    # one document of 14 MB, as text and bytes, and its ids, of 27, in three places
    assert long < few + 2 * 14 + 3 * 27 + 30


# --- reading

def test_a_damaged_shard_is_refused_in_words(tmp_path):
    write_tokens({'train': TEXTS}, TOKENIZER, tmp_path / 'box', shard_chars=700)
    assert len(TokenFile(tmp_path / 'box').maps) > 3
    path = tmp_path / 'box/train.2.bin'
    data = path.read_bytes()
    for broken, word in ((data[:-1], 'cut short'), (data[:-2] + b'zz', 'SHA-256'), (None, 'cut short')):
        path.unlink() if broken is None else path.write_bytes(broken)
        with pytest.raises(ValueError, match=word): TokenFile(tmp_path / 'box')
    with pytest.raises(FileNotFoundError, match='meta.json'): TokenFile(tmp_path / 'nothing')


def test_a_file_is_hashed_once_in_a_process(tmp_path, monkeypatch):
    write_tokens({'train': TEXTS}, TOKENIZER, tmp_path / 'box')
    calls, real = [], tk.file_sha256
    monkeypatch.setattr(tk, 'file_sha256', lambda path: calls.append(path) or real(path))
    TokenFile(tmp_path / 'box', verify=False)
    assert not calls
    for _ in range(3): TokenFile(tmp_path / 'box')
    assert len(calls) == 1


def test_the_module_imports_no_torch():
    names = script('import sys, domain_llm.tokens.dataset; print(*sys.modules)').split()
    assert not {'torch', 'datasets', 'pandas', 'matplotlib', 'transformers'} & set(names)


# --- the paper's layout

@pytest.mark.parametrize('spt', [False, True])
def test_rows_of_the_paper_are_those_of_its_pipeline(tmp_path, spt):
    datasets = pytest.importorskip('datasets')
    from itertools import chain
    rng = random.Random(1)
    texts = [
        ' '.join(
            rng.choices(['amygdala', 'insula', 'froze', ',', '7'], k=rng.choice([0, 3, 40, 3000]))
        )
        for _ in range(2200)
    ]
    cutting = Tokenizer.from_str(TOKENIZER.to_str())
    cutting.enable_truncation(1023 if spt else 1024)
    def tokenize(batch):
        pieces = [
            piece.ids for e in cutting.encode_batch(batch['text']) for piece in (e, *e.overflowing)
        ]
        line = list(chain(*([*ids, TOKENIZER.token_to_id('¥')] if spt else ids for ids in pieces)))
        return dict(row=[line[i:i + 1024] for i in range(0, len(line), 1024)])
    datasets.disable_progress_bars()
    wanted = datasets.Dataset.from_dict(dict(text=texts)).map(
        tokenize, batched=True, remove_columns=['text']
    )['row']
    how = dict(layout='paper-spt', eos='¥') if spt else dict(layout='paper')
    write_tokens({'train': texts}, TOKENIZER, tmp_path / 'box', shard_chars=3_000_000, **how)
    tokens = TokenFile(tmp_path / 'box')
    assert len(tokens.maps) > 1 and [
        tokens.ids[a:b].tolist() for a, b in paper_rows(tokens).tolist()
    ] == list(wanted)


# --- batches

@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_window_once_an_epoch_whatever_the_number_of_processes(data):
    T, rows, world = (
        data.draw(st.integers(1, 9)),
        data.draw(st.integers(1, 6)),
        data.draw(st.integers(1, 4)),
    )
    windows, seed = data.draw(st.integers(rows * world, 90)), data.draw(st.integers(0, 9))
    line = np.arange(windows * T + 1 + data.draw(st.integers(0, T - 1)))
    one, steps = Batches(line, T, rows * world * T, seed), 2 * windows // (rows * world) + 1
    several = [Batches(line, T, rows * world * T, seed, rank, world) for rank in range(world)]
    seen = []
    for step in range(steps):
        ids, targets = one[step]
        assert ids.shape == targets.shape == (rows * world, T) and ids.dtype == np.int64
        assert (
            (targets == ids + 1).all()
            and (ids[:, 0] % T == 0).all()
            and (ids == one[step][0]).all()
        )
        for rank, each in enumerate(several):
            assert (each[step][0] == ids[rank::world]).all() and each[step][0].shape == (rows, T)
        seen += (ids[:, 0] // T).tolist()
    for epoch in range(len(seen) // windows):
        assert sorted(seen[epoch * windows:(epoch + 1) * windows]) == list(range(windows))
    # no other step was asked for before
    assert (Batches(line, T, rows * world * T, seed)[steps - 1][0] == ids).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5000), st.integers(0, 5), st.integers(0, 5))
def test_the_shuffle_is_a_permutation(n, seed, epoch):
    order = tk._order(np.arange(n), n, seed, epoch)
    assert (np.sort(order) == np.arange(n)).all()
    assert (
        n < 20
        or (order != tk._order(np.arange(n), n, seed, epoch + 1)).any()
        and (order != tk._order(np.arange(n), n, seed + 1, epoch)).any()
    )
    some = np.arange(n)[::7]
    # each place on its own
    assert (tk._order(some, n, seed, epoch) == order[some]).all()


def unevenness(n, draws=1000):
    "Give chi-square per degree of freedom of where windows stand, and of which window follows which."
    at, after = np.zeros((n, n)), np.zeros((n, n))
    for k in range(draws):
        # over seeds and over epochs
        order = tk._order(np.arange(n), n, k // 2, k % 2)
        at[np.arange(n), order] += 1
        after[order[:-1], order[1:]] += 1
    pairs, wanted = after[~np.eye(n, dtype=bool)], draws / n
    return ((at - wanted) ** 2 / wanted).sum() / (n - 1) ** 2, (
        (pairs - wanted) ** 2 / wanted
    ).sum() / len(pairs)


@pytest.mark.parametrize('n', [5, 31, 64, 100])
def test_every_window_is_as_likely_at_every_place_and_after_every_other(n, monkeypatch):
    places, neighbours = unevenness(n)
    assert places < 1.05 + 5 * 2**0.5 / (n - 1) and neighbours < 1.3 + 5 * 2**0.5 / (n - 1)
    # the same test of a sloppy one
    monkeypatch.setattr(tk, '_mix', lambda x: x * np.uint64(0x9e3779b97f4a7c15))
    places, neighbours = unevenness(n)
    assert max(places, neighbours) > 2 * (1 + 5 * 2**0.5 / (n - 1))


def test_places_computed_at_once_are_those_computed_alone():
    n = 2 * tk._AT_ONCE + 77
    seen = np.concatenate(
        [Batches(np.arange(n + 1), 1, 600)[step][0][:, 0] for step in range(2 * n // 600)]
    )
    alone = [tk._order(np.arange(n), n, 0, epoch) for epoch in (0, 1)]
    assert (seen == np.concatenate(alone)[:len(seen)]).all()


def test_the_order_is_the_same_for_ever():
    "These numbers were written down once; a run that began with them must be able to go on."
    assert tk._order(np.arange(10), 10, 0, 0).tolist() == [1, 0, 7, 2, 8, 3, 4, 5, 6, 9]
    assert tk._order(range(5), 10**9, 7, 3).tolist() == [
        800386534,
        533195962,
        354054044,
        237787083,
        269711945,
    ]
    assert tk._order([0, 999_999_999_999], 10**12, 2**63, 10**6).tolist() == [
        370763455518,
        355355633945,
    ]
    known = 'b7cf0ba992d8c7a1eef8d1825b995265'\
            '7d4891ea445db94b657134c409b9f666'
    assert Batches(np.arange(1001), 10, 100, seed=1).order_sha256 == known
    assert Batches(np.arange(1001), 10, 100, seed=1, rank=1, world_size=2).order_sha256 == known
    others = [
        Batches(np.arange(n), T, 10 * T, seed)
        for n, T, seed in ((1011, 10, 1), (1001, 10, 2), (1001, 9, 1))
    ]
    assert len({known, *(other.order_sha256 for other in others)}) == 4


def test_the_mixing_function_is_splitmix64():
    "The numbers that its authors' C gives for the seed 1234567."
    seeds = np.uint64(1234567) + np.arange(5, dtype=np.uint64) * np.uint64(0x9e3779b97f4a7c15)
    assert tk._mix(seeds).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@pytest.mark.parametrize('n', [10_007, 65_536, 97_656, 1_000_000])
def test_a_long_shuffle_has_no_drift_and_no_neighbours(n):
    order = tk._order(np.arange(n), n, 0, 0).astype(float)
    assert abs(np.corrcoef(order, np.arange(n))[0, 1]) * n**0.5 < 4.5
    for lag in (1, 2, 12, int(n**0.5), int(n**0.5) + 1):
        assert abs(np.corrcoef(order[:-lag], order[lag:])[0, 1]) * n**0.5 < 4.5
    assert (np.abs(np.diff(order)) == 1).sum() < 15                            # two are expected
    tenths = np.array(
        [
            np.bincount((part * 10 // n).astype(int), minlength=10)
            for part in np.array_split(order, 50)
        ]
    )
    # each stretch visits the whole corpus
    assert abs(((tenths - n / 500)**2 / (n / 500)).sum() - 441) < 5 * (2 * 441)**0.5


def test_the_order_of_ten_to_the_twelve_windows_takes_no_memory():
    n = 10**12
    windows = tk._order(np.arange(n - 10_000, n), n, 0, 7)
    assert len(set(windows.tolist())) == 10_000 and windows.min() >= 0 and windows.max() < n
    assert 0.48 < windows.mean() / n < 0.52


FLAT = """
import json, os, sys, numpy as np
from domain_llm.ground.files import file_sha256
from domain_llm.tokens.dataset import Batches, TokenFile
os.chdir(sys.argv[1])
n = 60_000_000
np.arange(n, dtype=np.uint16).tofile('train.bin')
shard = dict(file='train.bin', tokens=n, documents=1, sha256=file_sha256('train.bin'))
train = dict(tokens=n, documents=1, shards=[shard])
open('meta.json', 'w').write(json.dumps(dict(dtype='uint16', splits=dict(train=train))))
def rss(): return int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6
batches = Batches(TokenFile('.'), 1024, 65_536)
for step in range(50): batches[step]
start = rss()
print(max(rss() - start for step in range(n // 65_536) if batches[step]))
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_memory_is_flat_over_a_full_pass(tmp_path):
    # MB, of a file of 120
    assert float(script(FLAT, tmp_path)) < 12


# --- read ahead

def test_prefetch_gives_the_batches_in_any_order_and_ends():
    batches, before = (
        Batches(np.arange(5001, dtype=np.uint16), 10, 100, seed=2),
        threading.active_count(),
    )
    with prefetch(batches, 'cpu') as same: assert same is batches
    # whatever else gives batches
    with prefetch([1], 'meta') as same: assert same == [1]
    with prefetch(batches, 'meta') as ahead:
        assert ahead[3][1].shape == (10, 10) and ahead[3][1].device.type == 'meta'
    for line in (batches.ids, batches.ids.astype(np.uint32), batches.ids.astype(np.int64), (batches.ids + 60_000)):
        mine = Batches(line, 10, 100, seed=2)
        ahead = Prefetch(mine, 'cpu')
        for step in (0, 1, 2, 3, 9, 10, 4, 4):
            for got, wanted in zip(ahead[step], mine[step]):
                assert got.numpy().dtype == np.int64 and (got.numpy() == wanted).all()
        ahead.close()
    assert threading.active_count() == before


def test_prefetch_reads_one_step_ahead_and_hands_errors_over():
    asked = Counter()
    class Failing:
        def read(self, step):
            asked[step] += 1
            if step == 3: raise ValueError('the disk failed')
            return np.full((2, 5), step, np.uint16)
    ahead = Prefetch(Failing(), 'cpu')
    for step in range(3): assert (ahead[step][0] == step).all()
    with pytest.raises(ValueError, match='the disk failed'): ahead[3]
    assert (ahead[4][0] == 4).all()
    ahead.close()
    # the last may not have begun
    assert {0, 1, 2, 3, 4} <= set(asked) <= {0, 1, 2, 3, 4, 5} and max(asked.values()) == 1


def test_a_folder_of_an_earlier_version_is_refused_in_a_sentence(tmp_path):
    (tmp_path / 'meta.json').write_text('{"dtype": "uint16", "splits": {"train": {"tokens": 3}}}')
    with pytest.raises(ValueError, match='earlier version: write the tokens anew'):
        TokenFile(tmp_path)


# --- what the lesson's hidden cells used to guard

def test_stretches_lose_nothing_and_are_short():
    cuts = list(tk._stretches('word and ' * 1000, most=100))
    assert ''.join(cuts) == 'word and ' * 1000 and max(map(len, cuts)) < 112 and len(cuts) > 80
    assert list(tk._stretches('x' * 500, most=100)) == ['x' * 500]                 # nowhere to cut


def test_an_end_that_is_an_ordinary_token_is_refused():
    spelled = Tokenizer.from_str(TOKENIZER.to_str().replace('"special":true', '"special":false'))
    with pytest.raises(ValueError, match='special'):
        tk._Encoder(spelled, np.dtype(np.uint16), EOS)('a <|endoftext|> b')


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path):
    for asked, words in ((dict(eos='<none>'), '<none>'), (dict(layout='x'), 'paper-spt')):
        with pytest.raises(ValueError, match=words):
            write_tokens({'train': TEXTS}, TOKENIZER, tmp_path / 'box', **asked)
    for splits, words in (({'../up': ['a']}, '../up'), ({'train': ['a', None]}, 'NoneType')):
        with pytest.raises(ValueError, match=words):
            write_tokens(splits, TOKENIZER, tmp_path / 'box')
    assert not (tmp_path / 'box').exists()


def test_other_texts_leave_nothing_of_an_unfinished_attempt(tmp_path):
    def breaks_down():
        yield from TEXTS[:40]
        raise OSError('the network is gone')
    other = ['another ' + TEXTS[0], *TEXTS[1:]]
    with pytest.raises(OSError):
        write_tokens({'train': breaks_down()}, TOKENIZER, tmp_path / 'box', shard_chars=1000)
    assert len(list(tmp_path.glob('.box.*.part/*.bin'))) > 1
    write_tokens({'train': iter(other)}, TOKENIZER, tmp_path / 'box', shard_chars=1000)
    assert TokenFile(tmp_path / 'box').ids[:].tolist() == judge(other)


def test_damage_an_unknown_split_and_an_empty_one(tmp_path):
    write_tokens({'train': TEXTS, 'validation': []}, TOKENIZER, tmp_path)
    path = tmp_path / 'train.bin'
    data = path.read_bytes()
    for broken, words in ((data[:-2], 'cut short'), (data[:-2] + b'zz', 'SHA-256')):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=words): TokenFile(tmp_path)
    assert (
        len(TokenFile(tmp_path, verify=False)) == len(data) // 2
        and len(TokenFile(tmp_path, 'validation')) == 0
    )
    with pytest.raises(ValueError, match='train, validation'): TokenFile(tmp_path, 'test')
    path.write_bytes(data)
    text = TOKENIZER.decode(TokenFile(tmp_path).ids.tolist(), skip_special_tokens=True)
    assert text == ''.join(TEXTS)


def test_steps_straddle_epochs_and_shards_do_not_show(tmp_path):
    line = np.arange(1001)
    batches = Batches(line, 10, 100, seed=1)
    # the next epoch has another order
    assert not (batches[10][0] == batches[0][0]).all()
    # 7 windows, 3 a step
    odd = Batches(np.arange(71), 10, 30, seed=0)
    seen = np.concatenate([odd[s][0][:, 0] for s in range(7)])
    assert all(sorted(seen[7 * e:7 * e + 7]) == list(range(0, 70, 10)) for e in range(3))
    for args, words in (((np.arange(50), 10, 100), 'tokens'), ((line, 10, 5), 'tokens'),
                        ((line, 10, 90, 0, 0, 2), '9 rows')):
        with pytest.raises(ValueError, match=words): Batches(*args)
    for name, chars in (('one', 2**27), ('many', 1000)):
        write_tokens({'train': TEXTS}, TOKENIZER, tmp_path / name, shard_chars=chars)
    one, many = (Batches(TokenFile(tmp_path / name), 16, 128, seed=3) for name in ('one', 'many'))
    assert len(many.tokens.shards) > 3 and many.read(0).dtype == np.uint16
    assert all((one[s][0] == many[s][0]).all() for s in range(40))


def test_counted_probabilities_sum_to_one_in_one_shard_or_many(tmp_path):
    for name, chars in (('one', 2**27), ('many', 1000)):
        write_tokens({'train': TEXTS}, TOKENIZER, tmp_path / name, shard_chars=chars)
    V, ids, parts = (
        TOKENIZER.get_vocab_size(),
        TokenFile(tmp_path / 'one').ids,
        TokenFile(tmp_path / 'many').ids,
    )
    for order in (1, 2, 3):
        model, context = NGram(ids, V, order), ids[:2].tolist()
        assert np.isclose(sum(np.exp(-model.nll(np.array(context + [t]))[-1]) for t in range(V)), 1)
    assert model.nll(ids[:1]).shape == (0,) and model.nll(np.array([V - 1, 5])).min() > 0
    assert (NGram(parts, V, 3).nll(ids) == model.nll(ids)).all()
