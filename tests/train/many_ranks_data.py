"""The model, the text and the run that `many_ranks.py` and `test_ranks.py` share."""
import numpy as np
import torch

from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config
from domain_llm.tokens.dataset import Batches
from domain_llm.train.distributed import join
from domain_llm.train.pretraining import pretrain
from domain_llm.train.recipe import FAST_RECIPE, TrainConfig

torch.set_num_threads(1)
CFG = GPT2Config(53, 2, 2, 32, 16)         # 53: a table that two processes cannot share evenly
TEXT = np.random.default_rng(0).integers(1, 5, 3000).cumsum() % 53
RECIPES = {'adamw': dict(lr=2e-3), 'fast': FAST_RECIPE}


def model():
    torch.manual_seed(2)
    return GPT2(CFG)


def batches():
    team = join()
    return Batches(TEXT, 16, 128, 0, team.rank, team.world_size)


def config(recipe, shard=False):
    length = dict(steps=20, tokens_per_step=128, eval_every=5, save_every=5)
    return TrainConfig(**{**RECIPES[recipe], **length, 'micro_batch_size': 2, 'shard': shard})


def weighted(model, ids, targets):
    "Count some rows half and others not at all."
    weights = (ids[:, :1] % 3 / 2).expand(ids.shape)   # (B, T)
    return model(ids, targets, weights) * weights.mean()


class Masked:
    "Batches in which a row has as many targets that count as its first id says, or none."
    world_size = join().world_size
    def __getitem__(self, step):
        ids, targets = batches()[step]                 # (B, T)
        n = ids[:, :1] % 17                            # (B, 1)
        of_two = np.arange(8)[join().rank::self.world_size] % 2
        if step % 5 == 3: n[of_two == 1] = 0           # the second of two processes has none
        return ids, np.where(np.arange(16) < n, targets, -1)


def run(folder, shard, recipe='fast', evaluate=None, source=None, loss=None):
    source, settings = source or batches(), config(recipe, shard)
    pretrain(model(), source, settings, folder, TEXT[:603], evaluate, loss)
