"""Cleaning under fuzz, on real abstracts, and beside ftfy."""
import gzip, json, os, random, re, time, unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import assume, given, settings, strategies as st

from corpora import DATA, needs_data
from domain_llm.text.clean import _INVISIBLE, _WINDOWS, _mended, _repaired, clean_text

LETTERS = st.text(alphabet=st.characters(exclude_categories=['Cs']), max_size=60)
DIRT = 'aé\u0301 \t\n\r\x00\x0b\x1c\x81\u2028\u3000\u200b\xad'
WORDS = ['β-amyloid', 'naïve', 'Müller', 'µm', '±2 °C', 'café', 'Alzheimer’s', '“so”', '10−3', '×',
         'α → β', '≥', 'Ångström', 'Ca²⁺', '…']


def letters(text):
    return Counter(c for c in unicodedata.normalize('NFD', text) if c.isalpha())


def misread(text):
    "Read UTF-8 as Windows' code page."
    return ''.join(_WINDOWS.get(c, c) for c in text.encode().decode('latin-1'))


@pytest.fixture(scope='module')
def abstracts():
    path = Path(DATA, 'corpus/neuro_reviews.jsonl.gz')
    with gzip.open(path, 'rt', encoding='utf-8') as file:
        return [json.loads(line)['text'] for line in file]


@settings(deadline=None, max_examples=400)
@given(LETTERS)
def test_a_second_cleaning_changes_nothing_and_the_letters_stay(text):
    text = re.sub('[\x80-\x9f]', lambda c: _WINDOWS[c[0]], text)
    seen = [text, unicodedata.normalize('NFC', _INVISIBLE.sub('', text))]
    assume(all(_mended(t) == t for t in seen))  # a repair changes letters: that is what it is for
    once = clean_text(text)
    assert clean_text(once) == once
    assert letters(once) == letters(text) or '©' in text  # a copyright notice at the end goes


@settings(deadline=None, max_examples=400)
@given(st.text(alphabet=st.sampled_from(DIRT), max_size=40))
def test_clean_text_leaves_single_spaces_and_one_blank_line(text):
    once = clean_text(text)
    assert not re.search(r'  |\n\n\n| \n|\n |[^\S\n ]', once) and once == once.strip()
    assert all(c == '\n' or unicodedata.category(c) not in ('Cc', 'Cs') for c in once)
    assert unicodedata.is_normalized('NFC', once)


def test_heaps_with_hangul_are_composed_and_lose_no_letter():
    draw = random.Random(0)
    alphabet = 'ab é e\u0301\n\r\t\x00\x0c\x1e\xad\u200b\u2028\u3000ÅK\u0323\ufeff가ᄀ'
    for _ in range(2000):
        heap = ''.join(draw.choices(alphabet, k=draw.randrange(20)))
        once = clean_text(heap)
        assert clean_text(once) == once and letters(once) == letters(heap), ascii(heap)
        assert '\n\n\n' not in once and '  ' not in once


# what a loop, a stack or a backtracking search may trip over, as often as it likes
HOSTILE = [
    '©\n', '. © 2020', '(c) 1999 X\n', '. (c) 2019 ', '(b). (C) 1999\n', 'copyright ', 'Ã',
    '\x83', 'Ã»', 'Â\xa0', 'Ãƒ', 'Ã‚', 'ð', 'â€', 'ï»¿', '\u0301', '\u0323\u0301', '\u0f73', 'ᄀ',
    '가', '海', '&', 'amp;', '&#38;', '&amp;', '&lt;', '&#', '9', '&#x41;', '&\u2060', '<', '<i',
    '<i ', '<i>', '</i>', '<i a="', '<<i></i>', 'i>', '<math>', '</math>', '<sup>', '</sup>', '1',
    '\x1d', '\x1e', '<jats:p>', '"', '“', ' ', '\n', '\xa0', '\u200b', '\ud800', '\U0001f600',
    '.', '\r\n', 'É›', '-']


def hostile(draw):
    "Draw a text of a few pieces, each of them up to a hundred thousand characters long."
    size = draw.choice([10, 300, 3000, 100_000]) if draw.random() < 0.1 else 30
    parts = draw.choices([*HOSTILE, ''.join(draw.choices(HOSTILE, k=3))], k=draw.randrange(1, 8))
    parts = [part * (draw.randrange(size) // len(part) + 1) for part in parts]
    return ''.join(parts + [chr(draw.randrange(0x3000)) for _ in range(draw.randrange(3))])


def test_no_text_takes_long_or_breaks_the_cleaning():
    "300 texts; DOMAIN_LLM_FUZZ=10000 tries as many."
    for seed in range(int(os.environ.get('DOMAIN_LLM_FUZZ', 300))):
        text = hostile(random.Random(seed))
        start = time.process_time()
        once = clean_text(text)
        seconds = time.process_time() - start
        assert seconds < 1, (seed, seconds, text[:60])
        assert unicodedata.is_normalized('NFC', once) and once == once.strip(), (seed, text[:60])
        assert not re.search('[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\xa0\ud800-\udfff]|  ', once), seed


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), st.sampled_from([1, 2]))
def test_what_was_misread_comes_back(words, times):
    text = broken = clean_text(' '.join(words))
    for _ in range(times): broken = misread(broken)
    assert clean_text(broken) == text or 'Å' in text and times == 2


def test_ftfy_is_left_out_for_a_reason():
    ftfy = pytest.importorskip('ftfy')
    area = '20 Å² and 5 Å³'
    assert ftfy.fix_encoding(area) == '20 Ų and 5 ų' and clean_text(area) == area


@needs_data
def test_the_repair_touches_no_real_abstract(abstracts):
    assert len(abstracts) == 6332 and all(_repaired(t) == t for t in abstracts)
    shorter = [t for t in abstracts if len(clean_text(t)) < len(' '.join(t.split())) - 3]
    assert not shorter, 'no notice is found where there is none'


@needs_data
def test_nearly_every_misread_real_abstract_comes_back_whole(abstracts):
    texts = [t for t in abstracts if not t.isascii()]
    back = sum(clean_text(misread(t)) == clean_text(t) for t in texts)
    # G×E, misread, looks like a dash after a word in capitals that ends in Ã, and is left alone
    assert len(texts) > 100 and back / len(texts) >= 0.99, (back, len(texts))
