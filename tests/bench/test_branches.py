"""What two versions share is read once."""
import os

import pytest

from domain_llm.bench import branches
from domain_llm.bench.losses import PROMPT
from domain_llm.bench.scores import score_cases

pytestmark = pytest.mark.usefixtures('one_thread')


def test_a_part_of_the_text_that_is_common_costs_nothing(small, monkeypatch):
    cases, tokenizer, model = small
    read = []
    inner = branches._walk

    def counted(model, ids, *rest):
        read.append(len(ids))
        return inner(model, ids, *rest)
    monkeypatch.setattr(branches, '_walk', counted)
    score_cases(model, tokenizer, cases, 'paper')
    rows = [
        [tokenizer.encode((PROMPT + t).strip()).ids for t in (c.original, c.altered)] for c in cases
    ]
    begin = os.path.commonprefix([row for pair in rows for row in pair])
    once = len(begin) + sum(
        len(a) + len(b) - len(os.path.commonprefix([a, b])) - len(begin) for a, b in rows
    )
    assert sum(read) == once < sum(len(a) + len(b) for a, b in rows)
