"""Any text comes back, the version by hand and transformers agree, and the paper's numbers."""
import ast, gzip, json, os, random, re, subprocess, sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from tokenizers import Tokenizer

from domain_llm.tokens import tokenizer as module
from domain_llm.tokens.tokenizer import (
    EOS, fertility, load_tokenizer, save_tokenizer, show_pieces, shrink_tokenizer, train_tokenizer)

LESSON = Path(__file__).parents[2] / 'nbs' / '20_tokenizer.ipynb'
DATA = os.environ.get('DOMAIN_LLM_DATA')
needs_data = pytest.mark.skipif(not DATA, reason='DOMAIN_LLM_DATA is not set')
FIELD = ['the amygdala and the hippocampus', 'muscimol silenced the amygdala',
         'naïve Übung 日本語 λ → ½ µm²'] * 9
SMALL = train_tokenizer(FIELD, 400)
AWKWARD = [EOS, ' ', '\n', '\x00', '\x1c', '\x85', '\u2028', '\ufeff', "'ll", 'é', 'amygdala',
           '<|a|>']
TEXT = st.lists(st.one_of(st.text(), st.sampled_from(AWKWARD)))


def lesson_names(*wanted):
    "Give what the lesson defines under these names, without running the rest of it."
    found = dict(vars(module))
    for cell in json.loads(LESSON.read_text(encoding='utf-8'))['cells']:
        if cell['cell_type'] != 'code': continue
        for node in ast.parse(''.join(cell['source'])).body:
            inside = [n for target in getattr(node, 'targets', []) for n in ast.walk(target)]
            names = {getattr(node, 'name', '')} | {n.id for n in inside if isinstance(n, ast.Name)}
            if names & {*wanted} or isinstance(node, (ast.Import, ast.ImportFrom)):
                exec(compile(ast.Module([node], []), LESSON.name, 'exec'), found)
    return [found[name] for name in wanted]


@pytest.fixture(scope='module')
def by_hand():
    "Take the lesson's own tokenizer in pure Python: chunks, train, Merges."
    return lesson_names('class_of', 'L', 'N', 'S', 'PATTERN', 'pair_counts', 'best_pair', 'merge',
                        'start', 'chunks', 'train', 'Merges')[-3:]


def same_by_hand(by_hand, texts, vocab_size):
    "Train by hand and by library, compare every merge and token, and give both."
    _, train, Merges = by_hand
    (ids, merges), tokenizer = train(texts, vocab_size), train_tokenizer(texts, vocab_size)
    state = json.loads(tokenizer.to_str())['model']
    assert [tuple(pair) for pair in state['merges']] == merges and tokenizer.get_vocab() == ids
    return Merges(ids, merges), tokenizer


# any text

@given(TEXT)
@settings(max_examples=400, deadline=None)
def test_any_text_comes_back_and_never_holds_a_special_token(parts):
    text = ''.join(parts)
    ids = SMALL.encode(text, add_special_tokens=False).ids
    assert SMALL.decode(ids) == text and SMALL.token_to_id(EOS) not in ids


# training

@pytest.mark.parametrize('size', (5000, 70000))
def test_a_large_vocabulary(size):
    rng = random.Random(0)
    words = (''.join(rng.choices('abcdefghijklmnop', k=9)) for _ in range(2 * size))
    tokenizer = train_tokenizer(words, size)
    assert sorted(tokenizer.get_vocab().values()) == list(range(size))


MEMORY = """
import random
from domain_llm.ground.files import peak_memory
from domain_llm.tokens.tokenizer import train_tokenizer
rng, read = random.Random(0), 0
words = [''.join(rng.choices('abcdefghij', k=8)) for _ in range(5000)]
text = ' '.join(rng.choices(words, k=10000))
def texts(n):
    global read
    for i in range(n):
        read += len(text)
        yield text[i:] + text[:i]  # each is another text
train_tokenizer(texts(20), 2000)
before, read = peak_memory(), 0
train_tokenizer(texts(800), 2000)
print(read, peak_memory() - before)
"""


@pytest.mark.skipif(sys.platform == 'win32', reason='no resource module')
def test_training_does_not_hold_the_texts_in_memory():
    # one thread: with more, each keeps buffers of its own, whose number is the machine's
    env = dict(os.environ, RAYON_NUM_THREADS='1', TOKENIZERS_PARALLELISM='false')
    command = [sys.executable, '-c', MEMORY]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
    read, grown = map(int, out.split())
    told = f'{read / 1e6:.0f} MB were read, and memory grew by {grown / 1e6:.0f} MB'
    assert read > 70e6 and grown < 45e6, told


# the version by hand

LETTERS = st.text(alphabet="aab c1'ſ²é\n", max_size=60)

@given(st.lists(LETTERS, min_size=1, max_size=4), st.integers(257, 330))
@settings(max_examples=300, deadline=None)
def test_the_version_by_hand_breaks_ties_as_the_library(by_hand, texts, size):
    ours, tokenizer = same_by_hand(by_hand, texts, size)
    for text in (*texts, 'abc aab naïve 12'):
        numbers = tokenizer.encode(text).ids
        assert ours.encode(text) == numbers and ours.decode(numbers) == text


def test_the_version_by_hand_cuts_every_old_character_as_the_library(by_hand):
    import unicodedata
    from tokenizers import pre_tokenizers
    chunks, cuts = by_hand[0], pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
    old = unicodedata.ucd_3_2_0  # newer characters depend on each side's Unicode version
    every = map(chr, range(sys.maxunicode + 1))
    known = [c for c in every if old.category(c) not in ('Cn', 'Cs', 'Co')]
    assert len(known) > 90000
    for start in range(0, len(known), 500):
        text = ''.join(f'a{c}b 1{c}2  {c};{c};' for c in known[start:start + 500])
        assert chunks(text) == [cut for cut, _ in cuts(text)]


@needs_data
def test_the_version_by_hand_agrees_on_full_articles(by_hand):
    paths = sorted((Path(DATA) / 'jats_text').glob('craft-*.txt'))[:12]
    texts = [path.read_text(encoding='utf-8') for path in paths]
    ours, tokenizer = same_by_hand(by_hand, texts, 1500)
    assert all(ours.encode(text) == e.ids for text, e in zip(texts, tokenizer.encode_batch(texts)))


@needs_data
def test_the_version_by_hand_agrees_on_real_abstracts(by_hand):
    with gzip.open(Path(DATA) / 'corpus/neuro_reviews.jsonl.gz', 'rt', encoding='utf-8') as f:
        texts = [json.loads(next(f))['text'] for _ in range(300)]
    ours, tokenizer = same_by_hand(by_hand, texts, 1200)
    assert all(ours.encode(text) == e.ids for text, e in zip(texts, tokenizer.encode_batch(texts)))


# read by others

def test_transformers_reads_the_same_tokenizer(tmp_path):
    transformers = pytest.importorskip('transformers')
    limited = Tokenizer.from_str(SMALL.to_str())
    limited.enable_truncation(3)
    limited.enable_padding(length=8)
    save_tokenizer(limited, tmp_path / 't')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / 't')
    marks = theirs.bos_token_id, theirs.eos_token_id, theirs.unk_token_id, SMALL.token_to_id(EOS)
    assert marks == (0, 0, 0, 0) and theirs.convert_ids_to_tokens(0) == EOS
    assert len(theirs) == SMALL.get_vocab_size() and theirs.model_max_length > 1e9
    awkward = f'a {EOS} b', EOS, '  two  spaces \n', "it 's . odd , no ?", '\x00\x1c\u2028'
    for text in (*FIELD[:3], *awkward):
        ids = theirs(text)['input_ids']
        assert ids == SMALL.encode(text).ids and theirs.decode(ids) == text


def test_words_without_an_end_are_cut_alike_by_transformers(tmp_path):
    transformers = pytest.importorskip('transformers')
    gene = ''.join(random.Random(0).choices('ACGT', k=5000))
    tokenizer = train_tokenizer([gene, '海马体' * 300], 500)
    save_tokenizer(tokenizer, tmp_path / 't')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / 't')
    again = load_tokenizer(tmp_path / 't')
    mixed = f'a {gene}\n\n{gene[:999]} b'
    for text in gene, mixed, '海马体' * 500, ' ' * 999, '🧠' * 400, EOS * 99:
        ids = tokenizer.encode(text).ids
        assert ids == again.encode(text).ids == theirs(text)['input_ids']
        assert again.decode(ids) == text


@needs_data
def test_the_limit_changes_no_id_of_ordinary_text():
    with gzip.open(Path(DATA, 'corpus/neuro_reviews.jsonl.gz'), 'rt', encoding='utf-8') as file:
        texts = [json.loads(line)['text'] for line in file]
    free, limited = (train_tokenizer(texts[:300], 1000, longest=longest) for longest in (None, 256))
    assert free.get_vocab() == limited.get_vocab()
    every = zip(*(each.encode_batch(texts[::4]) for each in (free, limited)), strict=True)
    assert all(a.ids == b.ids for a, b in every)


# views

@given(TEXT, st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_view_shows_every_token_and_no_markup_of_the_text(parts, valued):
    text = ''.join(parts)
    n = len(SMALL.encode(text).ids)
    values = {'a<b': [float(i) for i in range(n)]} if valued else None
    html = show_pieces({'a<b': SMALL}, text, values)._repr_html_()
    assert html.count('<bdi style=') == n and html.count('<ruby>') == (n if valued else 0)
    assert f'a&lt;b: {n} tokens' in html
    allowed = (r'</?(?:table|tr|p|ruby|rp)>|<(?:th|td) [^<>]*>|</(?:th|td|bdi|span|rt)>'
               r'|<(?:bdi|span|rt) [^<>]*>|<wbr>')
    assert not re.search('[<>]', re.sub(allowed, '', html)) and not re.search('[\x00-\x1f]', html)


def contrast(colour):
    "Compute the contrast of black text on a colour, by the formula of WCAG 2."
    parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return (np.dot(linear, (0.2126, 0.7152, 0.0722)) + 0.05) / 0.05


def test_black_text_is_readable_on_every_shade_and_shades_differ_without_colour():
    tokens = SMALL.encode(FIELD[0]).ids
    view = show_pieces(SMALL, FIELD[0], np.linspace(-1, 5, len(tokens)), top=5, unit='bits')
    html = view._repr_html_()
    shades = re.findall(r'background:(#\w{6});border-bottom:(\d)px', html)
    light = [contrast(colour) for colour, _ in shades]
    assert len(shades) == len(tokens) and light == sorted(light, reverse=True)
    assert light[0] == 21 and light[-1] >= 4.5
    assert (shades[0][1], shades[-1][1]) == ('0', '6')
    assert 'white: 0, darkest: 5 bits' in html and '>5</rt>' in html


# the paper's numbers

@pytest.fixture(scope='module')
def published():
    return {name: load_tokenizer(Path(DATA) / 'tokenizers' / name) for name in ('gpt2', 'neuro')}


@needs_data
def test_tokens_of_the_benchmark_and_of_the_figure(published):
    pd = pytest.importorskip('pandas')
    table = pd.read_csv(Path(DATA) / 'brainbench/BrainBench_Human_v0.1.csv')
    original, incorrect = (table[f'{kind}_abstract'].tolist() for kind in ('original', 'incorrect'))
    count = [sum(len(e.ids) for e in t.encode_batch(texts))
             for t in published.values() for texts in (original, incorrect)]
    assert count == [61021, 60996, 53539, 53544]
    assert [round(fertility(t, original), 4) for t in published.values()] == [1.4102, 1.2373]
    figure = (Path(DATA) / 'tagging/tokenization_viz.txt').read_text(encoding='utf-8')
    lines = (line for line in figure.split('\n') if line)
    for line in lines:
        text = original[int(line.split()[1])]
        for t in published.values():
            cut = '-'.join(token.replace('Ġ', '') for token in t.encode(text).tokens)
            assert next(lines) == cut


@needs_data
def test_published_vocabularies_are_read_and_cut(published):
    assert [t.token_to_id(EOS) for t in published.values()] == [50256, 0]
    assert [t.get_vocab_size() for t in published.values()] == [50257, 50257]
    for t in published.values():
        small, vocab = shrink_tokenizer(t, 2000), t.get_vocab()
        kept = small.get_vocab()
        assert sorted(kept.values()) == list(range(2000))
        assert all(vocab[token] == i for token, i in kept.items() if token != EOS)
        assert small.decode(small.encode('hippocampus 日本').ids) == 'hippocampus 日本'


@needs_data
def test_transformers_agrees_on_the_published_vocabulary(published, tmp_path):
    transformers = pytest.importorskip('transformers')
    save_tokenizer(published['neuro'], tmp_path / 't')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / 't')
    classic = transformers.GPT2Tokenizer.from_pretrained(Path(DATA) / 'tokenizers' / 'neuro')
    text = "Optogenetic  stimulation of CeA→PBN didn't ½ naïve.\n\nEnd"
    ours = published['neuro'].encode(text).ids
    assert theirs(text)['input_ids'] == classic(text)['input_ids'] == ours
    assert theirs.eos_token_id == 0


def test_the_prompt_in_the_lesson_is_that_of_lesson_52():
    from domain_llm.bench.losses import PROMPT
    cells = json.loads(LESSON.read_text(encoding='utf-8'))['cells']
    source = '\n'.join(''.join(cell['source']) for cell in cells)
    assert PROMPT in re.sub(r"'\n +'", '', source)  # there it is written over two lines
