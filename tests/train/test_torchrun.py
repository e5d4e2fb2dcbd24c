"""The command line's pretrain step: under torchrun, with both recipes, and from a trained model."""
import json, shutil, subprocess, sys

import pytest
import torch
from processes import HERE, TORCHRUN, launch

from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config
from domain_llm.model.weights import load_model, save_model
from domain_llm.text.synthetic import SyntheticScience
from domain_llm.tokens.tokenizer import load_tokenizer
from domain_llm.train.runs import read_log

STEPS = """
import sys
from domain_llm.app.cli import main
for command in ['corpus', 'papers.jsonl'], ['tokenizer', '--vocab-size', '500'], ['tokens']:
    try: main([*command, '--out', 'out'])
    except SystemExit as end: assert not end.code
"""


@pytest.fixture(scope='module')
def tokens(tmp_path_factory):
    "Do the steps before training by the command line."
    home = tmp_path_factory.mktemp('cli')
    papers = [json.dumps(dict(text=text)) for text in SyntheticScience(0).papers(600)]
    (home / 'papers.jsonl').write_text('\n'.join(papers))
    launch(sys.executable, '-c', STEPS, cwd=home)
    return home / 'out'


def logged(folder, key): return [line[key] for line in read_log(folder) if key in line]


@pytest.mark.skipif(not torch.distributed.is_available() or sys.platform == 'win32',
                    reason='needs torch.distributed')
def test_the_command_line_under_torchrun(tokens, tmp_path):
    shutil.copytree(tokens, tmp_path / 'two')
    command = [*TORCHRUN, '-m', 'domain_llm', 'pretrain', '--size', 'demo']
    command += ['--out', tmp_path / 'two']
    done = launch(*command, '--steps', 4)
    assert '2 processes' in done.stdout and done.stdout.count('parameters on') == 1
    assert len(logged(tmp_path / 'two/pretrain', 'loss')) == 4
    assert (tmp_path / 'two/pretrain/model/tokenizer.json').exists()
    assert 'already done' in launch(*command, '--steps', 4).stdout
    refused = launch(*command, '--steps', 3, ok=False)
    assert refused.returncode and 'made from other inputs' in refused.stderr
    assert 'was done with 4 steps' in launch(*command, '--steps', 6).stdout
    assert len(logged(tmp_path / 'two/pretrain', 'loss')) == 6
    assert 'already done' in launch(*command, '--steps', 6).stdout


def test_the_examples_are_torchrun_underneath():
    examples = HERE.parents[1] / 'examples'
    for name in ('slurm.sh', 'skypilot.yaml'):
        text = (examples / name).read_text()
        assert 'torchrun' in text and '-m domain_llm pretrain --out' in text
    subprocess.run(['bash', '-n', examples / 'slurm.sh'], check=True)


def command(*words):
    "Run the command line in this process; give its exit code."
    from domain_llm.app.cli import main
    with pytest.raises(SystemExit) as end: main([str(word) for word in words])
    return end.value.code


def test_recipes_samples_and_finetuning(tokens, tmp_path, capsys):
    a, b = tmp_path / 'a', tmp_path / 'b'
    for out in a, b: shutil.copytree(tokens, out)
    go = ['pretrain', '--size', 'demo', '--steps', 3, '--out']
    assert command(*go, a, '--recipe', 'paper') == 0
    about = json.loads((a / 'pretrain/config.json').read_text())
    rates = [about['train'][name] for name in ('lr', 'eps', 'decay_norms')]
    assert rates == [2e-5, 1e-6, True] and about['model']['dropout'] == 0.1
    samples = logged(a / 'pretrain', 'sample')
    assert samples and all(isinstance(sample, str) for sample in samples)
    assert command(*go, b, '--recipe', 'slow') == 1
    assert 'fast or paper' in capsys.readouterr().err

    start = a / 'pretrain/model'
    assert command(*go, b, '--from', start) == 0
    # it begins where the other ended
    first = logged(b / 'pretrain', 'validation_loss')[0]
    assert abs(first - logged(a / 'pretrain', 'validation_loss')[-1]) < 1e-5
    about = json.loads((b / 'pretrain/config.json').read_text())
    assert about['train']['muon_lr'] == pytest.approx(0.002)

    assert command('tokenizer', '--vocab-size', 400, '--out', b, '--force') == 0
    assert command('tokens', '--out', b, '--force') == 0
    assert command(*go, b, '--from', start, '--force') == 1
    assert 'another tokenizer' in capsys.readouterr().err
    assert command('tokenizer', '--from', start, '--out', b, '--force') == 0
    assert command('tokens', '--out', b, '--force') == 0
    assert command(*go, b, '--from', start, '--force') == 0


def test_from_a_padded_table_a_name_on_the_hub_and_without_a_tokenizer(
        tokens, tmp_path, capsys, monkeypatch):
    out, start = tmp_path / 'out', tmp_path / 'start'
    shutil.copytree(tokens, out)
    torch.manual_seed(0)
    model = GPT2(GPT2Config.preset('toy', 512))         # the tokenizer has 500
    save_model(model, start, load_tokenizer(out / 'tokenizer'))
    go = ['pretrain', '--size', 'demo', '--steps', 2, '--out', out, '--force', '--from']
    assert command(*go, start) == 0 and load_model(out / 'pretrain/model').cfg.vocab_size == 512

    def fetched(name, allow_patterns): return str(start)
    monkeypatch.setattr('huggingface_hub.snapshot_download', fetched)
    assert command('tokenizer', '--from', 'some/model', '--out', out, '--force') == 0
    assert command('tokens', '--out', out, '--force') == 0
    assert command(*go, 'some/model') == 0

    other = load_tokenizer(out / 'tokenizer')
    other.add_tokens(['another word'])
    save_model(GPT2(GPT2Config.preset('toy', 501)), tmp_path / 'other', other)
    assert command(*go, tmp_path / 'other') == 1
    assert 'which has another tokenizer' in capsys.readouterr().err
    (start / 'tokenizer.json').unlink()
    for words in go, ['tokenizer', '--out', out, '--force', '--from']:
        assert command(*words, start) == 1
        assert 'should have a tokenizer beside its weights' in capsys.readouterr().err


@pytest.mark.parametrize('layout', ['paper', 'paper-spt'])
def test_the_papers_rows_from_the_command_line(tokens, tmp_path, layout):
    out = tmp_path / 'out'
    shutil.copytree(tokens, out)
    assert command('tokens', '--layout', layout, '--out', out, '--force') == 0
    go = ['pretrain', '--size', 'demo', '--recipe', 'paper', '--lr', 2e-6, '--out', out]
    assert command(*go, '--steps', 3) == 0
    about = json.loads((out / 'pretrain/config.json').read_text())
    assert about['train']['lr'] == 2e-6 and len(logged(out / 'pretrain', 'loss')) == 3


def test_a_precision_that_was_asked_for_is_said_and_used(tokens, tmp_path, capsys):
    out = tmp_path / 'out'
    shutil.copytree(tokens, out)
    go = ['pretrain', '--size', 'demo', '--steps', 2, '--out', out, '--device', 'cpu']
    assert command(*go, '--precision', 'bfloat16') == 0
    assert 'parameters on cpu in bfloat16: bfloat16 was asked for' in capsys.readouterr().out
    assert command(*go) == 1 and 'precision bfloat16 there' in capsys.readouterr().err
    assert command(*go[:-1], 'tpu', '--force') == 1
    assert '`device` should be one that is here' in capsys.readouterr().err
