"""Measure training steps while OpenMP's threads wait in different ways, alone and in company.

python benchmarks/openmp.py  prints the table of RESULTS.md
"""
import os, statistics, subprocess, sys

from machine import machine

WAYS = {
    'as PyTorch is': {},
    'GOMP_SPINCOUNT=1000': {'GOMP_SPINCOUNT': '1000'},
    'GOMP_SPINCOUNT=10000': {'GOMP_SPINCOUNT': '10000'},
    'OMP_WAIT_POLICY=PASSIVE': {'OMP_WAIT_POLICY': 'PASSIVE'},
}
STEPS = """
import time
import numpy as np, torch
from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config
from domain_llm.train.distributed import Trainer
from domain_llm.train.recipe import FAST_RECIPE, TrainConfig
from domain_llm.tokens.dataset import Batches
torch.manual_seed(0)
config = TrainConfig(steps=30, tokens_per_step=4096, **FAST_RECIPE)
trainer = Trainer(GPT2(GPT2Config.preset('toy', 800)), config)
batches = Batches(np.random.default_rng(0).integers(0, 800, 200_000), 64, 4096)
for step in range(20):
    if step == 4: start = time.perf_counter()
    trainer.update(batches[step], step)
print(time.perf_counter() - start)
"""


def seconds(way):
    "Give the seconds of sixteen steps of the demo's model in a process of its own."
    bare = {k: v for k, v in os.environ.items() if not k.startswith(('OMP_', 'GOMP_'))}
    return float(
        subprocess.check_output([sys.executable, '-c', STEPS], env={**bare, **way}, text=True)
    )


def main(rounds=3):
    print(machine('torch'), end='\n\n')
    print('| threads wait | alone, s | beside one busy process, s |\n|---|---|---|')
    found = {way: ([], []) for way in WAYS}
    for _ in range(rounds):
        for busy in (0, 1):
            other = subprocess.Popen([sys.executable, '-c', 'while True: pass']) if busy else None
            for way, environment in WAYS.items(): found[way][busy].append(seconds(environment))
            if other:
                other.kill()
                other.wait()
    for way, both in found.items():
        alone, beside = (f'{statistics.median(s):.1f} ({min(s):.1f} to {max(s):.1f})' for s in both)
        print(f'| {way} | {alone} | {beside} |')


if __name__ == '__main__': main()
