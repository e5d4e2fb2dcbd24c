"""Fixtures that the tests of this part share."""
import pytest
from small_models import random_model

from domain_llm.text.synthetic import SyntheticScience
from domain_llm.tokens.tokenizer import train_tokenizer


@pytest.fixture(scope='module')
def small():
    cases = SyntheticScience(0).cases()[:12]
    tokenizer = train_tokenizer([t for c in cases for t in (c.original, c.altered)], 400)
    return cases, tokenizer, random_model(tokenizer.get_vocab_size())
