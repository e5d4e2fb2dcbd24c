"""The game: texts and files at random, a kill, and buttons that a program presses."""
import io, json, os, re, signal, subprocess, sys
from contextlib import redirect_stdout

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from domain_llm.app import game as G
from domain_llm.bench.scores import Scores
from domain_llm.app.game import Answers, Match, answered, game_widget, mark, play, rounds
from domain_llm.text.synthetic import Case

DATA = os.environ.get('DOMAIN_LLM_DATA')
CASES = [Case(str(i), f'Rat {i}. Freezing rose.', f'Rat {i}. Freezing fell.', 'behaviour')
         for i in range(40)]
quiet = settings(max_examples=60, deadline=None,
                 suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def match():
    "Set a model that is right on the even cases beside two people, right on every third."
    right = np.arange(40) % 2 == 0
    frame = pd.DataFrame(dict(id=[c.id for c in CASES], section='behaviour',
                              original=np.where(right, 1.0, 2.0),
                              altered=np.where(right, 2.0, 1.0) + np.arange(40) / 100))
    people = pd.DataFrame([dict(person=p, case=str(i), correct=i % 3 == 0, confidence=10 * p + i)
                           for i in range(40) for p in (1, 2)])
    return Match(CASES, Scores('a model', frame), people, 'two people')


def always(right, sure=80): return lambda r: (r.real if right else 3 - r.real, sure)


def lines(match, answers): return G.accuracy_by(answered(match, answers), 'who').set_index('who')


WORDS = st.lists(st.sampled_from('rats mice rose fell in the a of'.split()),
                 min_size=1, max_size=12).map(' '.join)


@quiet
@given(WORDS, WORDS)
def test_marks_change_no_word_and_mark_what_differs(a, b):
    marked = mark(a, b)
    assert tuple(' '.join(re.sub('[«»]', ' ', m).split()) for m in marked) == (a, b)
    shared = [re.sub('«.*?»', '•', m).split() for m in marked]
    assert [w for w in shared[0] if w != '•'] == [w for w in shared[1] if w != '•']
    assert ('«' in ''.join(marked)) == (a != b)


GIVEN = st.lists(st.tuples(st.integers(0, 39), st.booleans(), st.integers(0, 100)), max_size=30,
                 unique_by=lambda t: t[0])


@quiet
@given(GIVEN, st.data())
def test_a_file_cut_anywhere_keeps_every_whole_line_and_can_go_on(tmp_path_factory, given_, data):
    path = tmp_path_factory.mktemp('cut') / 'a.jsonl'
    shown, mine = {int(r.case.id): r for r in rounds(CASES, 40)}, Answers(path)
    for i, right, sure in given_:
        mine.add(shown[i], shown[i].real if right else 3 - shown[i].real, sure)
    whole = path.read_bytes() if path.exists() else b''
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    with redirect_stdout(io.StringIO()): again = Answers(path)
    kept = [json.loads(line)['case'] for line in whole.splitlines()][:whole[:cut].count(b'\n')]
    assert list(again.rows)[:len(kept)] == kept
    # 1: only the newline was cut
    assert len(again.rows) - len(kept) in (0, 1)
    before = path.read_bytes()
    for i in shown:
        if not again.of(shown[i].case): again.add(shown[i], 1, 50)
    assert path.read_bytes().startswith(before)
    with redirect_stdout(io.StringIO()):
        assert Answers(path).rows == again.rows and len(again.rows) == 40


PLAYS = """
import os, signal, sys
from domain_llm.app.game import *
from domain_llm.text.synthetic import Case
cases = [Case(str(i), f'Rat {i}. Freezing rose.', f'Rat {i}. Freezing fell.', 'behaviour')
         for i in range(40)]
def answer(r):
    if len(mine.rows) == int(sys.argv[2]): os.kill(os.getpid(), signal.SIGKILL)
    return r.real, 70
mine = Answers(sys.argv[1])
play(answer, None, rounds(cases, 40), mine, say=None)
"""


@pytest.mark.skipif(os.name == 'nt', reason='kill -9 is of POSIX')
def test_a_game_that_was_killed_goes_on_where_it_stopped(match, tmp_path):
    path, asked = tmp_path / 'a.jsonl', []
    died = subprocess.run([sys.executable, '-c', PLAYS, path, '13'])
    assert died.returncode == -signal.SIGKILL
    def answer(r):
        asked.append(r)
        return r.real, 60
    play(answer, match, rounds(CASES, 40), Answers(path), say=None)
    assert asked == rounds(CASES, 40)[13:] and lines(match, Answers(path)).accuracy['player'] == 1.0


# ---- buttons

def page(match, tmp_path, n=2):
    pytest.importorskip('ipywidgets')
    mine = Answers(tmp_path / 'a.jsonl')
    return mine, *game_widget(match, rounds(CASES, n), mine).children


def test_a_round_with_buttons(match, tmp_path):
    mine, text, choice, sure, button, told = page(match, tmp_path)
    shown = rounds(CASES, 2)
    assert choice.value is None and sure.value == 50
    assert 'Case 1 of 2' in text.value and '<b><u>«rose.»</u></b>' in text.value
    button.click()
    assert 'Choose version 1 or version 2 first' in told.value and not mine.rows
    choice.value, sure.value = shown[0].real, 80
    button.click()
    assert 'Right: ' in told.value and 'a model' in told.value and 'two people' in told.value
    assert Answers(mine.path).of(shown[0].case)['confidence'] == 80
    assert button.description == 'Next case'
    button.click()
    assert 'Case 2 of 2' in text.value and choice.value is None
    assert told.value == '' and sure.value == 50
    choice.value = 3 - shown[1].real
    button.click()
    assert 'Wrong: ' in told.value and button.description == 'Finish'
    button.click()
    assert 'Every round is answered' in text.value and button.disabled and len(mine.rows) == 2
    assert lines(match, Answers(mine.path)).accuracy['player'] == 0.5


def test_buttons_go_on_where_another_day_stopped(match, tmp_path):
    mine, text, choice, sure, button, told = page(match, tmp_path)
    choice.value = 1
    button.click()
    _, text, choice, sure, button, told = page(match, tmp_path)
    assert 'Case 2 of 2' in text.value
    choice.value = 2
    button.click()
    assert page(match, tmp_path)[4].disabled


def test_an_answer_that_cannot_be_written_is_said(match, tmp_path, monkeypatch):
    mine, text, choice, sure, button, told = page(match, tmp_path)
    mine.path = tmp_path / 'no such folder' / 'a.jsonl'
    choice.value = 1
    button.click()
    assert 'was not written' in told.value and not mine.rows and 'Case 1 of 2' in text.value


def test_the_module_imports_neither_buttons_nor_torch():
    code = ('import sys, domain_llm.app.game\n'
            'print(*{"ipywidgets", "torch", "matplotlib"} & set(sys.modules))')
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_the_model_of_the_synthetic_game_has_read_its_science():
    toy = G.synthetic_match()
    assert toy.model.name == 'the trained toy' and toy.model.accuracy > 0.9
    mine = Scores('mine', toy.model.frame)
    assert G.synthetic_match(mine).model is mine
    told = G.reply(toy, rounds(toy.cases, 1)[0], 1)
    assert told[1].startswith('The model, the trained toy, chose version ')


@pytest.mark.skipif(not DATA, reason='needs DOMAIN_LLM_DATA')
def test_the_real_match_has_the_published_answers(tmp_path):
    match, mine = G.brainbench_match(), Answers(tmp_path / 'a.jsonl')
    play(always(True), match, rounds(match.cases, 200), mine, say=None)
    table = lines(match, mine)
    assert (table.correct['experts'], table.n['experts']) == (641, 1011)
    assert table.n['gpt2_scratch_neuro_tokenizer'] == 200
