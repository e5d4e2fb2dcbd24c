"""Runs that go on otherwise: compiled, from a stored checkpoint, with batches read ahead."""
import json, shutil, threading
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import BATCHES, TEXT, fresh, recipe, run

import domain_llm.tokens.dataset as dataset
import domain_llm.train.pretraining as pretraining
from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config
from domain_llm.tokens.dataset import Batches, Prefetch, prefetch
from domain_llm.train.distributed import Trainer
from domain_llm.train.pretraining import pretrain
from domain_llm.train.recipe import FAST_RECIPE, Device, TrainConfig
from domain_llm.train.runs import read_log

pytestmark = pytest.mark.usefixtures('one_thread')
# made by `python tests/train/test_resumed_runs.py`
STORED = Path(__file__).with_name('stored_run')


def stopped(folder, model=None):
    "Stop a run after step 8 of 12, with two checkpoints."
    def stop(model, step):
        if step == 8: raise RuntimeError('stop here')
        return {}
    with pytest.raises(RuntimeError, match='stop here'): run(folder, model=model, evaluate=stop)


def test_new_checkpoints_stay_beside_damaged_later_ones(tmp_path, capsys, reference):
    stopped(tmp_path / 'a')
    kept = tmp_path / 'a/checkpoints'
    for damaged in kept.iterdir(): (damaged / 'state.safetensors').write_bytes(b'half')
    def stop(model, step):
        if step == 2: raise RuntimeError('stop here')
        return {}
    often = recipe(save_every=1, eval_every=2)
    with pytest.raises(RuntimeError, match='stop here'): run(tmp_path / 'a', often, evaluate=stop)
    assert [path.name[-1] for path in sorted(kept.iterdir())] == ['1', '2', '3', '6']
    capsys.readouterr()
    assert run(tmp_path / 'a') == reference
    assert 'resuming at step 2' in capsys.readouterr().out
    assert [path.name[-2:] for path in sorted(kept.iterdir())] == ['09', '12']


def compiled(): return torch.compile(fresh(), backend='eager')


def test_checkpoints_of_a_compiled_model_load_into_a_plain_one_and_back(tmp_path, reference):
    stopped(tmp_path / 'a')
    assert run(tmp_path / 'a', model=compiled()) == reference
    stopped(tmp_path / 'b', compiled())
    assert run(tmp_path / 'b') == reference


def test_a_weighted_step_is_the_same_compiled_and_in_pieces():
    def loss(model, ids, targets):
        weights = ids % 3 / 2 * (ids[:, :1] % 2)   # (B, T)
        return model(ids, targets, weights) * weights.mean()
    found, cpu = [], Device('cpu', torch.float32, 'a test')
    # row by row, the shape that `try_compile` has compiled already
    for how in (dict(micro_batch_size=8), dict(micro_batch_size=1, compile=True)):
        trainer = Trainer(fresh(), recipe(**how), device=cpu, loss=loss)
        found.append([trainer.update(BATCHES[step], step + 3) for step in range(4)])
    assert found[0][-1][0] > 0 and np.allclose(*found, rtol=1e-3)


def test_each_step_is_compiled_also_between_samples_and_evaluations(tmp_path, monkeypatch):
    "Count the graphs that are made, and those that run in each step."
    made, ran, each, compile, update = [], [], [], torch.nn.Module.compile, Trainer.update
    def counting(graph, inputs):
        made.append(graph)
        def called(*args):
            ran.append(graph)
            return graph.forward(*args)
        return called
    def counted(self, batch, step):
        before = len(ran)
        found = update(self, batch, step)
        each.append((len(ran) - before, len(made)))
        return found
    def sample(model, step):
        return dict(text=model.generate(torch.zeros(1, 1, dtype=torch.long), 15).tolist())
    def compiled_by_counting(self, **how): compile(self, backend=counting, **how)
    monkeypatch.setattr(torch.nn.Module, 'compile', compiled_by_counting)
    monkeypatch.setattr(Trainer, 'update', counted)
    torch.compiler.reset()
    low = Device('cpu', torch.bfloat16, 'as on an H200')
    config = recipe(steps=5, compile=True, micro_batch_size=4, eval_every=2)
    run(tmp_path / 'a', config, device=low, evaluate=sample)
    # two graphs, made in the precision of the run: for two blocks, and for the loss, in each of two
    # micro-batches
    assert len(made) == 2 and set(each[1:]) == {(6, 2)}


class Plain:
    "Batches that do not depend on how lesson 21 shuffles."
    def __getitem__(self, step):
        rows = (TEXT[17 * step:17 * step + 18].reshape(2, 9) % 16)
        return rows[:, :-1], rows[:, 1:]


def stored_run(folder):
    torch.manual_seed(5)
    config = TrainConfig(**{**FAST_RECIPE, 'steps': 6, 'tokens_per_step': 16, 'save_every': 3})
    pretrain(GPT2(GPT2Config(16, 1, 2, 8, 8)), Plain(), config, folder)
    return [line['loss'] for line in read_log(folder) if 'loss' in line]


def test_a_checkpoint_stored_long_ago_goes_on(tmp_path, capsys):
    shutil.copytree(STORED, tmp_path / 'a')
    losses = stored_run(tmp_path / 'a')
    assert 'resuming at step 3' in capsys.readouterr().out
    assert np.allclose(losses, json.loads((STORED / 'losses.json').read_text()), atol=1e-4)


def test_reading_ahead_for_a_gpu_changes_no_bit_and_ends(tmp_path, monkeypatch, reference):
    asked, threads = [], threading.active_count()
    def as_for_a_gpu(batches, device):
        asked.append(device)
        return prefetch(batches, torch.device('meta'))
    def on_the_cpu(self, batches, device, real=Prefetch.__init__): real(self, batches, 'cpu')
    monkeypatch.setattr(Prefetch, '__init__', on_the_cpu)
    monkeypatch.setattr(pretraining, 'prefetch', as_for_a_gpu)
    assert run(tmp_path / 'ahead') == reference
    assert asked == [torch.device('cpu')] and threading.active_count() == threads


def contents(folder): return {p: p.read_bytes() for p in Path(folder).rglob('*') if p.is_file()}


def test_a_run_with_another_order_of_the_data_is_untouched(tmp_path, monkeypatch, reference):
    stopped(tmp_path / 'a')
    before = contents(tmp_path / 'a')
    with pytest.raises(ValueError, match='in another order'):
        pretrain(fresh(), Batches(TEXT[:-100], 16, 128), recipe(), tmp_path / 'a')
    def mixed_otherwise(x): return x ^ x >> np.uint64(7)
    with monkeypatch.context() as patched, pytest.raises(ValueError, match='in another order'):
        patched.setattr(dataset, '_mix', mixed_otherwise)
        dataset._stretch.cache_clear()
        run(tmp_path / 'a')
    dataset._stretch.cache_clear()
    assert contents(tmp_path / 'a') == before and run(tmp_path / 'a') == reference


if __name__ == '__main__':
    shutil.rmtree(STORED, ignore_errors=True)
    losses = stored_run(STORED)
    for folder in 'model', 'best', 'checkpoints/step-00000006':
        shutil.rmtree(STORED / folder, ignore_errors=True)
    (STORED / 'log.jsonl').unlink()
    (STORED / 'losses.json').write_text(json.dumps(losses[3:]))
