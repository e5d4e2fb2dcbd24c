"""The trained toy in the package: what it knows, who can load it, and that a wheel brings it."""
import json, os, shutil, subprocess, sys, zipfile
from pathlib import Path

import pytest
import torch
import transformers

from domain_llm.bench.scores import score_cases
from domain_llm.model.weights import TOY, load_gpt2, stored_model
from domain_llm.text.synthetic import SyntheticScience
from domain_llm.train.runs import read_log

ROOT = Path(__file__).parents[2]


def test_the_toy_knows_what_it_knew_when_its_training_ended():
    model, tokenizer = stored_model()
    scores = score_cases(model, tokenizer, SyntheticScience(0).cases(), prompt='')
    at_the_end = read_log(TOY)[-1]['accuracy']
    assert scores.accuracy >= 0.95
    assert abs(scores.accuracy - at_the_end) <= 1.5 / scores.n    # half precision may turn a case
    other_laws = SyntheticScience(1).cases()
    assert score_cases(model, tokenizer, other_laws, prompt='').accuracy < 0.6


def test_the_toy_and_the_stored_curve_of_its_run_agree():
    demo = json.loads((TOY.parent / 'demo.json').read_text(encoding='utf-8'))['0']
    log = [line for line in read_log(TOY) if 'accuracy' in line]
    assert [line['step'] for line in log] == [line['step'] for line in demo['log']]
    assert abs(log[-1]['accuracy'] - demo['log'][-1]['accuracy']) < 0.02
    assert abs(log[-1]['validation_loss'] - demo['log'][-1]['validation_loss']) < 0.02
    assert all(len(line['sample']) > 100 for line in log)


def test_transformers_loads_the_toy_and_agrees():
    model, tokenizer = stored_model()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(TOY, dtype=torch.float32).eval()
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(TOY)
    text = SyntheticScience(0).papers()[0]
    ids = torch.tensor([tokenizer.encode(text).ids[:64]])
    assert their_tokenizer(text)['input_ids'][:64] == ids[0].tolist()
    with torch.no_grad(): assert torch.allclose(theirs(ids).logits, model(ids), atol=1e-4)


def test_a_wheel_brings_the_toy(tmp_path):
    pytest.importorskip('setuptools', reason='needs setuptools, with which the wheel is built')
    source = tmp_path / 'source'
    without = shutil.ignore_patterns('__pycache__')
    shutil.copytree(ROOT / 'domain_llm', source / 'domain_llm', ignore=without)
    for name in ('setup.py', 'settings.ini', 'pyproject.toml', 'MANIFEST.in', 'README.md',
                 'LICENSE', 'CHANGELOG.md', 'CITATION.cff'):
        shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, 'setup.py', '-q', 'bdist_wheel', '-d', str(tmp_path)],
                   cwd=source, check=True, capture_output=True,
                   env={k: v for k, v in os.environ.items() if k != 'PYTHONPATH'})
    with zipfile.ZipFile(next(tmp_path.glob('*.whl'))) as wheel:
        wheel.extractall(tmp_path / 'installed')
    toy = tmp_path / 'installed/domain_llm/stored/toy'
    assert {p.name for p in toy.iterdir()} == {p.name for p in TOY.iterdir()}
    assert load_gpt2(toy).cfg == stored_model()[0].cfg
