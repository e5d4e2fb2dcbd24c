"""The plain GPT-2: as the fast one scores, and as transformers samples."""
import json
from pathlib import Path

import numpy as np
import torch

from domain_llm.bench.scores import score_cases
from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config, PlainGPT2, Sampler
from domain_llm.text.synthetic import SyntheticScience
from domain_llm.tokens.tokenizer import train_tokenizer
from noisy_models import noisy


def test_the_plain_model_gets_the_scores_of_the_fast_one():
    cases = SyntheticScience(0).cases()[:6]
    texts = [text for case in cases for text in (case.original, case.altered)]
    tokenizer = train_tokenizer(texts, 300)
    plain = noisy(GPT2Config(tokenizer.get_vocab_size(), 1, 2, 16, 256), 0.3, PlainGPT2)
    fast = GPT2(plain.cfg)
    fast.load_state_dict(plain.state_dict())
    a, b = (score_cases(model.eval(), tokenizer, cases) for model in (plain, fast))
    assert np.allclose(a.frame['original'], b.frame['original'], rtol=1e-4)
    assert np.allclose(a.margin, b.margin, rtol=1e-3, atol=1e-4)


def test_both_lessons_run_the_same_check():
    nbs = Path(__file__).parents[2] / 'nbs'
    cells = [''.join(cell['source']) for name in ('30_gpt2', '31_fast')
             for cell in json.loads((nbs / f'{name}.ipynb').read_text(encoding='utf-8'))['cells']]
    first, second = (cell for cell in cells if cell.startswith('def check('))
    assert first == second and 'check(GPT2)' in cells


def test_top_k_and_top_p_keep_what_transformers_keeps():
    from transformers import TopKLogitsWarper, TopPLogitsWarper
    logits = torch.randn(20, 50) * 3                                      # (B, V)
    for p in (0.1, 0.5, 0.9, 0.99):
        ours, theirs = Sampler(top_p=p).kept(logits), TopPLogitsWarper(p)(None, logits)
        assert torch.equal(ours.isfinite(), theirs.isfinite())
    for seed in range(50):
        new = Sampler(top_k=5, seed=seed)(logits)                         # (B,)
        assert TopKLogitsWarper(5)(None, logits).gather(1, new[:, None]).isfinite().all()
