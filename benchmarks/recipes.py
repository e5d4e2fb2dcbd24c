"""Compare the recipes of lesson 45 on real text: the tokens that each needs for the same loss.

    DOMAIN_LLM_DATA=… python benchmarks/recipes.py [--tokens 1200000] [--jobs 2] [--log runs.jsonl]

A GPT-2 of 4 blocks and 128 channels reads the neuroscience abstracts and articles of
DOMAIN_LLM_DATA in a vocabulary of its own, on a CPU; `gpu.py recipes` is the same question for 124M
on a GPU. All runs have the same model, data, tokens per step and validation text; one run is one
process, on one thread. The comparison that means something is with an AdamW whose rate was tuned,
on a seed of its own, at the whole budget. Loss over tokens does not depend on the machine's load.
About an hour of one core, half with two jobs; called again with the same log, it goes on after the
last finished run.
"""
import argparse, json, os, statistics, sys, time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from domain_llm.text.documents import read_documents
from domain_llm.text.overlap import split_documents
from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config, num_params
from domain_llm.train.distributed import Trainer
from domain_llm.train.recipe import FAST_RECIPE, PAPER_RECIPE, TrainConfig, device_info
from domain_llm.train.runs import validation_loss
from domain_llm.tokens.tokenizer import train_tokenizer
from domain_llm.tokens.dataset import Batches
from domain_llm.tokens.ngram import NGram
from machine import machine

TUNING_SEED, SEEDS = 9, (0, 1, 2)
ADAMW = {**FAST_RECIPE, 'muon_lr': 0.0}                # FAST without Muon: the rate alone is tuned


@dataclass(frozen=True)
class Setup:
    "Hold what all runs have in common."
    cfg: GPT2Config   # the model
    step: int         # tokens in a step
    budget: int       # tokens that PAPER and the tuned AdamW read
    early: tuple      # shares of them after which FAST is compared with PAPER
    late: tuple       # shares of them after which it is compared with the tuned AdamW
    max_tokens: int = 60_000  # tokens of the validation text

SETUP = Setup(
    GPT2Config(vocab_size=4096, n_layer=4, n_head=4, n_embd=128, n_ctx=128),
    1024,
    1_200_000,
    (0.05,),
    (0.8, 0.5),
)


def read_text(vocab_size):
    "Give training and validation ids of the real text, in a vocabulary made for it."
    data = Path(os.environ['DOMAIN_LLM_DATA'])
    splits = split_documents(
        read_documents([data / 'corpus/neuro_reviews.jsonl.gz', data / 'jats']), 0.04
    )
    tokenizer = train_tokenizer(splits['train']['text'], vocab_size)
    return [
        np.concatenate([e.ids + [0] for e in tokenizer.encode_batch(splits[k]['text'])]).astype(
            np.uint16
        )
        for k in ('train', 'validation')
    ]


def train(task):
    "Do one run; give its validation losses as (tokens, seconds of training, nats)."
    name, recipe, tokens, seed, setup, train_ids, held_out = task
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    config = TrainConfig(
        **{**recipe, 'steps': tokens // setup.step, 'tokens_per_step': setup.step, 'seed': seed}
    )
    trainer, batches = (
        Trainer(GPT2(setup.cfg), config),
        Batches(train_ids, setup.cfg.n_ctx, setup.step, seed),
    )
    curve, seconds = [], 0.0
    for step in range(config.steps + 1):
        if step % max(1, config.steps // 10) == 0 or step == config.steps:
            loss = validation_loss(trainer.model, held_out, max_tokens=setup.max_tokens,
                                   device=trainer.device)
            curve.append((step * setup.step, seconds, loss))
        start = time.perf_counter()
        if step < config.steps: trainer.update(batches[step], step)
        seconds += time.perf_counter() - start
    return dict(
        name=name,
        lr=config.lr,
        muon_lr=config.muon_lr,
        tokens=tokens,
        seed=seed,
        loss=curve[-1][-1],
        curve=curve,
    )


def key(name, recipe, tokens, seed): return name, recipe['lr'], tokens, seed


def tuned(work, budget):
    "Find AdamW's best rate on the tuning seed: widen the grid until its best is not at an edge."
    rates, losses = [1e-3, 2e-3, 4e-3], {}
    while True:
        new = [rate for rate in rates if rate not in losses]
        tuning = [('AdamW, tuning', {**ADAMW, 'lr': rate}, budget, TUNING_SEED) for rate in new]
        for r in work(tuning):
            losses[r['lr']] = r['loss']
        best = min(losses, key=losses.get)
        if min(rates) < best < max(rates): return best, losses
        rates.append(best / 2 if best == min(rates) else best * 2)


def row(runs, name):
    "Write one row of the table: the median and the range over seeds."
    runs = [r for r in runs if r['name'] == name]
    losses, seconds = [r['loss'] for r in runs], statistics.median(r['curve'][-1][1] for r in runs)
    return (f'| {name} | {runs[0]["tokens"]:,} | {statistics.median(losses):.3f} '
            f'| {min(losses):.3f} to {max(losses):.3f} | {seconds:,.0f} |')


def course(runs, name):
    "Write the loss along the way: the median over seeds, with tokens and seconds."
    points = zip(*(r['curve'] for r in runs if r['name'] == name))
    middle = [
        (at[0][0], *(statistics.median(values) for values in list(zip(*at))[1:])) for at in points
    ]
    return f'{name}: ' + ', '.join(
        f'{loss:.3f} ({tokens:,}; {seconds:,.0f} s)' for tokens, seconds, loss in middle
    )


def main(setup, jobs, log):
    texts, log, budget = read_text(setup.cfg.vocab_size), Path(log), setup.budget
    done = (
        {key(r['name'], r, r['tokens'], r['seed']): r for r in map(json.loads, log.open())}
        if log.exists()
        else {}
    )
    with ProcessPoolExecutor(jobs, mp_context=get_context('spawn')) as pool, log.open('a') as f:
        def work(tasks):
            for r in pool.map(train, [(*t, setup, *texts) for t in tasks if key(*t) not in done]):
                done[key(r['name'], r, r['tokens'], r['seed'])] = r
                print(json.dumps(r), file=f, flush=True)
                print({k: v for k, v in r.items() if k != 'curve'}, file=sys.stderr, flush=True)
            return [done[key(*t)] for t in tasks]
        kinds = [('PAPER', PAPER_RECIPE, 1)]
        kinds += [
            (f'FAST at {share:g} of the tokens', FAST_RECIPE, share)
            for share in setup.early + setup.late
        ]
        best, tried = tuned(work, budget)
        kinds.append(('tuned AdamW', {**ADAMW, 'lr': best}, 1))
        runs = work(
            [
                (name, recipe, int(share * budget), seed)
                for name, recipe, share in kinds
                for seed in SEEDS
            ]
        )
    report(runs, setup, best, tried, texts)


def report(runs, setup, best, tried, texts):
    "Print the table, the courses, and whether the bars are reached."
    print(
        f'{num_params(setup.cfg):,} parameters, {len(texts[0]):,} training tokens, {setup.step:,} '
        f'tokens per step, {device_info()}; {machine("torch")}\n'
    )
    unigram, bigram = (
        NGram(texts[0], setup.cfg.vocab_size, n).nll(texts[1][:setup.max_tokens]).mean()
        for n in (1, 2)
    )
    rates = ', '.join(f'{lr:g} {loss:.3f}' for lr, loss in sorted(tried.items()))
    print(
        'Validation loss in nats per token; a uniform guess has '
        f'{np.log(setup.cfg.vocab_size):.3f}, counting single tokens {unigram:.3f}, pairs '
        f'{bigram:.3f}.\n'
    )
    if best:
        print(
            f'AdamW at {setup.budget:,} tokens on the tuning seed, by rate: {rates}; {best:g} is '
            'taken.\n'
        )
    print(
        '| recipe | tokens | median of three seeds | range | seconds of training '
        '|\n|---|---|---|---|---|'
    )
    names = dict.fromkeys(r['name'] for r in runs)
    for name in names: print(row(runs, name))
    print('\nThe loss along the way (tokens read; seconds of training), medians of the seeds:\n')
    for name in names: print(f'- {course(runs, name)}')
    def median(name): return statistics.median(r['loss'] for r in runs if r['name'] == name)

    for other, shares in (('PAPER', setup.early), ('tuned AdamW', setup.late)):
        for share in shares:
            reached = median(f'FAST at {share:g} of the tokens') <= median(other)
            print(
                f'\nFAST reaches the last loss of {other} with {share:g} of the tokens: {reached}'
            )


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--tokens', type=int, help='budget of PAPER and of the tuned AdamW')
    parser.add_argument('--jobs', type=int, default=2, help='runs at a time')
    parser.add_argument('--log', default='recipes.jsonl', help='each finished run, one JSON line')
    args = parser.parse_args()
    main(replace(SETUP, budget=args.tokens or SETUP.budget), args.jobs, args.log)
