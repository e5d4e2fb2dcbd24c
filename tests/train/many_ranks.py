"""What `test_ranks.py` runs in one process and, under torchrun, in two: `many_ranks.py FOLDER`."""
import json, sys
from pathlib import Path

import many_ranks_data as d
import torch
from torch.profiler import profile

from domain_llm.model.fast import GPT2
from domain_llm.train.distributed import Trainer, gather, join
from domain_llm.train.recipe import Device, TrainConfig
from domain_llm.train.runs import validation_loss

home, team = Path(sys.argv[1]), join()


def text(model, step):
    assert team.rank == 0, 'rank 0 alone evaluates'
    start = torch.zeros(1, 1, dtype=torch.long)
    return dict(text=model.generate(start, 8, temperature=0).tolist()[0])


class Until:
    "Batches that end between two saves."
    world_size, order_sha256 = team.world_size, d.batches().order_sha256
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
    config, seen = TrainConfig(steps=5, tokens_per_step=128, micro_batch_size=1), []
    def counted(_, bucket):
        seen.append(bucket.index())
        return allreduce_hook(None, bucket)
    trainer = Trainer(d.model(), config, team)
    trainer.wrapped.register_comm_hook(None, counted)
    counts = []
    for step in range(2):
        trainer.update(d.batches()[step], step + 1)
        counts.append(len(seen) - sum(counts))
    return counts


def shared(device=None, model=None):
    "Make a trainer that holds its share of a model, and cuts a step into four pieces."
    config = TrainConfig(steps=5, tokens_per_step=128, micro_batch_size=1, shard=True)
    return Trainer(model or d.model(), config, team, device)


def scattered():
    "Count how often FSDP adds gradients up over processes in a step of several micro-batches."
    trainer = shared()
    with profile() as seen: trainer.update(d.batches()[0], 1)
    return sum(what.count for what in seen.key_averages()
               if what.key.startswith('c10d::') and 'reduce_scatter' in what.key)


def in_half_precision():
    "Make a step in bfloat16; say what came out, and in which precision weights were at hand."
    trainer, seen = shared(Device('cpu', torch.bfloat16, 'a test')), set()
    def look(mlp, _): seen.add(str(mlp.c_fc.weight.dtype))
    trainer.model.h[0].mlp.register_forward_pre_hook(look)
    found = trainer.update(d.batches()[0], 1)
    return found, sorted(seen), sorted({str(t.dtype) for t in gather(trainer).values()})


def begun():
    "Say whether processes that drew other weights begin with those of process 0."
    torch.manual_seed(team.rank)
    mine = gather(shared(model=GPT2(d.CFG)))
    torch.manual_seed(0)
    return all(torch.equal(mine[f'model.{n}'], t) for n, t in GPT2(d.CFG).state_dict().items()
               if mine)


n = team.world_size
for recipe in d.RECIPES:
    d.run(home / f'{recipe}-{n}', False, recipe, text)
    if n == 2: d.run(home / f'{recipe}-2-shard', True, recipe, text)
d.run(home / f'weighted-{n}', False, 'adamw', loss=d.weighted)
if n == 2: d.run(home / 'weighted-2-shard', True, 'adamw', loss=d.weighted)
d.run(home / f'masked-{n}', False, 'adamw', source=d.Masked())
if n == 2: d.run(home / 'masked-2-shard', True, 'adamw', source=d.Masked())
half(f'half-{n}', False)
if n == 2:
    half('half-2-shard', True)
    uneven = validation_loss(d.model(), d.TEXT[:603], rows=4, team=team)      # 37 rows
    found = dict(exchanges=exchanges(), uneven=uneven, scattered=scattered(),
                 half=in_half_precision(), begun=begun())
    if not team.rank: (home / 'found.json').write_text(json.dumps(found))
