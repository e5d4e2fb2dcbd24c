"""Processes that read and die, memory, edits that must be seen, the Hub, and foreign fields."""
import json, multiprocessing, os, re, signal, subprocess, sys, threading, time, warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import dying
from corpora import python, read
from domain_llm.text import documents
from domain_llm.text.clean import clean_text
from domain_llm.text.documents import ReadReport, read_documents
from domain_llm.text.overlap import deduplicate, split_documents
from dying import all_end

PAPER = 'BrainGPT/train_valid_split_pmc_neuroscience_2002-2022_filtered_subset'
LETTERS = st.text(alphabet=st.characters(exclude_categories=['Cs']), max_size=60)
SMALL_GROUPS = """
from domain_llm.text import documents
original = documents._groups
documents._groups = lambda files: original(files, 1000)
"""


@pytest.fixture
def many(tmp_path):
    "Write thirty files of four forms, some of them broken."
    folder = tmp_path / 'many'
    folder.mkdir()
    for i in range(30):
        if i % 5 == 0:
            rows = [json.dumps(dict(text=f'{i} row {j}', year=2000 + j)) for j in range(40)]
            (folder / f'{i:02}.jsonl').write_text('\n'.join([*rows, 'no']))
        elif i % 5 == 1:
            end = '' if i == 11 else '</article>'
            (folder / f'{i:02}.xml').write_text(f'<article><body><p>Article {i}.</p></body>{end}')
        elif i % 5 == 2:
            (folder / f'{i:02}.txt').write_bytes(f'text {i} caf\xe9'.encode('latin-1'))
        else:
            rows = ''.join(f'{i}-{j},words {j}\n' for j in range(20))
            (folder / f'{i:02}.csv').write_text(f'id,text\n{rows}')
    return folder


@pytest.fixture
def small_groups(monkeypatch):
    "Make groups of files that are small enough to be many here."
    original = documents._groups
    monkeypatch.setattr(documents, '_groups', lambda files: original(files, 1000))


@settings(deadline=None, max_examples=200)
@given(LETTERS)
def test_the_report_counts_words_as_python_splits_them(text):
    text = clean_text(text)
    counted = 1 + text.count(' ') + text.count('\n') - text.count('\n\n')
    assert not text or counted == len(text.split())


# ---- several processes


def test_an_odd_number_of_one_paper_stops_no_other(tmp_path):
    rows = [dict(text='One.', doi='10.1/a\ud83d'), dict(text='Two.', version=20240115093000),
            dict(text='Three.', doi='10.1/b', version=2)]
    (tmp_path / 'a.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    (tmp_path / 'b.csv').write_bytes('id,doi,text\n1,10.1/1–5,Four.'.encode('cp1252'))
    data, report = read(tmp_path)
    assert data['doi'][:] == ['10.1/a\ufffd', '', '10.1/b', '10.1/1\ufffd5']
    assert data['version'][:] == [0, 0, 2, 0] and not report.skipped


def test_any_number_of_workers_gives_the_same(many, small_groups):
    first, report = read(many, workers=0)
    assert len(first) == report.documents > 400
    assert len(report.skipped) == 13 and report.undecodable == 0
    assert first['source'][:] == sorted(first['source'][:])
    assert report.words == sum(len(t.split()) for t in first['text'][:])
    for workers in 1, 2, 3:
        again, other = read(many, workers=workers)
        assert again.to_dict() == first.to_dict() and other == report


def test_jats_options_reach_the_workers(tmp_path, small_groups):
    for i in range(4):
        back = f'<back><ack><p>Thanks {i}.</p></ack></back>'
        (tmp_path / f'{i}.xml').write_text(
            f'<article><body><p>{"a " * 600}</p></body>{back}</article>')
    texts = read(tmp_path, workers=2, back=True)[0]['text'][:]
    assert len(texts) == 4 and all(t.endswith(f'Thanks {i}.') for i, t in enumerate(texts))
    assert not any('Thanks' in t for t in read(tmp_path, workers=2)[0]['text'][:])


@pytest.mark.parametrize('method', ['spawn', 'fork', 'forkserver'])
def test_workers_run_under_every_start_method_and_need_no_main_guard(many, tmp_path, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip('not on this system')
    # without a guard: whoever imports or runs it again would print again
    script = tmp_path / 'script.py'
    script.write_text(f"""
import multiprocessing
if multiprocessing.get_start_method(allow_none=True) is None:
    multiprocessing.set_start_method({method!r})
{SMALL_GROUPS}
print('started')
data = documents.read_documents({str(many)!r}, workers=2)
print(len(data), data[-1]['id'])
""")
    said = python(script).stdout.split('\n')
    assert said[0] == 'started' and said.count('started') == 1
    assert said[1] == f'{len(read(many, workers=0)[0])} 29-19'


def test_a_table_without_text_is_the_same_error_in_a_worker(tmp_path, small_groups):
    for i in range(3): (tmp_path / f'{i}.csv').write_text('id,abstract\n' + '1,x\n' * 400)
    for workers in 0, 2:
        with pytest.raises(ValueError, match='got id, abstract: rename'):
            read(tmp_path, workers=workers)


def test_a_worker_that_dies_is_named_and_a_later_call_works(many, small_groups, monkeypatch):
    wanted, report = read(many, workers=0)
    words = r'a process that read .* died, perhaps for want of .*workers=0'
    with monkeypatch.context() as patched:
        patched.setattr(documents, '_read_whole', dying.read_or_die)
        with pytest.raises(RuntimeError, match=words) as caught: read(many, workers=2)
    named = str(caught.value).split(' died')[0]
    assert '\n' not in str(caught.value)
    assert re.search(r' 11\.xml to \d\d\.\w+', named) and named.count(' or ') <= 1
    again, other = read(many, workers=2)
    assert again.to_dict() == wanted.to_dict() and other == report


def workers_of(pid):
    "List the processes of joblib below a process."
    children = ' '.join(p.read_text() for p in Path(f'/proc/{pid}/task').glob('*/children')).split()
    return [c for c in children if b'popen_loky' in Path(f'/proc/{c}/cmdline').read_bytes()]


def test_a_worker_killed_from_outside_is_named(tmp_path, small_groups):
    if not Path('/proc/self/task').exists():
        pytest.skip('needs /proc')
    for i in range(40): (tmp_path / f'{i:02}.txt').write_text(f'text {i} ' * 2**18)

    def kill_one():
        home = Path(documents._scratch().name)
        while not set(home.glob('*/*.part')) - before: time.sleep(0.001)
        os.kill(int(workers_of(os.getpid())[0]), signal.SIGKILL)

    before = set(Path(documents._scratch().name).glob('*/*.part'))
    threading.Thread(target=kill_one).start()
    with pytest.raises(RuntimeError, match=r'that read \d\d.txt( or \d\d.txt)? died, perhaps'):
        read(tmp_path, workers=2)
    assert len(read(tmp_path, workers=2)[0]) == 40


WAITING = """
import os, signal, sys, threading, time
# a shell that starts us in the background ignores it
signal.signal(signal.SIGINT, signal.default_int_handler)
import dying
from domain_llm.ground.processes import in_processes
def kill():
    while len(os.listdir(sys.argv[1])) < 2: time.sleep(0.01)
    {kill}
threading.Thread(target=kill).start()
try:
    with in_processes(dying.wait_here, [[sys.argv[1]]] * 9, 2) as results:
        for _ in results: pass
except KeyboardInterrupt: sys.exit(3 if dying.all_end(os.listdir(sys.argv[1])) else 4)
"""


@pytest.mark.parametrize('kill, code', [
    ('os.kill(os.getpid(), signal.SIGKILL)', -signal.SIGKILL),
    ('os.kill(os.getpid(), signal.SIGINT)', 3),  # the stop button of Jupyter
    ('os.killpg(0, signal.SIGINT)', 3),          # Ctrl-C in a terminal
])
def test_workers_end_with_their_parent(tmp_path, kill, code):
    if not Path('/proc/self/task').exists():
        pytest.skip('needs /proc')
    done = subprocess.run([sys.executable, '-c', WAITING.format(kill=kill), tmp_path],
                          stderr=subprocess.DEVNULL, start_new_session=True, timeout=120)
    pids = [p.name for p in tmp_path.iterdir()]
    assert done.returncode == code and len(pids) == 2 and all_end(pids)


def test_workers_need_no_temporary_folder_that_joblib_can_name(many, tmp_path):
    home = tmp_path / 'Küche: und Meer' / ('x' * 200) / ('y' * 200)
    home.mkdir(parents=True)
    code = f'{SMALL_GROUPS}\nprint(len(documents.read_documents({str(many)!r}, workers=2)))'
    # joblib takes TMPDIR where /dev/shm is small, and what the second variable names everywhere
    done = python('-c', code, TMPDIR=str(home), JOBLIB_TEMP_FOLDER=str(home))
    assert int(done.stdout) == len(read(many, workers=0)[0])


def test_a_block_that_ends_early_stops_the_jobs_without_a_word():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        start = time.monotonic()
        jobs = [[0], [600], [600]]
        with pytest.raises(KeyError), documents.in_processes(time.sleep, jobs, 2) as results:
            assert next(results) is None
            raise KeyError
        assert time.monotonic() - start < 60
        with documents.in_processes(pow, [[2, 10], [3, 4]], 2) as results:
            assert list(results) == [1024, 81]


def test_limit_and_few_files_need_no_worker(many, small_groups, monkeypatch):
    monkeypatch.setattr(documents, 'in_processes', lambda *args: pytest.fail('started a process'))
    assert len(read(many, workers=4, limit=45)[0]) == 45
    assert len(read(many / '00.jsonl', workers=4)[0]) == 40
    assert len(read(many, workers=1)[0]) > 400
    assert len(read(many)[0]) > 400, 'a small corpus is read in this process'


# ---- what a fresh process imports, prints and leaves


def test_import_is_light():
    heavy = 'torch datasets pandas pyarrow matplotlib tqdm'
    done = python('-c', 'import domain_llm.text.overlap, domain_llm.text.fetching, sys; '
                        f'print([m for m in "{heavy}".split() if m in sys.modules])')
    assert done.stdout.strip() == '[]'


def test_reading_imports_no_torch_and_leaves_nothing_behind(tmp_path):
    for name in 'in', 'home', 'tmp': (tmp_path / name).mkdir()
    for i in range(3): (tmp_path / 'in' / f'{i}.txt').write_text(f'document {i}')
    code = f"""if True:
        import sys
        from domain_llm.text.documents import *
        from domain_llm.text.overlap import *
        d = deduplicate(read_documents({str(tmp_path / "in")!r}))
        d = d.map(lambda row: dict(n=len(row["text"])))
        split_documents(d)
        print(len(d), "torch" in sys.modules)"""
    done = python('-c', code, HOME=str(tmp_path / 'home'), TMPDIR=str(tmp_path / 'tmp'),
                  HF_HOME=None, HF_DATASETS_CACHE=None, XDG_CACHE_HOME=None)
    assert done.stdout.split()[-2:] == ['3', 'False']
    assert 'Read 3 documents with 6 words.' in done.stderr
    assert not list((tmp_path / 'home').rglob('*'))
    assert not list((tmp_path / 'tmp').glob('domain_llm-*'))


def test_progress_goes_to_stderr(tmp_path):
    (tmp_path / 'a.jsonl').write_text('{"text": "x y"}\n' * 1000)
    code = f"""if True:
        import time
        from domain_llm.text import documents
        clean = documents.clean_text
        def slowly(text):
            time.sleep(.0005)
            return clean(text)
        documents.clean_text = slowly
        documents.read_documents({str(tmp_path)!r})"""
    done = python('-c', code, TQDM_MININTERVAL='0.05')
    assert done.stdout == '' and all(word in done.stderr for word in ('reading', '%', 'B/s'))
    moved = re.search(r'\b[1-9]\d?%.*<\d\d:\d\d', done.stderr)
    assert moved, 'the bar must move, and tell the time left'


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    if not Path('/proc/self/status').exists():
        pytest.skip('needs /proc')
    code = """if True:
        import sys
        from domain_llm.ground.files import peak_memory
        from domain_llm.text.documents import ReadReport, read_documents
        read_documents(sys.argv[1], report=ReadReport(), workers=0)
        print(peak_memory() // 10**6)"""
    peaks = []
    for mb in 4, 60:
        folder = tmp_path / str(mb)
        folder.mkdir()
        for part in range(2):
            with open(folder / f'{part}.jsonl', 'w') as file:
                for i in range(mb * 25):
                    file.write(json.dumps(dict(text=f'{i} ' + 'some words ' * 1800)) + '\n')
        peaks.append(int(python('-c', code, folder).stdout))
    assert peaks[1] < peaks[0] + 60, peaks  # 120 MB of text against 8


@pytest.mark.parametrize('workers', [0, 2])
def test_an_edit_is_seen_though_size_time_and_name_stay(tmp_path, small_groups, workers):
    def beginnings(data):
        begun = data.map(lambda row: dict(first=row['text'][:5]), load_from_cache_file=True)
        return begun['first'][:]
    for i in range(3): (tmp_path / f'{i}.txt').write_text(f'old {i} ' + 'word ' * 400)
    before, edited = read(tmp_path, workers=workers)[0], tmp_path / '1.txt'
    assert beginnings(before) == ['old 0', 'old 1', 'old 2']
    was = edited.stat()
    edited.write_text(edited.read_text().replace('old', 'new'))
    os.utime(edited, ns=(was.st_atime_ns, was.st_mtime_ns))
    now = edited.stat()
    assert (now.st_size, now.st_mtime_ns) == (was.st_size, was.st_mtime_ns)
    assert beginnings(read(tmp_path, workers=workers)[0]) == ['old 0', 'new 1', 'old 2']
    assert beginnings(before) == ['old 0', 'old 1', 'old 2'], 'what was read before does not change'


# ---- the Hub


def test_a_hub_name_without_network_is_one_sentence():
    code = """if True:
        from domain_llm.text.documents import read_documents
        try: read_documents("nobody-here/no-such-set", limit=1)
        except OSError as error: print(error)"""
    said = python('-c', code, HF_HUB_OFFLINE='1').stdout.strip()
    assert said.count('\n') == 0 and 'nobody-here/no-such-set' in said and 'network' in said


def test_the_papers_corpus_by_name_streamed_and_capped(tmp_path, monkeypatch):
    import datasets
    lines = [json.dumps(dict(text=f'Paper {i} on axons.')) for i in range(500)]
    (tmp_path / 'train.jsonl').write_text('\n'.join(lines))
    original, asked = datasets.load_dataset, []

    def load_dataset(name, **options):
        asked.append((name, options))
        return original(str(tmp_path), **options)

    monkeypatch.setattr(datasets, 'load_dataset', load_dataset)
    data, report = read(PAPER, limit=20, workers=4)
    assert asked == [(PAPER, dict(split='train', streaming=True))]
    assert report.documents == len(data) == 20 and set(data['source'][:]) == {PAPER}
    assert data[19]['text'] == 'Paper 19 on axons.' and data[19]['id'] == f'{PAPER}:20'


# ---- another field, another language

DISHES = ['Rösti', 'Käsespätzle', 'Grüne Soße', 'Apfelstrudel', 'Labskaus', 'Maultaschen']
THINGS = ['Mehl', 'Butter', 'Äpfel', 'Kartoffeln', 'süße Sahne', 'Weißkohl', 'Zwiebeln',
          '½ Liter Brühe']


def recipes(n):
    "Write German recipes."
    draw = np.random.default_rng(0)
    for i in range(n):
        a, b, c = draw.choice(THINGS, 3, replace=False)
        steps = f'{a} und {b} in einer großen Schüssel verrühren, dann {c} zugeben. '
        yield f'{draw.choice(DISHES)}, Rezept {i}\n\n{steps * 3}'


def poems(n):
    "Write Japanese beside Greek."
    draw = np.random.default_rng(1)
    for i in range(n):
        haiku = ''.join(draw.choice(list('春の海ひねもすのたりかな古池や蛙飛び込む水の音'), 30))
        greek = ' '.join(draw.choice(['θάλασσα', 'ήλιος', 'μῆνιν', 'ἄειδε'], 6))
        yield f'{haiku}。\n{greek} {i}'


def through_the_course(path, home):
    "Do everything from a path to batches: the path is the one argument that changes."
    from domain_llm.tokens.dataset import Batches, TokenFile, write_tokens
    from domain_llm.tokens.tokenizer import train_tokenizer
    splits = split_documents(deduplicate(read_documents(path, report=ReadReport())), validation=0.1)
    tokenizer = train_tokenizer(splits['train']['text'], vocab_size=400)
    write_tokens({name: part['text'] for name, part in splits.items()}, tokenizer, home)
    tokens = TokenFile(home, 'train')
    ids, targets = Batches(tokens, n_ctx=16, tokens_per_step=64)[0]
    return splits, tokenizer, tokens, np.asarray(ids), np.asarray(targets)


@pytest.mark.parametrize('texts, ending', [(recipes, 'txt'), (poems, 'jsonl'), (poems, 'csv')])
def test_a_foreign_field_in_one_argument(texts, ending, tmp_path):
    import pandas as pd
    folder, texts = tmp_path / 'Küche und Meer', list(texts(120))
    folder.mkdir()
    if ending == 'txt':
        for i, text in enumerate(texts): (folder / f'{i}.txt').write_text(text, encoding='utf-8')
    elif ending == 'jsonl':
        lines = [json.dumps(dict(text=text), ensure_ascii=False) for text in texts]
        (folder / '海.jsonl').write_text('\n'.join(lines), encoding='utf-8')
    else: pd.DataFrame(dict(text=texts)).to_csv(folder / 'θ.csv', index=False)
    splits, tokenizer, tokens, ids, targets = through_the_course(folder, tmp_path / 'tokens')
    assert sum(map(len, splits.values())) == 120 and len(splits['validation']) > 2
    assert ids.shape == targets.shape == (4, 16) and (ids[:, 1:] == targets[:, :-1]).all()
    train, stream = splits['train']['text'][:], np.asarray(tokens.ids)
    ends = np.flatnonzero(stream == tokenizer.token_to_id('<|endoftext|>')) + 1
    parts = [tokenizer.decode(part.tolist()) for part in np.split(stream, ends) if len(part)]
    assert [part.removesuffix('<|endoftext|>') for part in parts] == train
    assert {text.replace('\r', '') for text in train} <= {clean_text(text) for text in texts}
