"""Feed fuzzed files to every reader and command: no traceback, nothing slow, nothing lost.

    python benchmarks/hostile.py --inputs 10000 --minutes 30
"""
import argparse, collections, contextlib, gzip, io, random, tempfile, time
from pathlib import Path

SEEDS = {
    'a.txt': b'Rats froze in the maze. (c) 2020 Nobody.',
    'a.nbib': b'PMID- 1\nTI  - Rats\nAB  - They froze.\n\n',
    'b.txt': b'1. J. 2020.\n\nTitle.\n\nAuthor A(1).\n\nText.\n\nPMID: 12\n',
    'a.jsonl': b'{"text": "rats", "year": 2020}\n{"text": "mice", "id": "x"}\n',
    'a.csv': b'text,year,title\n"rats, mice",2020,x\n',
    'a.xml': b'<article><front><article-meta><title-group><article-title>T</article-title>'
             b'</title-group><abstract><p>Rats &alpha; froze<xref><sup>1</sup></xref>.</p></abstract>'
             b'</article-meta></front><body><p>A<fig><caption><p>b</p></caption></fig></p></body>'
             b'</article>',
    'p.xml': b'<PubmedArticleSet><PubmedArticle><MedlineCitation><PMID>1</PMID><Article><ArticleTitle>'
             b'T</ArticleTitle><Abstract><AbstractText Label="A">Rats.</AbstractText></Abstract>'
             b'</Article></MedlineCitation></PubmedArticle></PubmedArticleSet>',
    'c.csv': b'original_abstract,incorrect_abstract\nrats froze,rats ran\n',
    'm.csv': b'marked\n"Rats [[froze,ran]] then."\n',
}
PIECES = [b'"', b'\n', b',', b'\0', b'\xff\xfe', b'<a>', b'</p>', b'&', b'&#0;', b']]', b'[[', b'{', b'}',
          b'\x1b[2J', '\u202e'.encode(), b'$\\frac$', b'9' * 5000, b'[' * 3000, b'e.g. A ' * 200,
          '\u0301'.encode() * 50, b'\xc3\x83' * 99, b'<!DOCTYPE x [<!ENTITY a "b">]>', b' ' * 999]


def fuzzed(rng, data):
    "Change a file in a few places: a piece put in, cut out, doubled, or some bytes drawn anew."
    for _ in range(rng.randint(1, 4)):
        i, j = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        how = rng.randrange(4)
        if how == 0: data = data[:i] + rng.choice(PIECES) + data[i:]
        elif how == 1: data = data[:i] + data[j:]
        elif how == 2: data = data[:j] + data[i:j] * rng.randint(1, 20) + data[j:]
        else: data = data[:i] + rng.randbytes(min(8, j - i)) + data[j:]
    return data[:200_000]


def name_of(rng, name):
    "Give the file a name, in one of ten cases an odd one."
    stem = rng.choice(['$a_$', '\x1b[31m', '\u202ex', '\udcff', '_', '..', 'a b', '^{', '%s', '\n'])
    return name if rng.random() < 0.9 else f'{stem}{Path(name).suffix}'


def attempts(home):
    "List what a file is given to: {what: function of its path}."
    from domain_llm.app.cli import main
    from domain_llm.bench.cases import load_cases
    from domain_llm.text.documents import ReadReport, read_documents

    def read(path):
        try: read_documents(str(path), report=ReadReport(), largest=2**22)
        except (ValueError, OSError): pass

    def command(*words):
        try: main([str(word) for word in words])
        except SystemExit as ended: assert ended.code in (0, 1, 2, None), ended.code

    def exam(path):
        try: load_cases(str(path))
        except (ValueError, OSError): pass

    out = home / 'out'
    return dict(
        read=read, cases=exam, corpus=lambda p: command('corpus', p, '--out', out),
        evaluate=lambda p: command('evaluate', '--cases', p, '--out', out),
        folder=lambda p: command('corpus', p.parent, '--out', out, '--force'))


def one(rng, home, work, names, counts):
    "Try one input, and say what went wrong, or nothing."
    name = rng.choice(names)
    data, what = fuzzed(rng, SEEDS[name]), rng.choice(list(work))
    folder = home / 'in'
    folder.mkdir(exist_ok=True)
    path = folder / name_of(rng, name)
    if rng.random() < 0.1: path, data = path.with_name(path.name + '.gz'), gzip.compress(data)
    path.write_bytes(data)
    guard = home / 'out' / 'thesis'
    guard.parent.mkdir(exist_ok=True)
    guard.write_text('mine')
    start, said = time.process_time(), io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said): work[what](path)
    except Exception as error: return f'{what} {path.name!r}: {type(error).__name__}: {error}', data
    finally: counts[what] += 1
    took = time.process_time() - start
    if took > 1: return f'{what} {path.name!r}: {took:.1f} s', data
    if not path.exists() or path.read_bytes() != data or guard.read_text() != 'mine':
        return f'{what} {path.name!r}: something was lost', data
    if {'\x1b', '\u202e'} & set(said.getvalue().replace('\x1b[A', '')):
        return f'{what} {path.name!r}: a control reached the terminal', data
    path.unlink()


def run(inputs, minutes, seed=0):
    "Try many inputs until they are done or the time is over, and return (tried, faults)."
    import datasets
    datasets.disable_progress_bars()
    rng, end, faults = random.Random(seed), time.monotonic() + 60 * minutes, []
    counts = collections.Counter()
    with tempfile.TemporaryDirectory() as top:
        work = attempts(Path(top))
        for what in work.values():  # the imports are not what is measured
            (Path(top) / 'in').mkdir(exist_ok=True)
            (Path(top) / 'in/w.txt').write_text('warm')
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                with contextlib.suppress(Exception): what(Path(top) / 'in/w.txt')
        (Path(top) / 'in/w.txt').unlink()
        while sum(counts.values()) < inputs and time.monotonic() < end:
            if fault := one(rng, Path(top), work, list(SEEDS), counts): faults.append(fault)
    return counts, faults


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--inputs', type=int, default=10_000)
    parser.add_argument('--minutes', type=float, default=30)
    parser.add_argument('--seed', type=int, default=0)
    given = parser.parse_args()
    counts, faults = run(given.inputs, given.minutes, given.seed)
    for said, data in faults[:20]: print(said, data[:200])
    print(f'{sum(counts.values()):,} inputs ({dict(counts)}), {len(faults)} faults')
    raise SystemExit(bool(faults))
