"""Scores against transformers as the judge, and a plan of a later lesson."""
import json
from datetime import datetime

import numpy as np
import pytest
import torch
import transformers

from domain_llm.bench import scores as scores_module
from domain_llm.bench.looks import declare_plan, declared_beforehand
from domain_llm.bench.losses import PROMPT
from domain_llm.bench.scores import score_cases, score_texts
from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config
from domain_llm.model.weights import save_model
from domain_llm.text.synthetic import SyntheticScience
from domain_llm.tokens.tokenizer import save_tokenizer, train_tokenizer

pytestmark = pytest.mark.usefixtures('one_thread')


def test_scores_equal_a_plain_loop_with_transformers(tmp_path):
    cases = SyntheticScience(0).cases()[:5]
    tokenizer = train_tokenizer([c.original for c in cases], 400)
    torch.manual_seed(0)
    model = GPT2(GPT2Config(tokenizer.get_vocab_size(), 2, 2, 32, 128))
    for p in model.parameters(): torch.nn.init.normal_(p, std=0.2)
    save_model(model, tmp_path / 'm')
    judge = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'm').eval()
    plain = []
    for case in cases:
        for text in (case.original, case.altered):
            ids = torch.tensor([tokenizer.encode((PROMPT + text).strip()).ids])
            with torch.no_grad(): plain.append(judge(ids, labels=ids).loss.item())
    for scored in (model, judge):
        for size in (1, 4, 32):
            frame = score_cases(scored, tokenizer, cases, 'paper', batch_size=size).frame
            assert (
                np.abs(np.log(frame[['original', 'altered']].to_numpy().ravel()) - plain).max()
                < 1e-5
            )


def test_a_tokenizer_of_transformers_gives_the_same(small, tmp_path):
    cases, tokenizer, model = small
    save_tokenizer(tokenizer, tmp_path / 't')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / 't')
    for protocol in ('default', 'paper'):
        a, b = (score_cases(model, t, cases, protocol).frame for t in (tokenizer, theirs))
        assert a.equals(b)


def columns(scores):
    kept = ['original', 'altered', 'original_nats', 'altered_bits_per_byte']
    return scores.frame[kept].to_numpy()


def test_a_model_of_transformers_may_read_backward_too(small):
    cases, tokenizer, _ = small
    config = transformers.LlamaConfig(
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=256,
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for p in model.parameters(): torch.nn.init.normal_(p, std=0.2)
    one, two = (
        score_cases(model, tokenizer, cases[:4], order='backward', share=share)
        for share in (True, False)
    )
    assert np.abs(np.log(columns(one) / columns(two))).max() < 1e-5


def test_a_scoring_keeps_its_time_and_its_plan(small, tmp_path, monkeypatch):
    cases, tokenizer, model = small
    plan = declare_plan(tmp_path, ['m', 'experts'], .05)
    with_plan, without = (
        score_texts('m', len, cases, plan=p) for p in (tmp_path / 'plan.json', None)
    )
    assert datetime.fromisoformat(without.meta['scored']) and 'plan_sha256' not in without.meta
    assert declared_beforehand(plan, [with_plan.meta]) and not declared_beforehand(
        plan, [without.meta]
    )
    # a resumed scoring keeps the time at which it was begun: a plan in between comes too late
    path, asked = tmp_path / 's.parquet', []
    def stops(*how, inner=scores_module.pair_losses):
        for found in inner(*how):
            asked.append(found)
            if len(asked) == 2: raise KeyboardInterrupt
            yield found
    with monkeypatch.context() as m:
        m.setattr(scores_module, 'pair_losses', stops)
        with pytest.raises(KeyboardInterrupt):
            score_cases(model, tokenizer, cases, path=path, batch_size=1)
    part = tmp_path / 's.parquet.part.jsonl'
    begun = json.loads(part.read_text().splitlines()[0])
    old = part.read_text().replace(begun['scored'], '2020-01-01T00:00:00+00:00')
    part.write_text(old)
    again = score_cases(
        model, tokenizer, cases, path=path, batch_size=1, plan=tmp_path / 'plan.json'
    )
    assert again.meta['scored'].startswith('2020') and 'plan_sha256' not in again.meta
    assert not declared_beforehand(plan, [again.meta])
    # and a finished one is not redone
    assert score_cases(model, tokenizer, cases, path=path, batch_size=1).meta == again.meta
