"""Cleaning under fuzz, on real abstracts, and beside ftfy."""
import gzip, json, random, re, unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import assume, given, settings, strategies as st

from corpora import DATA, needs_data
from domain_llm.text.clean import _INVISIBLE, _repaired, clean_text

LETTERS = st.text(alphabet=st.characters(exclude_categories=['Cs']), max_size=60)
DIRT = 'aé\u0301 \t\n\r\x00\x0b\x1c\x85\u2028\u3000\u200b\xad'
WORDS = ['β-amyloid', 'naïve', 'Müller', 'µm', '±2 °C', 'café', 'Alzheimer’s', '“so”', '10−3', '×',
         'α → β', '≥', 'Ångström', 'Ca²⁺', '…']


def letters(text):
    return Counter(c for c in unicodedata.normalize('NFD', text) if c.isalpha())


def misread(text):
    "Read UTF-8 as Windows' code page."
    return ''.join(bytes([b]).decode('cp1252', 'ignore') or chr(b) for b in text.encode())


@pytest.fixture(scope='module')
def abstracts():
    path = Path(DATA, 'corpus/neuro_reviews.jsonl.gz')
    with gzip.open(path, 'rt', encoding='utf-8') as file:
        return [json.loads(line)['text'] for line in file]


@settings(deadline=None, max_examples=400)
@given(LETTERS)
def test_a_second_cleaning_changes_nothing_and_the_letters_stay(text):
    seen = [text, unicodedata.normalize('NFC', _INVISIBLE.sub('', text))]
    assume(all(_repaired(t) == t for t in seen))  # a repair changes letters: that is what it is for
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
    assert len(texts) > 100 and back / len(texts) >= 0.99, (back, len(texts))
