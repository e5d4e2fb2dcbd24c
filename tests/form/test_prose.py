"""No measured number is typed into the prose of a lesson by hand.

Whether a number was measured no machine can tell, but where it comes from can be looked up. A
number in a Markdown cell that looks measured (it has a decimal point, a thousands comma, or a unit
of share, time, size or factor behind it) has to stand as well in a claim of the lesson's outputs,
or in the source of one of its code cells, or in `ELSEWHERE`.
"""
import re

import pytest
from claims import LINE
from notebooks import cells, lessons, printed, prose, sources

NUMBER = r'(?<![\w.,])\d[\d,]*(?:\.\d+)?'
UNIT = (r'%|per cent|times\b|s\b|ms\b|seconds?\b|minutes?\b|hours?\b|[kMGT]i?B\b|[MGT]?FLOP'
        r'|tokens (?:a|per) second')
MEASURED = re.compile(rf'{NUMBER}(?=\s*(?:{UNIT}))'
                      r'|(?<![\w.,])\d[\d,]*\.\d+|(?<![\w.,])\d{1,3}(?:,\d{3})+')
NO_PROSE = (r'```.*?```|`[^`]*`|\]\([^)]*\)|https?://\S+|arXiv[: ]*[\d.]+|<img[^>]*>'
            r'|!\[[^\]]*\]')
ELSEWHERE = {  # lesson -> number as written -> where it comes from
    '00': {'0.04': 'arithmetic in the sentence itself: 2.35 - 2.31'},
    '13': {'6,332': 'how many abstracts the shared data hold, by their own description',
           '1.3': 'billions of tokens, as the paper says of its corpus'},
    '15': {'1,000': 'an example of an answer that was cut short'},
    '20': {'50,256': "GPT-2's id for the end of a text: the last of its 50,257 entries",
           '1,024': "truncation.max_length in the paper's stored tokenizer.json"},
    '21': {'65,536': 'two bytes: 2 to the power of 16', '7,000': 'an example of a step'},
    '42': {'2.9': 'the version of PyTorch that has torch.optim.Muon, as in settings.ini'},
    '50': {'13.5': 'arithmetic: 27 of 200, the discordant cases of the section before'},
    '52': {'5.9': 'a perplexity in billions, quoted from lm-evaluation-harness, pull request 1465',
           '3.5': 'the right one, quoted from the same place'},
    '61': {'12.2': 'a name: case 12, sentence 2'},
    '75': {'88': 'the share of the gap, as the abstract of arXiv 2401.08565 reports it'},
    '77': {'93.02': 'per cent, quoted from the abstract of arXiv 2406.10559',
           '2.8': 'points, quoted from there'},
    '80': {'50,304': 'the first multiple of 64 above the 50,257 tokens of GPT-2'},
}


def values(text):
    "Return the numbers in a text, without the commas and underscores between their digits."
    found = re.findall(r'(?<![\w.])\d[\d_]*(?:,\d{3})*(?:\.\d+)?', text)
    return {number.replace(',', '').replace('_', '') for number in found}


def computed(path):
    "Return the numbers that stand in a lesson's code, or in a claim that held."
    claims = [line[0] for c in cells(path, 'code') for line in LINE.finditer(printed(c))]
    return values('\n'.join([*sources(path, 'code'), *claims]))


def unfounded(text, known):
    "List the numbers in prose that look measured and are not known, with the words around them."
    text = re.sub(NO_PROSE, ' ', text, flags=re.S)
    found = [m for m in MEASURED.finditer(text) if not values(m[0]) <= known]
    return [f'{m[0]}: … {text[max(0, m.start() - 50):m.end() + 30]!r} …' for m in found]


@pytest.mark.parametrize('path', lessons(), ids=lambda path: path.stem)
def test_no_measured_number_is_typed_by_hand(path):
    elsewhere = values(' '.join(ELSEWHERE.get(path.stem[:2], {})))
    known = computed(path) | elsewhere
    found = [line for cell in sources(path, 'markdown') for line in unfounded(cell, known)]
    assert not found, '\n'.join(
        ['claim it, compute it in a cell, or name its source in ELSEWHERE:', *found])


@pytest.mark.parametrize('path', lessons(), ids=lambda path: path.stem)
def test_every_source_that_is_named_is_needed(path):
    for number in ELSEWHERE.get(path.stem[:2], {}):
        needed = number in prose(path) and not values(number) <= computed(path)
        assert needed, f'{number} needs no source any more'


@pytest.mark.parametrize('text, known, wrong', [
    ('The loss falls to 2.31.', {'2.31'}, []), ('The loss falls to 2.31.', set(), ['2.31']),
    ('It is 12 % shorter', set(), ['12']), ('1,514 answers', {'1514'}, []),
    ('1,514 answers', {'1.514'}, ['1,514']),
    ('It ran 40 minutes, 3 times as long', set(), ['40', '3']),
    ('12 MB and 7 GiB', {'12'}, ['7']), ('[0.5](x_0.7.html)', {'0.5'}, []),
    ('lesson 07, step 3, in 2017, arXiv 2405.09395, `0.31`', set(), []),
])
def test_what_looks_measured(text, known, wrong):
    assert [line.split(':')[0] for line in unfounded(text, known)] == wrong
