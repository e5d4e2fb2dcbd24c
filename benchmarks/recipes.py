"""Compare the recipes of lesson 06 on real text: how many tokens does each need for the same loss?

    DOMAIN_LLM_DATA=... python benchmarks/recipes.py [--tokens 1200000] [--jobs 2] [--log runs.jsonl]

A GPT-2 of 4 blocks and 128 channels reads the neuroscience abstracts and articles of DOMAIN_LLM_DATA in a vocabulary of
its own. All runs have the same model, data, tokens per step and validation text; one run is one process on one thread.
The comparison that means something is with an AdamW whose rate was tuned, on a seed of its own, at the whole budget.
Loss over tokens does not depend on the machine's load. About an hour of one core, half with two jobs; called again with
the same log, it goes on after the last finished run.
"""
import argparse, json, os, statistics, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from domain_llm.corpus import read_documents, split_documents
from domain_llm.gpt2 import GPT2, GPT2Config, num_params
from domain_llm.pretrain import FAST_RECIPE, PAPER_RECIPE, TrainConfig, Trainer, validation_loss
from domain_llm.tokenizer import train_tokenizer
from domain_llm.tokens import Batches, NGram
from machine import machine

CFG = GPT2Config(vocab_size=4096, n_layer=4, n_head=4, n_embd=128, n_ctx=128)
STEP, TUNING_SEED, SEEDS = 1024, 9, (0, 1, 2)          # tokens per step; seeds
ADAMW = {**FAST_RECIPE, 'muon_lr': 0.0}                # FAST without Muon: the rate alone is tuned


def read_text():
    "Give training and validation ids of the real text, in a vocabulary made for it."
    data = Path(os.environ['DOMAIN_LLM_DATA'])
    splits = split_documents(read_documents([data / 'corpus/neuro_reviews.jsonl.gz', data / 'jats']), 0.04)
    tokenizer = train_tokenizer(splits['train']['text'], CFG.vocab_size)
    return [np.concatenate([e.ids + [0] for e in tokenizer.encode_batch(splits[k]['text'])]).astype(np.uint16)
            for k in ('train', 'validation')]


def train(task):
    "Do one run; give its validation losses as (tokens, nats)."
    name, recipe, tokens, seed, train_ids, held_out = task
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    config = TrainConfig(**{**recipe, 'steps': tokens // STEP, 'tokens_per_step': STEP, 'seed': seed})
    trainer, batches, curve = Trainer(GPT2(CFG), config), Batches(train_ids, CFG.n_ctx, STEP, seed), []
    began = time.process_time()
    for step in range(config.steps + 1):
        if step % max(1, config.steps // 10) == 0 or step == config.steps:
            curve.append((step * STEP, validation_loss(trainer.model, held_out, most=60_000)))
        if step < config.steps: trainer.update(batches[step], step)
    return dict(name=name, lr=config.lr, muon_lr=config.muon_lr, tokens=tokens, seed=seed, loss=curve[-1][1],
                curve=curve, cpu_seconds=time.process_time() - began)


def key(name, recipe, tokens, seed): return name, recipe['lr'], tokens, seed


def tuned(work, budget):
    "Find AdamW's best rate on the tuning seed: widen the grid until its best is not at an edge."
    rates, losses = [1e-3, 2e-3, 4e-3], {}
    while True:
        new = [rate for rate in rates if rate not in losses]
        for r in work([('AdamW, tuning', {**ADAMW, 'lr': rate}, budget, TUNING_SEED) for rate in new]):
            losses[r['lr']] = r['loss']
        best = min(losses, key=losses.get)
        if min(rates) < best < max(rates): return best, losses
        rates.append(best / 2 if best == min(rates) else best * 2)


def row(runs, name, tokens):
    "Write one row of the table: the median and the range over seeds."
    losses = [r['loss'] for r in runs if r['name'] == name]
    return f'| {name} | {tokens:,} | {statistics.median(losses):.3f} | {min(losses):.3f} to {max(losses):.3f} |'


def main(budget, jobs, log, shares=(0.8, 0.5)):
    texts, log = read_text(), Path(log)
    done = {key(r['name'], r, r['tokens'], r['seed']): r for r in map(json.loads, log.open())} if log.exists() else {}
    with ProcessPoolExecutor(jobs, mp_context=get_context('spawn')) as pool, log.open('a') as f:
        def work(tasks):
            for r in pool.map(train, [(*t, *texts) for t in tasks if key(*t) not in done]):
                done[key(r['name'], r, r['tokens'], r['seed'])] = r
                print(json.dumps(r), file=f, flush=True)
                print({k: v for k, v in r.items() if k != 'curve'}, file=sys.stderr, flush=True)
            return [done[key(*t)] for t in tasks]
        best, tried = tuned(work, budget)
        kinds = [('PAPER', PAPER_RECIPE, 1), ('FAST at 0.05 of the tokens', FAST_RECIPE, 0.05),
                 ('tuned AdamW', {**ADAMW, 'lr': best}, 1)]
        kinds += [(f'FAST at {share:g} of the tokens', FAST_RECIPE, share) for share in shares]
        runs = work([(name, recipe, int(share * budget), seed) for name, recipe, share in kinds for seed in SEEDS])
    report(runs, budget, best, tried, texts, shares)


def report(runs, budget, best, tried, texts, shares):
    "Print the table, and whether the bars are reached."
    print(f'{num_params(CFG):,} parameters, {len(texts[0]):,} training tokens, {STEP:,} tokens per step, '
          f'one thread per run; {machine("torch")}\n')
    unigram, bigram = (NGram(texts[0], CFG.vocab_size, n).nll(texts[1][:60_000]).mean() for n in (1, 2))
    rates = ', '.join(f'{lr:g} {loss:.3f}' for lr, loss in sorted(tried.items()))
    print(f'Validation loss in nats per token; a uniform guess has {np.log(CFG.vocab_size):.3f}, '
          f'counting single tokens {unigram:.3f}, pairs {bigram:.3f}.\n'
          f'AdamW at {budget:,} tokens on the tuning seed, by rate: {rates}; {best:g} is taken.\n')
    print('| recipe | tokens | median of three seeds | range |\n|---|---|---|---|')
    names = {r['name']: r['tokens'] for r in runs}
    for name, tokens in names.items(): print(row(runs, name, tokens))
    median = lambda name: statistics.median(r['loss'] for r in runs if r['name'] == name)
    for share, other in ((0.05, 'PAPER'), *((share, 'tuned AdamW') for share in shares)):
        reached = median(f'FAST at {share:g} of the tokens') <= median(other)
        print(f'\nFAST reaches the last loss of {other} with {share:g} of the tokens: {reached}')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--tokens', type=int, default=1_200_000, help='budget of the tuned AdamW and of PAPER')
    parser.add_argument('--jobs', type=int, default=2, help='runs at a time')
    parser.add_argument('--log', default='recipes.jsonl', help='each finished run, one JSON line')
    args = parser.parse_args()
    main(args.tokens, args.jobs, args.log)
