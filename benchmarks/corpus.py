"""Read a generated corpus of mixed formats with `read_documents`; print memory and speed.

python benchmarks/corpus.py                5 GB in one process: minutes and 11 GB of disk
python benchmarks/corpus.py --gb 0.2       a quick try
python benchmarks/corpus.py --workers 0 2  also with two workers, some minutes more
python benchmarks/corpus.py --near         near copies instead: our bands and datasketch's own index

RssAnon is what the process holds; RssFile are pages of mapped files, which the system takes back
when it needs them. Both are sampled twenty times a second and summed over the process and its
workers. VmHWM is the kernel's own peak of the reading process, anonymous and mapped together. Needs
Linux (/proc).
"""

import argparse, gzip, inspect, json, os, random, re, shutil, subprocess, sys, tempfile, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
from datasets import Dataset
from datasketch import MinHash, MinHashLSH

from domain_llm.text import overlap
from domain_llm.text.documents import ReadReport, column_values, read_documents
from domain_llm.ground.course import data_dir
from domain_llm.ground.files import peak_memory
from machine import machine

CHILD = """if True:
    import json, sys, time
    from domain_llm.ground.files import peak_memory
    from domain_llm.text.documents import ReadReport, read_documents
    start, report = time.monotonic(), ReadReport()
    data = read_documents(sys.argv[1], workers=int(sys.argv[2]), report=report)
    seconds = time.monotonic() - start
    answer = dict(seconds=seconds, hwm=peak_memory() / 1e6, skipped=len(report.skipped))
    answer |= dict(documents=report.documents, words=report.words)
    print("read", flush=True)
    answer["letters"] = sum(len(t) for batch in data.iter(256) for t in batch["text"])
    answer["hwm_pass"] = peak_memory() / 1e6
    print(json.dumps(answer))
"""


class Texts:
    "Random words of a made-up language, the same for the same seed."

    def __init__(self, seed=0):
        self.random = np.random.default_rng(seed)
        ends = np.array(['', 'ing', 'tion', 'é', '-β', 'al', 's', 'ous', '.'])
        stems = np.array(
            [
                ''.join(self.random.choice(list('aeioubcdfglmnprstv'), n))
                for n in self.random.integers(2, 9, 20_000)
            ]
        )
        words = np.char.add(
            self.random.choice(stems, 4_000_000), self.random.choice(ends, 4_000_000)
        )
        self.pool = ' '.join(words)

    def take(self, n):
        "Give n characters in paragraphs."
        at = self.random.integers(0, len(self.pool) - 1200, n // 1000 + 1)
        return '\n\n'.join(self.pool[a : a + 1000] for a in at)

    def document(self, i):
        "Give a row with a text of 2,000 to 40,000 characters."
        return dict(
            id=f'd{i}',
            text=self.take(int(self.random.integers(2000, 40_000))),
            title=f'Title {i}',
            year=2000 + i % 25,
        )


def write_lines(path, texts, size, first):
    "Write JSON Lines until they hold `size` bytes of text; give the number of documents."
    written, i = 0, first
    with (
        gzip.open(path, 'wt', compresslevel=1, encoding='utf-8')
        if path.suffix == '.gz'
        else open(path, 'w', encoding='utf-8')
    ) as f:
        while written < size:
            line = json.dumps(texts.document(i), ensure_ascii=False)
            written, i = written + len(line), i + 1
            f.write(line + '\n')
    return i - first


def write_parquet(path, texts, size, first):
    "Write a Parquet file with a single row group."
    import pyarrow as pa, pyarrow.parquet as pq

    rows = [texts.document(first + i) for i in range(int(size / 21_000))]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=len(rows))
    return len(rows)


def write_pubmed(path, texts, size, first):
    "Write one PubMed file of abstracts."
    n = int(size / 2100)
    with open(path, 'w', encoding='utf-8') as f:
        f.write('<?xml version="1.0" encoding="UTF-8"?>\n<PubmedArticleSet>')
        for i in range(n):
            f.write(
                f'<PubmedArticle><MedlineCitation><PMID>{first + i}</PMID><Article><ArticleTitle>'
                f'Title &amp; {i}</ArticleTitle><Abstract><AbstractText '
                f'Label="AIM">{texts.take(900)}</AbstractText><AbstractText '
                f'Label="END">{texts.take(900)}</AbstractText></Abstract></Article></MedlineCitation></PubmedArticle>\n'
            )
        f.write('</PubmedArticleSet>')
    return n


def write_small(folder, texts, size, ending):
    "Write many files of one document each."
    folder.mkdir(parents=True)
    n = int(size / 40_000)
    for i in range(n):
        text = texts.take(39_000)
        if ending == '.nxml':
            text = text.replace('\n\n', '</p><p>')
            text = f'<article><body><sec><title>A</title><p>{text}</p></sec></body></article>'
        (folder / f'{i:06}{ending}').write_text(text, encoding='utf-8')
    return n


def generate(folder, size):
    "Write the corpus; give how many documents, without the large text file that the reader cuts."
    texts, n = Texts(), 0
    n += write_lines(folder / 'one_large.jsonl', texts, 0.25 * size, n)
    for i in range(4):
        n += write_lines(folder / f'part{i}.jsonl.gz', texts, 0.05 * size, n)
    for i in range(4):
        n += write_parquet(folder / f'part{i}.parquet', texts, 0.03 * size, n)
    n += write_pubmed(folder / 'pubmed.xml', texts, 0.15 * size, n)
    n += write_small(folder / 'articles', texts, 0.12 * size, '.nxml') + write_small(
        folder / 'texts', texts, 0.12 * size, '.txt'
    )
    with open(folder / 'one_large.txt', 'w', encoding='utf-8') as f:
        for _ in range(int(0.04 * size / 1e6)):
            f.write(texts.take(1_000_000) + '\n\n')
    return n


def tree(pid):
    "Give a process and all below it."
    try:
        children = ''.join(
            p.read_text() for p in Path(f'/proc/{pid}/task').glob('*/children')
        ).split()
    except OSError:
        children = []
    return [pid, *(p for child in children for p in tree(child))]


def memory(pid, field):
    "Give MB of one kind of memory, summed over a process and all below it."
    total = 0
    for p in tree(pid):
        try:
            total += int(re.search(rf'{field}:\s+(\d+)', Path(f'/proc/{p}/status').read_text())[1])
        except (OSError, TypeError):
            pass  # it has ended
    return total / 1e3


def measure(folder, workers):
    "Read the corpus in a process of its own; give its answer, and peaks of both stages."
    peaks, reading = dict(RssAnon=0, RssFile=0), None
    with tempfile.NamedTemporaryFile('w') as out:
        child = subprocess.Popen(
            [sys.executable, '-c', CHILD, str(folder), str(workers)], stdout=out
        )
        while child.poll() is None:
            for field in peaks:
                peaks[field] = max(peaks[field], memory(child.pid, field))
            if reading is None and Path(out.name).read_text().startswith('read'):
                reading = dict(peaks)
            time.sleep(0.05)
        if child.returncode:
            sys.exit(f'reading failed with code {child.returncode}')
        return json.loads(Path(out.name).read_text().splitlines()[-1]) | dict(
            reading=reading or peaks, all=peaks
        )


def library(dataset, near, **chosen):
    "Find near copies with datasketch's index of the same bands, and compare what it suspects."
    rows = overlap._band_rows(near)
    index = MinHashLSH(num_perm=128, **(chosen or dict(params=(128 // rows, rows))))
    blank, copies = MinHash(128, hashfunc=int), {}
    for i, text in enumerate(column_values(dataset, 'text')):
        shingles, sketch = overlap._shingles(text), blank.copy()
        sketch.update_batch(shingles.tolist())
        for j in sorted(index.query(sketch)):
            if overlap._jaccard(shingles, overlap._shingles(dataset[j]['text'])) >= near:
                copies[i] = j
                break
        else:
            index.insert(i, sketch)
    return copies


def library_by_threshold(dataset, near):
    "Find them with the bands that datasketch chooses for a threshold."
    return library(dataset, near, threshold=near)


OURS, THEIRS = 'numpy sorts the bands', '`MinHashLSH`, the same bands'
WAYS = {  # a function, and the code that it stands for
    OURS: (
        overlap._near_copies,
        (overlap._signatures, overlap._band_rows, overlap._suspects, overlap._near_copies),
    ),
    THEIRS: (library, (overlap._band_rows, library)),
    '`MinHashLSH`, its own bands': (library_by_threshold, (library,)),
}


def planted(shares=(0.02, 0.05, 0.1, 0.2, 0.3), n=300):
    "Give the shared abstracts, altered copies of n of them behind, and {place: similarity}."
    draw, alike = random.Random(0), {}
    texts = read_documents(data_dir() / 'corpus', report=ReadReport())['text'][:]
    long = [text for text in texts if len(text.split()) > 80][:n]
    for share in shares:
        for text in long:
            words = [
                f'word{draw.randrange(10**6)}' if draw.random() < share else w for w in text.split()
            ]
            alike[len(texts)] = overlap._jaccard(
                overlap._shingles(text), overlap._shingles(' '.join(words))
            )
            texts.append(' '.join(words))
    return Dataset.from_dict(dict(text=texts)), alike


def measured(call, *args):
    "Call a function; give what it returns, seconds of the processor, and MB that it added."
    Path('/proc/self/clear_refs').write_text('5')  # the peak begins anew
    before, start = peak_memory(), time.process_time()
    result = call(*args)
    return result, time.process_time() - start, (peak_memory() - before) / 1e6


def find(way, near):
    "Find the planted copies; give seconds, MB, copies found and due, and what was not planted."
    dataset, alike = planted()
    found, seconds, mb = measured(WAYS[way][0], dataset, near)
    due = {i for i, share in alike.items() if share >= near}
    return seconds, mb, len(due & set(found)), len(due), len(set(found) - set(alike))


def fill(way, near, n):
    "Index n documents of made-up ranks, which are all different; give seconds and MB."
    ranks = np.random.default_rng(0).integers(0, 2**32, (n, 128), dtype=np.uint32)
    if way == OURS:
        _, seconds, mb = measured(overlap._suspects, ranks, near)
        return seconds, mb + ranks.nbytes / 1e6  # they stay until the end
    rows, sketch = overlap._band_rows(near), MinHash(128, hashfunc=int)
    index = MinHashLSH(num_perm=128, params=(128 // rows, rows))

    def insert():
        for i, sketch.hashvalues in enumerate(ranks):
            index.insert(i, sketch)

    return measured(insert)[1:]


def alone(function, *args):
    "Call a function in a process of its own."
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        return pool.submit(function, *args).result()


def compare(nears, rounds, n):
    "Print what each way finds, its time, memory and length, and the memory of n documents."
    if data_dir() is None:
        sys.exit(
            'expected DOMAIN_LLM_DATA to name the folder of the shared data, found none: set it'
        )
    os.environ['TQDM_DISABLE'] = '1'
    print('\n' + machine('datasketch', 'numpy', 'datasets') + '\n')
    columns = (
        'near',
        'way',
        'processor seconds',
        'in the rounds',
        'copies found',
        'others found',
        'memory',
        'lines',
    )
    print('| ' + ' | '.join(columns) + ' |\n' + '|---' * len(columns) + '|')
    for near in nears:
        runs = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way in WAYS:
                runs[way].append(alone(find, way, near))
        for way, (_, code) in WAYS.items():
            seconds, mb, found, due, others = zip(*runs[way])
            lines = sum(
                bool(line.strip()) for f in code for line in inspect.getsource(f).splitlines()
            )
            print(
                f'| {near} | {way} | {median(seconds):.1f} | {min(seconds):.1f} to '
                f'{max(seconds):.1f} | {found[0]} of {due[0]} | {others[0]} | '
                f'{median(mb):,.0f} MB | {lines} |',
                flush=True,
            )
    print(f'\n{n:,} documents of made-up ranks, which are all different\n')
    print(
        '| near | way | processor seconds | memory | a million documents, calculated '
        '|\n|---|---|---|---|---|'
    )
    for near in nears:
        for way in OURS, THEIRS:
            seconds, mb = alone(fill, way, near, n)
            print(
                f'| {near} | {way} | {seconds:.1f} | {mb:,.0f} MB | {mb * 1000 / n:.1f} GB |',
                flush=True,
            )


COLUMNS = (
    'workers',
    'documents',
    'characters',
    'skipped',
    'seconds',
    'million characters/s',
    'RssAnon while reading',
    'VmHWM after reading',
    'RssAnon, then all texts seen',
    'RssFile, then all texts seen',
    'VmHWM at the end',
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--gb', type=float, default=5, help='size of the corpus')
    parser.add_argument(
        '--workers', type=int, nargs='*', default=[0], help='numbers of workers to try'
    )
    parser.add_argument(
        '--near', type=float, nargs='*', help='compare ways to find near copies (0.6 and 0.8)'
    )
    args = parser.parse_args()
    if args.near is not None:
        return compare(args.near or [0.6, 0.8], rounds=3, n=200_000)
    free = shutil.disk_usage(tempfile.gettempdir()).free / 1e9
    if free < 2.2 * args.gb:
        sys.exit(
            f'expected {2.2 * args.gb:.1f} GB free in {tempfile.gettempdir()}, found {free:.1f}: '
            'set TMPDIR or --gb'
        )
    with tempfile.TemporaryDirectory() as home:
        start = time.monotonic()
        n = generate(Path(home), args.gb * 1e9)
        files = [p for p in Path(home).rglob('*') if p.is_file()]
        size, took = sum(p.stat().st_size for p in files) / 1e9, time.monotonic() - start
        print('\n' + machine('lxml', 'pyarrow', 'datasets'))
        print(
            f'\n{args.gb:g} GB of text in {len(files):,} files ({size:.2f} GB on disk), written in '
            f'{took:.0f} s\n'
        )
        print('| ' + ' | '.join(COLUMNS) + ' |\n' + '|---' * len(COLUMNS) + '|')
        for workers in args.workers:
            m = measure(home, workers)
            assert m['documents'] >= n, (m['documents'], n)
            speed = m['letters'] / 1e6 / m['seconds']
            numbers = workers, m['documents'], m['letters'] / 1e9, m['skipped'], m['seconds'], speed
            memory = (
                m['reading']['RssAnon'],
                m['hwm'],
                m['all']['RssAnon'],
                m['all']['RssFile'],
                m['hwm_pass'],
            )
            cells = [
                *map('{:,}'.format, numbers[:2]),
                f'{numbers[2]:.2f} G',
                *map('{:,.0f}'.format, numbers[3:]),
            ]
            print('| ' + ' | '.join(cells + [f'{mb:,.0f} MB' for mb in memory]) + ' |', flush=True)


if __name__ == '__main__':
    main()
