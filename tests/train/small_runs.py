"""A small model, its text and its runs, for the tests of this part."""
from pathlib import Path

import numpy as np
import torch

from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config
from domain_llm.tokens.dataset import Batches
from domain_llm.train.pretraining import pretrain
from domain_llm.train.recipe import FAST_RECIPE, TrainConfig
from domain_llm.train.runs import best_so_far, read_log

TEXT = np.random.default_rng(0).integers(1, 5, 2000).cumsum() % 50
BATCHES = Batches(TEXT, 16, 128)
CLOCK = 'tokens_per_second', 'minutes_left', 'memory_gb'


def recipe(**changes):
    usual = dict(steps=12, tokens_per_step=128, eval_every=4, save_every=3)
    return TrainConfig(**{**FAST_RECIPE, **usual, **changes})


def fresh():
    torch.manual_seed(2)
    return GPT2(GPT2Config(50, 2, 2, 32, 16))


def run(folder, config=None, model=None, **more):
    model = fresh() if model is None else model
    pretrain(model, BATCHES, config or recipe(), folder, TEXT[:500], **more)
    return outcome(folder)


def outcome(folder):
    "Read what a run leaves, but for the clock."
    told = [{k: v for k, v in line.items() if k not in CLOCK} for line in read_log(folder)]
    return told, (Path(folder) / 'model/model.safetensors').read_bytes(), best_so_far(folder)
