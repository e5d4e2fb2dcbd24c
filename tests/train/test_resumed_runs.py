"""Training that loses nothing: killed runs, damaged checkpoints, full disks, small memories, other loggers."""
import io, json, math, os, re, runpy, shutil, signal, subprocess, sys, threading, types
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

import domain_llm.tokens.dataset as dataset
import domain_llm.train.distributed as distributed
import domain_llm.train.pretraining as pretraining
import domain_llm.train.runs as runs
from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config, flops_per_token
from domain_llm.model.weights import load_model
from domain_llm.tokens.dataset import Batches, Prefetch, prefetch
from domain_llm.train.distributed import Trainer
from domain_llm.train.loop import rows_that_fit
from domain_llm.train.muon import Muon, make_optimizers, orthogonalize
from domain_llm.train.pretraining import pretrain
from domain_llm.train.recipe import (
    FAST_RECIPE, PAPER_RECIPE, Device, TrainConfig, device_info, paper_length, schedule)
from domain_llm.train.runs import (
    Stop, best_so_far, load_checkpoint, peak_flops, plot_run, read_log, save_checkpoint,
    throughput, validation_loss)

pytestmark = pytest.mark.usefixtures('one_thread')
HERE = Path(__file__).parent
DATA = os.environ.get('DOMAIN_LLM_DATA')
CFG = GPT2Config(50, 2, 2, 32, 16)
TEXT = np.random.default_rng(0).integers(1, 5, 2000).cumsum() % 50
BATCHES = Batches(TEXT, 16, 128)
CPU = Device('cpu', torch.float32, 'a test')


def recipe(**changes):
    return TrainConfig(
        **{
            **FAST_RECIPE,
            'steps': 12,
            'tokens_per_step': 128,
            'eval_every': 4,
            'save_every': 3,
            **changes,
        }
    )


def fresh(cfg=CFG):
    torch.manual_seed(2)
    return GPT2(cfg)


def run(folder, config=None, model=None, **more):
    pretrain(
        fresh() if model is None else model, BATCHES, config or recipe(), folder, TEXT[:500], **more
    )
    return outcome(folder)


def outcome(folder):
    "What a run leaves, but for the clock."
    told = [
        {k: v for k, v in l.items() if k not in ('tokens_per_second', 'minutes_left', 'memory_gb')}
        for l in read_log(folder)
    ]
    return told, (Path(folder) / 'model/model.safetensors').read_bytes(), best_so_far(folder)


def contents(folder): return {p: p.read_bytes() for p in Path(folder).rglob('*') if p.is_file()}


@pytest.fixture(scope='module')
def reference(tmp_path_factory):
    "The outcome of a run that nobody disturbed."
    torch.set_num_threads(1)
    return run(tmp_path_factory.mktemp('reference') / 'run')


def folders(run_dir): return sorted(p.name for p in (Path(run_dir) / 'checkpoints').iterdir())


# ---- kill -9

KILLED = """
import contextlib, io, json, os, random, shutil, signal, sys, time
from pathlib import Path
import numpy as np
import torch
torch.set_num_threads(1)
import domain_llm.ground.files as files
import domain_llm.train.pretraining as pretraining
import domain_llm.train.runs as runs
from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config
from domain_llm.tokens.dataset import Batches
from domain_llm.train.recipe import FAST_RECIPE, TrainConfig
text = np.random.default_rng(0).integers(1, 5, 2000).cumsum() % 50
config = TrainConfig(**{**FAST_RECIPE, 'steps': 24, 'tokens_per_step': 128, 'eval_every': 4, 'save_every': 3})

def train(folder):
    torch.manual_seed(2)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        model = GPT2(GPT2Config(50, 2, 2, 32, 16, dropout=0.1))
        pretraining.pretrain(model, Batches(text, 16, 128), config, folder, text[:500])

def life(work):
    "Do some work in a process of its own, which may be killed."
    pid = os.fork()
    if pid: return pid
    try: work()
    except BaseException as error: print(repr(error), flush=True); os._exit(3)
    os._exit(0)

def end(pid):
    "Wait for a life: True when it was killed."
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, 'a life failed'
    return os.WIFSIGNALED(status)

def outcome(folder):
    told = [{k: l[k] for k in l if k not in ('tokens_per_second', 'minutes_left', 'memory_gb')}
            for l in runs.read_log(folder)]
    return told, (Path(folder) / 'model/model.safetensors').read_bytes(), runs.best_so_far(folder)

def dying(nth, which, mounted):
    "Patch every write, sync, rename and deletion of one save, and die after the nth."
    seen = dict(save=0, ops=0)
    def watched(owner, name):
        real = getattr(owner, name)
        def op(*args, **kwargs):
            found = real(*args, **kwargs)
            if seen['save'] == which:
                seen['ops'] += 1
                if seen['ops'] == nth: os.kill(os.getpid(), signal.SIGKILL)
            return found
        setattr(owner, name, op)
    for owner, name in ((runs, 'save_file'), (Path, 'write_bytes'), (os, 'fsync'), (os, 'replace'),
                        (shutil, 'rmtree'), (shutil, 'copytree')): watched(owner, name)
    save = pretraining.save_checkpoint
    def counted(*args):
        seen['save'] += 1
        save(*args)
        if seen['save'] == which: seen['all'] = seen['ops']
        seen['save'] += 0.5
    pretraining.save_checkpoint = lambda *args: (seen.update(save=int(seen['save'])), counted(*args))
    if mounted: files.is_mounted = lambda *args: True
    return seen
"""

RANDOM = KILLED + """
train('left alone')
wanted, kills = outcome('left alone'), 0
start = time.monotonic(); end(life(lambda: train('timed'))); length = time.monotonic() - start
random.seed(os.environ.get('SEED', '0'))
for attempt in range(20):
    for number in range(100):
        pid = life(lambda: train(f'run {attempt}'))
        time.sleep(random.uniform(0.1, 1) * length / 3)
        os.kill(pid, signal.SIGKILL)
        if not end(pid): break
        kills += 1
    else: end(life(lambda: train(f'run {attempt}')))
    assert outcome(f'run {attempt}') == wanted, attempt
    if kills >= 12: break
print(json.dumps(dict(kills=kills, attempts=attempt + 1)))
"""

INSIDE = KILLED.replace("'steps': 24", "'steps': 12") + """
train('left alone')
wanted, found = outcome('left alone'), {}
for mounted in (False, True):
    found[str(mounted)] = 0
    for nth in range(1, 60, 3 if mounted else 1):
        folder = f'{mounted} {nth}'
        def work(): dying(nth, 3, mounted); train(folder)
        if not end(life(work)): break
        assert not Path(folder, 'model').exists()
        end(life(lambda: train(folder)))
        assert outcome(folder) == wanted, folder
        kept = sorted(p.name for p in Path(folder, 'checkpoints').iterdir())
        assert kept == ['step-00000009', 'step-00000012'], kept
        found[str(mounted)] += 1
print(json.dumps(found))
"""


def in_a_process(code, folder, **env):
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore', **env},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_killed_at_random_moments_a_run_ends_as_if_left_alone(tmp_path):
    assert in_a_process(RANDOM, tmp_path)['kills'] >= 10


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_killed_after_each_write_sync_and_rename_of_a_save(tmp_path):
    found = in_a_process(INSIDE, tmp_path)
    assert found['False'] >= 5 and found['True'] >= 5


THREADS = """
import os, signal, sys
import numpy as np
import torch
from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config
from domain_llm.tokens.dataset import Batches
from domain_llm.train.pretraining import pretrain
from domain_llm.train.recipe import FAST_RECIPE, TrainConfig
torch.set_num_threads(int(sys.argv[1]))
text = np.random.default_rng(0).integers(0, 300, 50_000)
config = TrainConfig(steps=5, tokens_per_step=2048, eval_every=1, save_every=1, **FAST_RECIPE)

def die(model, step):
    if step == 3: os.kill(os.getpid(), signal.SIGKILL)
    return {}

for folder in sys.argv[2:]:
    torch.manual_seed(2)
    model = GPT2(GPT2Config(300, 1, 4, 128, 64, dropout=0.1))        # large enough that threads share its sums
    killed = folder == 'killed' and not os.path.exists(folder)
    pretrain(model, Batches(text, 64, 2048), config, folder, text[:2000], die if killed else None)
"""


@pytest.mark.parametrize('threads', sorted({1, 2, os.cpu_count()}))
def test_with_the_same_number_of_threads_weights_are_equal_also_after_a_kill(tmp_path, threads):
    def train(*folders):
        return subprocess.run(
            [sys.executable, '-c', THREADS, str(threads), *folders],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, 'GOMP_SPINCOUNT': '1000'},
        )
    assert train('alone', 'again', 'killed').returncode == -signal.SIGKILL
    again = train('killed')
    assert 'resuming at step 3' in again.stdout and again.returncode == 0, again.stderr
    assert (
        outcome(tmp_path / 'alone') == outcome(tmp_path / 'again') == outcome(tmp_path / 'killed')
    )
    assert json.loads((tmp_path / 'alone/config.json').read_text())['threads'] == threads


def test_another_number_of_threads_is_said(tmp_path, capsys, reference):
    stopped(tmp_path / 'a')
    config = json.loads((tmp_path / 'a/config.json').read_text())
    (tmp_path / 'a/config.json').write_text(json.dumps({**config, 'threads': 7}))
    assert run(tmp_path / 'a') == reference
    assert (
        'threads was 7 when this run began and is 1 now: its steps agree to rounding'
        in capsys.readouterr().out
    )


# ---- checkpoints

def test_saving_often_changes_nothing_and_the_last_two_are_kept(tmp_path, reference):
    assert run(tmp_path / 'a', recipe(save_every=1)) == reference
    assert folders(tmp_path / 'a') == ['step-00000011', 'step-00000012']
    # called once more, nothing happens
    assert run(tmp_path / 'a') == reference


def test_a_checkpoint_by_the_clock(tmp_path):
    run(tmp_path / 'a', recipe(save_every=0, save_minutes=0))
    run(tmp_path / 'b', recipe(save_every=0, save_minutes=60))
    assert (len(folders(tmp_path / 'a')), len(folders(tmp_path / 'b'))) == (2, 1)


def stopped(folder, at=8, config=None):
    "A run that stops after some step, with two checkpoints."
    def stop(model, step):
        if step == at: raise RuntimeError('stop here')
        return {}
    with pytest.raises(RuntimeError, match='stop here'):
        run(folder, config or recipe(), evaluate=stop)
    return sorted((Path(folder) / 'checkpoints').iterdir())


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {'cut short': lambda f: (f / 'state.safetensors').write_bytes((f / 'state.safetensors').read_bytes()[:-100]),
          'a flipped bit': lambda f: flip(f / 'state.safetensors'),
          'no tensors': lambda f: (f / 'state.safetensors').unlink(),
          'no values': lambda f: (f / 'state.json').unlink(),
          'broken values': lambda f: (f / 'state.json').write_text('{"step": '),
          'another format': lambda f: (f / 'state.json').write_text('{"format": 2, "step": 6}'),
          'an empty folder': lambda f: (shutil.rmtree(f), f.mkdir())}


@pytest.mark.parametrize('damage', DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_newest_checkpoint_costs_one_line(tmp_path, capsys, reference, damage):
    newest = stopped(tmp_path / 'a')[-1]
    damage(newest)
    capsys.readouterr()
    assert run(tmp_path / 'a') == reference
    said = [l for l in capsys.readouterr().out.splitlines() if newest.name in l]
    assert len(said) == 1 and 'trying the checkpoint before it' in said[0]


def test_when_both_are_damaged_the_run_begins_again(tmp_path, reference):
    for folder in stopped(tmp_path / 'a'): flip(folder / 'state.safetensors')
    assert run(tmp_path / 'a') == reference


@pytest.mark.parametrize('error', [
    OSError(28, 'No space left on device'),
    runs.SafetensorError('Error while serializing: I/O error: No space left on device (os error '
                         '28)')])
def test_a_full_disk_costs_a_checkpoint_and_not_the_run(tmp_path, capsys, reference, error):
    real, calls = runs.save_file, []
    def full(tensors, path, **more):
        calls.append(path)
        if len(calls) == 2:
            Path(path).write_bytes(b'half')
            raise error
        real(tensors, path, **more)
    with patch.object(runs, 'save_file', full): found = run(tmp_path / 'a')
    assert found == reference
    said = [l for l in capsys.readouterr().out.splitlines() if 'disk is full' in l]
    assert len(said) == 1 and 'checkpoint of step 6' in said[0]
    assert not list((tmp_path / 'a').rglob('*.part'))


def test_a_disk_full_at_the_last_checkpoint_leaves_one_to_resume_from(tmp_path, reference):
    def full(*_, **__): raise OSError(28, 'No space left on device')
    def stop(model, step):
        if step == 8: raise RuntimeError
        return {}
    real, calls = runs.save_file, []
    def later(*args, **more): calls.append(1); return (real if len(calls) == 1 else full)(*args, **more)
    with patch.object(runs, 'save_file', later), pytest.raises(RuntimeError):
        run(tmp_path / 'a', evaluate=stop)
    assert folders(tmp_path / 'a') == ['step-00000003']
    assert run(tmp_path / 'a') == reference


def test_another_error_of_the_disk_is_not_hidden(tmp_path):
    def broken(*_, **__): raise OSError(5, 'Input/output error')
    with patch.object(runs, 'save_file', broken), pytest.raises(OSError, match='Input/output'):
        run(tmp_path / 'a')


def test_a_loss_that_is_not_finite_stops_before_it_is_written(tmp_path, reference):
    def poison(model, step):
        if step == 8: model.wte.weight.data[0] = math.nan
        return {}
    with pytest.raises(FloatingPointError, match='step 8'): run(tmp_path / 'a', evaluate=poison)
    assert [l['step'] for l in read_log(tmp_path / 'a') if 'loss' in l] == list(range(8))
    assert (
        folders(tmp_path / 'a') == ['step-00000003', 'step-00000006']
        and not (tmp_path / 'a/model').exists()
    )
    # the last good state is there
    assert run(tmp_path / 'a') == reference


def test_a_gradient_that_is_not_finite_moves_nothing():
    trainer = Trainer(fresh(), recipe(), device=CPU)
    before = [p.clone() for p in trainer.model.parameters()]
    trainer.model.h[0].mlp.c_fc.weight.register_hook(lambda g: g * math.inf)
    with pytest.raises(FloatingPointError, match='step 5'): trainer.update(BATCHES[5], 5)
    assert all(map(torch.equal, before, trainer.model.parameters()))


def test_the_best_is_by_validation_loss_and_really_updated(tmp_path):
    config = recipe(steps=160, eval_every=10, save_every=0, tokens_per_step=64, lr=0.03)
    # learns 400 tokens by heart
    pretrain(fresh(), Batches(TEXT[:400], 16, 64), config, tmp_path / 'a', TEXT[600:1000])
    seen = {
        l['step']: l['validation_loss'] for l in read_log(tmp_path / 'a') if 'validation_loss' in l
    }
    best = best_so_far(tmp_path / 'a')
    assert (
        best == dict(step=min(seen, key=seen.get), validation_loss=min(seen.values()))
        and 0 < best['step'] < 160
    )
    kept = load_model(tmp_path / 'a/best')
    assert abs(validation_loss(kept, TEXT[600:1000]) - best['validation_loss']) < 1e-5
    last = load_model(tmp_path / 'a/model')
    assert validation_loss(last, TEXT[600:1000]) > best['validation_loss'] + 0.01


def test_no_pickle_is_written_and_what_another_run_left_is_refused(tmp_path):
    run(tmp_path / 'a')
    assert {p.suffix for p in (tmp_path / 'a').rglob('*') if p.is_file()} == {
        '.json',
        '.jsonl',
        '.safetensors',
    }
    with pytest.raises(ValueError, match='lr 0.008 there, 0.001 here'):
        run(tmp_path / 'a', recipe(lr=0.001))
    # what is free to change
    run(tmp_path / 'a', recipe(eval_every=2, save_every=1, micro_rows=4))


def test_checkpoints_of_a_compiled_model_load_into_a_plain_one_and_back(tmp_path, reference):
    compiled = lambda: torch.compile(fresh(), backend='eager')
    stopped(tmp_path / 'a')
    assert run(tmp_path / 'a', model=compiled()) == reference
    def stop(model, step):
        if step == 8: raise RuntimeError
        return {}
    with pytest.raises(RuntimeError): run(tmp_path / 'b', model=compiled(), evaluate=stop)
    assert run(tmp_path / 'b') == reference


STORED = HERE / 'stored_run'   # made once by this version: `python tests/test_pretrain.py`
TINY = GPT2Config(16, 1, 2, 8, 8)


class Plain:
    "Batches that do not depend on how lesson 21 shuffles."
    def __getitem__(self, step):
        rows = (TEXT[17 * step:17 * step + 18].reshape(2, 9) % 16)
        return rows[:, :-1], rows[:, 1:]


def stored_run(folder):
    torch.manual_seed(5)
    config = TrainConfig(**{**FAST_RECIPE, 'steps': 6, 'tokens_per_step': 16, 'save_every': 3})
    pretrain(GPT2(TINY), Plain(), config, folder)
    return [l['loss'] for l in read_log(folder) if 'loss' in l]


def test_a_checkpoint_stored_long_ago_goes_on(tmp_path, capsys):
    shutil.copytree(STORED, tmp_path / 'a')
    losses = stored_run(tmp_path / 'a')
    assert 'resuming at step 3' in capsys.readouterr().out
    assert np.allclose(losses, json.loads((STORED / 'losses.json').read_text()), atol=1e-4)


# ---- memory and precision

@pytest.mark.parametrize('name, bar', [('adamw', 1e-5), ('fast', 1e-3)])
def test_the_curve_is_the_same_for_every_micro_batch(name, bar):
    curves = []
    for rows in (8, 4, 2):
        muon_lr = FAST_RECIPE['muon_lr'] if name == 'fast' else 0
        trainer = Trainer(
            fresh(), recipe(steps=20, micro_rows=rows, muon_lr=muon_lr, lr=2e-3), device=CPU
        )
        curves.append([trainer.update(BATCHES[s], s)[0] for s in range(20)])
    assert np.ptp(curves, axis=0).max() < bar and curves[0][0] > curves[0][-1]


def test_out_of_memory_halves_the_micro_batch_and_says_so(tmp_path, capsys, reference):
    def small(model, ids, targets):
        if len(ids) > 2: raise torch.OutOfMemoryError('pretended')
        return model(ids, targets)
    found = run(tmp_path / 'a', loss=small)
    said = [l for l in capsys.readouterr().out.splitlines() if 'does not fit' in l]
    assert len(said) == 2 and 'going on with 2 rows' in said[1] and '128 tokens' in said[1]
    losses = [[l['loss'] for l in lines if 'loss' in l] for lines in (found[0], reference[0])]
    assert np.abs(np.subtract(*losses)).max() < 1e-4


def test_what_was_added_up_before_memory_ran_out_is_forgotten():
    calls = []
    def guarded(model, ids, targets):
        calls.append(len(ids))
        if calls == [4, 4]: raise torch.OutOfMemoryError                         # the second of two
        return model(ids, targets)
    found = Trainer(fresh(), recipe(micro_rows=4), device=CPU, loss=guarded).update(BATCHES[0], 5)
    wanted = Trainer(fresh(), recipe(micro_rows=2), device=CPU).update(BATCHES[0], 5)
    assert np.allclose(found, wanted) and calls == [4, 4, 2, 2, 2, 2]


def test_with_one_row_left_the_blocks_are_computed_twice_and_then_it_is_over(capsys):
    def guarded(model, ids, targets):
        if not model.recompute or never: raise torch.OutOfMemoryError
        return model(ids, targets)
    never, trainer = False, Trainer(fresh(), recipe(micro_rows=1), device=CPU, loss=guarded)
    wanted = Trainer(fresh(), recipe(micro_rows=1), device=CPU).update(BATCHES[0], 5)
    assert (np.allclose(trainer.update(BATCHES[0], 5), wanted)
            and 'computing the blocks twice' in capsys.readouterr().out)
    never = True
    with pytest.raises(torch.OutOfMemoryError, match='not even one row'):
        trainer.update(BATCHES[1], 6)


def test_the_estimate_grows_with_the_memory_and_shrinks_with_the_model():
    small, large = (GPT2Config.preset(name, 50257) for name in ('gpt2', 'gpt2-large'))
    assert (
        rows_that_fit(large, 2**34, 2)
        < rows_that_fit(small, 2**34, 2)
        < rows_that_fit(small, 2**36, 2)
    )
    assert rows_that_fit(large, 1) == 1
    with patch('torch.cuda.is_available', lambda: True), patch('torch.cuda.mem_get_info', lambda: (8 * 2**30, 0)):
        assert 2**30 < distributed._free_bytes(fresh()) < 8 * 2**30


def pretended(major, minor):
    return patch.multiple('torch.cuda', is_available=lambda: True, get_device_name=lambda: 'a GPU',
                          get_device_capability=lambda: (major, minor))


@pytest.mark.parametrize('capability, dtype', [((7, 0), torch.float16), ((7, 5), torch.float16),
                                               ((8, 0), torch.bfloat16), ((12, 0), torch.bfloat16)])
def test_the_precision_follows_the_capability_and_not_what_torch_says(capability, dtype):
    with pretended(*capability), patch('torch.cuda.is_bf16_supported', lambda *_, **__: True):
        found = device_info()
    assert (found.dtype is dtype and '.'.join(map(str, capability)) in str(found)
            and ('scaled' in str(found)) == (dtype is torch.float16))
    for path in (HERE.parent / 'domain_llm').rglob('*.py'):
        assert 'is_bf16_supported' not in path.read_text()


def test_half_precision_trains_with_a_scaler_and_orthogonalizes_in_float32(tmp_path):
    half = Device('cpu', torch.float16, 'as on a T4')
    trainer = Trainer(fresh(), recipe(steps=30), device=half)
    assert trainer.scaler.is_enabled() and trainer.optimizers[1].dtype is torch.float32
    losses = [trainer.update(BATCHES[s], s)[0] for s in range(10)]
    full = Trainer(fresh(), recipe(steps=30), device=CPU)
    assert np.allclose(losses, [full.update(BATCHES[s], s)[0] for s in range(10)], atol=0.05)
    save_checkpoint(tmp_path, trainer, 10)
    again = Trainer(fresh(), recipe(steps=30), device=half)
    assert (
        load_checkpoint(tmp_path, again) == 10
        and again.scaler.state_dict() == trainer.scaler.state_dict()
    )
    assert again.update(BATCHES[10], 10) == trainer.update(BATCHES[10], 10)
    low = Trainer(fresh(), recipe(), device=Device('cpu', torch.bfloat16, 'as on an H200'))
    assert (not low.scaler.is_enabled() and low.optimizers[1].dtype is torch.bfloat16
            and math.isfinite(low.update(BATCHES[0], 5)[0]))


# ---- a loss of one's own

def weighted(weights_of):
    def loss(model, ids, targets):
        weights = weights_of(ids).float()
        return model(ids, targets, weights) * weights.mean()
    return loss


# rows that begin evenly have none
def some(ids): return ((ids % 3) / 2 * (ids[:, :1] % 2))


def updates(loss=None, drop=None, device=CPU, **how):
    trainer = Trainer(fresh(), recipe(**how), device=device, loss=loss)
    found = []
    for step in range(4):
        ids, targets = (torch.as_tensor(x) for x in BATCHES[step])
        if drop: targets = targets.masked_fill(drop(ids), -1)
        found.append(trainer.update((ids, targets), step + 3))
    return found, [p.detach().clone() for p in trainer.model.parameters()]


def equal(a, b): return a[0] == b[0] and all(map(torch.equal, a[1], b[1]))


def test_weights_of_one_give_the_models_own_loss_bit_for_bit(tmp_path, reference):
    assert run(tmp_path / 'a', loss=weighted(torch.ones_like)) == reference
    half = Device('cpu', torch.float16, 'as on a T4')
    for how in (dict(micro_rows=2), dict(device=half), dict(device=half, micro_rows=4)):
        assert equal(updates(weighted(torch.ones_like), **how), updates(**how))


def test_a_weight_of_nothing_is_a_target_that_does_not_count():
    def dropped(ids): return ids % 3 == 0
    def loss(model, ids, targets): return model(ids, targets, ~dropped(ids))
    assert equal(updates(loss), updates(drop=dropped)) and not equal(updates(loss), updates())


def test_a_weighted_step_is_the_same_in_pieces_of_any_size():
    "Also where a piece has no weight at all, with a scaled loss, and compiled."
    whole = updates(weighted(some), micro_rows=8)
    assert whole[0][-1][0] > 0 and not np.allclose(whole[0], updates()[0])
    half = Device('cpu', torch.float16, 'as on a T4')
    for how, bar in ((dict(micro_rows=4), 1e-4), (dict(micro_rows=1), 1e-4), (dict(micro_rows=1, device=half), 0.03),
                     (dict(micro_rows=2, compile=True), 1e-3)):
        assert np.allclose(updates(weighted(some), **how)[0], whole[0], rtol=bar), how
    # divides by each piece's own weights
    def careless(model, ids, targets): return model(ids, targets, some(ids))
    assert not np.allclose(
        updates(careless, micro_rows=1)[0], updates(careless, micro_rows=8)[0], rtol=1e-2
    )


def test_a_weighted_loss_and_its_gradients_are_those_of_pytorch():
    model, (ids, targets) = fresh(), (torch.as_tensor(x) for x in BATCHES[0])
    weights, params = torch.rand(ids.shape), list(model.parameters())
    each = torch.nn.functional.cross_entropy(
        model(ids).flatten(0, 1), targets.flatten(), reduction='none'
    )
    plain = (each * weights.flatten()).sum() / weights.sum()
    ours = model(ids, targets, weights)
    assert abs(plain - ours) < 1e-6
    with torch.no_grad(): assert abs(model(ids, targets, weights) - ours) < 1e-6
    for a, b in zip(torch.autograd.grad(plain, params), torch.autograd.grad(ours, params)):
        assert (a - b).norm() <= 1e-5 * a.norm() + 1e-9


# ---- recipes

@pytest.mark.skipif(not DATA, reason='needs DOMAIN_LLM_DATA')
def test_the_papers_law_gives_all_logged_rates():
    errors = []
    for path in sorted(Path(DATA, 'logs').glob('*.txt')):
        text, about = path.read_text(), json.loads(path.with_suffix('.json').read_text())
        rows, micro = int(re.search(r'Loading (\d+)', text)[1]), about['batch_size']
        length, batch, epoch_updates = paper_length(rows, micro), 0, {}
        config = TrainConfig(**{**PAPER_RECIPE, 'lr': about['learning_rate'], **length})
        for line in text.splitlines():
            if found := re.match(r'Epoch (\d+) \| Batch (\d+)/', line): batch = int(found[2]) + 1
            found = re.match(
                r'(End of epoch|Epoch) (\d+) \| Validation PPL: \S+ \| Learning rate: (\S+)', line
            )
            if not found: continue
            epoch = length['steps'] // 5
            updates = int(found[2]) * epoch + (epoch if found[1] != 'Epoch' else batch // 8)
            errors.append(abs(config.lr * schedule(config, updates) - float(found[3])))
    assert len(errors) == 205 and max(errors) < 1e-12


def test_dropout_is_a_function_of_the_step(tmp_path):
    cfg = GPT2Config(50, 2, 2, 32, 16, dropout=0.3)
    whole = run(tmp_path / 'a', model=fresh(cfg))
    def stop(model, step):
        if step == 8: raise RuntimeError
        return {}
    with pytest.raises(RuntimeError): run(tmp_path / 'b', model=fresh(cfg), evaluate=stop)
    torch.rand(7)
    assert run(tmp_path / 'b', model=fresh(cfg)) == whole


# ---- what is seen

def test_every_step_is_in_the_log_with_all_its_numbers(tmp_path):
    run(tmp_path / 'a', evaluate=lambda m, s: dict(accuracy=0.5, sample='text'))
    steps = [l for l in read_log(tmp_path / 'a') if 'loss' in l]
    assert [l['step'] for l in steps] == list(range(12))
    assert all(
        {'loss', 'smoothed', 'lr', 'grad_norm', 'tokens_per_second', 'memory_gb', 'minutes_left'}
        <= set(l)
        and 'mfu' not in l
        for l in steps
    )
    looks = [l for l in read_log(tmp_path / 'a') if 'sample' in l]
    assert ([l['step'] for l in looks] == [0, 4, 8, 12]
            and all('validation_loss' in l and l['accuracy'] == 0.5 for l in looks))


class Recorder(types.ModuleType):
    "Stands for wandb or trackio."
    def __init__(self, name): super().__init__(name); self.lines = []
    def init(self, **about): self.about = about
    def log(self, line, step): self.lines.append((step, line))
    def finish(self): self.lines.append('finished')


@pytest.mark.parametrize('name', ['wandb', 'trackio'])
def test_a_tracker_hears_of_every_line_and_is_closed(tmp_path, name):
    fake = Recorder(name)
    with patch.dict(sys.modules, {name: fake}): run(tmp_path / 'a', recipe(loggers=(name,)))
    assert fake.lines[-1] == 'finished' and [s for s, l in fake.lines[:-1] if 'loss' in l] == list(
        range(12)
    )
    assert fake.about['config']['steps'] == 12 and fake.about['name'] == 'a'


def test_tensorboard_hears_of_every_number(tmp_path):
    heard = []
    class Writer:
        def __init__(self, folder): heard.append(Path(folder).name)
        def __enter__(self): return self
        def __exit__(self, *_): heard.append('closed')
        def add_scalar(self, key, value, step): heard.append((key, step))
    module = types.ModuleType('torch.utils.tensorboard')
    module.SummaryWriter = Writer
    with patch.dict(sys.modules, {'torch.utils.tensorboard': module}):
        run(tmp_path / 'a', recipe(loggers=('tensorboard',)))
    assert (heard[0] == 'tensorboard' and heard[-1] == 'closed' and ('loss', 11) in heard
            and ('validation_loss', 12) in heard)
    with pytest.raises(ValueError, match='tensorboard, wandb and trackio'):
        recipe(loggers=('mlflow',))


ONLY = """
import sys
blocked = {'tqdm', 'datasets', 'pandas', 'matplotlib', 'scipy', 'huggingface_hub', 'transformers', 'pyarrow', 'wandb',
           'trackio', 'tensorboard',
           'typer', 'lxml', 'pooch', 'datasketch', 'ipywidgets', 'IPython', 'jinja2'}
sys.modules.update(dict.fromkeys(blocked))   # importing them fails, as if they were not installed
import numpy as np, torch
from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config
from domain_llm.tokens.dataset import Batches
from domain_llm.train.pretraining import pretrain
from domain_llm.train.recipe import FAST_RECIPE, TrainConfig
ids = np.arange(2000) % 50
config = TrainConfig(steps=3, tokens_per_step=64, **FAST_RECIPE)
pretrain(GPT2(GPT2Config(50, 1, 2, 16, 16)), Batches(ids, 16, 64), config, 'run', ids[:100])
print('{"done": true}')
"""


def test_a_run_needs_only_torch_numpy_safetensors_and_tokenizers(tmp_path):
    assert in_a_process(ONLY, tmp_path)['done']
    assert len(read_log(tmp_path / 'run')) == 5


def test_a_run_is_drawn_while_it_goes_across_resumes_and_with_one_before_it(tmp_path):
    stopped(tmp_path / 'a')
    # a line that is just being written
    with open(tmp_path / 'a/log.jsonl', 'a') as f: f.write('{"step": 9, "los')
    during = plot_run(tmp_path / 'a').axes[0]
    assert {len(l.get_xdata()) for l in during.get_lines()} == {8, 2}
    run(tmp_path / 'a', evaluate=lambda m, s: dict(accuracy=0.5)), run(tmp_path / 'b')
    losses = {'uniform': math.log(50), 'unigram': 3.8, 'bigram': 2.0, r'my $\frac$ model': 1.5}
    fig = plot_run(tmp_path / 'a', losses, before=tmp_path / 'b')
    # a name in dollars is no formula
    fig.savefig(io.BytesIO())
    loss, accuracy = fig.axes
    words = [t.get_text() for t in loss.get_legend().get_texts()]
    assert sum('earlier run' in w for w in words) == 2 and {
        'uniform 3.91',
        'unigram 3.80',
        'bigram 2.00',
    } <= set(words)
    assert max(len(l.get_xdata()) for l in loss.get_lines()) == 12
    assert list(accuracy.get_lines()[0].get_xdata()) == [128 * s for s in (8, 12)]


def test_the_gpu_benchmark_runs_tiny_with_nothing_but_what_it_needs(tmp_path):
    code = ONLY.split('import numpy as np')[0] + f"""
import contextlib, io, json, runpy
sys.argv = ['gpu.py', '--smoke']
with contextlib.redirect_stdout(io.StringIO()) as said:
    runpy.run_path({str(HERE.parent / 'benchmarks/gpu.py')!r}, run_name='__main__')
print(json.dumps(said.getvalue()))"""
    parts = dict(part.split('\n', 1) for part in in_a_process(code, tmp_path).split('\n## ')[1:])
    assert list(parts) == ['speed', 'profile', 'curves']
    assert re.search(r'ours, FAST, eager \| \d \| [\d,]{4,} \| [\d.]+%', parts['speed'])
    assert "the paper's loop | 2 | not measured: no transformers" in parts['speed']
    assert 'nanoGPT, compiled: not measured (bar 1.25)' in parts['speed']
    shares = dict(re.findall(r'^\| (.+?) \| .* \| (-?[\d.]+)% \|$', parts['profile'], re.M))
    assert len(shares) == 6 and all(
        float(shares[k]) > 0 for k in shares if k != 'no kernel runs'
    ), shares
    assert float(shares['optimizers']) > 10, shares
    assert parts['curves'].startswith(
        '\n| tokens | PAPER in float32 | FAST in float32 | FAST in float16 |\n'
    )
    paper, fast, half = map(
        float, re.search(r'3,072 \| (.+?) \| (.+?) \| (.+?) \|', parts['curves']).groups()
    )
    assert paper > fast + 0.3 and fast == pytest.approx(half, abs=0.02)


@pytest.mark.parametrize('kernel, what', [
    ('void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64>>', 'attention'),
    ('fmha_cutlassF_bf16_aligned_64x64_rf_sm80', 'attention'),
    ('cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16', 'attention'),
    ('aten::_scaled_dot_product_flash_attention_for_cpu', 'attention'),
    ('nvjet_tst_128x256_64x4_1x2_h_bz_coopA_TNT', 'product'), ('ampere_bf16_s16816gemm_bf16_128x64_nn', 'product'),
    ('void cutlass::device_kernel<sm90_mma>', 'product'), ('aten::addmm', 'product'),
    ('aten::mm', 'product'), ('aten::mul', 'other'), ('triton_red_fused_native_layer_norm_0', 'other'),
    ('void at::native::vectorized_elementwise_kernel<4>', 'other')])
def test_a_kernel_is_known_by_its_name(kernel, what):
    assert runpy.run_path(HERE.parent / 'benchmarks/gpu.py')['kind'](kernel) == what


def test_mfu_is_said_for_a_known_card_alone():
    trainer = Trainer(
        fresh(), recipe(), device=Device('cpu', torch.float32, 'a test', 'NVIDIA H200')
    )
    assert 0 < throughput(trainer, 1.0, 0)['mfu'] < 1e-3
    known = 'A100-SXM4-80GB', 'H100 80GB HBM3', 'L4', 'GeForce RTX 4090'
    assert all(peak_flops(f'NVIDIA {name}') for name in known) and peak_flops('Radeon') is None


def test_reading_ahead_for_a_gpu_changes_no_bit_and_ends(tmp_path, monkeypatch, reference):
    asked, threads = [], threading.active_count()
    def as_for_a_gpu(batches, device):
        asked.append(device)
        return prefetch(batches, torch.device('meta'))
    monkeypatch.setattr(Prefetch, '__init__', lambda self, batches, device,
                        real=Prefetch.__init__: real(self, batches, 'cpu'))
    monkeypatch.setattr(pretraining, 'prefetch', as_for_a_gpu)
    assert run(tmp_path / 'ahead') == reference
    assert asked == [torch.device('cpu')] and threading.active_count() == threads


def test_batches_of_another_team_are_refused(tmp_path):
    with pytest.raises(ValueError, match='for 2 processes'):
        pretrain(fresh(), Batches(TEXT, 16, 128, 0, 0, 2), recipe(), tmp_path / 'a')
    assert not (tmp_path / 'a').exists()


def test_a_run_begun_with_another_order_of_the_data_is_refused(tmp_path, monkeypatch, reference):
    stopped(tmp_path / 'a')
    before = contents(tmp_path / 'a')
    with pytest.raises(ValueError, match='in another order'):
        pretrain(fresh(), Batches(TEXT[:-100], 16, 128), recipe(), tmp_path / 'a')
    with monkeypatch.context() as patched, pytest.raises(ValueError, match='in another order'):
        # a version that shuffles otherwise
        patched.setattr(dataset, '_mix', lambda x: x ^ x >> np.uint64(7))
        dataset._stretch.cache_clear()
        run(tmp_path / 'a')
    dataset._stretch.cache_clear()
    assert contents(tmp_path / 'a') == before and run(tmp_path / 'a') == reference


# ---- small parts

def test_queries_keys_and_values_stored_as_one_move_as_three():
    torch.manual_seed(5)
    three, one = (
        [torch.nn.Parameter(torch.ones(32, 32)) for _ in range(3)],
        torch.nn.Parameter(torch.ones(96, 32)),
    )
    grads, exact = torch.randn(96, 32), dict(lr=0.02, dtype=torch.float32)
    one.grad = grads.clone()
    for p, g in zip(three, grads.split(32)): p.grad = g.clone()
    Muon([one], **exact).step(), Muon(three, **exact).step()
    assert (one - torch.cat(three)).abs().max() < 1e-5
    # and the directions against NumPy's
    left, _, right = np.linalg.svd(grads.numpy()[:32])
    assert np.abs(orthogonalize(grads[None, :32], steps=5)[0].numpy() - left @ right).max() < 0.35


def test_muon_decays_beside_its_move():
    plain, with_decay = torch.nn.Parameter(torch.ones(8, 8)), torch.nn.Parameter(torch.ones(8, 8))
    for p, decay in ((plain, 0.0), (with_decay, 0.5)):
        p.grad = torch.eye(8)
        Muon([p], lr=0.1, weight_decay=decay, dtype=torch.float32).step()
    assert (plain - with_decay - 0.05).abs().max() < 1e-6


def test_each_recipe_decays_what_it_says():
    def decayed(name):
        small = fresh()
        names = {p: n for n, p in small.named_parameters()}
        config = TrainConfig(**{'steps': 1, 'tokens_per_step': 128, **name})
        return {
            names[p]
            for o in make_optimizers(small, config)
            for g in o.param_groups
            for p in g['params']
            if g['weight_decay']
        }
    every = {n for n, _ in fresh().named_parameters()}
    assert decayed(PAPER_RECIPE) == {n for n in every if not n.endswith('bias')}
    assert decayed(FAST_RECIPE) == {n for n in every if not n.endswith('bias') and 'ln_' not in n}


def test_the_peaks_and_the_share_of_them_are_arithmetic():
    peaks = {
        'NVIDIA H200': 989e12,
        'Tesla T4': 65e12,
        'NVIDIA L4': 121e12,
        'NVIDIA L40S': 362e12,
        '': None,
        'a new GPU': None,
    }
    assert {name: peak_flops(name) for name in peaks} == peaks
    trainer = Trainer(
        fresh(), recipe(), device=Device('cpu', torch.float32, 'a test', 'NVIDIA A100')
    )
    found = throughput(trainer, 0.5, 120)
    assert found['tokens_per_second'] == 256 and found['minutes_left'] == 2
    assert abs(found['mfu'] - 256 * flops_per_token(CFG) / 312e12) < 1e-18
    assert 'mfu' not in throughput(Trainer(fresh(), recipe(), device=CPU), 0.5, 120)


def test_who_asks_twice_to_stop_is_served_at_once():
    before = signal.getsignal(signal.SIGINT)
    with Stop() as twice:
        signal.raise_signal(signal.SIGTERM)
        assert twice.asked
        with pytest.raises(KeyboardInterrupt): signal.raise_signal(signal.SIGINT)
    # and Ctrl-C is as before
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_that_was_interrupted_by_ctrl_c_ends_as_if_left_alone(tmp_path, reference):
    def ctrl_c(model, step):
        if step == 8: signal.raise_signal(signal.SIGINT)
        return {}
    with pytest.raises(KeyboardInterrupt): run(tmp_path / 'a', evaluate=ctrl_c)
    assert run(tmp_path / 'a') == reference
    steps = [line['step'] for line in read_log(tmp_path / 'a') if 'loss' in line]
    assert steps == list(range(12))
    with pytest.raises(ValueError, match='steps 12 there, 13 here'):
        run(tmp_path / 'a', recipe(steps=13))


def test_a_model_that_begins_with_nan_leaves_nothing(tmp_path):
    bad = fresh()
    bad.wte.weight.data[0] = math.nan
    with pytest.raises(FloatingPointError, match='step 0'): run(tmp_path / 'a', model=bad)
    assert not (tmp_path / 'a/model').exists()


if __name__ == '__main__':
    shutil.rmtree(STORED, ignore_errors=True)
    losses = stored_run(STORED)
    for path in ('model', 'best', 'log.jsonl', 'checkpoints/step-00000006'):
        shutil.rmtree(STORED / path) if (STORED / path).is_dir() else (STORED / path).unlink(
            missing_ok=True
        )
    (STORED / 'losses.json').write_text(json.dumps(losses[3:]))
