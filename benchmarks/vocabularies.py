"""Does a field's own vocabulary help a small model? The demo's science, in two vocabularies.

DOMAIN_LLM_DATA=… python benchmarks/vocabularies.py          runs what is missing, prints the tables
DOMAIN_LLM_DATA=… python benchmarks/vocabularies.py --store  also renews what lesson 20 shows

A run is a line of the file --out, and one that was stopped goes on from its checkpoint, so the
script can be interrupted at any time. Processes with different --seeds may share the file.

Both vocabularies have up to 800 entries: "own" is made from the science's papers, "foreign" from
abstracts of real neuroscience reviews. So that a run takes a minute and not ten, the papers are
telegrams: of each finding only the three names and the direction are left (--text papers keeps the
whole papers). A row of the training text holds whole papers, and the rest of it is empty. The arms
of a seed share the science, the model's seed, the recipe and the number of updates; what an update
reads differs:

    long view      the papers of "own", as many in a row as a foreign paper is long
    own            --papers papers in the own vocabulary, each in a row of its own
    equal papers   the same papers in the foreign vocabulary, each in a row of its own
    equal tokens   so many papers in the foreign vocabulary as have the tokens of "own"

So neighbours in this list differ in one thing each: how much a row shows, what the pieces are, how
many papers are read. The first arm is run when --arms names it.
"""
import argparse, gzip, json, os, shutil, time
from dataclasses import replace
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from scipy.stats import ttest_rel

from domain_llm.app.steps import SIZES
from domain_llm.bench.scores import score_cases
from domain_llm.ground.files import write_whole
from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config
from domain_llm.text.synthetic import (
    BEHAVIOURS, MANIPULATIONS, REGIONS, SyntheticScience, read_findings)
from domain_llm.tokens.tokenizer import bits_per_byte, show_pieces, train_tokenizer, whole_terms
from domain_llm.train.pretraining import pretrain
from domain_llm.train.recipe import FAST_RECIPE, TrainConfig
from domain_llm.train.runs import read_log
from machine import machine

STORED = Path(__file__).parent.parent / 'domain_llm/stored/vocabularies.json'
ARMS, VOCAB_SIZE = ('long view', 'own', 'equal papers', 'equal tokens'), SIZES['demo']['vocab_size']
TERMS = *MANIPULATIONS, *REGIONS, *BEHAVIOURS
HELD_OUT = 184  # papers, two in a hundred, on which nothing is trained
SETTINGS = 'text', 'layers', 'channels', 'steps', 'schedule', 'papers', 'lr', 'muon_lr'
SENTENCE = ' muscimol hippocampus freezing fell'


def telegram(text):
    "Reduce a text to its findings: three names and a direction each."
    words = {1: 'rose', -1: 'fell'}
    return ''.join(f' {MANIPULATIONS[m]} {REGIONS[r]} {BEHAVIOURS[b]} {words[direction]}'
                   for (m, r, b), direction in read_findings(text))


@lru_cache
def foreign_tokenizer():
    "Train the vocabulary of real neuroscience."
    path = Path(os.environ['DOMAIN_LLM_DATA']) / 'corpus/neuro_reviews.jsonl.gz'
    with gzip.open(path, 'rt', encoding='utf-8') as f:
        return train_tokenizer((json.loads(line)['text'] for line in f), VOCAB_SIZE)


class Papers:
    "Give the batch of any step: whole papers, in rows that are filled up with what does not count."
    def __init__(self, encoded, n_ctx, papers, in_a_row, seed):
        self.encoded, self.n_ctx, self.papers = encoded, n_ctx, papers
        self.in_a_row, self.seed = in_a_row, seed
        self.order = lru_cache(2)(self._order)

    def _order(self, epoch):
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.encoded))

    def __getitem__(self, step):
        places = range(step * self.papers, (step + 1) * self.papers)
        which = [self.order(at // len(self.encoded))[at % len(self.encoded)] for at in places]
        return self.rows([self.encoded[i] for i in which])

    def rows(self, encoded):
        "Lay papers out in rows: ids and targets, (B, T) each; −1 is no target."
        groups = [encoded[i:i + self.in_a_row] for i in range(0, len(encoded), self.in_a_row)]
        ids = np.zeros((len(groups), self.n_ctx), np.int64)                           # (B, T)
        targets = np.full_like(ids, -1)                                               # (B, T)
        for row, target, group in zip(ids, targets, groups):
            line = np.concatenate([[0], *group])
            row[:len(line) - 1], target[:len(line) - 1] = line[:-1], line[1:]
        return ids, targets


def encoded_papers(tokenizer, texts):
    "Encode texts, each with the end of text behind it."
    return [np.array(e.ids + [0]) for e in tokenizer.encode_batch(texts)]


def run(seed, arm, args):
    "Train and examine one model; give its line."
    began, science = time.time(), SyntheticScience(seed)
    cases, texts = science.cases(), science.papers()
    if args.text == 'telegrams':
        texts = [telegram(text) for text in texts]
        cases = [replace(case, original=telegram(case.original), altered=telegram(case.altered))
                 for case in cases]
    own = train_tokenizer(texts[HELD_OUT:], VOCAB_SIZE)
    tokenizer = foreign_tokenizer() if arm.startswith('equal') else own
    encoded = encoded_papers(tokenizer, texts)
    length = np.mean([len(e) for e in encoded])
    ratio = np.mean([len(e) for e in encoded_papers(foreign_tokenizer(), texts)]) / np.mean(
        [len(e) for e in encoded_papers(own, texts)])
    in_a_row = round(ratio) if arm == 'long view' else 1
    papers = round(args.papers / ratio) if arm == 'equal tokens' else args.papers
    n_ctx = in_a_row * max(map(len, encoded))
    batches = Papers(encoded[HELD_OUT:], n_ctx, papers, in_a_row, seed)

    torch.manual_seed(seed)
    size = tokenizer.get_vocab_size()
    model = GPT2(GPT2Config(size, args.layers, 4, args.channels, n_ctx))
    recipe = {**FAST_RECIPE, 'lr': args.lr, 'muon_lr': args.muon_lr}
    config = TrainConfig(**recipe, steps=args.steps, schedule_steps=args.schedule, seed=seed,
                         tokens_per_step=papers // in_a_row * n_ctx, eval_every=args.steps // 5,
                         save_minutes=2)

    def evaluate(model, step):
        return dict(right=int(score_cases(model, tokenizer, cases, prompt='').correct.sum()))

    folder = args.out.with_name(f'{args.out.stem}-{seed}-{arm}'.replace(' ', '-'))
    pretrain(model, batches, config, folder, evaluate=evaluate)
    curve = [[line['step'], line['right']] for line in read_log(folder) if 'right' in line]
    shutil.rmtree(folder)
    ids, targets = map(torch.from_numpy, batches.rows(encoded[:HELD_OUT]))            # (B, T)
    with torch.no_grad(): loss = model.eval()(ids, targets).item()
    n_bytes = sum(len(text.encode()) for text in texts[:HELD_OUT])
    return {
        **{key: getattr(args, key) for key in SETTINGS},
        'seed': seed, 'arm': arm, 'vocab_size': size, 'row': n_ctx, 'papers_in_a_row': in_a_row,
        'papers_an_update': papers, 'tokens_a_paper': length,
        'tokens': args.steps * papers * length, 'passes': args.steps * papers / len(texts),
        'terms_whole': len(whole_terms(tokenizer, TERMS)), 'terms': len(TERMS),
        'bits_per_byte': bits_per_byte(loss, int((targets >= 0).sum()), n_bytes),
        'right': curve[-1][1], 'n': len(cases), 'curve': curve, 'seconds': time.time() - began}


def read(args):
    "Read the runs of these settings; a line that was cut short is left out."
    if not args.out.exists(): return []
    lines = args.out.read_text(encoding='utf-8').splitlines()
    runs = [json.loads(line) for line in lines if line.endswith('}')]
    same = [r for r in runs if all(r[key] == getattr(args, key) for key in SETTINGS)]
    return sorted(same, key=lambda r: (r['seed'], ARMS.index(r['arm'])))


def whole_seeds(runs, arms):
    "Keep the seeds of which every arm is there."
    have = {(r['seed'], r['arm']) for r in runs}
    return [r for r in runs if r['arm'] in arms and all((r['seed'], arm) in have for arm in arms)]


def show(runs, arms):
    "Print a row for each seed, and the paired differences with their t intervals."
    arms = [arm for arm in ARMS if arm in arms]
    right = {arm: [r for r in runs if r['arm'] == arm] for arm in arms}
    print('| seed | ' + ' | '.join(arms) + ' |\n' + '|---' * (1 + len(arms)) + '|')
    for row in zip(*right.values()):
        told = (f"{r['right']}/{r['n']} = {r['right'] / r['n']:.3f}" for r in row)
        print(f"| {row[0]['seed']} | {' | '.join(told)} |")
    print('\n| arm | tokens a paper | papers an update | tokens | passes | bits per byte |\n'
          + '|---' * 6 + '|')
    keys = 'tokens_a_paper', 'papers_an_update', 'tokens', 'passes', 'bits_per_byte'
    for arm, some in right.items():
        values = (np.mean([r[key] for r in some]) for key in keys)
        told = ' | '.join(f'{value:,.2f}' for value in values)
        print(f'| {arm} | {told} |')
    print('\n| difference | share right, mean over seeds | 95 % interval |\n|---|---|---|')
    for a, b in combinations(arms, 2):
        x, y = (np.array([r['right'] / r['n'] for r in right[arm]]) for arm in (a, b))
        low, high = ttest_rel(x, y).confidence_interval(0.95)
        print(f'| {a} − {b} | {np.mean(x - y):+.3f} | {low:+.3f} to {high:+.3f} |')


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out', type=Path, default='vocabularies.jsonl', help='one run a line')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2, 3, 4])
    parser.add_argument('--arms', nargs='+', choices=ARMS, default=ARMS[1:])
    parser.add_argument('--text', choices=('telegrams', 'papers'), default='telegrams')
    parser.add_argument('--layers', type=int, default=2, help='blocks')
    parser.add_argument('--channels', type=int, default=64)
    parser.add_argument('--steps', type=int, default=300, help='updates')
    parser.add_argument('--schedule', type=int, default=600, help='where the rate reaches zero')
    parser.add_argument('--papers', type=int, default=64, help='in an update')
    parser.add_argument('--lr', type=float, default=FAST_RECIPE['lr'], help="AdamW's peak rate")
    parser.add_argument('--muon-lr', type=float, default=FAST_RECIPE['muon_lr'])
    parser.add_argument('--store', action='store_true', help='renew domain_llm/stored')
    args = parser.parse_args()
    torch.set_num_threads(1)
    where = machine('torch', 'tokenizers')
    for seed in args.seeds:
        for arm in args.arms:
            if (seed, arm) in {(r['seed'], r['arm']) for r in read(args)}: continue
            line = json.dumps(run(seed, arm, args))
            with open(args.out, 'a', encoding='utf-8') as f: f.write('\n' + line)
    runs = whole_seeds(read(args), args.arms)
    print(f'\n{where}\n')
    show(runs, args.arms)
    if args.store:
        pieces = str(show_pieces(foreign_tokenizer(), SENTENCE))
        stored = dict(machine=where, sentence=SENTENCE, pieces=pieces, runs=runs)
        write_whole(STORED, json.dumps(stored, indent=1, ensure_ascii=False) + '\n')


main()
