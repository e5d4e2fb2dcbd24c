"""The course's checks in other processes: imports, `python -O`, Jupyter's kernel, CI's shell."""
import subprocess
import sys
from pathlib import Path

import pytest

from domain_llm.ground import course
from domain_llm.ground.course import claim, has_data


@pytest.mark.parametrize('room', ['course', 'show'])
def test_importing_the_module_loads_nothing_heavy(room):
    code = (f"import sys; before = set(sys.modules); import domain_llm.ground.{room}; "
            "new = {name.split('.')[0] for name in set(sys.modules) - before}; "
            "print(sorted(new - set(sys.stdlib_module_names) - {'domain_llm', 'lazy_loader'}))")
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == '[]'


def test_a_torch_scalar_is_a_number():
    torch = pytest.importorskip('torch')
    claim('t', torch.tensor(2.25), 2.3, tol=0.1)
    with pytest.raises(AssertionError, match='measured nan'):
        claim('t', torch.tensor(float('nan')), 2.3, tol=0.1)


@pytest.mark.parametrize('code', [
    "claim('t', 1, 2)", "with refused('words'): pass",
    "check_exercise(Exercise('n', 'apply', bool, {'h': bool}), 1, 1, [0])"])
def test_the_checks_fail_even_when_python_drops_asserts(code):
    code = f'from domain_llm.ground.course import *\n{code}'
    run = subprocess.run([sys.executable, '-O', '-c', code], capture_output=True, text=True)
    assert run.returncode == 1 and 'AssertionError' in run.stderr


def test_a_cell_without_the_data_says_where_to_read_about_them(monkeypatch, capsys):
    monkeypatch.delenv('DOMAIN_LLM_DATA', raising=False)
    assert not has_data()
    readme = (Path(__file__).parents[2] / 'README.md').read_text(encoding='utf-8')
    assert "README's section 'Real data'" in capsys.readouterr().out
    assert '\n## Real data\n' in readme


# the reader's answers

CELL = """from domain_llm.ground.course import Exercise
ex = Exercise('double', 'apply', lambda n: n == 6, {'h': lambda n: n == 9})
"""
ANSWER = ('#| exercise\nex.check(9)', '\n#| exercise\nex.check(6)')


def in_kernel(cells, folder):
    "Run cells as Jupyter does, in a kernel that keeps its history."
    import nbformat
    from nbclient import NotebookClient
    cells = [nbformat.v4.new_code_cell(source) for source in cells]
    notebook = nbformat.v4.new_notebook(cells=cells)
    where = {'metadata': {'path': str(folder)}}
    NotebookClient(notebook, resources=where, kernel_name='python3').execute()


def test_processes_start_from_a_kernel(tmp_path):
    "A kernel has no script that a new process could import."
    in_kernel(['import operator\nfrom domain_llm.ground.processes import in_processes',
               'with in_processes(operator.add, [(1, 2), (3, 4)], 2) as sums: found = list(sums)',
               'assert found == [3, 7]'], tmp_path)


def test_a_kernel_notes_what_a_reader_answers_in_a_stub_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.delenv('DOMAIN_LLM_ANSWERS', raising=False)
    in_kernel([CELL, 'ex.check(6)', *ANSWER, '#@title Solution\nassert ex.check(6)'], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['answers.jsonl']
    monkeypatch.setenv('DOMAIN_LLM_ANSWERS', str(tmp_path / 'answers.jsonl'))
    found = course.attempts()
    assert [(a['name'], a['level'], a['right']) for a in found] == [
        ('double', 'apply', False), ('double', 'apply', True)]
    assert set(found[0]) == {'time', 'lesson', 'name', 'level', 'right'}


def test_answers_stay_where_the_lesson_began_though_it_changes_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('DOMAIN_LLM_ANSWERS', 'answers.jsonl')  # `begin` makes this absolute
    (tmp_path / 'lessons').mkdir()
    monkeypatch.chdir(tmp_path / 'lessons')
    course.begin('05')
    monkeypatch.chdir(tmp_path)
    assert course.answers_file() == tmp_path / 'lessons' / 'answers.jsonl'


def test_ci_writes_no_answers(tmp_path):
    code = (
        'from execnb.shell import CaptureShell\nshell = CaptureShell()\nfor source in '
        f'{[CELL, *ANSWER]!r}: shell.run(source)\nassert not shell.exc\n{CELL}\nex.check(6)')
    subprocess.run([sys.executable, '-c', code], check=True, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []
