"""Train a vocabulary of 50,257 tokens: `train_tokenizer` against the `tokenizers` library alone.

DOMAIN_LLM_DATA=… python benchmarks/tokenizer.py     the real texts, prints the table of RESULTS.md
python benchmarks/tokenizer.py                       a generated text of the same size
python benchmarks/tokenizer.py --rounds 1 --mb 4     a quick try

The library's way is its own `ByteLevelBPETokenizer.train_from_iterator`. Both read the same
generator of documents, take turns, and change places each round; each training is a process of its
own. The vocabularies must be identical, merge by merge.
"""
import argparse, gzip, hashlib, json, os, random, re, subprocess, sys, time
from importlib import import_module
from pathlib import Path
from statistics import median

from machine import machine

VOCAB_SIZE, WAYS = 50257, ('tokenizers alone', 'train_tokenizer')


def real_texts(folder):
    "Read the abstracts, and the articles with their tags dropped."
    with gzip.open(folder / 'corpus/neuro_reviews.jsonl.gz', 'rt', encoding='utf-8') as f:
        texts = [json.loads(line)['text'] for line in f]
    articles = sorted(p for p in (folder / 'jats').iterdir() if p.suffix in ('.nxml', '.xml'))
    return texts + [re.sub(r'<[^>]*>', ' ', p.read_text(encoding='utf-8')) for p in articles]


def generated_texts(mb):
    "Make documents of made-up words whose frequencies fall as those of real words do (Zipf)."
    rng, parts = (
        random.Random(0),
        'ra mu ti on se pha lo gen ic ne u r ex st al or ka in am y'.split(),
    )
    words = list({''.join(rng.choices(parts, k=rng.randint(1, 6))): 0 for _ in range(200_000)})
    weights = [1 / (i + 10) for i in range(len(words))]
    size = 0
    while size < mb * 1e6:
        text = ' '.join(rng.choices(words, weights, k=5000)) + '.'
        size += len(text)
        yield text


def limited(texts, mb):
    "Stop after so many megabytes."
    size = 0
    for text in texts:
        if size > mb * 1e6: return
        size += len(text.encode())
        yield text


def corpus(mb):
    "Give the documents to train on, and what they are."
    folder = os.environ.get('DOMAIN_LLM_DATA')
    if folder:
        return list(
            limited(real_texts(Path(folder)), mb)
        ), 'abstracts and articles of neuroscience and biology'
    return list(limited(generated_texts(mb), mb)), 'generated'


def alone(texts):
    "Train as the library's documentation does."
    from tokenizers import ByteLevelBPETokenizer
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        texts,
        vocab_size=VOCAB_SIZE,
        min_frequency=0,
        special_tokens=['<|endoftext|>'],
        show_progress=False,
    )
    return tokenizer._tokenizer


def ours(texts):
    "Train as the course does."
    from domain_llm.tokens.tokenizer import train_tokenizer
    return train_tokenizer(texts, VOCAB_SIZE)


def train_once(way, mb):
    "Train in this process; print the seconds and what came out."
    import_module('domain_llm.tokens.tokenizer')  # is not part of the time
    texts, _ = corpus(mb)
    start = time.perf_counter()
    tokenizer = {WAYS[0]: alone, WAYS[1]: ours}[way](text for text in texts)
    seconds = time.perf_counter() - start
    model = json.loads(tokenizer.to_str())['model']
    digest = hashlib.sha256(
        json.dumps([model['vocab'], model['merges']], sort_keys=True).encode()
    ).hexdigest()
    print(json.dumps(dict(seconds=seconds, size=tokenizer.get_vocab_size(), digest=digest)))


def measure(rounds, mb):
    "Let the two take turns; give {way: list of results}."
    found = {way: [] for way in WAYS}
    for k in range(-1, rounds):  # one round to warm up the disk's cache
        for way in WAYS[::1 if k % 2 else -1]:
            command = [sys.executable, __file__, '--mb', str(mb), '--once', way]
            out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            if k >= 0: found[way].append(json.loads(out.strip().split('\n')[-1]))
    return found


def show(found, texts, what):
    "Print the table and what it was measured on."
    n_bytes, results = (
        sum(len(t.encode()) for t in texts),
        [r for results in found.values() for r in results],
    )
    assert len({r['digest'] for r in results}) == 1, 'the two ways made different vocabularies'
    base = [r['seconds'] for r in found[WAYS[0]]]
    print(machine('tokenizers') + '\n')
    print(
        f'Text: {what}, {len(texts):,} documents, {n_bytes / 1e6:.1f} MB. '
        f'Vocabulary: {results[0]["size"]:,} tokens, identical in all {len(results)} trainings.\n'
    )
    print(
        "| way | seconds, median | in the rounds | times the library's | in the rounds "
        "|\n|---|---|---|---|---|"
    )
    for way, runs in found.items():
        seconds = [r['seconds'] for r in runs]
        ratios = [s / b for s, b in zip(seconds, base)]
        print(f'| {way} | {median(seconds):.2f} | {min(seconds):.2f} to {max(seconds):.2f} '
              f'| {median(seconds) / median(base):.3f} | {min(ratios):.3f} to {max(ratios):.3f} |')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rounds', type=int, default=5, help='how often each way trains')
    parser.add_argument('--mb', type=float, default=20, help='megabytes of text')
    parser.add_argument('--once', choices=WAYS, help='train once, in this process')
    args = parser.parse_args()
    if args.once: train_once(args.once, args.mb)
    else: show(measure(args.rounds, args.mb), *corpus(args.mb))
