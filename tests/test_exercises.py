"""Prove the exercises of all lessons by the convention that lesson 00 describes.

Each stub has to fail, each solution has to pass, and each planted wrong answer has to get its own hint.
The cells of an exercise run on the lesson's module, the lesson's import cells and each other: nothing is trained.
"""
import ast
import json
import re
from configparser import ConfigParser
from importlib import import_module
from itertools import takewhile
from pathlib import Path

import pytest

from domain_llm.ground.course import Diagnosis, Exercise, check_exercise

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted((ROOT / 'nbs').glob('[0-9]*.ipynb'))
SKIPPED = {'gpu', 'network', 'data', 'slow', 'eval'}


def code_cells(notebook):
    """Read the code cells of a notebook, each with its source as one string."""
    cells = json.loads(notebook.read_text(encoding='utf-8'))['cells']
    return [
        cell | {'source': ''.join(cell['source'])} for cell in cells if cell['cell_type'] == 'code'
    ]


def directives(source):
    """Return the first words of the directives above the first line of code."""
    top = takewhile(lambda line: not line.strip() or line.startswith('#|'), source.splitlines())
    return {re.match(r'#\|\s*(\w+)', line)[1] for line in top if line.strip()}


def only_imports(source):
    """Say whether a cell holds import statements and nothing else."""
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # a magic or a shell command
        return False
    return bool(statements) and all(isinstance(s, (ast.Import, ast.ImportFrom)) for s in statements)


def kind_of(cell):
    """Return what a cell is to its exercise, or None if it has no part in one."""
    source, flags = cell['source'], directives(cell['source'])
    if 'solution' in cell['metadata'].get('tags', []):
        return 'solution'
    if 'exercise' in flags:
        return 'stub'
    if flags & SKIPPED:
        return None
    if re.search(r'^ex_\w+ = (?:diagnose = )?(?:Exercise|Diagnosis)\(', source, re.MULTILINE):
        return 'definition'
    return 'imports' if only_imports(source) else None


def checked_name(source):
    """Return `name` from the line `ex_name.check(name)` of a stub or a solution."""
    found = re.search(r'^(?:assert )?ex_(\w+)\.check\(\1\)$', source, re.MULTILINE)
    assert found, f"this cell has no line 'ex_name.check(name)' with the same name twice:\n{source}"
    return found[1]


def module_of(cells):
    """Return the module that a lesson exports to, by its `default_exp`."""
    return import_module(
        'domain_llm.' + re.search(r'^#\|\s*default_exp ([\w.]+)', cells[0]['source'])[1]
    )


def prove_one(name, cell, stubs, space):
    """Prove one exercise, whose folded solution has just run."""
    assert cell['metadata'].get('jupyter', {}).get('source_hidden'), (
        f'{name}: the solution is not folded.'
    )
    assert name in stubs, f'{name}: the solution has no stub above it.'
    exercise = space['ex_' + name]
    assert exercise.name == name, f'{name}: the Exercise calls itself {exercise.name}.'
    check_exercise(exercise, stubs[name], space[name], space[name + '_wrong'])


def prove(notebook):
    """Prove every exercise of a lesson and return the names that its cells defined."""
    cells = code_cells(notebook)
    space, stubs, proven = dict(vars(module_of(cells))), {}, set()
    for cell in cells:
        kind = kind_of(cell)
        name = checked_name(cell['source']) if kind in ('stub', 'solution') else None
        if kind:
            exec(compile(cell['source'], f"<{notebook.name}, cell {cell['id']}>", 'exec'), space)
        if kind == 'stub':
            stubs[name] = space[name]
        if kind == 'solution':
            prove_one(name, cell, stubs, space)
            proven.add(name)
    defined = {
        name[3:]
        for name, value in space.items()
        if name.startswith('ex_') and isinstance(value, Exercise)
    }
    assert proven == defined == set(stubs), (
        f'no stub or no solution: {(defined | set(stubs)) - (proven & set(stubs))}'
    )
    return space


@pytest.mark.parametrize('notebook', LESSONS, ids=lambda path: path.stem)
def test_exercises_of_the_lesson_prove_themselves(notebook, monkeypatch):
    monkeypatch.chdir(notebook.parent)
    prove(notebook)


def test_lesson_00_has_three_exercises_at_three_levels():
    space = prove(ROOT / 'nbs' / '00_course.ipynb')
    exercises = [value for name, value in space.items() if name.startswith('ex_')]
    assert len(exercises) == len({exercise.level for exercise in exercises}) == 3


@pytest.mark.parametrize('lesson', ['30_gpt2', '41_loop'])
def test_diagnose_answers_for_every_plot_and_every_bug(lesson, monkeypatch, capsys):
    monkeypatch.chdir(ROOT / 'nbs')
    diagnose = prove(ROOT / 'nbs' / f'{lesson}.ipynb')['diagnose']
    assert isinstance(diagnose, Diagnosis) and len(diagnose.bugs) == 4
    assert set(diagnose.bugs.values()) == set(diagnose.signs)
    capsys.readouterr()
    for plot, made in diagnose.bugs.items():
        for bug, sign in diagnose.signs.items():
            assert diagnose(plot, bug) is (bug == made)
            said = capsys.readouterr().out
            assert sign in said and said.startswith('✓' if bug == made else '✗')
        assert not any(diagnose(plot, odd) for odd in (None, '', [], {}, 3.5, object, 'mask'))
        assert capsys.readouterr().out.count('The bugs to choose from are: ') == 7
    assert not any(diagnose(odd, made) for odd in (None, '', [], {}, 'a', 'E'))
    assert capsys.readouterr().out.count('The plots are A, B, C, D.') == 6


BROKEN = {
    'a stub that is solved': ('plain = ""', 'plain = "acd"', 'plain: the stub already passes'),
    'a wrong answer that passes': ('"acde"', '"acd"', 'wrong answer 3'),
    "a wrong answer with another's hint": ('"ad", "ac"', '"ad", "ad"', 'wrong answer 2'),
    'a hint without a wrong answer': (', "abcd"]', ']', '3 wrong answers are planted for 4'),
    'a hint written twice': (
        'Too loose: the bug could come back unnoticed.',
        'Too tight: another seed would break the build.',
        'no hint twice',
    ),
    'a solution without its tag': ('"tags": ["solution"]', '"tags": []', 'no stub or no solution'),
    'a solution that is not folded': (
        '"source_hidden": true',
        '"source_hidden": false',
        'not folded',
    ),
    'a stub without its flag': ('#| exercise', '# exercise', 'has no stub'),
    'a stub that checks another name': (
        'ex_plain.check(plain)',
        'ex_plain.check(other)',
        'same name twice',
    ),
    'an exercise under another name': (
        'Exercise("plain"',
        'Exercise("plane"',
        'calls itself plane',
    ),
}


@pytest.mark.parametrize('old, new, message', BROKEN.values(), ids=BROKEN)
def test_the_proof_notices(old, new, message, tmp_path):
    lesson = json.loads((ROOT / 'nbs' / '00_course.ipynb').read_text(encoding='utf-8'))
    before = [(cell['source'], cell['metadata']) for cell in lesson['cells']]
    for cell in lesson['cells']:
        cell['source'] = [line.replace(old, new) for line in cell['source']]
        cell['metadata'] = json.loads(json.dumps(cell['metadata']).replace(old, new))
    assert before != [(cell['source'], cell['metadata']) for cell in lesson['cells']]
    broken = tmp_path / '00_course.ipynb'
    broken.write_text(json.dumps(lesson), encoding='utf-8')
    with pytest.raises(AssertionError, match=message):
        prove(broken)


def test_the_key_of_the_flags_exercise_is_what_nbdev_does(tmp_path):
    test_nb = pytest.importorskip('nbdev.test').test_nb
    space = prove(ROOT / 'nbs' / '00_course.ipynb')
    log = tmp_path / 'ran'
    cells = [
        {
            'cell_type': 'code',
            'id': letter,
            'metadata': {},
            'outputs': [],
            'execution_count': None,
            'source': f"{source}\nopen({str(log)!r}, 'a').write({letter!r})",
        }
        for letter, source in space['six_cells'].items()
    ]
    notebook = tmp_path / 'six.ipynb'
    metadata = {'kernelspec': {'name': 'python3', 'language': 'python', 'display_name': 'python3'}}
    notebook.write_text(
        json.dumps({'cells': cells, 'metadata': metadata, 'nbformat': 4, 'nbformat_minor': 5})
    )
    settings = ConfigParser()
    settings.read(ROOT / 'settings.ini', encoding='utf-8')
    passed, _ = test_nb(notebook, skip_flags=settings['DEFAULT']['tst_flags'].split())
    assert passed and log.read_text() == space['plain']


@pytest.mark.parametrize('notebook', LESSONS, ids=lambda path: path.stem)
def test_no_two_exercises_of_a_lesson_share_a_name(notebook):
    defined = '\n'.join(
        cell['source'] for cell in code_cells(notebook) if kind_of(cell) == 'definition'
    )
    names = re.findall(r'^ex_(\w+) = ', defined, re.MULTILINE)
    assert len(names) == len(set(names))
