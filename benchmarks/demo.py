"""Run `domain-llm demo` for three seeds; print time, memory, accuracies, and what guessers reach.

python benchmarks/demo.py          prints the tables of RESULTS.md
python benchmarks/demo.py --store  also renews domain_llm/stored/demo.json and nbs/images/demo.png,
                                   which lesson 10 and the index show, and the toy of stored_model
python benchmarks/demo.py FOLDER   keeps the runs in a folder, and goes on there
"""
import itertools, json, os, shutil, subprocess, sys, tempfile, time
from collections import Counter
from pathlib import Path

from domain_llm.bench.scores import Scores
from domain_llm.bench.stats import wilson_interval
from domain_llm.train.runs import read_log
from domain_llm.text.synthetic import SyntheticScience, read_findings
from machine import machine

ROOT, SEEDS = Path(__file__).parent.parent, (0, 1, 2)


def run_demo(seed, out):
    "Run the demo in a process of its own; give minutes and peak memory in MB."
    start = time.monotonic()
    command = [sys.executable, '-m', 'domain_llm', 'demo', '--seed', str(seed), '--out', str(out)]
    pid = os.posix_spawn(sys.executable, command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    if status: sys.exit(f'the demo with seed {seed} failed')
    return (time.monotonic() - start) / 60, usage.ru_maxrss / 1000


def counting(seed, slots):
    "Give (right, n) of who counts rises and falls for some of the names; ties count one half."
    science, count = SyntheticScience(seed), Counter()
    for text in science.papers():
        for triple, direction in read_findings(text):
            count[tuple(triple[i] for i in slots)] += direction
    votes = [count[tuple(t[i] for i in slots)] * science.direction(t) for t in science.held_out]
    return sum(1 if v > 0 else 0.5 if v == 0 else 0 for v in votes), len(votes)


def main():
    folders = [word for word in sys.argv[1:] if not word.startswith('--')]
    home, rows, stored = Path(folders[0] if folders else tempfile.mkdtemp()), [], {}
    for seed in SEEDS:
        minutes, memory = run_demo(seed, home / str(seed))
        scores = [
            Scores.load(p) for p in sorted((home / str(seed) / 'evaluate').glob('*/*.parquet'))
        ]
        stored[seed] = dict(
            log=[line for line in read_log(home / str(seed) / 'pretrain') if 'accuracy' in line],
            results={s.name: dict(correct=int(s.correct.sum()), n=s.n) for s in scores},
        )
        rows.append((seed, minutes, memory))
    print(f"\n{machine('torch')}\n")
    names = list(stored[0]['results'])
    print(
        '| seed | minutes | peak memory | '
        + ' | '.join(names)
        + ' |\n'
        + '|---' * (3 + len(names))
        + '|'
    )
    for seed, minutes, memory in rows:
        cells = [
            f"{r['correct']}/{r['n']} = {r['correct'] / r['n']:.3f}"
            for r in stored[seed]['results'].values()
        ]
        print(f'| {seed} | {minutes:.1f} | {memory:,.0f} MB | ' + ' | '.join(cells) + ' |')
    print(
        '\n| guesser, three seeds pooled | right | n | accuracy | 99 % interval '
        '|\n|---|---|---|---|---|'
    )
    pooled = {name: [sum(stored[s]['results'][name][k] for s in SEEDS) for k in ('correct', 'n')]
              for name in ('untrained GPT-2', 'token trigram')}
    for slots in [*itertools.combinations(range(3), 1), *itertools.combinations(range(3), 2)]:
        name = 'counts by ' + ' and '.join(
            ('manipulation', 'region', 'behaviour')[i] for i in slots
        )
        pooled[name] = [sum(x) for x in zip(*(counting(s, slots) for s in SEEDS))]
    for name, (right, n) in pooled.items():
        low, high = wilson_interval(right, n, 0.99)
        print(f'| {name} | {right:g} | {n} | {right / n:.3f} | {low:.3f} to {high:.3f} |')
    if '--store' in sys.argv:
        (ROOT / 'domain_llm/stored/demo.json').write_text(
            json.dumps(stored, indent=1) + '\n', encoding='utf-8'
        )
        shutil.copy(home / '0/figures/training.png', ROOT / 'nbs/images/demo.png')
        subprocess.run([sys.executable, ROOT / 'tools', 'toy', home / '0'], check=True)


main()
