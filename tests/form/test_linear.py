"""Regular expressions and functions on texts take time that grows with the text alone."""
import ast, functools, importlib, re, time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import domain_llm
from domain_llm.app.game import Round, _as_html, mark
from domain_llm.bench import cases
from domain_llm.text import clean, fetching, jats
from domain_llm.text.synthetic import Case

HOME = Path(domain_llm.__file__).parent
CALLS = 'compile', 'search', 'match', 'fullmatch', 'findall', 'finditer', 'sub', 'split'


@functools.cache
def expressions():
    "Find the regular expressions, kept by a module or spelt out in a call, and how each is used."
    found = {}
    sources = {path: path.read_text(encoding='utf-8') for path in sorted(HOME.glob('*/*.py'))}
    for path, source in sources.items():
        module = importlib.import_module(f'domain_llm.{path.parent.name}.{path.stem}')
        for name, value in vars(module).items():
            if not isinstance(value, re.Pattern): continue
            ways = {way for text in sources.values() for way in re.findall(rf'{name}\.(\w+)', text)}
            found[value, name] = sorted(ways & {*CALLS})
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.Call): continue
            if not ast.unparse(node.func).startswith('re.'): continue
            way, spelt = node.func.attr, node.args and isinstance(node.args[0], ast.Constant)
            if way == 'compile' or way not in CALLS or not spelt: continue
            pattern = re.compile(node.args[0].value, re.I if 're.I' in ast.unparse(node) else 0)
            found[pattern, f'{path.stem}-{node.lineno}'] = [way]
    return [pytest.param(*key[:1], way, id=f'{key[1]}-{way}') for key, ways in found.items()
            for way in ways]


def seconds(work):
    start = time.process_time()
    work()
    return time.process_time() - start


def letters(pattern):
    "Give the characters that a pattern speaks of, and some that it may not."
    text = pattern if isinstance(pattern, str) else pattern.decode('latin-1')
    return sorted({*text, *'aA1 .,;-_«»[]()&<>"\'\n\t\r©$'} - {'\\'})


def repeated(pattern, size=10_000):
    "Draw a short piece, and repeat it between two others."
    piece = st.text(st.sampled_from(letters(pattern)), min_size=1, max_size=6)
    return st.tuples(piece, piece, piece).map(
        lambda three: three[0] + three[1] * (size // len(three[1])) + three[2])


QUICK = settings(max_examples=10, deadline=None, derandomize=True, database=None,
                 phases=(Phase.generate,), suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize('pattern, way', expressions())
def test_a_regular_expression_is_linear(pattern, way):
    @QUICK
    @given(repeated(pattern.pattern))
    def check(text):
        if isinstance(pattern.pattern, bytes): text = text.encode('utf-8', 'replace')
        call = getattr(pattern, {'finditer': 'findall', 'sub': 'findall'}.get(way, way))
        assert seconds(lambda: call(text)) < 0.1, repr(text[:30])
    check()


def test_the_search_finds_what_is_quadratic():
    known = [shown.values[0].pattern for shown in expressions()]
    assert len(known) > 30
    for bad in '«(.*?)»', r'\[\[(.*?)\]\]':
        assert bad not in known
        opened = bad[:1] * 2000 if bad[0] == '«' else '[' * 2000
        plain = seconds(lambda: re.findall('x', opened))
        assert seconds(lambda: re.findall(bad, opened)) > 5 * plain


def allowed(work):
    "Make a function that takes a refusal for an answer."
    def quiet(text):
        try: return work(text)
        except ValueError: pass
    return quiet


def game(text): return _as_html(Round(Case('1', text, f'{text} x'), 1), 1, 1)


WORK = {
    'sentences': cases.split_sentences, 'mended': allowed(cases.read_marked),
    'published': allowed(cases._read_as_published), 'game': game,
    'mark': lambda text: mark(text, text[::-1]),
    'pairs': lambda text: cases.sentence_pairs(Case('1', text, text[::-1])),
    'cases': allowed(lambda text: cases.make_cases([text])), 'clean': clean.clean_text,
    'year': jats.find_year, 'summary': jats._summary, 'licence': fetching._cc_name,
    'medline': lambda text: list(jats.medline_rows(text.splitlines(True))),
    'summaries': lambda text: list(jats.summary_rows(text.splitlines(True)))}
KNOWN = ['e.g. A ', '[[', '[[a,b]] ', '« ', '«', '. ', 'A. B ', '\n', '©\n', 'A.\n©', '[[a\n',
         '[[a,', 'PMID- 1\n      a\n', '      a\n', '1. a\n\n\n', '&amp', 'Ã', 'the ', '[[a,[[b]]',
         'creativecommons.org/licenses/by-', ']] [[', 'x vs. X ']


@pytest.mark.parametrize('name', WORK)
def test_texts_of_100_kb_take_less_than_a_second(name):
    for piece in KNOWN:
        text = piece * (100_000 // len(piece))
        assert seconds(lambda: WORK[name](text)) < 1, piece


@pytest.mark.parametrize('name', WORK)
def test_any_repeated_piece_takes_less_than_a_second(name):
    @QUICK
    @given(repeated('.,;:!?[]()«»"©&#ÃÂðe\n', 20_000))
    def check(text): assert seconds(lambda: WORK[name](text)) < 1, repr(text[:30])
    check()


def test_the_published_marks_are_those_of_the_papers_expression():
    @settings(max_examples=500, deadline=None, derandomize=True, database=None)
    @given(st.text(st.sampled_from('[]a,\n'), max_size=30))
    def check(text):
        assert list(cases._published_marks(text)) == re.findall(r'\[\[(.*?)\]\]', text)
    check()


def test_the_alignment_is_that_of_difflib_and_covers_both_lists(monkeypatch):
    @settings(max_examples=200, deadline=None, derandomize=True, database=None)
    @given(*[st.lists(st.sampled_from('abc'), max_size=9)] * 2)
    def check(a, b):
        for pairs in 60_000, 3:
            monkeypatch.setattr(cases, '_PAIRS', pairs)
            parts = cases.align(a, b)
            assert sum((x for x, _ in parts), []) == a and sum((y for _, y in parts), []) == b
            same = [x == y for x, y in parts]
            assert all(one != other for one, other in zip(same, same[1:]))
    check()
