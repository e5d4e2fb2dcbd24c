"""Two processes on one machine (gloo) against one: the same losses, checkpoints that fit both, one writer."""
import json, os, shutil, subprocess, sys
from pathlib import Path

import numpy as np
import pytest
import torch

import many_ranks_data as d
from domain_llm.model.weights import load_model
from domain_llm.text.synthetic import SyntheticScience
from domain_llm.train.runs import best_so_far, read_log, validation_loss

pytestmark = pytest.mark.skipif(not torch.distributed.is_available() or sys.platform == 'win32',
                                reason='needs torch.distributed')
HERE = Path(__file__).parent
ENV = {
    **os.environ,
    'OMP_NUM_THREADS': '1',
    'TOKENIZERS_PARALLELISM': 'false',
    'PYTHONWARNINGS': 'ignore',
    'HF_HUB_OFFLINE': '1',
}
TORCHRUN = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']


def launch(*args, ok=True, **kwargs):
    done = subprocess.run(
        [str(a) for a in args], capture_output=True, text=True, env=ENV, timeout=240, **kwargs
    )
    assert not ok or done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    "Every run of many_ranks.py, in one process and in two."
    home = tmp_path_factory.mktemp('many')
    launch(sys.executable, HERE / 'many_ranks.py', home)
    launch(*TORCHRUN, HERE / 'many_ranks.py', home)
    return home


def losses(folder, key='loss'): return [l[key] for l in read_log(folder) if key in l]


def apart(a, b): return float(np.abs(np.subtract(a, b)).max())


@pytest.mark.parametrize('recipe, bar', [('adamw', 1e-5), ('fast', 1e-3)])
@pytest.mark.parametrize('way', ['2', '2-shard'])
def test_two_processes_have_the_losses_of_one(home, recipe, bar, way):
    one, two = losses(home / f'{recipe}-1'), losses(home / f'{recipe}-{way}')
    assert len(one) == len(two) == 20 and apart(one, two) < bar and one[0] - one[-1] > 0.2
    looks = [losses(home / f'{recipe}-{k}', 'validation_loss') for k in ('1', way)]
    assert len(looks[0]) == 5 and apart(*looks) < bar
    assert losses(home / f'{recipe}-1', 'text')[0] == losses(home / f'{recipe}-{way}', 'text')[0]


@pytest.mark.parametrize('way', ['2', '2-shard'])
def test_two_processes_weight_tokens_as_one_does(home, way):
    one, two = losses(home / 'weighted-1'), losses(home / f'weighted-{way}')
    assert (
        len(one) == len(two) == 20
        and apart(one, two) < 1e-5
        and apart(one, losses(home / 'adamw-1')) > 0.01
    )


@pytest.mark.parametrize('way', ['2', '2-shard'])
def test_what_two_processes_saved_is_one_plain_model(home, way):
    one, two = (load_model(home / f'adamw-{k}/model') for k in ('1', way))
    assert max((p - q).abs().max() for p, q in zip(one.parameters(), two.parameters())) < 1e-4
    loss = lambda run: best_so_far(home / run)['validation_loss']
    assert abs(loss(f'adamw-{way}') - loss('adamw-1')) < 1e-5
    files = lambda k: sorted(
        str(p.relative_to(home / k)) for p in (home / k).rglob('*') if p.is_file()
    )
    # nothing that a second writer left
    assert files('adamw-1') == files(f'adamw-{way}')
    assert [l['step'] for l in read_log(home / f'adamw-{way}') if 'loss' in l] == list(range(20))


def test_gradients_are_exchanged_once_a_step(home):
    "Four micro-batches for each process: without no_sync there would be four times as many exchanges."
    first, second = json.loads((home / 'found.json').read_text())['exchanges']
    assert 1 <= second <= first <= 2


def test_validation_sums_over_ranks_also_when_rows_do_not_divide(home):
    uneven = json.loads((home / 'found.json').read_text())['uneven']
    assert abs(uneven - validation_loss(d.model(), d.TEXT[:603])) < 1e-6


@pytest.mark.parametrize('ranks', [1, 2])
def test_a_run_is_resumed_on_another_number_of_processes(home, tmp_path, ranks):
    ways = [False, True][:ranks]
    runs = [(saved, shard) for saved in ('half-1', 'half-2', 'half-2-shard') for shard in ways]
    for saved, shard in runs: shutil.copytree(home / saved, tmp_path / f'{saved} {shard}')
    code = (f'import sys; sys.path.insert(0, {str(HERE)!r}); import many_ranks_data as d\n'
            f'for name, shard in {runs}: d.run(f"{{name}} {{shard}}", shard)')
    (tmp_path / 'go_on.py').write_text(code)
    done = launch(*(TORCHRUN if ranks == 2 else [sys.executable]), 'go_on.py', cwd=tmp_path)
    assert done.stdout.count('resuming at step 10 of 20') == len(runs)
    for saved, shard in runs:
        assert apart(losses(tmp_path / f'{saved} {shard}'), losses(home / 'fast-1')) < 1e-3


@pytest.fixture(scope='module')
def tokens(tmp_path_factory):
    "The steps before training, done by the command line."
    home = tmp_path_factory.mktemp('cli')
    (home / 'p.jsonl').write_text(
        '\n'.join(json.dumps(dict(text=t)) for t in SyntheticScience(0).papers(600))
    )
    code = (
        f'from domain_llm.app.cli import main\nfor a in (["corpus", {str(home / "p.jsonl")!r}], '
        '["tokenizer", "--vocab-size", "500"], ["tokens"]):\n    try: main([*a, "--out", '
        f'{str(home / "out")!r}])\n    except SystemExit as e: assert not e.code'
    )
    launch(sys.executable, '-c', code)
    return home / 'out'


def test_the_command_line_under_torchrun(tokens, tmp_path):
    shutil.copytree(tokens, tmp_path / 'two')
    command = ['-m', 'domain_llm', 'pretrain', '--size', 'demo', '--steps', 4, '--out']
    done = launch(*TORCHRUN, *command, tmp_path / 'two')
    assert '2 processes' in done.stdout and done.stdout.count('parameters on') == 1
    assert len(losses(tmp_path / 'two/pretrain')) == 4
    assert (tmp_path / 'two/pretrain/model/tokenizer.json').exists()
    again = launch(*TORCHRUN, *command, tmp_path / 'two')
    assert 'already done' in again.stdout
    refused = launch(*TORCHRUN, *command[:-2], 5, '--out', tmp_path / 'two', ok=False)
    assert refused.returncode and 'made from other inputs' in refused.stderr


def test_the_examples_are_torchrun_underneath():
    for path in ('slurm.sh', 'skypilot.yaml'):
        text = (HERE.parent / 'examples' / path).read_text()
        assert 'torchrun' in text and '-m domain_llm pretrain --out' in text
    subprocess.run(['bash', '-n', HERE.parent / 'examples/slurm.sh'], check=True)


def command(*args):
    "Run the command line in this process; give its exit code."
    from domain_llm.app.cli import main
    with pytest.raises(SystemExit) as end: main([str(a) for a in args])
    return end.value.code


def test_recipes_samples_and_finetuning_from_the_command_line(tokens, tmp_path, capsys):
    shutil.copytree(tokens, tmp_path / 'a'), shutil.copytree(tokens, tmp_path / 'b')
    go = ['pretrain', '--size', 'demo', '--steps', 3, '--out']
    assert command(*go, tmp_path / 'a', '--recipe', 'paper') == 0
    about = json.loads((tmp_path / 'a/pretrain/config.json').read_text())
    assert (about['train']['lr'], about['train']['eps'], about['train']['decay_norms'],
            about['model']['dropout']) == (2e-5, 1e-6, True, 0.1)
    assert (all(isinstance(l, str) for l in losses(tmp_path / 'a/pretrain', 'sample'))
            and losses(tmp_path / 'a/pretrain', 'sample'))
    assert (
        command(*go, tmp_path / 'b', '--recipe', 'slow') == 1
        and 'fast or paper' in capsys.readouterr().err
    )
    start = tmp_path / 'a/pretrain/model'
    assert command(*go, tmp_path / 'b', '--from', start) == 0
    first = losses(tmp_path / 'b/pretrain', 'validation_loss')[0]
    # it begins where the other ended
    assert abs(first - losses(tmp_path / 'a/pretrain', 'validation_loss')[-1]) < 1e-5
    assert json.loads((tmp_path / 'b/pretrain/config.json').read_text())['train']['muon_lr'] == pytest.approx(0.002)
    assert command('tokenizer', '--vocab-size', 400, '--out', tmp_path / 'b', '--force') == 0
    assert command('tokens', '--out', tmp_path / 'b', '--force') == 0
    assert (command(*go, tmp_path / 'b', '--from', start, '--force') == 1
            and 'another tokenizer' in capsys.readouterr().err)
    assert command('tokenizer', '--from', start, '--out', tmp_path / 'b', '--force') == 0
    assert command('tokens', '--out', tmp_path / 'b', '--force') == 0
    assert command(*go, tmp_path / 'b', '--from', start, '--force') == 0
