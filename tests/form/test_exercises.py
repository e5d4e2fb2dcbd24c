"""Prove the exercises of all lessons by the convention that lesson 00 describes.

Each stub has to fail, each solution has to pass, and each planted wrong answer has to get its own
hint. The cells of an exercise run on the lesson's module, the lesson's import cells and each other:
nothing is trained.
"""
import ast
import json
import re
from importlib import import_module
from itertools import takewhile

import nbformat
import pytest
from notebooks import ROOT, cells, lessons, module_of, settings

from domain_llm.ground.course import Diagnosis, Exercise, check_exercise

SKIPPED = {'gpu', 'network', 'data', 'slow', 'real', 'eval'}


def directives(source):
    "Return the first words of the directives above the first line of code."
    top = takewhile(lambda line: not line.strip() or line.startswith('#|'), source.splitlines())
    return {re.match(r'#\|\s*(\w+)', line)[1] for line in top if line.strip()}


def only_imports(source):
    "Say whether a cell holds import statements and nothing else."
    try: statements = ast.parse(source).body
    except SyntaxError: return False                           # a magic or a shell command
    return bool(statements) and all(isinstance(s, ast.Import | ast.ImportFrom) for s in statements)


def kind_of(cell):
    "Return what a cell is to its exercise, or None if it has no part in one."
    source, flags = cell['source'], directives(cell['source'])
    if 'solution' in cell['metadata'].get('tags', []): return 'solution'
    if 'exercise' in flags: return 'stub'
    if flags & SKIPPED: return None
    if re.search(r'^ex_\w+ = (?:diagnose = )?(?:Exercise|Diagnosis)\(', source, re.M):
        return 'definition'
    return 'imports' if only_imports(source) else None


def checked_name(source):
    "Return `name` from the line `ex_name.check(name)` of a stub or a solution."
    found = re.search(r'^(?:assert )?ex_(\w+)\.check\(\1\)$', source, re.M)
    assert found, f"this cell has no line 'ex_name.check(name)' with the same name twice:\n{source}"
    return found[1]


def prove_one(name, cell, stubs, space):
    "Prove one exercise, whose folded solution has just run."
    folded = cell['metadata'].get('jupyter', {}).get('source_hidden')
    assert folded, f'{name}: the solution is not folded.'
    assert name in stubs, f'{name}: the solution has no stub above it.'
    exercise = space['ex_' + name]
    assert exercise.name == name, f'{name}: the Exercise calls itself {exercise.name}.'
    check_exercise(exercise, stubs[name], space[name], space[name + '_wrong'])


def prove(notebook):
    "Prove every exercise of a lesson and return the names that its cells defined."
    module = import_module(f'domain_llm.{module_of(notebook)}')
    space, stubs, proven = dict(vars(module)), {}, set()
    for cell in cells(notebook, 'code'):
        kind = kind_of(cell)
        name = checked_name(cell['source']) if kind in ('stub', 'solution') else None
        if kind:
            exec(compile(cell['source'], f"<{notebook.name}, cell {cell['id']}>", 'exec'), space)
        if kind == 'stub': stubs[name] = space[name]
        if kind == 'solution':
            assert name not in proven, f'{name}: there are two exercises of this name.'
            prove_one(name, cell, stubs, space)
            proven.add(name)
    defined = {name[3:] for name, value in space.items()
               if name.startswith('ex_') and isinstance(value, Exercise)}
    alone = defined ^ proven | defined ^ set(stubs)
    assert not alone, f'no stub or no solution: {alone}'
    return space


@pytest.mark.parametrize('notebook', lessons(), ids=lambda path: path.stem)
def test_exercises_of_the_lesson_prove_themselves(notebook, monkeypatch):
    monkeypatch.chdir(notebook.parent)
    prove(notebook)


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
    'a stub that is solved': ("plain = ''", "plain = 'acd'", 'plain: the stub already passes'),
    'a wrong answer that passes': ("'acde'", "'acd'", 'wrong answer 3'),
    "a wrong answer with another's hint": ("'ad', 'ac'", "'ad', 'ad'", 'wrong answer 2'),
    'a hint without a wrong answer': (", 'abcd']", ']', '3 wrong answers are planted for 4'),
    'a hint written twice': ('Too loose: the bug could come back unnoticed.',
                             'Too tight: another seed would break the build.', 'no hint twice'),
    'a solution without its tag': ('"tags": ["solution"]', '"tags": []', 'no stub or no solution'),
    'a solution that is not folded': ('"source_hidden": true', '"source_hidden": false',
                                      'not folded'),
    'a stub without its flag': ('#| exercise', '# exercise', 'has no stub'),
    'a stub that checks another name': ('ex_plain.check(plain)', 'ex_plain.check(other)',
                                        'same name twice'),
    'an exercise under another name': ("Exercise('plain'", "Exercise('plane'",
                                       'calls itself plane'),
}


@pytest.mark.parametrize('old, new, message', BROKEN.values(), ids=BROKEN)
def test_the_proof_notices(old, new, message, tmp_path):
    lesson = json.loads((ROOT / 'nbs/00_course.ipynb').read_text(encoding='utf-8'))
    before = json.dumps(lesson)
    for cell in lesson['cells']:
        cell['source'] = [line.replace(old, new) for line in cell['source']]
        cell['metadata'] = json.loads(json.dumps(cell['metadata']).replace(old, new))
    assert json.dumps(lesson) != before
    broken = tmp_path / '00_course.ipynb'
    broken.write_text(json.dumps(lesson), encoding='utf-8')
    with pytest.raises(AssertionError, match=message):
        prove(broken)


def test_the_key_of_the_flags_exercise_is_what_nbdev_does(tmp_path):
    test_nb = pytest.importorskip('nbdev.test').test_nb
    space, log = prove(ROOT / 'nbs/00_course.ipynb'), tmp_path / 'ran'
    write = f"\nopen({str(log)!r}, 'a').write"
    six = [nbformat.v4.new_code_cell(f'{source}{write}({letter!r})')
           for letter, source in space['six_cells'].items()]
    metadata = {'kernelspec': {'name': 'python3', 'language': 'python', 'display_name': 'python3'}}
    nbformat.write(nbformat.v4.new_notebook(cells=six, metadata=metadata), tmp_path / 'six.ipynb')
    passed, _ = test_nb(tmp_path / 'six.ipynb', skip_flags=settings()['tst_flags'].split())
    assert passed and log.read_text() == space['plain']
