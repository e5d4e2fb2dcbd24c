"""The committed outputs: whole, from nobody's machine, quoting nothing that must not be."""
import gzip
import json
import os
import platform
import re
import subprocess
import symtable
import sys

import nbformat
import outputs
import pytest
import table
from claims import LINE, claims_of, section
from notebooks import ROOT, lessons

from domain_llm.ground.course import KINDS, claim, data_dir, run_cards

NOTEBOOKS = [ROOT / 'nbs/index.ipynb', *lessons()]
PATH = r'/(root|home|tmp|Users|work|mnt|opt|content|var/folders)/\w|[A-Z]:\\\\+\w+\\'
REFUSED = {
    'the traceback of an error': r'"output_type": "error"|Traceback \(most recent call last\)',
    'what went to standard error': r'"name": "stderr"',
    'a warning': r'[A-Z]\w*Warning\b',
    "a path of somebody's machine": PATH,
    'a time that was not kept': r'slower than promised',
}


def faults(notebook):
    "List what a reader or GitHub would stumble over in a notebook."
    found = []
    if 'widgets' in notebook.metadata: found.append('metadata.widgets: GitHub refuses to draw it')
    try: nbformat.validate(notebook)
    except nbformat.ValidationError as error: found.append(f'no valid notebook: {error.message}')
    shown = json.dumps([c.get('outputs', []) for c in notebook.cells], ensure_ascii=False)
    shown = re.sub(r'"image/png": "[^"]*"', '', shown)
    return found + [fault for fault, pattern in REFUSED.items() if re.search(pattern, shown)]


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_is_whole_and_shows_nobodys_machine(path):
    assert not faults(nbformat.read(path, 4))


def shown(text, kind='stream', **more):
    if text: more['text'] = text
    output = nbformat.v4.new_output(kind, **more)
    return lambda nb: nb.cells[-1].outputs.append(output)


BROKEN = {
    'widgets': (lambda nb: nb.metadata.update(widgets={}), 'metadata.widgets'),
    'no text': (lambda nb: nb.cells[0].update(source=5), 'no valid notebook'),
    'error': (shown('', 'error', ename='E', evalue='', traceback=[]), 'traceback'),
    'traceback': (shown('Traceback (most recent call last):\n'), 'traceback'),
    'stderr': (shown('5%', name='stderr'), 'standard error'),
    'warning': (shown('UserWarning: look out'), 'warning'),
    'Linux': (shown('wrote /home/ada/run'), "somebody's machine"),
    'Windows': (shown('wrote C:\\Users\\ada'), "somebody's machine"),
    'Colab': (shown('wrote /content/run'), "somebody's machine"),
    'slow': (shown('promised 2 s, took 9 s: slower than promised'), 'not kept'),
}


@pytest.mark.parametrize('damage, fault', BROKEN.values(), ids=BROKEN)
def test_each_fault_is_found(damage, fault):
    cells = [nbformat.v4.new_markdown_cell('# T'), nbformat.v4.new_code_cell('1')]
    notebook = nbformat.v4.new_notebook(cells=cells)
    assert not faults(notebook)
    damage(notebook)
    assert any(fault in found for found in faults(notebook))


# texts that may be used but not quoted

def runs(text, n=8):
    "Return every run of `n` words in a text."
    words = re.findall(r'\w+', text.lower())
    return {tuple(words[i:i + n]) for i in range(len(words) - n + 1)}


@pytest.fixture(scope='module')
def reviews():
    "Read the abstracts that may not be quoted, each with its title."
    if not data_dir(): pytest.skip('needs DOMAIN_LLM_DATA')
    with gzip.open(data_dir() / 'corpus/neuro_reviews.jsonl.gz', 'rt', encoding='utf-8') as lines:
        return [paper['title'] + '\n' + paper['text'] for paper in map(json.loads, lines)]


def test_no_output_quotes_an_abstract_of_the_reviews(reviews):
    said = {run: f'{path.name}, cell {cell.id}'
            for path in NOTEBOOKS for cell in nbformat.read(path, 4).cells
            for run in runs(outputs.words_of(cell.get('outputs', [])))}
    assert len(said) > 10_000
    quoted = {said[run] for text in reviews for run in runs(text) & said.keys()}
    assert not quoted, 'these outputs quote a text that is for local use only'


def test_a_quotation_is_found(reviews):
    words = re.findall(r'\w+', reviews[500])
    assert runs(reviews[500]) & runs('We print: ' + ' | '.join(words[20:28]).upper())
    assert not runs(reviews[500]) & runs(' '.join(words[20:27]) + ' and so on')


# python tools outputs

@pytest.mark.parametrize('old, new, equal', [
    ('loss 2.310', 'loss 2.329', True), ('loss 2.31', 'loss 2.36', False),
    ('loss  2.31\n', 'loss 2.31', True), ('loss 2.31', 'loss nan', False),
    ('192 of 384', '193 of 384', False), ('1,000', '1000', True), ('-0.5', '0.5', False),
    ('error 3.1e-08', 'error 2.2e-07', True), ('rises', 'falls', False),
    ('[1, 2]', '[1, 2, 3]', False), ('', '1', False),
    ('promised 2 s, took 0.007 s.', 'promised 2 s, took 7 s: slower than promised.', True),
    ('promised 2 s, took 0.007 s.', 'promised 3 s, took 0.007 s.', False),
    ('0.16 s with the cache, 0.71 s without', '0.4 s with the cache, 2 s without', True),
    ('1,812 MB', '1,950 MB', False), ('0.4 GiB at most', '0.5 GiB at most', True),
    ('0.4 GiB', '0.5 GiB', False), ('1.4 times as fast', '1.9 times as fast', True),
    ('1.4 times as likely', '1.9 times as likely', False),
    ('recall 1.000 (7,081 documents/s)', 'recall 1.000 (300 documents/s)', True),
    ('Device: CPU with 2 cores, no GPU.', 'Device: Tesla T4.', True),
    ('<f at 0x7f0011aa>', '<f at 0x7f2233bb>', True),
    ("{'python': '3.11.7',", "{'python': '3.11.10'", True),
    ("{'torch': '2.11.0',", "{'torch': '3.1.0',", False),
])
def test_what_counts_as_the_same_output(old, new, equal):
    assert outputs.same(old, new) is equal


def lesson(folder, *cells):
    "Write a notebook of some cells, each its source and its committed output."
    cells = [nbformat.v4.new_code_cell(code, outputs=[nbformat.v4.new_output('stream', text=text)])
             for code, text in cells]
    path = folder / '99_tiny.ipynb'
    metadata = {'kernelspec': {'name': 'python3', 'language': 'python', 'display_name': 'python3'}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
    return path


def run_tools(*words, **more):
    command = [sys.executable, ROOT / 'tools', *words]
    return subprocess.run(command, capture_output=True, text=True, **more)


SLOW = """from domain_llm.ground import course
course.perf_counter = iter([0, 9]).__next__
with course.budget(2): print('done')"""


NEAR, FAR = ("print('loss', 2.31)", 'loss 2.3\n'), ("print('loss', 2.31)", 'loss 2.5\n')
SKIPPED = "#| network\nprint('news')", 'old news\n'


@pytest.mark.parametrize('cells, code, said', [
    ([NEAR, SKIPPED, (SLOW, 'done\nthis cell: promised 2 s, took 1 s.\n')], 0, 'took 9 s'),
    ([NEAR, FAR], 1, '-loss 2.5\n+loss 2.31'),
    ([("print('loss', 1 / 0)", 'loss 2.5\n')], 1, 'While Executing Cell'),
], ids=['agree', 'differ', 'raise'])
def test_compare_passes_what_agrees_and_writes_nothing(cells, code, said, tmp_path):
    path = lesson(tmp_path, *cells)
    before = path.read_bytes()
    done = run_tools('outputs', '--compare', path)
    assert path.read_bytes() == before
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done


def names(source):
    "Give the names that a cell binds, and the other global ones that it reads."
    scopes = [symtable.symtable(re.sub(r'^[%!].*', '', source, flags=re.M), 'cell', 'exec')]
    top = scopes[0].get_symbols()
    for scope in scopes: scopes += scope.get_children()
    bound = {name.get_name() for name in top if name.is_assigned() or name.is_imported()}
    read = {name.get_name() for scope in scopes for name in scope.get_symbols()
            if name.is_referenced() and (scope is scopes[0] or name.is_global())}
    return bound, read - bound


def missing_without_data(cells):
    "List names that a cell without flags reads and that only cells with the data have bound."
    theirs, ours, missing = set(), set(), []
    for cell in (c for c in cells if c.cell_type == 'code'):
        bound, read = names(cell.source)
        if 'data' in outputs.directives(cell): theirs |= bound
        else:
            missing += [f'{cell.id}: {name}' for name in sorted(read & theirs - ours)]
            ours |= bound
    return missing


@pytest.mark.parametrize('path', lessons(), ids=lambda path: path.stem)
def test_a_reader_without_the_data_misses_nothing(path):
    "Judge by names what a second run without the data would show at many times the cost."
    assert not missing_without_data(nbformat.read(path, 4).cells)


def test_a_name_that_only_the_data_gives_is_found(tmp_path):
    path = lesson(tmp_path, ('#| data\nx = y = 1', ''), ('x = 2', ''), ('def f(z): x + y + z', ''))
    cells = nbformat.read(path, 4).cells
    assert missing_without_data(cells) == [f'{cells[2].id}: y']


def test_a_lesson_that_asks_for_the_data_runs_once_more_without(tmp_path):
    asks = 'from domain_llm.ground.course import has_data\nprint(1 / has_data())'
    done = run_tools('outputs', '--compare', lesson(tmp_path, (asks, '1.0\n')),
                     env=os.environ | {'DOMAIN_LLM_DATA': str(tmp_path)})
    assert done.returncode and '1 of 2 runs failed' in done.stderr, done


@pytest.mark.parametrize('name', ['12_jats', '13_documents'])
def test_a_lesson_runs_where_the_folder_of_data_lacks_what_it_reads(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('DOMAIN_LLM_DATA', str(tmp_path))
    outputs.run_one('run', ROOT / f'nbs/{name}.ipynb')


def test_outputs_without_data_are_not_stored(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != 'DOMAIN_LLM_DATA'}
    done = run_tools('outputs', lesson(tmp_path, ('1', '2')), env=environment)
    assert done.returncode and 'DOMAIN_LLM_DATA' in done.stderr


def test_each_cell_that_is_not_or_less_closely_compared_exists():
    ids = {cell.id for path in NOTEBOOKS for cell in nbformat.read(path, 4).cells}
    assert {*outputs.TIMED, *outputs.CLOSE, *outputs.HELP_PAGES} <= ids


def test_only_the_python_of_the_committed_outputs_compares_what_its_help_pages_give(monkeypatch):
    def printing(text):
        shown = [nbformat.v4.new_output('stream', text=text)]
        cells = [nbformat.v4.new_code_cell('1', id=id, outputs=shown)
                 for id in ('12345678', *outputs.HELP_PAGES)]
        return nbformat.v4.new_notebook(cells=cells)
    for python, different in ((outputs.PYTHON, 5), ('3.11.2', 1)):
        monkeypatch.setattr(platform, 'python_version', lambda: python)
        assert outputs.compare(printing('1'), printing('2'), 'lesson 20') == different
    cells = nbformat.read(ROOT / 'nbs/54_scores.ipynb', 4).cells
    said = ' '.join(outputs.words_of(cell.get('outputs', [])) for cell in cells)
    assert f"'python': '{outputs.PYTHON}'" in said, 'PYTHON should be what the outputs are from'


# run cards, the page of claims, the table of lessons

def test_run_cards_hold_times_of_lessons_and_nobodys_machine():
    cards = run_cards()
    assert set(cards) <= {path.stem[:2] for path in lessons()}
    for card in (card for kinds in cards.values() for kind, card in kinds.items() if kind in KINDS):
        assert {'plain', 'date', 'machine'} <= set(card) <= {'plain', 'data', 'date', 'machine'}
        assert card['plain'] > 0 and platform.node() not in card['machine']
        assert not re.search(PATH, card['machine'])


def test_a_run_card_is_added_beside_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, 'CARDS', tmp_path / 'cards.json')
    monkeypatch.setattr(outputs, 'device_kind', lambda: ('T4', 'Tesla T4 with 15 GiB of memory'))
    outputs.store_card('05', {'plain': 61.23})
    monkeypatch.setattr(outputs, 'device_kind', lambda: ('CPU', 'CPU with 2 cores, no GPU'))
    outputs.store_card('05', {'plain': 30, 'data': 90})
    outputs.store_card('01', {'plain': 3})
    cards = json.loads(outputs.CARDS.read_text())
    assert list(cards) == ['01', '05']
    assert cards['05']['T4']['plain'] == 61.2 and cards['05']['T4']['machine'].startswith('Tesla')
    assert cards['05']['CPU']['data'] == 90 and cards['05']['CPU']['machine'].endswith('cores')


def test_a_claim_is_read_back_from_its_line_and_shown_on_the_page(tmp_path, capsys):
    claim('x | y falls to (about) 2.3', 2.25, 2.3, tol=0.1)
    claim('171 experts', 171, 171)
    printed = capsys.readouterr().out
    path = lesson(tmp_path, ('# A title', printed))
    assert list(claims_of(path)) == LINE.findall(printed) == [
        ('x | y falls to (about) 2.3', '2.25', '2.3', '0.1'), ('171 experts', '171', '', '')]
    notebook = nbformat.read(path, 4)
    notebook.cells.append(nbformat.v4.new_markdown_cell('# A title'))
    nbformat.write(notebook, path)
    page = section(path, {'date': '2026-01-01', 'machine': 'a CPU'})
    assert '## [99 A title](99_tiny.ipynb)' in page and '| 171 experts | 171 | 171 |' in page
    assert r'| x \| y falls to (about) 2.3 | 2.25 | 2.3 ± 0.1 |' in page


def test_the_road_is_what_no_lesson_calls_a_side_room():
    road = [path.stem[:2] for path in lessons() if table.on_the_road(path)]
    assert road[:3] == ['00', '10', '13'] and road[-1] == '82'
    assert not {'01', '02', '11', '42', '53'} & set(road)


def test_the_table_gives_minutes_where_they_were_measured():
    cards = None, {'plain': 12.0}, {'plain': 100}
    assert [table.minutes(card) for card in cards] == ['not measured', 'under 1', '2']
