"""What `test_killed_runs.py` starts: runs that are killed, `killed_run.py HOW THREADS`.

The first process only forks, waits and compares. It never computes, because a fork of a process
that has computed with several threads hangs.
"""
import contextlib, io, json, os, random, shutil, signal, sys, time
from pathlib import Path

import numpy as np
import torch

import domain_llm.ground.files as files
import domain_llm.train.pretraining as pretraining
import domain_llm.train.runs as runs
from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config
from domain_llm.tokens.dataset import Batches
from domain_llm.train.recipe import FAST_RECIPE, TrainConfig
from small_runs import outcome

HOW, THREADS = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(THREADS)
# large enough that several threads share its sums
TEXT = np.random.default_rng(0).integers(0, 300, 30_000)
CFG = GPT2Config(300, 1, 4, 128, 64, dropout=0.1)
STEPS = 12


def train(folder):
    torch.manual_seed(2)
    config = TrainConfig(steps=STEPS, tokens_per_step=1024, eval_every=4, save_every=3,
                         **FAST_RECIPE)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        pretraining.pretrain(GPT2(CFG), Batches(TEXT, 64, 1024), config, folder, TEXT[:1000])


def life(folder, prepare=None):
    "Train in a process of its own, which may be killed; give its number."
    pid = os.fork()
    if pid: return pid
    try:
        if prepare: prepare()
        train(folder)
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(3)
    os._exit(0)


def end(pid):
    "Wait for a life; say whether it was killed."
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, 'a life failed'
    return os.WIFSIGNALED(status)


def killed_at_random():
    "Kill runs at random moments, a dozen times or more, until each is done; count."
    end(life('left alone'))
    wanted, kills = outcome('left alone'), 0
    start = time.monotonic()
    end(life('again'))
    length = time.monotonic() - start
    assert outcome('again') == wanted, 'two runs that nobody disturbed differ'
    random.seed(os.environ.get('SEED', '0'))
    for attempt in range(20):
        for _ in range(100):
            pid = life(f'run {attempt}')
            time.sleep(random.uniform(0.1, 1) * length / 3)
            os.kill(pid, signal.SIGKILL)
            if not end(pid): break
            kills += 1
        else: end(life(f'run {attempt}'))
        assert outcome(f'run {attempt}') == wanted, attempt
        if kills >= 12: break
    threads = json.loads(Path('left alone/config.json').read_text())['threads']
    return dict(kills=kills, threads=threads)


def dying(nth, which, mounted):
    "Kill this process after the nth write, sync, rename or deletion of one save."
    saves, operations, saving = 0, 0, False
    def watched(real):
        def operation(*args, **kwargs):
            nonlocal operations
            found = real(*args, **kwargs)
            if saving: operations += 1
            if saving and operations == nth: os.kill(os.getpid(), signal.SIGKILL)
            return found
        return operation
    for owner, name in ((runs, 'save_file'), (Path, 'write_bytes'), (os, 'fsync'), (os, 'replace'),
                        (shutil, 'rmtree'), (shutil, 'copytree')):
        setattr(owner, name, watched(getattr(owner, name)))
    save = pretraining.save_checkpoint
    def counted(*args):
        nonlocal saves, saving
        saves += 1
        saving = saves == which
        save(*args)
        saving = False
    def yes(*args): return True
    pretraining.save_checkpoint = counted
    if mounted: files.is_mounted = yes


def killed_inside_a_save():
    "Kill a run after each operation of its third save; count, on a local and a mounted disk."
    end(life('left alone'))
    wanted, found = outcome('left alone'), {}
    for mounted in (False, True):
        found[str(mounted)] = 0
        for nth in range(1, 60, 3 if mounted else 1):
            folder = f'{mounted} {nth}'
            if not end(life(folder, lambda: dying(nth, 3, mounted))): break
            assert not Path(folder, 'model').exists()
            end(life(folder))
            assert outcome(folder) == wanted, folder
            kept = sorted(p.name for p in Path(folder, 'checkpoints').iterdir())
            assert kept == ['step-00000009', 'step-00000012'], kept
            found[str(mounted)] += 1
    return found


print(json.dumps(dict(random=killed_at_random, inside=killed_inside_a_save)[HOW]()))
