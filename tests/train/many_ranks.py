"""What `test_many.py` runs in one process and, under torchrun, in two: `many_ranks.py FOLDER`."""
import json, sys
from pathlib import Path

import torch

import many_ranks_data as d
from domain_llm.train.distributed import Trainer, join
from domain_llm.train.recipe import TrainConfig
from domain_llm.train.runs import validation_loss

home, team = Path(sys.argv[1]), join()


def text(model, step):
    assert team.rank == 0, 'rank 0 alone evaluates'
    return dict(
        text=model.generate(torch.zeros(1, 1, dtype=torch.long), 8, temperature=0).tolist()[0]
    )


class Until:
    "Batches that end between two saves."
    world_size, order_sha256 = team.size, d.batches().order_sha256
    def __getitem__(self, step):
        if step == 12: raise StopIteration
        return d.batches()[step]


def half(name, shard):
    "Stop a run after step 12 of 20."
    try: d.run(home / name, shard, source=Until())
    except StopIteration: pass


def exchanges():
    "Count how often gradients are exchanged in a step of several micro-batches."
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
    trainer, seen = (
        Trainer(d.model(), TrainConfig(steps=5, tokens_per_step=128, micro_rows=1), team),
        [],
    )
    trainer.wrapped.register_comm_hook(
        None, lambda _, bucket: seen.append(1) or allreduce_hook(None, bucket)
    )
    counts = []
    for step in range(2):
        trainer.update(d.batches()[step], step + 1)
        counts.append(len(seen) - sum(counts))
    return counts


for recipe in d.RECIPES:
    d.run(home / f'{recipe}-{team.size}', False, recipe, text)
    if team.size == 2: d.run(home / f'{recipe}-2-shard', True, recipe, text)
d.run(home / f'weighted-{team.size}', False, 'adamw', loss=d.weighted)
if team.size == 2: d.run(home / 'weighted-2-shard', True, 'adamw', loss=d.weighted)
half(f'half-{team.size}', False)
if team.size == 2:
    half('half-2-shard', True)
    # 37 rows
    found = dict(
        exchanges=exchanges(), uneven=validation_loss(d.model(), d.TEXT[:603], rows=4, team=team)
    )
    if not team.rank: (home / 'found.json').write_text(json.dumps(found))
