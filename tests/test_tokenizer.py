"""The tokenizer: lossless on any text, equal to its teaching version and to transformers, and the paper's numbers."""
import ast, json, os, random, re, subprocess, sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from tokenizers import Tokenizer

from domain_llm.tokens import tokenizer as module
from domain_llm.tokens.tokenizer import (
    EOS, bits_per_byte, fertility, load_tokenizer, save_tokenizer, show_pieces, shrink_tokenizer,
    term_share, tokenizer_sha256, train_tokenizer, vocab_overlap, whole_terms)

LESSON = Path(__file__).parent.parent / 'nbs' / '20_tokenizer.ipynb'
DATA = os.environ.get('DOMAIN_LLM_DATA')
needs_data = pytest.mark.skipif(not DATA, reason='DOMAIN_LLM_DATA is not set')
FIELD = [
    'the amygdala and the hippocampus',
    'muscimol silenced the amygdala',
    'naïve Übung 日本語 λ → ½ µm²',
] * 9
SMALL = train_tokenizer(FIELD, 400)
AWKWARD = [
    EOS,
    ' ',
    '\n',
    '\x00',
    '\x1c',
    '\x85',
    '\u2028',
    '\ufeff',
    "'ll",
    'é',
    'amygdala',
    '<|a|>',
]
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
    "The lesson's own tokenizer in pure Python: chunks, train, Merges."
    return lesson_names(
        'class_of',
        'L',
        'N',
        'S',
        'PATTERN',
        'pair_counts',
        'best_pair',
        'merge',
        'start',
        'chunks',
        'train',
        'Merges',
    )[-3:]


# any text

@given(TEXT)
@settings(max_examples=400, deadline=None)
def test_any_text_comes_back_and_never_holds_a_special_token(parts):
    text = ''.join(parts)
    ids = SMALL.encode(text, add_special_tokens=False).ids
    assert SMALL.decode(ids) == text and SMALL.token_to_id(EOS) not in ids


def test_every_character_comes_back():
    # no halves of pairs
    numbers = (*range(0xd800), *range(0xe000, 0x20000), *range(0x20000, sys.maxunicode + 1, 17))
    everything = ''.join(map(chr, numbers))
    assert SMALL.decode(SMALL.encode(everything).ids) == everything


def test_a_special_token_in_a_document_is_text_after_loading_too(tmp_path):
    tokenizer = train_tokenizer(FIELD, 400, special_tokens=['<|figure|>'])
    save_tokenizer(tokenizer, tmp_path / 't')
    for each in (tokenizer, load_tokenizer(tmp_path / 't'), shrink_tokenizer(tokenizer, 300)):
        for text in (EOS, f'a {EOS} b', f'<|figure|>{EOS}', EOS[:-1] + EOS):
            ids = each.encode(text, add_special_tokens=False).ids
            assert not {0, 1} & set(ids) and each.decode(ids) == text
        assert (each.token_to_id(EOS), each.token_to_id('<|figure|>')) == (0, 1)


def test_a_trained_text_with_the_spelled_out_token_makes_no_merge_of_the_special_one():
    tokenizer = train_tokenizer([f'x {EOS} y'] * 50, 300)
    assert 0 not in tokenizer.encode(EOS).ids and tokenizer.decode(tokenizer.encode(EOS).ids) == EOS
    assert tokenizer.get_vocab()[EOS] == 0


# training

@pytest.mark.parametrize('size', (257, 300, 5000, 70000))
def test_any_vocabulary_size(size):
    rng = random.Random(0)
    word = lambda: ''.join(rng.choices('abcdefghijklmnop', k=9))
    texts = [' '.join(word() for _ in range(200)) for _ in range(250 if size > 5000 else 20)]
    tokenizer = train_tokenizer(iter(texts), size)
    assert tokenizer.get_vocab_size() == size and sorted(tokenizer.get_vocab().values()) == list(
        range(size)
    )


def test_the_texts_are_read_once_and_as_a_stream():
    given_out, most = [0], 0
    def texts():
        for i in range(20000):
            given_out[0] += 1
            yield f'document {i % 70} of {i % 90}'
    class Spy:
        def __iter__(self): given_out.append('opened'); return texts()
    tokenizer = train_tokenizer(Spy(), 300)
    assert (
        given_out == [20000, 'opened']
        and tokenizer.get_vocab() == train_tokenizer(list(texts()), 300).get_vocab()
    )


MEMORY = """
import random
from domain_llm.ground.files import peak_memory
from domain_llm.tokens.tokenizer import train_tokenizer
rng, read = random.Random(0), 0
words = [''.join(rng.choices('abcdefghij', k=8)) for _ in range(5000)]
def texts(n):
    global read
    for _ in range(n):
        text = ' '.join(rng.choices(words, k=10000))
        read += len(text)
        yield text
train_tokenizer(texts(20), 2000)
before, read = peak_memory(), 0
train_tokenizer(texts(800), 2000)
print(read, peak_memory() - before)
"""


@pytest.mark.skipif(sys.platform == 'win32', reason='no resource module')
def test_training_does_not_hold_the_texts_in_memory():
    # one thread: with more, each keeps buffers of its own, whose number is the machine's
    env = dict(os.environ, RAYON_NUM_THREADS='1', TOKENIZERS_PARALLELISM='false')
    out = subprocess.run(
        [sys.executable, '-c', MEMORY], capture_output=True, text=True, check=True, env=env
    ).stdout
    read, grown = map(int, out.split())
    assert read > 70e6 and grown < 45e6, (
        f'{read / 1e6:.0f} MB were read, and memory grew by {grown / 1e6:.0f} MB'
    )


def test_another_language_in_one_argument():
    "A field that is neither English nor a science: the same call, and its own words become whole."
    recipes = [f'μαγειρέψτε {a} με {b} και λίγη ρίγανη'
               for a in ('φακές', 'ρεβίθια', 'κολοκύθια') for b in ('λεμόνι', 'ελαιόλαδο')] * 20
    own, english = train_tokenizer(recipes, 500), train_tokenizer(FIELD * 10, 500)
    assert fertility(own, recipes[:6]) < 1.5 < fertility(english, recipes[:6])
    assert whole_terms(own, ['ρίγανη', 'ρεβίθια με λεμόνι', 'παστίτσιο']) == [
        'ρίγανη',
        'ρεβίθια με λεμόνι',
    ]
    assert own.decode(own.encode(recipes[0]).ids) == recipes[0]
    assert term_share(own, ['ΡΊΓΑΝΗ']) > 0 == term_share(own, ['παστίτσιο'])


# the version by hand

def merges_of(tokenizer):
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())['model']['merges']]


@given(st.lists(st.text(alphabet="aab c1'ſ²é\n", max_size=60), min_size=1, max_size=4), st.integers(257, 330))
@settings(max_examples=300, deadline=None)
def test_the_version_by_hand_breaks_ties_as_the_library(by_hand, texts, size):
    _, train, Merges = by_hand
    (ids, merges), tokenizer = train(texts, size), train_tokenizer(texts, size)
    assert merges_of(tokenizer) == merges and tokenizer.get_vocab() == ids
    ours = Merges(ids, merges)
    for text in (*texts, 'abc aab naïve 12'):
        numbers = tokenizer.encode(text).ids
        assert ours.encode(text) == numbers and ours.decode(numbers) == text


def test_the_version_by_hand_cuts_every_old_character_as_the_library(by_hand):
    import unicodedata
    from tokenizers import pre_tokenizers
    chunks, cuts = by_hand[0], pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
    # newer characters depend on each side's Unicode version
    old = unicodedata.ucd_3_2_0
    known = [
        chr(i) for i in range(sys.maxunicode + 1) if old.category(chr(i)) not in ('Cn', 'Cs', 'Co')
    ]
    assert len(known) > 90000
    for start in range(0, len(known), 500):
        text = ''.join(f'a{c}b 1{c}2  {c};{c};' for c in known[start:start + 500])
        assert chunks(text) == [cut for cut, _ in cuts(text)]


@needs_data
def test_the_version_by_hand_agrees_on_full_articles(by_hand):
    _, train, Merges = by_hand
    texts = [
        p.read_text(encoding='utf-8')
        for p in sorted((Path(DATA) / 'jats_text').glob('craft-*.txt'))[:12]
    ]
    (ids, merges), tokenizer = train(texts, 1500), train_tokenizer(texts, 1500)
    assert merges_of(tokenizer) == merges and tokenizer.get_vocab() == ids
    ours = Merges(ids, merges)
    assert all(ours.encode(text) == e.ids for text, e in zip(texts, tokenizer.encode_batch(texts)))


# stored, and read by others

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('stored') / 'tokenizer'
    limited = Tokenizer.from_str(SMALL.to_str())
    limited.enable_truncation(3)
    limited.enable_padding(length=8)
    save_tokenizer(limited, folder)
    return folder


def test_transformers_reads_the_same_tokenizer(folder):
    theirs = pytest.importorskip('transformers').AutoTokenizer.from_pretrained(folder)
    assert (
        theirs.bos_token_id
        == theirs.eos_token_id
        == theirs.unk_token_id
        == SMALL.token_to_id(EOS)
        == 0
    )
    assert len(theirs) == SMALL.get_vocab_size() and theirs.model_max_length > 1e9
    for text in (*FIELD[:3], f'a {EOS} b', EOS, '  two  spaces \n', "it 's . odd , no ?", '\x00\x1c\u2028'):
        ids = theirs(text)['input_ids']
        assert (
            ids == SMALL.encode(text).ids
            and theirs.decode(ids) == text
            and theirs.convert_ids_to_tokens(0) == EOS
        )


def test_no_truncation_is_stored_or_obeyed(folder):
    stored = json.loads((folder / 'tokenizer.json').read_text(encoding='utf-8'))
    assert stored['truncation'] is None and stored['padding'] is None
    assert load_tokenizer(folder).encode(FIELD[0]).ids == SMALL.encode(FIELD[0]).ids
    # as the paper's tokenizers were stored
    stored['truncation'] = dict(direction='Right', max_length=3, strategy='LongestFirst', stride=0)
    (folder / 'tokenizer.json').write_text(json.dumps(stored), encoding='utf-8')
    assert len(Tokenizer.from_file(str(folder / 'tokenizer.json')).encode(FIELD[0]).ids) == 3
    assert load_tokenizer(folder).encode(FIELD[0]).ids == SMALL.encode(FIELD[0]).ids


def test_the_hash_knows_contents_and_nothing_else():
    limited = Tokenizer.from_str(SMALL.to_str())
    limited.enable_truncation(3)
    marked = train_tokenizer(FIELD, 400, special_tokens=['<|a|>'])
    several = SMALL, train_tokenizer(FIELD, 290), train_tokenizer(FIELD[:2], 400), marked
    assert tokenizer_sha256(limited) == tokenizer_sha256(SMALL)
    assert len({tokenizer_sha256(t) for t in several}) == 4


# views

def test_pieces_of_characters_are_shown_as_bytes():
    tokenizer = train_tokenizer(['muscimol'], 270)
    view = show_pieces(tokenizer, 'é日\n<b>', [None, *range(7), float('nan')], unit='bits')
    assert repr(view) == r'\xc3|\xa9[0]|\xe6[1]|\x97[2]|\xa5[3]|␊[4]|<[5]|b[6]|>'
    html = view._repr_html_()
    assert (
        '<b>' not in html
        and '&lt;' in html
        and 'white: 0, darkest: 6 bits' in html
        and '9 tokens' in html
    )
    assert 'title="␊: 4 bits"' in html
    assert repr(show_pieces(tokenizer, 'muscimol 🧠')) == r'muscimol| |\xf0|\x9f|\xa7|\xa0'
    assert (
        repr(show_pieces(tokenizer, '')) == ''
        and '0 tokens' in show_pieces(tokenizer, '')._repr_html_()
    )


@given(TEXT, st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_view_shows_every_token_and_no_markup_of_the_text(parts, valued):
    text = ''.join(parts)
    n = len(SMALL.encode(text).ids)
    html = show_pieces(
        {'a<b': SMALL}, text, {'a<b': [float(i) for i in range(n)]} if valued else None
    )._repr_html_()
    assert html.count('<bdi style=') == n and html.count('<ruby>') == (n if valued else 0)
    assert f'a&lt;b: {n} tokens' in html
    allowed = r'</?(?:table|tr|p|ruby|rp)>|<(?:th|td) [^<>]*>|</(?:th|td|bdi|span|rt)>|<(?:bdi|span|rt) [^<>]*>|<wbr>'
    assert not re.search('[<>]', re.sub(allowed, '', html)) and not re.search('[\x00-\x1f]', html)


def contrast(colour):
    "Contrast of black text on a colour, by the formula of WCAG 2."
    parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return (np.dot(linear, (0.2126, 0.7152, 0.0722)) + 0.05) / 0.05


def test_black_text_is_readable_on_every_shade_and_shades_differ_without_colour():
    tokens = SMALL.encode(FIELD[0]).ids
    html = show_pieces(
        SMALL, FIELD[0], np.linspace(-1, 5, len(tokens)), top=5, unit='bits'
    )._repr_html_()
    shades = re.findall(r'background:(#\w{6});border-bottom:(\d)px', html)
    light = [contrast(colour) for colour, _ in shades]
    assert (
        len(shades) == len(tokens)
        and light == sorted(light, reverse=True)
        and light[0] == 21
        and light[-1] >= 4.5
    )
    assert (shades[0][1], shades[-1][1]) == ('0', '6')
    assert 'white: 0, darkest: 5 bits' in html and '>5</rt>' in html


def test_two_tokenizers_side_by_side_share_one_scale():
    other = train_tokenizer(FIELD, 265)
    a, b = (len(t.encode('the amygdala').ids) for t in (SMALL, other))
    view = show_pieces(
        {'own': SMALL, 'other': other}, 'the amygdala', {'own': [1.0] * a, 'other': [4.0] * b}
    )
    assert (
        view.top == 4
        and repr(view).split('\n')[0] == f'own: {a} tokens: the[1]| amygdala[1]'
        and b > a
    )
    with pytest.raises(ValueError, match=f'each of the {b} tokens of other, but got {a}'):
        show_pieces({'own': SMALL, 'other': other}, 'the amygdala', {'other': [1.0] * a})


# measures

def test_a_term_is_whole_when_none_of_its_words_is_cut():
    terms = ['amygdala', 'amygdalar', "amygdala's", 'amygdala-the', 'the amygdala', 'the amygdalar']
    assert whole_terms(SMALL, terms) == ['amygdala', 'amygdala-the', 'the amygdala']


def test_bits_per_byte_is_the_entropy_of_a_coin():
    # eight fair coins spell a byte
    assert bits_per_byte(np.log(2), 8, 1) == pytest.approx(8)
    text = FIELD[2]
    n = {t.get_vocab_size(): len(t.encode(text).ids) for t in (SMALL, train_tokenizer(FIELD, 260))}
    # the same cost of the text, however it is cut
    total = 57.0
    bits = {bits_per_byte(total / k, k, len(text.encode())) for k in n.values()}
    assert len(n) == 2 and max(bits) - min(bits) < 1e-12
    assert min(bits) == pytest.approx(57 / 0.6931471805599453 / len(text.encode()))


@pytest.mark.parametrize('size', (257, 258, 270, 333))
def test_a_cut_vocabulary_is_the_trained_one(size):
    assert shrink_tokenizer(SMALL, size).to_str() == train_tokenizer(FIELD, size).to_str()


@pytest.mark.parametrize('call', (
    lambda: train_tokenizer(FIELD, 256), lambda: train_tokenizer('one text', 300), lambda: fertility(SMALL, ['', '  ']),
    lambda: train_tokenizer(FIELD, 257, special_tokens=['<|a|>']), lambda: show_pieces(SMALL, 'a', [])))
def test_bad_input_is_refused_in_words(call):
    with pytest.raises(ValueError, match='but'): call()


# the paper's numbers

@pytest.fixture(scope='module')
def published():
    return {name: load_tokenizer(Path(DATA) / 'tokenizers' / name) for name in ('gpt2', 'neuro')}


def tagged(name):
    path = Path(DATA) / f'tagging/{name}_filtered__neuro_term_tagging_results.txt'
    lines = path.read_text(encoding='utf-8').split('\n')
    return [
        word for word, answer in (line.rsplit(', ', 1) for line in lines if line) if answer == 'yes'
    ]


@needs_data
def test_shared_vocabulary_and_term_shares(published):
    gpt2, neuro = published.values()
    assert round(vocab_overlap(gpt2, neuro), 6) == round(vocab_overlap(neuro, gpt2), 6) == 0.479436
    assert round(term_share(gpt2, tagged('pretrain'), as_paper=True), 6) == 0.119745
    assert round(term_share(neuro, tagged('neuro'), as_paper=True), 6) == 0.254313
    # as text two fewer: the list spells á as two letters
    assert term_share(neuro, tagged('neuro')) * 50257 == pytest.approx(12779)


@needs_data
def test_tokens_of_the_benchmark_and_of_the_figure(published):
    pd = pytest.importorskip('pandas')
    table = pd.read_csv(Path(DATA) / 'brainbench/BrainBench_Human_v0.1.csv')
    count = [sum(len(e.ids) for e in t.encode_batch(table[column].tolist()))
             for t in published.values() for column in ('original_abstract', 'incorrect_abstract')]
    assert count == [61021, 60996, 53539, 53544]
    assert [
        round(fertility(t, table.original_abstract.tolist()), 4) for t in published.values()
    ] == [1.4102, 1.2373]
    lines = iter(
        (Path(DATA) / 'tagging/tokenization_viz.txt').read_text(encoding='utf-8').split('\n')
    )
    for line in lines:
        if not line: continue
        text = table.original_abstract[int(line.split()[1])]
        for t in published.values():
            assert next(lines) == '-'.join(
                token.replace('Ġ', '') for token in t.encode(text).tokens
            )


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
    assert (
        theirs(text)['input_ids']
        == classic(text)['input_ids']
        == published['neuro'].encode(text).ids
    )
    assert theirs.eos_token_id == 0


def test_the_prompt_in_the_lesson_is_lesson_07s():
    from domain_llm.bench.losses import PROMPT
    source = '\n'.join(
        ''.join(c['source']) for c in json.loads(LESSON.read_text(encoding='utf-8'))['cells']
    )
    # there it is written over two lines
    assert PROMPT in re.sub(r"'\n +'", '', source)


# what the lesson's hidden cells used to guard

def test_bad_input_is_refused_in_a_sentence(tmp_path):
    (tmp_path / 'none').mkdir()
    refused = (
        (lambda: train_tokenizer([], 10), ValueError, 'at least 257'),
        (lambda: train_tokenizer('one text'), ValueError, 'put it into a list'),
        (
            lambda: train_tokenizer(FIELD, 258, special_tokens=['<|a|>', '<|b|>']),
            ValueError,
            'at least 259',
        ),
        (lambda: load_tokenizer(tmp_path / 'none'), FileNotFoundError, 'has none'),
    )
    for call, error, words in refused:
        with pytest.raises(error, match=words): call()


@pytest.mark.parametrize('name', ['tokenizer.json', 'merges.txt'])
def test_half_a_file_is_refused(tmp_path, name):
    (tmp_path / name).write_text('{"half": ')
    with pytest.raises(ValueError, match='cannot be read'): load_tokenizer(tmp_path)


def test_a_generator_gives_what_a_list_gives_and_the_hash_tells_vocabularies_apart():
    assert train_tokenizer((text for text in FIELD), 400).get_vocab() == SMALL.get_vocab()
    assert tokenizer_sha256(train_tokenizer(FIELD, 300)) != tokenizer_sha256(SMALL)


@needs_data
def test_real_abstracts_are_the_same_in_every_merge_and_text(by_hand):
    import gzip
    with gzip.open(Path(DATA) / 'corpus/neuro_reviews.jsonl.gz', 'rt', encoding='utf-8') as f:
        texts = [json.loads(next(f))['text'] for _ in range(300)]
    _, train, Merges = by_hand
    (ids, merges), library = train(texts, 1200), train_tokenizer(texts, 1200)
    assert [tuple(pair) for pair in json.loads(library.to_str())['model']['merges']] == merges
    own = Merges(ids, merges)
    assert library.get_vocab() == ids and all(
        library.encode(text).ids == own.encode(text) for text in texts
    )
