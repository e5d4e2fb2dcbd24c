"""Fixtures that the tests of this part share."""
import pytest
import torch

from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config
from domain_llm.text.synthetic import SyntheticScience
from domain_llm.tokens.tokenizer import train_tokenizer


@pytest.fixture(scope='module')
def small():
    "Make a dozen cases, their tokenizer, and a tiny model in which a mistake shows."
    cases = SyntheticScience(0).cases()[:12]
    tokenizer = train_tokenizer([t for c in cases for t in (c.original, c.altered)], 400)
    torch.manual_seed(0)
    model = GPT2(GPT2Config(tokenizer.get_vocab_size(), 2, 2, 32, 256)).eval()
    for p in model.parameters(): torch.nn.init.normal_(p, std=0.2)
    return cases, tokenizer, model
