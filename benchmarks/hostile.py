"""Feed fuzzed files to every reader and command: no traceback, nothing slow, nothing lost.

    python benchmarks/hostile.py --inputs 10000 --minutes 30
"""
import argparse, collections, contextlib, gzip, io, json, platform, random, tempfile, time
from datetime import date
from pathlib import Path

FRONT = ('<front><article-meta><title-group><article-title>T</article-title></title-group>'
         '<abstract><p>Rats &alpha; froze<xref><sup>1</sup></xref>.</p></abstract>'
         '</article-meta></front>')
RECORD = ('<PubmedArticle><MedlineCitation><PMID>1</PMID><Article><ArticleTitle>T</ArticleTitle>'
          '<Abstract><AbstractText Label="A">Rats.</AbstractText></Abstract></Article>'
          '</MedlineCitation></PubmedArticle>')
PAPERS = {
    'a.txt': 'Rats froze in the maze. (c) 2020 Nobody.',
    'a.nbib': 'PMID- 1\nTI  - Rats\nAB  - They froze.\n\n',
    'b.txt': '1. J. 2020.\n\nTitle.\n\nAuthor A(1).\n\nText.\n\nPMID: 12\n',
    'a.jsonl': '{"text": "rats", "year": 2020}\n{"text": "mice", "id": "x"}\n',
    'a.csv': 'text,year,title\n"rats, mice",2020,x\n',
    'a.xml': f'<article>{FRONT}<body><p>A<fig><caption><p>b</p></caption></fig></p></body>'
             '</article>',
    'p.xml': f'<PubmedArticleSet>{RECORD}</PubmedArticleSet>'}
CASES = {'c.csv': 'original_abstract,incorrect_abstract\nrats froze,rats ran\n',
         'm.csv': 'marked\n"Rats [[froze,ran]] then."\n'}
PIECES = [
    b'"', b'\n', b',', b'\0', b'\xff\xfe', b'<a>', b'</p>', b'&', b'&#0;', b']]', b'[[', b'{', b'}',
    b'\x1b[2J', '\u202e'.encode(), b'$\\frac$', b'9' * 5000, b'[' * 3000, b'e.g. A ' * 200,
    '\u0301'.encode() * 50, b'\xc3\x83' * 99, '©\n'.encode() * 99, b' ' * 999, b'\x1f\x8b',
    b'<!DOCTYPE x [<!ENTITY a "b">]>', b'<article><body><p>', b'PAR1', b'\n\n1. ', b'NaN', b'-1',
    b'null', b'[]', b'"x"', b'1e999', b'../../', b'/etc/passwd']
STEMS = '$a_$', '\x1b[31m', '\u202ex', '\udcff', '_', '..', 'a b', '^{', '%s', '\n'


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


def made_files(home):
    "Write a small file of each kind that the library itself writes, and return their contents."
    import numpy as np, pandas as pd, torch
    from domain_llm.bench.scores import Scores
    from domain_llm.model.fast import GPT2
    from domain_llm.model.gpt2 import GPT2Config
    from domain_llm.model.weights import save_model
    from domain_llm.tokens.dataset import write_tokens
    from domain_llm.tokens.tokenizer import save_tokenizer, train_tokenizer
    tokenizer = train_tokenizer(['rats froze', 'mice ran'], 257)
    write_tokens({'train': ['rats froze']}, tokenizer, home / 'tokens')
    save_tokenizer(tokenizer, home / 'tokenizer')
    torch.manual_seed(0)
    tiny = GPT2Config(vocab_size=257, n_ctx=8, n_embd=8, n_layer=1, n_head=1, eos_token_id=0)
    save_model(GPT2(tiny), home / 'model')
    (home / 'run').mkdir()
    line = dict(step=0, loss=5.5, smoothed=5.5, validation_loss=5.4, lr=0.1)
    (home / 'run/log.jsonl').write_text(f'{json.dumps(line)}\n' * 3)
    (home / 'run/config.json').write_text(json.dumps(dict(train=dict(steps=3), model={})))
    (home / 'run/steps.json').write_text(
        json.dumps(dict(corpus=dict(inputs=dict(paths={}), done=True))))
    frame = dict(id=['1'], section=[''], original=[1.0], altered=np.array([2.0]))
    Scores('m', pd.DataFrame(frame)).save(home / 'run/s.parquet')
    pd.DataFrame(dict(text=['rats froze', 'mice ran'], year=[2020, 7])).to_parquet(
        home / 'papers.parquet')
    names = ('tokens/meta.json', 'tokens/train.bin', 'tokenizer/tokenizer.json',
             'model/config.json', 'model/model.safetensors', 'run/log.jsonl', 'run/config.json',
             'run/steps.json', 'run/s.parquet')
    return {name: (home / name).read_bytes() for name in names}


def refusing(work):
    "Make a function that takes a refusal for an answer."
    def quiet(*args):
        with contextlib.suppress(ValueError, OSError): work(*args)
    return quiet


def command(*words):
    "Give a command in this process; what ends otherwise than with 0, 1 or 2 is a fault."
    from domain_llm.app.cli import main
    try: main([str(word) for word in words])
    except SystemExit as ended:
        if ended.code not in (0, 1, 2, None): raise RuntimeError(f'code {ended.code}') from None


def attempts(home):
    "List what a file is given to: {what: (files, function of its path, share)}."
    from domain_llm.app.steps import _run_config, fingerprint, noted_steps
    from domain_llm.bench.cases import load_cases
    from domain_llm.bench.scores import Scores
    from domain_llm.model.weights import load_gpt2
    from domain_llm.text.documents import ReadReport, read_documents
    from domain_llm.tokens.dataset import TokenFile
    from domain_llm.tokens.tokenizer import load_tokenizer
    from domain_llm.train.runs import plot_run, read_log
    out, written = home / 'out', made_files(home)
    papers = {name: text.encode() for name, text in PAPERS.items()}
    papers['a.parquet'] = (home / 'papers.parquet').read_bytes()
    cases = {name: text.encode() for name, text in CASES.items()}

    def read(path): read_documents(str(path), report=ReadReport(), largest=2**22)

    def of(*names): return {name: written[name] for name in names}

    def draw(path):
        read_log(path.parent)
        plot_run(path.parent)

    beside = dict(  # what reads a file that this library wrote, with the others beside it
        tokens=(of('tokens/meta.json', 'tokens/train.bin'), lambda p: TokenFile(p.parent)),
        tokenizer=(of('tokenizer/tokenizer.json'), lambda p: load_tokenizer(p.parent)),
        model=(of('model/config.json', 'model/model.safetensors'), lambda p: load_gpt2(p.parent)),
        log=(of('run/log.jsonl'), draw),
        config=(of('run/config.json'), lambda p: _run_config(p.parent)),
        steps=(of('run/steps.json'), lambda p: noted_steps(p.parent)),
        scores=(of('run/s.parquet'), Scores.load))
    return dict(
        read=(papers, refusing(read), 40), folder=(papers, refusing(lambda p: read(p.parent)), 10),
        cases=(cases, refusing(lambda p: load_cases(str(p))), 15),
        print=(papers | cases, fingerprint, 2),
        **{name: (files, refusing(work), 3) for name, (files, work) in beside.items()},
        corpus=(papers, lambda p: command('corpus', p, '--out', out), 3),
        force=(papers, lambda p: command('corpus', p.parent, '--out', out, '--force'), 2),
        keep_out=(cases, lambda p: command('corpus', home / 'papers.parquet', '--cases', p, '--out',
                                           out), 2),
        evaluate=(cases, lambda p: command('evaluate', '--cases', p, '--out', out), 5),
        plan=(cases, lambda p: command('plan', '--primary', 'experts,trained GPT-2', '--margin', 5,
                                       '--cases', p, '--out', out), 2))


def one(rng, home, what, files, work):
    "Try one input, and return what went wrong, with the input; None where nothing did."
    name = rng.choice(list(files))
    data, ours = fuzzed(rng, files[name]), '/' in name
    path = home / (name if ours else f'in/{name}')
    path.parent.mkdir(exist_ok=True)
    if not ours and rng.random() < 0.1: path = path.with_name(rng.choice(STEMS) + path.suffix)
    if not ours and rng.random() < 0.1: path, data = Path(f'{path}.gz'), gzip.compress(data)
    path.write_bytes(data)
    guards = [home / 'out/thesis', home / 'in/.thesis']
    for guard in guards: guard.write_text('mine')
    took, said = [], io.StringIO()
    for _ in range(2):  # other programs may slow the processor down
        start = time.process_time()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said): work(path)
        except Exception as error:
            return f'{what} {path.name!r}: {type(error).__name__}: {error}', data
        took.append(time.process_time() - start)
        if took[-1] < 1: break
    if min(took) > 1: return f'{what} {path.name!r}: {min(took):.1f} s', data
    if path.read_bytes() != data or any(guard.read_text() != 'mine' for guard in guards):
        return f'{what} {path.name!r}: something was lost', data
    if {'\x1b', '\x07', '\u202e'} & set(said.getvalue()):
        return f'{what} {path.name!r}: a control reached the terminal', data
    if ours: path.write_bytes(files[name])
    else: path.unlink()


def run(inputs, minutes, seed=0):
    "Try many inputs until they are done or the time is over; return counts and faults."
    import datasets, warnings
    datasets.disable_progress_bars()
    warnings.simplefilter('ignore')
    rng, faults, counts = random.Random(seed), [], collections.Counter()
    with tempfile.TemporaryDirectory() as top:
        home = Path(top)
        for name in 'in', 'out': (home / name).mkdir()
        work = attempts(home)
        for what, (files, do, _) in work.items():  # imports are not what is measured
            said = io.StringIO()
            name = next(iter(files))
            path = home / (name if '/' in name else f'in/{name}')
            path.write_bytes(files[name])
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said): do(path)
            if '/' not in name: path.unlink()
        shares, end = [share for _, _, share in work.values()], time.monotonic() + 60 * minutes
        while counts.total() < inputs and time.monotonic() < end:
            what, = rng.choices(list(work), shares)
            counts[what] += 1
            if fault := one(rng, home, what, *work[what][:2]): faults.append(fault)
    return counts, faults


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--inputs', type=int, default=10_000)
    parser.add_argument('--minutes', type=float, default=30)
    parser.add_argument('--seed', type=int, default=0)
    given, start = parser.parse_args(), time.process_time()
    counts, faults = run(given.inputs, given.minutes, given.seed)
    for said, data in faults[:20]: print(said, data[:200])
    print(f'{date.today()}, {platform.system()}, Python {platform.python_version()}, seed '
          f'{given.seed}, {time.process_time() - start:.0f} s of processor time')
    print('| given to | inputs |\n|---|---|')
    for what, n in counts.most_common(): print(f'| {what} | {n:,} |')
    print(f'\n{counts.total():,} inputs, {len(faults):,} faults')
    raise SystemExit(bool(faults))
