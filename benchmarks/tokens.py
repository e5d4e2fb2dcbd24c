"""Measure `write_tokens` against the paper's pipeline and `Batches` against nanoGPT's loader.

python benchmarks/tokens.py [--nanogpt PATH]   PATH is a checkout of karpathy/nanoGPT

Options: --mb N characters (default 200, in millions; 20 for a quick try), --rounds N (default 1 for
tokenizing, 5 for batches), --only tokenize|batches, --before FILE, the `dataset.py` of another
version, whose `Batches` then takes turns with this one (git show
COMMIT:domain_llm/tokens/dataset.py > FILE).

The text is made up: words of syllables, drawn by a Zipf law with a long tail, in documents of a few
hundred to a few thousand words; no sentence comes twice. The tokenizer (50,257 tokens) is trained
on ten million characters of other text from the same source. Each way to tokenize runs in a process
of its own on one thread, in turn within a round, and ends with its ids on disk.
"""
import argparse, ast, hashlib, importlib.util, json, os, shutil, statistics, subprocess, sys
import tempfile, time
from itertools import chain
from pathlib import Path

import numpy as np

from machine import machine

os.environ['TOKENIZERS_PARALLELISM'] = 'false'


def made_up(millions, seed):
    "Make documents of words that no language has, `millions` of characters in all."
    rng, rank = np.random.default_rng(seed), np.arange(1, 2**21)
    starts, ends = ('', *'bdfklmnprst', 'st', 'tr', 'gr', 'pl', 'sch'), ('', *'nrsl', 'nt')
    syllables = [a + b + c for a in starts for b in 'aeiou' for c in ends]
    syllables = sorted(
        (syllables[i] for i in np.random.default_rng(0).permutation(len(syllables))), key=len
    )
    chance = np.cumsum(np.where(rank < 6000, 1 / (rank + 2.7), 6000**0.9 / rank**1.9))
    words, made = {}, 0
    while made < millions * 1e6:
        n = int(rng.lognormal(6.5, 1)) + 5
        ranks = np.searchsorted(chance, rng.random(n) * chance[-1]).tolist()
        text = document(ranks, rng.random(n).tolist(), words, syllables)
        made += len(text)
        yield text


def word(rank, syllables):
    "Spell a number in syllables."
    rank, spelled = rank + 700, ''
    while rank:
        rank, last = divmod(rank - 1, len(syllables))
        spelled += syllables[last]
    return spelled


def document(ranks, luck, words, syllables):
    "Write words with capitals, commas, brackets and numbers."
    out, first = [], True
    for rank, x in zip(ranks, luck):
        w = words.get(rank) or words.setdefault(rank, word(rank, syllables))
        w = w.capitalize() if first else w
        first = x < 0.05
        if first: w += '.'
        elif x < 0.11: w += ','
        elif x < 0.12: w = f'({w})'
        elif x < 0.14: w = str(int(x * 1e9) % 2000)
        out.append(w)
    return ' '.join(out)


def documents(home):
    "Read the documents one after the other."
    with open(home / 'texts.jsonl', encoding='utf-8') as f:
        for line in f: yield json.loads(line)['text']


def paper(home, tokenizer):
    "Run the pipeline of the paper's train.py, in our words: map with overflow, chain, cut again."
    import datasets, transformers
    datasets.disable_progress_bars()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    def tokenize(batch):
        pieces = fast(
            batch['text'], truncation=True, max_length=1024, return_overflowing_tokens=True
        )['input_ids']
        line = list(chain(*pieces))
        return {'input_ids': [line[i:i + 1024] for i in range(0, len(line), 1024)]}
    texts = datasets.load_dataset('json', data_files=str(home / 'texts.jsonl'), split='train',
                                  cache_dir=str(home / 'cache'))
    how = dict(batched=True, remove_columns=texts.column_names, load_from_cache_file=False)
    return lambda: texts.map(tokenize, cache_file_name=str(home / 'paper.arrow'), **how)


def limit(home, tokenizer):
    "Call only the library's encode_batch_fast, a hundred documents at a time; throw away the ids."
    def run():
        batch = []
        for text in documents(home):
            batch.append(text)
            if len(batch) == 100:
                tokenizer.encode_batch_fast(batch, add_special_tokens=False)
                batch = []
        if batch: tokenizer.encode_batch_fast(batch, add_special_tokens=False)
    return run


def ours(home, tokenizer, **how):
    "Our write_tokens."
    from domain_llm.tokens.dataset import write_tokens
    return lambda: write_tokens({'train': documents(home)}, tokenizer, home / 'ours', **how)


def ours_as_paper(home, tokenizer): return ours(home, tokenizer, layout='paper')


def ours_two(home, tokenizer): return ours(home, tokenizer, workers=2)


WAYS = {"the paper's pipeline": paper, 'encode_batch_fast alone (the limit of the library)': limit,
        'write_tokens': ours, "write_tokens, layout='paper'": ours_as_paper,
        'write_tokens, 2 further processes': ours_two}


def child(name, home):
    "Run one way in this process; print its seconds and its peak of memory in MB."
    from tokenizers import Tokenizer
    from domain_llm.ground.files import peak_memory
    run = WAYS[name](home, Tokenizer.from_file(str(home / 'tokenizer.json')))
    start, used = time.perf_counter(), time.process_time()
    run()
    seconds, cpu = time.perf_counter() - start, time.process_time() - used
    print(json.dumps(dict(seconds=seconds, cpu=cpu, peak=peak_memory() / 1e6)))


def identical(home):
    "Compare what write_tokens wrote with encode_batch, and its rows with those of the pipeline."
    import datasets
    from tokenizers import Tokenizer
    from domain_llm.tokens.dataset import TokenFile, paper_rows
    tokenizer, made = Tokenizer.from_file(str(home / 'tokenizer.json')), TokenFile(home / 'plain')
    digest = hashlib.sha256()
    for text in documents(home):
        ids = [*tokenizer.encode_batch([text])[0].ids, 0]
        digest.update(np.array(ids, made.meta['dtype']).tobytes())
    theirs = hashlib.sha256()
    for shard in made.meta['splits']['train']['shards']:
        theirs.update((home / 'plain' / shard['file']).read_bytes())
    rows, lines = (
        paper_rows(lay := TokenFile(home / 'aspaper')),
        datasets.Dataset.from_file(str(home / 'paper.arrow')),
    )
    pairs = zip(rows.tolist(), (row for batch in lines.iter(1000) for row in batch['input_ids']))
    same = len(rows) == len(lines) and all(lay.ids[a:b].tolist() == row for (a, b), row in pairs)
    return digest.hexdigest() == theirs.hexdigest(), same, len(made), len(rows)


def tokenize(home, megabytes, rounds):
    "Make the text, let the ways take turns, print the table."
    from domain_llm.tokens.tokenizer import train_tokenizer
    train_tokenizer(made_up(min(10, megabytes), 1), 50_257).save(str(home / 'tokenizer.json'))
    with open(home / 'texts.jsonl', 'w', encoding='utf-8') as f:
        for text in made_up(megabytes, 0): f.write(json.dumps({'text': text}) + '\n')
    found = {name: [] for name in WAYS}
    for k in range(rounds):
        for name in list(WAYS)[k % len(WAYS):] + list(WAYS)[:k % len(WAYS)]:
            command = [sys.executable, __file__, '--child', name, '--home', str(home)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode: sys.exit(done.stderr)
            found[name].append(json.loads(done.stdout.split('\n')[-2]))
            kinds = {'plain': 'write_tokens', 'aspaper': "write_tokens, layout='paper'"}
            for kind, way in kinds.items():
                if name == way and not (home / kind).exists(): (home / 'ours').rename(home / kind)
            shutil.rmtree(home / 'ours', ignore_errors=True)
    middle = {name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
              for name, runs in found.items()}
    base = middle["the paper's pipeline"]
    print(
        f"\n{megabytes} million characters, {rounds} round(s)\n\n"
        "| way | seconds | million characters/s | times as fast | processor seconds | times fewer "
        "| peak memory, MB | share of the pipeline's |\n|---|---|---|---|---|---|---|---|"
    )
    for name, m in middle.items():
        print(
            f"| {name} | {m['seconds']:.1f} | {megabytes / m['seconds']:.2f} | "
            f"{base['seconds'] / m['seconds']:.2f} | {m['cpu']:.1f} | "
            f"{base['cpu'] / m['cpu']:.2f} | {m['peak']:.0f} | {m['peak'] / base['peak']:.2f} |"
        )
    same, rows, n, n_rows = identical(home)
    print(
        f"\nThe {n:,} ids are those of `encode_batch` with an end-of-text token after each "
        f"document: {same}. The {n_rows:,} rows of the paper's layout are those of the pipeline: "
        f"{rows}. Memory and processor of two more processes are those of the first alone."
    )


def nanogpt_loader(path, folder, rows, T):
    "Cut get_batch out of nanoGPT's train.py, or take the same few lines (MIT, Andrej Karpathy)."
    import torch
    source = OURS_OF_THEIRS
    if path:
        tree = ast.parse((Path(path) / 'train.py').read_text())
        source = ast.unparse(
            next(node for node in tree.body if getattr(node, 'name', '') == 'get_batch')
        )
    space = dict(os=os, np=np, torch=torch, data_dir=str(folder), block_size=T, batch_size=rows,
                 device_type='cpu', device='cpu')
    exec(source, space)
    return lambda: space['get_batch']('train')


OURS_OF_THEIRS = """
def get_batch(split):
    data = np.memmap(os.path.join(data_dir, "train.bin"), dtype=np.uint16, mode="r")
    ix = torch.randint(len(data) - block_size, (batch_size,))
    x = torch.stack([torch.from_numpy((data[i:i+block_size]).astype(np.int64)) for i in ix])
    y = torch.stack([torch.from_numpy((data[i+1:i+1+block_size]).astype(np.int64)) for i in ix])
    return x, y
"""


def resident():
    "Give this process's memory now, in MB (Linux)."
    try: return int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6
    except OSError: return float('nan')


def from_file(path):
    "Load the module of another version, as if it lay in the package."
    spec = importlib.util.spec_from_file_location('domain_llm.tokens.dataset_before', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def batches(home, path, rounds, before=None, n=200_000_000, T=1024):
    "Read tokens in turn with both loaders, and a full pass with ours."
    import torch
    from domain_llm.ground.files import file_sha256
    from domain_llm.tokens.dataset import Batches, TokenFile
    torch.set_num_threads(1)
    folder = home / 'line'
    folder.mkdir()
    np.random.default_rng(0).integers(0, 50_257, n, np.uint16).tofile(folder / 'train.bin')
    shard = dict(file='train.bin', tokens=n, documents=1, sha256=file_sha256(folder / 'train.bin'))
    splits = dict(train=dict(tokens=n, documents=1, shards=[shard]))
    meta = dict(dtype='uint16', vocab_size=65536, eos_token_id=0, splits=splits)
    (folder / 'meta.json').write_text(json.dumps(meta))
    tokens = TokenFile(folder)
    micro, step, theirs = (
        Batches(tokens, T, 12 * T),
        Batches(tokens, T, 480 * T),
        nanogpt_loader(path, folder, 12, T),
    )
    ways = {"nanoGPT's get_batch, 12 rows a call": (lambda s: theirs(), 12),
            '`Batches`, 12 rows a step': (micro.__getitem__, 12),
            '`Batches`, 480 rows a step': (step.__getitem__, 480)}
    if before:
        old = from_file(before).Batches
        ways |= {
            f'`Batches` before, {rows} rows a step': (old(tokens, T, rows * T).__getitem__, rows)
            for rows in (12, 480)
        }
    found = {name: [] for name in ways}
    for k in range(rounds):
        for name, (read, rows) in list(ways.items())[::-1 if k % 2 else 1]:
            calls = 24_000 // rows
            read(0)
            start = time.process_time()
            for s in range(calls): read(k * calls + s)
            found[name].append(calls * rows * T / (time.process_time() - start) / 1e6)
    start = resident()
    grown = max(resident() - start for s in range(n // (480 * T)) if step[s])
    speeds = {name: statistics.median(values) for name, values in found.items()}
    base = speeds[next(iter(ways))]
    print(
        f'\nA line of {n / 1e6:.0f} million random ids (uint16), rows of {T}, one thread, seconds '
        f'of the processor, {rounds} rounds in turn\n\n| loader | million tokens/s | slowest to '
        'fastest round | times as fast |\n|---|---|---|---|'
    )
    for name, values in found.items():
        print(
            f'| {name} | {speeds[name]:.0f} | {min(values):.0f} to {max(values):.0f} | '
            f'{speeds[name] / base:.1f} |'
        )
    for rows in (12, 480) if before else ():
        ratios = [
            b / a
            for a, b in zip(
                *(found[f'`Batches`{when}, {rows} rows a step'] for when in (' before', ''))
            )
        ]
        print(f'\n{rows} rows a step: {statistics.median(ratios):.2f} times the speed before '
              f'({min(ratios):.2f} to {max(ratios):.2f}, pairs of one round)')
    print(f'\nOver a full pass of `Batches` the process grew by {grown:.1f} MB at most; '
          f'the file has {n * 2 / 1e6:.0f} MB.')


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--mb', type=int, default=200)
    parser.add_argument('--rounds', type=int)
    parser.add_argument('--nanogpt')
    parser.add_argument('--before')
    parser.add_argument('--only', choices=['tokenize', 'batches'])
    parser.add_argument('--child', help=argparse.SUPPRESS)
    parser.add_argument('--home', help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child: return child(chosen.child, Path(chosen.home))
    print('\n' + machine('numpy', 'tokenizers', 'datasets', 'transformers', 'torch'))
    with tempfile.TemporaryDirectory() as home:
        if chosen.only != 'batches': tokenize(Path(home), chosen.mb, chosen.rounds or 1)
        if chosen.only != 'tokenize':
            batches(Path(home), chosen.nanogpt, chosen.rounds or 5, chosen.before)


if __name__ == '__main__': main()
