"""The model, the text and the run that `many_ranks.py` and `test_many.py` share."""
import numpy as np
import torch

from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config
from domain_llm.tokens.dataset import Batches
from domain_llm.train.distributed import join
from domain_llm.train.pretraining import pretrain
from domain_llm.train.recipe import FAST_RECIPE, TrainConfig

torch.set_num_threads(1)
# 53: a table that two processes cannot share evenly
CFG = GPT2Config(53, 2, 2, 32, 16)
TEXT = np.random.default_rng(0).integers(1, 5, 3000).cumsum() % 53
RECIPES = {'adamw': dict(lr=2e-3), 'fast': FAST_RECIPE}


def model():
    torch.manual_seed(2)
    return GPT2(CFG)


def batches(): return Batches(TEXT, 16, 128, 0, join().rank, join().size)


def config(recipe, shard=False):
    return TrainConfig(
        **{
            **RECIPES[recipe],
            'steps': 20,
            'tokens_per_step': 128,
            'eval_every': 5,
            'save_every': 5,
            'micro_rows': 2,
            'shard': shard,
        }
    )


def weighted(model, ids, targets):
    "Count some rows half and others not at all."
    weights = (ids[:, :1] % 3 / 2).expand(ids.shape)
    return model(ids, targets, weights) * weights.mean()


def run(folder, shard, recipe='fast', evaluate=None, source=None, loss=None):
    pretrain(
        model(), source or batches(), config(recipe, shard), folder, TEXT[:603], evaluate, loss
    )
