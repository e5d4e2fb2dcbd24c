"""Edge cases of `domain_llm.ground.course` that a lesson cell cannot show well."""
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from domain_llm.ground import course
from domain_llm.ground.course import (
    Claim, Exercise, Prediction, answers_file, begin, budget, check_exercise, claim, claims,
    data_dir, has_data, predict, predictions, reveal, tally)


@pytest.fixture(autouse=True)
def fresh_session(monkeypatch):
    """Give each test a session without claims and predictions."""
    monkeypatch.setattr(course, '_claims', {})
    monkeypatch.setattr(course, '_predictions', {})
    monkeypatch.setenv('DOMAIN_LLM_ANSWERS', 'answers.jsonl')  # `begin` makes this absolute


def test_importing_the_module_loads_nothing_heavy():
    code = ("import sys; before = set(sys.modules); import domain_llm.ground.course; "
            "new = {name.split('.')[0] for name in set(sys.modules) - before}; "
            "print(sorted(new - set(sys.stdlib_module_names) - {'domain_llm', 'lazy_loader'}))")
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == '[]'


# claim

@pytest.mark.parametrize('measured, stated, tol', [
    (18, 18, 0), (124_439_808, 124_439_808, 0), (2.25, 2.3, 0.1), (2.35, 2.3, 0.1), (0.5, 0, 0.5), (1, 1.0, 0),
    (float('inf'), float('inf'), 0), (Fraction(1, 3), 0.33, 0.01), ('neuro', 'neuro', 0), ([1, 2], [1, 2], 0),
    (None, None, 0), (True, True, 0), (np.float32(0.5), 0.5, 0), (np.True_, True, 0), (np.array(3), 3, 0),
])
def test_claims_that_hold(measured, stated, tol, capsys):
    claim('It holds', measured, stated, tol)
    assert capsys.readouterr().out.startswith('✓ It holds (measured ')


@pytest.mark.parametrize('measured, stated, tol', [
    (18, 21, 0), (2.19, 2.3, 0.1), (2.41, 2.3, 0.1), (2.3000001, 2.3, 0), (float('nan'), 2.3, 0.1),
    (2.3, float('nan'), 0.1), (float('nan'), float('nan'), float('inf')), (2.3, 2.4, float('nan')),
    (float('inf'), 2.3, 0.1), (float('inf'), 3, 1e9), (float('inf'), float('-inf'), 9), (2**60 + 1, 2**60, 0),
    ('18', 18, 0), ('neuro', 'Neuro', 9), ([1, 2], [2, 1], 9), (None, 0, 9), (np.False_, True, 0),
    (np.float64('nan'), 2.3, 0.1),
])
def test_claims_that_do_not_hold(measured, stated, tol, capsys):
    with pytest.raises(AssertionError, match='"It holds" does not hold') as error:
        claim('It holds', measured, stated, tol)
    assert str(error.value).count('\n') == 0 and capsys.readouterr().out == '' and claims() == []


def test_a_failing_claim_shows_both_numbers_in_full_and_the_tolerance():
    with pytest.raises(AssertionError, match=r'states 2\.3, give or take 1e-07, .* measured 2\.3000002'):
        claim('t', np.float64(2.3000002), 2.3, 1e-7)


@pytest.mark.parametrize('value, shown', [
    (124_439_808, '124,439,808'), (0.1 + 0.2, '0.3'), (True, 'True'), ('x', "'x'"),
])
def test_numbers_are_shown_as_one_writes_them(value, shown):
    assert course._show(value) == shown


def test_a_torch_scalar_is_a_number():
    torch = pytest.importorskip('torch')
    claim('t', torch.tensor(2.25), 2.3, tol=0.1)
    with pytest.raises(AssertionError, match='measured nan'):
        claim('t', torch.tensor(float('nan')), 2.3, tol=0.1)


def test_claims_are_kept_in_order_and_a_second_run_replaces_the_first():
    claim('first', 1, 1)
    claim('second', 2.04, 2, tol=0.1)
    claim('first', 3, 3)
    assert claims() == [Claim('first', 3, 3, 0), Claim('second', 2.04, 2, 0.1)]
    claims().clear()  # a copy: the page cannot lose what was measured
    assert len(claims()) == 2


def test_claims_fail_even_when_python_drops_asserts():
    code = "from domain_llm.ground.course import claim; claim('t', 1, 2)"
    run = subprocess.run([sys.executable, '-O', '-c', code], capture_output=True, text=True)
    assert run.returncode == 1 and 'AssertionError' in run.stderr


# predict and reveal

@pytest.mark.parametrize('guess, truth, said', [
    (5, 10, '2 times too low'), (40, 10, '4 times too high'), (10, 10, 'as good as exact'),
    (10.01, 10, 'as good as exact'), (1e-9, 1, '1e+09 times too low'), (5, 0, '5 too high'), (-5, 0, '5 too low'),
    (0, 0, 'as good as exact'), (0, 4, '4 too low'), (-3, -1, '2 too low'), (3, -1, '4 too high'), (-1, 3, '4 too low'),
])
def test_reveal_says_how_far_off(guess, truth, said, capsys):
    reveal(predict('How many?', guess), truth, 'coins')
    assert capsys.readouterr().out.splitlines()[1].endswith(f': {said}.')


def test_without_a_guess_reveal_only_tells_the_truth(capsys):
    reveal(predict('How many?'), 0)
    assert capsys.readouterr().out.splitlines()[1] == '= How many? 0.'
    reveal(predict('How many?'), 3, unit='coins')
    assert capsys.readouterr().out.splitlines()[1] == '= How many? 3 coins.'


def test_reveal_accepts_the_question_and_numpy_numbers():
    predict('How many?', np.int64(4))
    reveal('How many?', np.float32(2), 'coins')
    assert course._predictions == {'How many?': Prediction('How many?', 4, 2.0, 'coins')}


def test_a_new_guess_replaces_the_old_one():
    reveal(predict('How many?', 4), 2)
    predict('How many?', 3)
    assert course._predictions['How many?'] == Prediction('How many?', 3)


@pytest.mark.parametrize('bad', ['forty', float('nan'), float('inf'), [4], '4'])
def test_what_is_no_finite_number_is_refused(bad):
    with pytest.raises(ValueError, match='finite number'):
        predict('How many?', bad)
    assert 'How many?' not in course._predictions
    with pytest.raises(ValueError, match='finite number'):
        reveal(predict('How many?', 4), bad)


def test_a_question_that_nobody_asked_is_refused():
    with pytest.raises(ValueError, match='call predict'):
        reveal('How many?', 4)


# exercises

def stops(answer):
    raise RuntimeError('the checker is broken')


def double(**changes):
    """Return an exercise that asks for a function that doubles its number."""
    asked = dict(name='double', level='apply', check=lambda f: f(3) == 6,
                 wrong={'That squares.': lambda f: f(3) == 9, 'That does nothing.': lambda f: f(3) == 3})
    return Exercise(**(asked | changes))


RIGHT, SQUARE, SAME = (lambda x: 2 * x), (lambda x: x * x), (lambda x: x)


def test_check_says_right_or_gives_the_hint(capsys):
    assert double().check(RIGHT) is True and double().check(SQUARE) is False
    assert capsys.readouterr().out == '✓ double: right (apply).\n✗ double: That squares.\n'


@pytest.mark.parametrize('answer', [None, ''])
def test_an_empty_answer_gets_no_hint_and_gives_nothing_away(answer, capsys):
    assert double().check(answer) is False
    assert capsys.readouterr().out == '✗ double: No answer yet.\n'
    assert double(check=lambda word: word == '').check('') is True


@pytest.mark.parametrize('answer', [
    lambda x: 1 / 0, lambda: 6, lambda x: sys.exit(), lambda x: answer_that_is_not_defined, ..., 6,
    lambda x: np.array([6, 6]),
])
def test_an_answer_that_raises_gets_its_error_as_the_hint(answer, capsys):
    assert double().check(answer) is False
    assert '✗ double: Your answer stopped with ' in capsys.readouterr().out


def test_an_error_that_cannot_be_printed_is_still_no_error():
    class Mute(Exception):
        def __str__(self):
            raise ValueError('no words')

    def answer(x):
        raise Mute
    assert 'Mute' in double().hint(answer)


def test_an_endless_recursion_is_a_hint():
    def answer(x):
        return answer(x)
    assert 'RecursionError' in double().hint(answer)


def test_a_planted_hint_goes_before_the_error():
    def raises(f):
        try:
            f(3)
        except ZeroDivisionError:
            return True
    exercise = double(wrong={'You divide by zero.': raises})
    assert exercise.hint(lambda x: x / 0) == 'You divide by zero.'


def test_a_checker_that_raises_does_not_raise_outward():
    assert double(check=stops).check(RIGHT) is False
    assert 'RuntimeError: the checker is broken' in double(check=stops).hint(RIGHT)
    assert (
        double(wrong={'h': stops}).hint(SQUARE) == 'Not yet, and it is none of the usual mistakes.'
    )
    with pytest.raises(AssertionError, match='the solution fails'):
        check_exercise(double(check=stops), SAME, RIGHT, [SQUARE, SAME])


def test_the_reader_can_still_interrupt():
    def answer(x):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        double().check(answer)


@pytest.mark.parametrize('changes, message', [
    ({'level': 'hard'}, 'remember, understand, apply, analyse, evaluate, create'),
    ({'wrong': {}}, 'hints'), ({'wrong': {'': RIGHT}}, 'hints'), ({'wrong': {'h': RIGHT, ' \n': RIGHT}}, 'hints'),
])
def test_exercises_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        double(**changes)


def test_check_exercise_accepts_a_good_exercise():
    check_exercise(double(), None, RIGHT, [SQUARE, SAME])


DUPLICATE = {'A hint.': lambda f: f(3) == 9, 'A hint.': lambda f: f(3) == 3}  # noqa: F601 (Python keeps the last)


@pytest.mark.parametrize('exercise, stub, solution, wrong, message', [
    (double(), RIGHT, RIGHT, [SQUARE, SAME], 'the stub already passes'),
    (double(), None, SQUARE, [SQUARE, SAME], 'the solution fails with: That squares.'),
    (double(), None, RIGHT, [SQUARE], '1 wrong answers are planted for 2 different hints'),
    (double(), None, RIGHT, [SQUARE, RIGHT], 'wrong answer 2 .* because it passes'),
    (double(), None, RIGHT, [SAME, SQUARE], "wrong answer 1 .* but got 'That does nothing.'"),
    (double(), None, RIGHT, [SQUARE, SQUARE], 'wrong answer 2'),
    (double(), None, RIGHT, [SQUARE, 6], 'wrong answer 2 .* stopped with TypeError'),
    (double(wrong=DUPLICATE), None, RIGHT, [SQUARE, SAME], 'write no hint twice'),
    (double(check=lambda f: True), None, RIGHT, [SQUARE, SAME], 'the stub already passes'),
])
def test_check_exercise_names_what_does_not_hold(exercise, stub, solution, wrong, message):
    with pytest.raises(AssertionError, match=f'double: .*{message}'):
        check_exercise(exercise, stub, solution, wrong)


# budget

@pytest.mark.parametrize('taken, warned', [(0, False), (6, False), (6.01, True), (40, True)])
def test_budget_warns_beyond_three_times_the_promise(taken, warned, monkeypatch, capsys):
    monkeypatch.setattr(course, 'perf_counter', iter([100, 100 + taken]).__next__)
    with budget(2, 'training'):
        pass
    out = capsys.readouterr().out
    assert out.startswith('training: promised 2 s, took ') and ('slower' in out) is warned


def test_budget_raises_beyond_twenty_times_the_promise(monkeypatch):
    monkeypatch.setattr(course, 'perf_counter', iter([100, 140.01]).__next__)
    with pytest.raises(RuntimeError, match='training: promised 2 s, took 40.01 s'):
        with budget(2, 'training'):
            pass


def test_budget_lets_the_error_of_its_block_through(monkeypatch):
    monkeypatch.setattr(course, 'perf_counter', iter([100, 999]).__next__)
    with pytest.raises(KeyError, match="the block's own"):
        with budget(2):
            raise KeyError("the block's own")


# data_dir

def test_data_dir_is_the_folder_or_nothing(tmp_path, monkeypatch):
    monkeypatch.delenv('DOMAIN_LLM_DATA', raising=False)
    assert data_dir() is None
    (tmp_path / 'file').touch()
    for value, expected in [('', None), (tmp_path / 'none', None), (tmp_path / 'file', None), (tmp_path, tmp_path)]:
        monkeypatch.setenv('DOMAIN_LLM_DATA', str(value))
        assert data_dir() == expected


def test_a_cell_without_the_data_says_where_to_read_about_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('DOMAIN_LLM_DATA', str(tmp_path))
    assert has_data() and capsys.readouterr().out == ''
    monkeypatch.delenv('DOMAIN_LLM_DATA')
    assert not has_data()
    said = capsys.readouterr().out
    readme = (Path(__file__).parents[1] / 'README.md').read_text(encoding='utf-8')
    assert (
        'DOMAIN_LLM_DATA' in said
        and "README's section 'Real data'" in said
        and '\n## Real data\n' in readme
    )


def test_data_dir_understands_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('USERPROFILE', str(tmp_path))
    monkeypatch.setenv('DOMAIN_LLM_DATA', '~')
    assert data_dir() == tmp_path


# begin and the run cards

CARDS = {
    '30': {
        'CPU': {
            'plain': 31.2,
            'data': 400,
            'date': '2026-11-23',
            'machine': 'a processor, 2 cores',
        },
        'large GPU': {'plain': 12.4, 'date': '2026-11-24', 'machine': 'a GPU'},
    }
}


def test_answers_stay_where_the_lesson_began_though_it_changes_the_folder(tmp_path, monkeypatch):
    (tmp_path / 'lessons').mkdir()
    monkeypatch.chdir(tmp_path / 'lessons')
    begin('05')
    monkeypatch.chdir(tmp_path)
    assert answers_file() == tmp_path / 'lessons' / 'answers.jsonl'



def test_begin_says_what_it_found_and_prints_the_card(monkeypatch, capsys):
    monkeypatch.setattr(course, 'run_cards', lambda: CARDS)
    monkeypatch.setattr(course, 'device_kind', lambda: ('CPU', 'CPU with 2 cores, no GPU'))
    monkeypatch.setattr(course, 'data_dir', lambda: None)
    begin('30')
    first, _, *rows = capsys.readouterr().out.splitlines()
    assert first == 'Device: CPU with 2 cores, no GPU. Time of lesson 30 on such a device: 31 s.'
    assert [' '.join(row.split()) for row in rows] == [
        'CPU 31 s 7 min 2026-11-23, a processor, 2 cores',
        'T4 not measured not measured',
        'large GPU 12 s not measured 2026-11-24, a GPU',
    ]
    monkeypatch.setattr(course, 'data_dir', lambda: 'data')
    begin('30')
    assert capsys.readouterr().out.splitlines()[0].endswith('such a device: 7 min.')


@pytest.mark.parametrize('stored', [None, '', '{', '{"05": {}}'])
def test_begin_never_raises_for_want_of_a_card(stored, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(course, 'files', lambda package: tmp_path)
    (tmp_path / 'stored').mkdir()
    if stored is not None:
        (tmp_path / 'stored/run_cards.json').write_text(stored)
    begin('30')
    assert 'Time of lesson 30 on such a device: not measured.' in capsys.readouterr().out


def fake_torch(name=None, gib=0, mps=False):
    """Return a module that finds a GPU of this name and memory, or none."""
    card = SimpleNamespace(name=name, total_memory=gib * 2**30)
    cuda = SimpleNamespace(
        is_available=lambda: name is not None, get_device_properties=lambda i: card
    )
    return SimpleNamespace(
        cuda=cuda, backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps))
    )


@pytest.mark.parametrize('torch, kind, said', [
    (fake_torch('Tesla T4', 15), 'T4', 'Tesla T4 with 15 GiB'),
    (fake_torch('NVIDIA H200', 140), 'large GPU', 'NVIDIA H200 with 140 GiB'),
    (fake_torch('GeForce', 8), 'GeForce', 'GeForce with 8 GiB'), (fake_torch(mps=True), 'MPS', 'Apple GPU'),
    (fake_torch(), 'CPU', 'no GPU'), (None, 'CPU', 'no GPU'), (SimpleNamespace(), 'CPU', 'no GPU'),
], ids=['T4', 'large', 'small', 'Apple', 'none', 'no torch', 'broken torch'])
def test_the_device_is_found_with_and_without_torch(torch, kind, said, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch', torch)
    assert course.device_kind()[0] == kind and said in course.device_kind()[1]


@pytest.mark.parametrize('seconds, said', [
    (None, 'not measured'), (0.1, '1 s'), (89, '89 s'), (91, '2 min'), (600, '10 min'),
])
def test_times_are_said_as_one_says_them(seconds, said):
    assert course.duration(seconds) == said


# the reader's answers

CELL = """from domain_llm.ground.course import Exercise
ex = Exercise('double', 'apply', lambda n: n == 6, {'h': lambda n: n == 9})
"""
ANSWER = ('#| exercise\nex.check(9)', '\n#| exercise\nex.check(6)')


def read_back(path, monkeypatch):
    monkeypatch.setenv('DOMAIN_LLM_ANSWERS', str(path))
    return [(a['name'], a['level'], a['right']) for a in course.attempts()]


def in_kernel(cells, folder):
    """Run cells as Jupyter does, in a kernel that keeps its history."""
    import nbformat
    from nbclient import NotebookClient
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in cells]
    )
    NotebookClient(
        notebook, resources={'metadata': {'path': str(folder)}}, kernel_name='python3'
    ).execute()


def test_a_kernel_notes_what_a_reader_answers_in_a_stub_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.delenv('DOMAIN_LLM_ANSWERS', raising=False)
    in_kernel([CELL, 'ex.check(6)', *ANSWER, '#@title Solution\nassert ex.check(6)'], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['answers.jsonl']
    assert read_back(tmp_path / 'answers.jsonl', monkeypatch) == [
        ('double', 'apply', False),
        ('double', 'apply', True),
    ]
    assert set(course.attempts()[0]) == {'time', 'lesson', 'name', 'level', 'right'}


def test_ci_writes_no_answers(tmp_path, monkeypatch):
    code = (
        'from execnb.shell import CaptureShell\nshell = CaptureShell()\nfor source in '
        f'{[CELL, *ANSWER]!r}: shell.run(source)\nassert not shell.exc\n{CELL}\nex.check(6)'
    )
    subprocess.run([sys.executable, '-c', code], check=True, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def as_reader(monkeypatch):
    """Let every check count as the reader's."""
    monkeypatch.setattr(course, '_by_the_reader', lambda: True)


def test_where_nothing_can_be_written_the_lesson_goes_on(tmp_path, monkeypatch, as_reader):
    (tmp_path / 'file').touch()
    for path in (tmp_path, tmp_path / 'file/answers.jsonl', tmp_path / 'none/answers.jsonl', '/dev/full'):
        monkeypatch.setenv('DOMAIN_LLM_ANSWERS', str(path))
        assert double().check(RIGHT) is True
    monkeypatch.setenv('DOMAIN_LLM_ANSWERS', str(tmp_path))
    assert course.attempts() == []


def test_a_damaged_line_is_skipped(tmp_path, monkeypatch, as_reader):
    path = tmp_path / 'answers.jsonl'
    path.write_bytes(b'{"name": "double", "level"\n\n[1]\n7\nnull\n\xff\xfe\n'
                     b'{"name": "x", "level": "hard", "right": true}\n'
                     b'{"name": ["x"], "level": "apply", "right": true}\n'
                     b'{"name": "x", "level": ["apply"], "right": true}\n'
                     b'{"name": "x", "level": "apply", "right": 1}\n' + b'[' * 10_000 + b'\n')
    monkeypatch.setenv('DOMAIN_LLM_ANSWERS', str(path))
    double().check(SQUARE)
    assert read_back(path, monkeypatch) == [('double', 'apply', False)]


def test_an_exercise_counts_once_and_stays_solved():
    tries = [('a', False), ('a', True), ('a', True), ('a', False), ('b', False)]
    again = [dict(name=name, level='apply', right=right) for name, right in tries]
    assert tally(again)['apply'] == (1, 2) and sum(tried for _, tried in tally(again).values()) == 2
    assert tally([a | {'lesson': lesson} for a in again for lesson in ('05', '06')])['apply'] == (
        2,
        4,
    )


def test_an_attempt_is_noted_with_its_lesson(tmp_path, monkeypatch, as_reader):
    monkeypatch.setenv('DOMAIN_LLM_ANSWERS', str(tmp_path / 'answers.jsonl'))
    monkeypatch.setattr(course, '_here', {'lesson': ''})
    for lesson in ('05', '06'):
        begin(lesson)
        double().check(RIGHT)
    assert [a['lesson'] for a in course.attempts()] == ['05', '06']
