"""The committed outputs: whole, from nobody's machine, quoting nothing that may not be quoted; and their tools."""
import gzip
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from domain_llm.ground.course import KINDS, data_dir, run_cards

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / 'nbs').glob('*.ipynb'))
LESSONS = [path for path in NOTEBOOKS if path.stem[0].isdigit()]
REFUSED = {
    'the traceback of an error': r'"output_type": "error"|Traceback \(most recent call last\)',
    'what went to standard error': r'"name": "stderr"',
    'a warning': r'[A-Z]\w*Warning\b',
    "a path of somebody's machine": r'/(root|home|tmp|Users|work|mnt|opt|content|var/folders)/\w|[A-Z]:\\\\+\w+\\',
    'a time that was not kept': r'slower than promised',
}


def tool(name):
    """Import a script from tools/ without running it."""
    spec = importlib.util.spec_from_file_location(name, ROOT / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def faults(notebook):
    """List what a reader or GitHub would stumble over in a notebook."""
    found = (
        ['metadata.widgets, which GitHub refuses to draw'] if 'widgets' in notebook.metadata else []
    )
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        found.append(f'not a valid notebook: {error.message}')
    outputs = json.dumps([c.get('outputs', []) for c in notebook.cells], ensure_ascii=False)
    outputs = re.sub(r'"image/png": "[^"]*"', '', outputs)
    return found + [fault for fault, pattern in REFUSED.items() if re.search(pattern, outputs)]


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_is_whole_and_shows_nobodys_machine(path):
    assert not faults(nbformat.read(path, 4))


def printed(text, kind='stream', **more):
    output = nbformat.v4.new_output(kind, **({'text': text} if text else {}), **more)
    return lambda nb: nb.cells[-1].outputs.append(output)


BROKEN = {
    'widgets': (lambda nb: nb.metadata.update(widgets={}), 'metadata.widgets'),
    'no id': (lambda nb: nb.cells[0].update(source=5), 'not a valid notebook'),
    'error': (printed('', 'error', ename='E', evalue='', traceback=[]), 'traceback'),
    'traceback': (printed('Traceback (most recent call last):\n'), 'traceback'),
    'stderr': (printed('5%', name='stderr'), 'standard error'),
    'warning': (printed('UserWarning: look out'), 'warning'),
    'Linux': (printed('wrote /home/ada/run'), "somebody's machine"),
    'Windows': (printed('wrote C:\\Users\\ada'), "somebody's machine"),
    'Colab': (printed('wrote /content/run'), "somebody's machine"),
    'slow': (
        printed('this cell: promised 2 s, took 9 s: slower than promised, by more than 3 times.'),
        'not kept',
    ),
}


@pytest.mark.parametrize('damage, fault', BROKEN.values(), ids=BROKEN)
def test_each_fault_is_found(damage, fault):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell('# T'), nbformat.v4.new_code_cell('1')]
    )
    assert not faults(notebook)
    damage(notebook)
    assert any(fault in found for found in faults(notebook))


# texts that may be used but not quoted

def runs(text, n=8):
    """Return every run of `n` words in a text."""
    words = re.findall(r'\w+', text.lower())
    return {tuple(words[i:i + n]) for i in range(len(words) - n + 1)}


@pytest.fixture(scope='module')
def reviews():
    """Read the abstracts that may not be quoted, each with its title."""
    if not data_dir():
        pytest.skip('needs DOMAIN_LLM_DATA')
    with gzip.open(data_dir() / 'corpus/neuro_reviews.jsonl.gz', 'rt', encoding='utf-8') as lines:
        return [paper['title'] + '\n' + paper['text'] for paper in map(json.loads, lines)]


def test_no_output_quotes_an_abstract_of_the_reviews(reviews):
    words = tool('refresh_outputs').words_of
    shown = {
        run: f'{path.name}, cell {cell.id}'
        for path in NOTEBOOKS
        for cell in nbformat.read(path, 4).cells
        for run in runs(words(cell.get('outputs', [])))
    }
    assert len(shown) > 10_000
    quoted = {shown[run] for text in reviews for run in runs(text) & shown.keys()}
    assert not quoted, 'these outputs quote a text that is for local use only'


def test_a_quotation_is_found(reviews):
    words = re.findall(r'\w+', reviews[500])
    shown = runs('We print: ' + ' | '.join(words[20:28]).upper())
    assert runs(reviews[500]) & shown and not runs(reviews[500]) & runs(
        ' '.join(words[20:27]) + ' and so on'
    )


# tools/refresh_outputs.py

@pytest.mark.parametrize('old, new, equal', [
    ('loss 2.310', 'loss 2.329', True), ('loss 2.31', 'loss 2.36', False), ('loss  2.31\n', 'loss 2.31', True),
    ('loss 2.31', 'loss nan', False), ('192 of 384', '193 of 384', False), ('1,000', '1000', True),
    ('-0.5', '0.5', False), ('error 3.1e-08', 'error 2.2e-07', True), ('rises', 'falls', False),
    ('[1, 2]', '[1, 2, 3]', False), ('', '1', False),
    ('counting: promised 2 s, took 0.007 s.', 'counting: promised 2 s, took 7 s: slower than '
                                              'promised.', True),
    ('counting: promised 2 s, took 0.007 s.', 'counting: promised 3 s, took 0.007 s.', False),
    ('0.16 s with the cache, 0.71 s without', '0.4 s with the cache, 2 s without', True),
    ('1,812 MB', '1,950 MB', False), ('0.4 GiB at most', '0.5 GiB at most', True), ('0.4 GiB', '0.5 GiB', False),
    ('1.4 times as fast', '1.9 times as fast', True), ('1.4 times as likely', '1.9 times as likely', False),
    ('recall 1.000 (7,081 documents/s)', 'recall 1.000 (300 documents/s)', True),
    ('Device: CPU with 2 cores, no GPU.', 'Device: Tesla T4.', True), ('<f at 0x7f0011aa>', '<f at 0x7f2233bb>', True),
])
def test_what_counts_as_the_same_output(old, new, equal):
    assert tool('refresh_outputs').same(old, new) is equal


def lesson(folder, source, shown):
    """Write a notebook of one cell with its committed output."""
    cell = nbformat.v4.new_code_cell(source, outputs=[nbformat.v4.new_output('stream', text=shown)])
    path = folder / '99_tiny.ipynb'
    metadata = {'kernelspec': {'name': 'python3', 'language': 'python', 'display_name': 'python3'}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=metadata), path)
    return path


def refresh(*arguments, **more):
    """Run the script as one runs it."""
    command = [sys.executable, ROOT / 'tools/refresh_outputs.py', *arguments]
    return subprocess.run(command, capture_output=True, text=True, **more)


def compared(path):
    before = path.read_bytes()
    run = refresh('--compare', path)
    assert path.read_bytes() == before
    return run.returncode, run.stdout + run.stderr


SLOW = """from domain_llm.ground import course
course.perf_counter = iter([0, 9]).__next__
with course.budget(2): print('done')"""


@pytest.mark.parametrize('source, shown, code, said', [
    ("print('loss', 2.31)", 'loss 2.3\n', 0, '99_tiny.ipynb: '),
    ("print('loss', 2.31)", 'loss 2.5\n', 1, '-loss 2.5\n+loss 2.31'),
    ("print('loss', 1 / 0)", 'loss 2.5\n', 1, 'While Executing Cell'),
    ("#| network\nprint('news')", 'old news\n', 0, '99_tiny.ipynb: '),
    (SLOW, 'done\nthis cell: promised 2 s, took 1 s.\n', 0, 'warning: this cell: promised 2 s, took 9 s: slower'),
], ids=['near', 'far', 'raises', 'skipped', 'slow'])
def test_compare_passes_what_agrees_and_writes_nothing(source, shown, code, said, tmp_path):
    returned, out = compared(lesson(tmp_path, source, shown))
    assert (returned, said in out) == (code, True), out


def test_each_cell_that_is_not_compared_exists():
    ids = {cell.id for path in NOTEBOOKS for cell in nbformat.read(path, 4).cells}
    assert set(tool('refresh_outputs').TIMED) <= ids


def test_outputs_without_data_are_not_stored(tmp_path):
    path = lesson(tmp_path, '1', '2')
    environment = {k: v for k, v in os.environ.items() if k != 'DOMAIN_LLM_DATA'}
    run = refresh(path, env=environment)
    assert run.returncode and 'DOMAIN_LLM_DATA' in run.stderr


# run cards, the page of claims, the table of lessons

def test_run_cards_hold_times_of_lessons_and_nobodys_machine():
    cards = run_cards()
    assert set(cards) <= {path.stem[:2] for path in LESSONS}
    for card in (card for kinds in cards.values() for kind, card in kinds.items() if kind in KINDS):
        assert {'plain', 'date', 'machine'} <= set(card) <= {
            'plain',
            'data',
            'date',
            'machine',
        } and card['plain'] > 0
        assert not re.search(REFUSED["a path of somebody's machine"], card['machine'])
        assert platform.node() not in card['machine']


def test_a_run_card_is_added_beside_the_others(tmp_path, monkeypatch):
    refresh = tool('refresh_outputs')
    monkeypatch.setattr(refresh, 'CARDS', tmp_path / 'cards.json')
    monkeypatch.setattr(refresh, 'device_kind', lambda: ('T4', 'Tesla T4 with 15 GiB of memory'))
    refresh.store_card('05', {'plain': 61.23})
    monkeypatch.setattr(refresh, 'device_kind', lambda: ('CPU', 'CPU with 2 cores, no GPU'))
    refresh.store_card('05', {'plain': 30, 'data': 90})
    refresh.store_card('01', {'plain': 3})
    cards = json.loads(refresh.CARDS.read_text())
    assert list(cards) == ['01', '05']
    assert cards['05']['T4']['plain'] == 61.2 and cards['05']['T4']['machine'].startswith('Tesla')
    assert cards['05']['CPU']['data'] == 90 and cards['05']['CPU']['machine'].endswith('cores')


def test_the_package_takes_the_stored_files_along():
    assert 'recursive-include domain_llm/stored *.json' in (ROOT / 'MANIFEST.in').read_text()


def test_the_page_of_claims_is_what_the_outputs_say():
    assert (ROOT / 'nbs/claims.md').read_text(encoding='utf-8') == tool('claims').page(), (
        'run python tools/claims.py'
    )


def test_a_changed_output_changes_the_page(tmp_path):
    for folder in ('nbs', 'tools', 'domain_llm/stored'):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    check = [sys.executable, tmp_path / 'tools/claims.py', '--check']
    subprocess.run(check[:2], check=True)
    assert subprocess.run(check, capture_output=True).returncode == 0
    path = tmp_path / 'nbs/60_people.ipynb'
    text = path.read_text(encoding='utf-8')
    assert '171 experts answered (measured 171)' in text
    path.write_text(
        text.replace('answered (measured 171)', 'answered (measured 172)'), encoding='utf-8'
    )
    assert subprocess.run(check, capture_output=True).returncode == 1


def test_a_claim_is_read_back_from_its_line(capsys):
    from domain_llm.ground.course import claim
    claim('x | y falls to (about) 2.3', 2.25, 2.3, tol=0.1)
    claim('171 experts', 171, 171)
    read = tool('claims').LINE.findall(capsys.readouterr().out)
    assert read == [
        ('x | y falls to (about) 2.3', '2.25', '2.3', '0.1'),
        ('171 experts', '171', '', ''),
    ]


def test_the_table_of_lessons_has_a_row_for_each_under_its_part():
    text = tool('lesson_table').table()
    rows = [row for row in text.splitlines() if row.startswith('| [')]
    assert len(rows) == len(LESSONS) and len({row.count(' | ') for row in rows}) == 1
    for path, row in zip(LESSONS, rows):
        assert (
            f'({path.name})' in row
            and f'.{path.stem[3:]}`' in row.replace('fetching', 'fetch')
            and '?' in row
        )
        assert f'/nbs/{path.name})' in row
    assert len(re.findall(r'^\*\*.+\*\*\n\n\| lesson', text, re.M)) == len(
        {path.stem[0] for path in LESSONS}
    )


def test_the_road_is_what_no_lesson_calls_a_side_room():
    on_the_road = tool('lesson_table').on_the_road
    road = [path.stem[:2] for path in LESSONS if on_the_road(path)]
    assert (
        road[:3] == ['00', '10', '13']
        and road[-1] == '82'
        and not {'01', '02', '11', '42', '53'} & set(road)
    )


def test_the_table_gives_minutes_where_they_were_measured():
    minutes = tool('lesson_table').minutes
    assert [minutes(card) for card in (None, {'plain': 12.0}, {'plain': 100})] == [
        'not measured',
        'under 1',
        '2',
    ]
