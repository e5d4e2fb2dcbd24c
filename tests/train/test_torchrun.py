"""The command line's pretrain step: under torchrun, with both recipes, and from a trained model."""
import json, shutil, subprocess, sys

import pytest
import torch
from processes import HERE, TORCHRUN, launch

from domain_llm.text.synthetic import SyntheticScience
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
    refused = launch(*command, '--steps', 5, ok=False)
    assert refused.returncode and 'made from other inputs' in refused.stderr


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
