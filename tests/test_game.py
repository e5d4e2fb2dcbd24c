"""The game: scripted players, kills, damaged files, and buttons that a program presses."""
import io, json, os, random, signal, subprocess, sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from domain_llm.app import game as G
from domain_llm.bench.scores import Scores
from domain_llm.experts.people import calibration
from domain_llm.app.game import (
    Answers, Match, Round, answered, case_key, game_widget, mark, play, rounds, show_result)
from domain_llm.text.synthetic import Case

DATA = os.environ.get('DOMAIN_LLM_DATA')
CASES = [
    Case(str(i), f'Rat {i}. Freezing rose.', f'Rat {i}. Freezing fell.', 'behaviour')
    for i in range(40)
]
quiet = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def match():
    "A model that is right on the even cases, and two people who are right on every third."
    right = np.arange(40) % 2 == 0
    frame = pd.DataFrame(
        dict(
            id=[c.id for c in CASES],
            section='behaviour',
            original=np.where(right, 1.0, 2.0),
            altered=np.where(right, 2.0, 1.0) + np.arange(40) / 100,
        )
    )
    people = pd.DataFrame([dict(participant=p, id=str(i), correct=i % 3 == 0, confidence=10 * p + i)
                           for i in range(40) for p in (1, 2)])
    return Match(CASES, Scores('a model', frame), people, 'two people')


def always(right, sure=80): return lambda r: (r.real if right else 3 - r.real, sure)


def lines(match, answers): return G.accuracy_by(answered(match, answers), 'who').set_index('who')


@pytest.mark.parametrize('right', [True, False])
def test_who_is_always_right_or_wrong_has_one_or_zero(match, tmp_path, right, capsys):
    mine = Answers(tmp_path / 'a.jsonl')
    play(always(right), match, rounds(CASES, 40), mine)
    table = lines(match, mine)
    assert table.accuracy['player'] == right and table.n['player'] == 40
    assert (
        table.accuracy['a model'] == 0.5
        and table.n['two people'] == 80
        and table.accuracy['two people'] == 14 / 40
    )
    said = capsys.readouterr().out
    assert said.count('Right: ' if right else 'Wrong: ') == 40 and said.count('right.\n') >= 20


def test_the_model_and_the_people_are_told_as_they_answered(match):
    for r in rounds(CASES, 40):
        i, told = int(r.case.id), G.reply(match, r, r.real)
        assert told[0] == f'Right: version {r.real} is the real one.'
        assert G.reply(match, r, 3 - r.real)[0] == f'Wrong: version {r.real} is the real one.'
        chose = f'{r.real}: right' if i % 2 == 0 else f'{3 - r.real}: wrong'
        assert told[1] == f'The model, a model, chose version {chose}.'
        assert (
            told[2]
            == f'Of 2 two people, right: {2 * (i % 3 == 0)}, with a median confidence of '
               f'{15 + i:.0f}.'
        )


def test_a_model_that_cannot_choose_is_wrong(match):
    frame = match.model.frame.assign(altered=match.model.frame.original)
    tied = Match(CASES, Scores('tied', frame), match.people, 'people')
    assert 'could not choose: wrong' in G.reply(tied, rounds(CASES, 1)[0], 1)[1]


def test_only_the_cases_that_were_answered_count_for_all_three(match, tmp_path):
    mine = Answers(tmp_path / 'a.jsonl')
    play(always(True), match, rounds(CASES, 7, seed=3), mine)
    table = answered(match, mine)
    assert table.who.value_counts().to_dict() == {'player': 7, 'a model': 7, 'two people': 14}
    assert set(table.id) == {r.case.id for r in rounds(CASES, 7, seed=3)}


def test_a_calibrated_player_has_the_curve_it_claims(match, tmp_path):
    many = [Case(str(i), f'{i} rose', f'{i} fell') for i in range(2000)]
    rng, mine = random.Random(0), []
    for r in rounds(many, 2000):
        sure = rng.randint(0, 100)
        mine.append((sure, rng.random() < 0.5 + sure / 200))
    curve = calibration(*zip(*mine), 5)
    # the law it was drawn by
    assert np.abs(curve.accuracy - (0.5 + curve.confidence / 200)).max() < 0.06


@quiet
@given(seed=st.integers(0, 10**6), n=st.integers(1, 40))
def test_rounds_are_the_cases_each_once_and_more_only_adds(seed, n):
    shown = rounds(CASES, n, seed)
    assert shown == rounds(CASES, 40, seed)[:n] and len({r.case for r in shown}) == n
    assert all(
        r.texts[r.real - 1] == r.case.original and r.texts[2 - r.real] == r.case.altered
        for r in shown
    )


def test_the_order_of_versions_is_even_and_seeds_differ():
    first = [r.real for seed in range(50) for r in rounds(CASES, 40, seed)]
    assert abs(np.mean(first) - 1.5) < 0.04 and rounds(CASES, 40, 0) != rounds(CASES, 40, 1)


@pytest.mark.parametrize('n', [0, -1, 41])
def test_an_impossible_number_of_rounds_is_a_sentence(n):
    with pytest.raises(ValueError, match='between 1 and the 40 cases'): rounds(CASES, n)


WORDS = st.lists(
    st.sampled_from('rats mice rose fell in the a of'.split()), min_size=1, max_size=12
).map(' '.join)


@quiet
@given(WORDS, WORDS)
def test_marks_change_no_word_and_mark_what_differs(a, b):
    import re
    marked = mark(a, b)
    assert tuple(' '.join(re.sub('[«»]', ' ', m).split()) for m in marked) == (a, b)
    shared = [re.sub('«.*?»', '•', m).split() for m in marked]
    assert [w for w in shared[0] if w != '•'] == [w for w in shared[1] if w != '•']
    assert ('«' in ''.join(marked)) == (a != b)


GIVEN = st.lists(st.tuples(st.integers(0, 39), st.booleans(), st.integers(0, 100)), max_size=30,
                 unique_by=lambda t: t[0])


@quiet
@given(GIVEN, st.data())
def test_a_file_that_was_cut_anywhere_keeps_every_whole_line_and_can_go_on(tmp_path_factory, given_, data):
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


GARBAGE = [
    b'{"case": 3}',
    b'null',
    b'[]',
    b'\xff\xfe\x00',
    b'[' * 5000,
    b'{"case": "x", "correct": 1, "confidence": 50}',
    b'{"case": "x", "correct": true, "confidence": NaN}',
    b'{"case": "x", "correct": true, "confidence": 101}',
    b'{"case": "x", "correct": true, "confidence": true}',
    b'{"case": "x", "correct": true}',
    b'not json',
]


@pytest.mark.parametrize('line', GARBAGE, ids=range(len(GARBAGE)))
def test_a_line_that_is_no_answer_is_named_and_stays(line, tmp_path, capsys):
    path, r = tmp_path / 'a.jsonl', rounds(CASES, 2)
    Answers(path).add(r[0], 1, 20)
    path.write_bytes(line + b'\n' + path.read_bytes())
    mine = Answers(path)
    assert capsys.readouterr().out == 'note: line 1 of a.jsonl is no answer and is left out\n'
    mine.add(r[1], 2, 30)
    assert path.read_bytes().startswith(line + b'\n') and len(Answers(path).rows) == 2


@pytest.mark.parametrize('choice, sure', [(0, 50), (3, 50), (1, -1), (1, 101), (1, float('nan')), (None, 50)])
def test_an_impossible_answer_is_refused_and_not_written(choice, sure, tmp_path):
    mine = Answers(tmp_path / 'a.jsonl')
    with pytest.raises(ValueError, match='version 1 or 2 and a confidence from 0 to 100'):
        mine.add(rounds(CASES, 1)[0], choice, sure)
    assert not mine.path.exists() and not mine.rows


def test_the_first_answer_counts(tmp_path):
    mine, r = Answers(tmp_path / 'a.jsonl'), rounds(CASES, 1)[0]
    mine.add(r, r.real, 20)
    with pytest.raises(ValueError, match='answered before'): mine.add(r, r.real, 90)
    assert (
        Answers(mine.path).of(r.case)['confidence'] == 20 and mine.path.read_text().count('\n') == 1
    )
    # by hand
    mine.path.write_text(mine.path.read_text() + mine.path.read_text().replace('20', '90'))
    assert Answers(mine.path).of(r.case)['confidence'] == 20


def test_answers_to_other_cases_stay_and_do_not_count(match, tmp_path):
    other = [Case('0', 'another rose', 'another fell')]
    mine = Answers(tmp_path / 'a.jsonl')
    mine.add(rounds(other, 1)[0], 1, 20)
    assert answered(match, mine).empty and len(G.still_open(rounds(CASES, 40), mine)) == 40
    assert case_key(other[0]) not in {case_key(c) for c in CASES}


PLAYS = """
import os, signal, sys
from domain_llm.app.game import *
from domain_llm.text.synthetic import Case
cases = [Case(str(i), f'Rat {i}. Freezing rose.', f'Rat {i}. Freezing fell.', 'behaviour') for i in range(40)]
def answer(r):
    if len(mine.rows) == int(sys.argv[2]): os.kill(os.getpid(), signal.SIGKILL)
    return r.real, 70
mine = Answers(sys.argv[1])
play(answer, None, rounds(cases, 40), mine, tell=None)
"""


@pytest.mark.skipif(os.name == 'nt', reason='kill -9 is of POSIX')
def test_a_game_that_was_killed_goes_on_where_it_stopped(match, tmp_path):
    path, asked = tmp_path / 'a.jsonl', []
    died = subprocess.run([sys.executable, '-c', PLAYS, path, '13'])
    assert died.returncode == -signal.SIGKILL
    def answer(r): asked.append(r); return r.real, 60
    play(answer, match, rounds(CASES, 40), Answers(path), tell=None)
    assert asked == rounds(CASES, 40)[13:] and lines(match, Answers(path)).accuracy['player'] == 1.0


def test_an_answer_is_on_the_disk_before_anything_is_told(match, tmp_path):
    path, there = tmp_path / 'a.jsonl', []
    play(
        always(True),
        match,
        rounds(CASES, 3),
        Answers(path),
        tell=lambda told: there.append(len(Answers(path).rows)),
    )
    assert there == [1, 2, 3]


def test_a_player_may_stop(match, tmp_path):
    said = iter([(1, 10), (2, 20), None])
    play(lambda r: next(said), match, rounds(CASES, 40), Answers(tmp_path / 'a.jsonl'), tell=None)
    assert len(Answers(tmp_path / 'a.jsonl').rows) == 2


def test_typing(monkeypatch, capsys):
    said = iter(['3 50', 'one', '1', '2 101', '2, 70'])
    monkeypatch.setattr('builtins.input', lambda prompt: next(said))
    assert G.typed(rounds(CASES, 1)[0]) == (2, 70)
    out = capsys.readouterr().out
    assert out.count('Two numbers are needed') == 4 and '«rose.»' in out and '«fell.»' in out
    monkeypatch.setattr('builtins.input', lambda prompt: '')
    assert G.typed(rounds(CASES, 1)[0]) is None


def test_the_result_says_three_accuracies_with_intervals_and_draws_three_curves(match, tmp_path, capsys):
    mine = Answers(tmp_path / 'a.jsonl')
    assert (
        show_result(match, mine) is None
        and 'play, and run this cell again' in capsys.readouterr().out
    )
    play(always(True), match, rounds(CASES, 40), mine, tell=None)
    figure = show_result(match, mine)
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()[2:5]] == ['player', 'a', 'two']
    assert 'exact McNemar p < 0.001' in said
    assert len(figure.legends[0].get_texts()) == 3


@pytest.mark.parametrize('n', [1, 2, 4, 5])
def test_a_few_rounds_are_enough_for_a_result(match, tmp_path, n):
    mine = Answers(tmp_path / 'a.jsonl')
    play(always(True), match, rounds(CASES, n), mine, tell=None)
    assert show_result(match, mine) is not None


def test_analogy_agrees_with_counting_squares_one_by_one():
    science = G.SyntheticScience(3)
    papers, cases = science.papers(60), science.cases()[:40]
    D = G._read_papers(papers)
    assert D.shape == (24, 64) and np.abs(D).sum() > 50
    people = G.invented_readers(cases, papers, read=(60,))
    for case, row in zip(cases, people.itertuples()):
        (m, r, b), d = G.read_findings(case.original)[0]
        at = 8 * r + b
        vote = sum(D[m, j] * D[i, j] * D[i, at] for i in range(24) for j in range(64))
        if vote: assert row.correct == (vote * d > 0) and row.confidence > 0
        else: assert row.confidence == 0


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
    assert (
        Answers(mine.path).of(shown[0].case)['confidence'] == 80
        and button.description == 'Next case'
    )
    button.click()
    assert (
        'Case 2 of 2' in text.value
        and choice.value is None
        and told.value == ''
        and sure.value == 50
    )
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


def test_texts_are_escaped():
    odd = Round(
        Case('1', '<script>x</script> p < 0.05 & rose', '<script>x</script> p < 0.05 & fell'), 1
    )
    drawn = G._as_html(odd, 1, 1)
    assert (
        '<script>' not in drawn
        and '&lt;script&gt;' in drawn
        and '&amp; <b><u>«rose»</u></b>' in drawn
    )


def test_the_module_imports_neither_buttons_nor_torch():
    code = 'import sys, domain_llm.app.game\nprint(*{"ipywidgets", "torch", "matplotlib"} & set(sys.modules))'
    out = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True
    ).stdout
    assert out.split() == []


def test_the_model_of_the_synthetic_game_has_read_its_science():
    toy, trigram = G.synthetic_match(0), G.synthetic_match(1)
    assert toy.model.name == 'the trained toy' and toy.model.accuracy > 0.9
    assert trigram.model.name == 'word trigram' and {c.id for c in trigram.cases} == set(
        trigram.model.frame.id
    )
    mine = Scores('mine', toy.model.frame)
    assert G.synthetic_match(0, mine).model is mine
    told = G.reply(toy, rounds(toy.cases, 1)[0], 1)
    assert told[1].startswith('The model, the trained toy, chose version ')


@pytest.mark.skipif(not DATA, reason='needs DOMAIN_LLM_DATA')
def test_the_real_match_has_the_published_answers(tmp_path):
    match, mine = G.brainbench_match(), Answers(tmp_path / 'a.jsonl')
    play(always(True), match, rounds(match.cases, 200), mine, tell=None)
    table = lines(match, mine)
    assert (table.correct['experts'], table.n['experts']) == (641, 1011) and table.n['word trigram'] == 200
