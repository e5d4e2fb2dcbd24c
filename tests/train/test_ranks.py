"""Two processes (gloo) against one: the same losses, checkpoints that fit both, one writer."""
import json, shutil, sys

import many_ranks_data as d
import numpy as np
import pytest
import torch
from processes import HERE, on_ranks

from domain_llm.model.weights import load_gpt2
from domain_llm.train.distributed import Trainer
from domain_llm.train.recipe import Device
from domain_llm.train.runs import best_so_far, read_log, validation_loss

pytestmark = pytest.mark.skipif(not torch.distributed.is_available() or sys.platform == 'win32',
                                reason='needs torch.distributed')


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    "Every run of many_ranks.py, in one process and in two."
    home = tmp_path_factory.mktemp('many')
    for world_size in (1, 2): on_ranks(world_size, home, HERE / 'many_ranks.py', home)
    return home


def losses(folder, key='loss'): return [line[key] for line in read_log(folder) if key in line]


def apart(a, b): return float(np.abs(np.subtract(a, b)).max())


@pytest.mark.parametrize('recipe, bar', [('adamw', 1e-5), ('fast', 1e-3)])
@pytest.mark.parametrize('way', ['2', '2-shard'])
def test_two_processes_have_the_losses_of_one(home, recipe, bar, way):
    one, two = losses(home / f'{recipe}-1'), losses(home / f'{recipe}-{way}')
    assert len(one) == len(two) == 20 and apart(one, two) < bar and one[0] - one[-1] > 0.2
    seen = [losses(home / f'{recipe}-{k}', 'validation_loss') for k in ('1', way)]
    assert len(seen[0]) == 5 and apart(*seen) < bar
    assert losses(home / f'{recipe}-1', 'text')[0] == losses(home / f'{recipe}-{way}', 'text')[0]


@pytest.mark.parametrize('way', ['2', '2-shard'])
def test_two_processes_weight_tokens_as_one_does(home, way):
    one, two = losses(home / 'weighted-1'), losses(home / f'weighted-{way}')
    assert len(one) == len(two) == 20 and apart(one, two) < 1e-5
    assert apart(one, losses(home / 'adamw-1')) > 0.01


@pytest.mark.parametrize('way', ['2', '2-shard'])
def test_two_processes_count_each_target_once(home, way):
    "Rows of different length lie in different processes; some have no target that counts."
    one, two = (losses(home / f'masked-{k}') for k in ('1', way))
    assert len(one) == len(two) == 20 and apart(one, two) < 1e-5
    assert apart(one, losses(home / 'adamw-1')) > 0.01
    for key in 'loss', 'grad_norm':
        one, two = (losses(home / f'masked-{k}', key)[0] for k in ('1', way))
        assert two == pytest.approx(one, rel=1e-6)


@pytest.mark.parametrize('way', ['2', '2-shard'])
def test_what_two_processes_saved_is_one_plain_model(home, way):
    def files(run): return sorted(str(p.relative_to(run)) for p in run.rglob('*') if p.is_file())
    one, two = home / 'adamw-1', home / f'adamw-{way}'
    pairs = zip(*(load_gpt2(run / 'model').parameters() for run in (one, two)))
    assert max((p - q).abs().max() for p, q in pairs) < 1e-4
    best = [best_so_far(run)['validation_loss'] for run in (one, two)]
    assert abs(best[0] - best[1]) < 1e-5
    assert files(one) == files(two)                       # nothing that a second writer left
    assert [line['step'] for line in read_log(two) if 'loss' in line] == list(range(20))


def test_gradients_are_exchanged_once_a_step(home):
    "With four micro-batches for each process there would be four times as many without no_sync."
    first, second = json.loads((home / 'found.json').read_text())['exchanges']
    assert 1 <= second <= first <= 2


def test_shares_of_gradients_are_exchanged_once_a_step(home):
    "Two blocks and what is around them: three exchanges, however many micro-batches there are."
    assert json.loads((home / 'found.json').read_text())['scattered'] == 3


def test_shared_weights_travel_in_the_precision_of_the_step_and_are_kept_in_float32(home):
    found, at_hand, kept = json.loads((home / 'found.json').read_text())['half']
    one = Trainer(d.model(), d.config('adamw'), device=Device('cpu', torch.bfloat16, 'a test'))
    assert found == pytest.approx(one.update(d.batches()[0], 1), rel=0.01)
    assert at_hand == ['torch.bfloat16'] and kept == ['torch.float32']


def test_shares_are_those_of_the_first_process(home):
    assert json.loads((home / 'found.json').read_text())['begun']


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
    assert on_ranks(ranks, tmp_path, 'go_on.py').count('resuming at step 10 of 20') == len(runs)
    for saved, shard in runs:
        assert apart(losses(tmp_path / f'{saved} {shard}'), losses(home / 'fast-1')) < 1e-3
