"""The harness task against the real lm-evaluation-harness, case by case.

`acc` is our choice by summed nats, `acc_bytes` our choice per byte.

The paper's score, a mean over all tokens of prompt and text, has no counterpart there.
"""
import os

import numpy as np
import pytest
import torch
import transformers

from domain_llm.bench.cases import load_cases
from domain_llm.bench.controls import write_harness_task
from domain_llm.bench.losses import PROMPT
from domain_llm.bench.scores import score_cases
from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config
from domain_llm.model.weights import save_model
from domain_llm.text.synthetic import Case, SyntheticScience
from domain_llm.tokens.tokenizer import save_tokenizer, train_tokenizer

lm_eval = pytest.importorskip('lm_eval', reason='needs lm_eval, which the dev extra installs')
DATA = os.environ.get('DOMAIN_LLM_DATA')


pytestmark = pytest.mark.usefixtures('one_thread')


def uneven(cases):
    "Lengthen some versions with letters of two bytes, so that sums, means and bytes disagree."
    more = (' in naïve rats', ' après coup', '')
    return [
        Case(c.id, c.original + more[i % 3] * (i % 2), c.altered + more[(i + 1) % 3], c.section)
        for i, c in enumerate(cases)
    ]


def both_ways(cases, prompt, folder, monkeypatch, n_ctx=256):
    "Score cases with a tiny random model by our function and by the harness."
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setenv('HF_DATASETS_OFFLINE', '1')
    monkeypatch.setenv('HF_DATASETS_CACHE', str(folder / 'cache'))
    tokenizer = train_tokenizer([t for c in cases for t in (c.original, c.altered)], 600)
    torch.manual_seed(0)
    model = GPT2(GPT2Config(tokenizer.get_vocab_size(), 2, 2, 32, n_ctx)).eval()
    for p in model.parameters(): torch.nn.init.normal_(p, std=0.25)
    save_model(model, folder / 'model')
    save_tokenizer(tokenizer, folder / 'tokenizer')
    write_harness_task(folder / 'task', cases, prompt)
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    hf = transformers.AutoModelForCausalLM.from_pretrained(folder / 'model', dtype=torch.float32)
    # or the end-of-text token before the prompt would be spelt
    auto = transformers.AutoTokenizer.from_pretrained(
        folder / 'tokenizer', split_special_tokens=False
    )
    lm = HFLM(
        pretrained=hf,
        tokenizer=auto,
        backend='causal',
        device='cpu',
        batch_size=4,
        max_length=n_ctx,
    )
    found = lm_eval.simple_evaluate(
        model=lm,
        tasks=['brainbench'],
        task_manager=TaskManager(include_path=str(folder / 'task'), include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
    )
    return score_cases(model, tokenizer, cases, prompt=prompt), {s['doc']['id']: s
        for s in found['samples']['brainbench']}, found['results']['brainbench']


def agree(scores, samples, results):
    "Check losses, choices and accuracies case by case."
    nats, per_byte = scores.by('nats'), scores.by('bits_per_byte')
    for i, id in enumerate(scores.frame['id']):
        altered, original = (float(resp[0]) for resp in samples[id]['filtered_resps'])
        assert np.allclose(
            [-original, -altered], [nats.frame['original'][i], nats.frame['altered'][i]], rtol=1e-4
        )
        assert (
            samples[id]['acc'] == nats.correct[i]
            and samples[id]['acc_bytes'] == per_byte.correct[i]
        ), id
    assert (results['acc,none'] == pytest.approx(nats.accuracy)
            and results['acc_bytes,none'] == pytest.approx(per_byte.accuracy))
    # or the comparison could not tell the two apart
    assert (nats.correct != per_byte.correct).any()


@pytest.mark.parametrize('prompt', ['', 'In short, a finding: '])
def test_the_harness_chooses_as_we_do(prompt, tmp_path, monkeypatch):
    agree(*both_ways(uneven(SyntheticScience(0).cases()[:40]), prompt, tmp_path, monkeypatch))


@pytest.mark.skipif(not DATA, reason='needs DOMAIN_LLM_DATA')
def test_the_harness_chooses_as_we_do_on_brainbench(tmp_path, monkeypatch):
    agree(*both_ways(load_cases('brainbench-human')[:30], PROMPT, tmp_path, monkeypatch, 1024))
