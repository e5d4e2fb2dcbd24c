"""What `test_killed_runs.py` starts: runs that are killed, `killed_run.py HOW THREADS`.

The first process only forks, waits and compares. It never computes, because a fork of a process
that has computed with several threads hangs.
"""
import contextlib, io, json, os, random, shutil, signal, sys, time
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

import domain_llm.ground.files as files
import domain_llm.train.pretraining as pretraining
import domain_llm.train.runs as runs
from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config
from domain_llm.tokens.dataset import Batches
from domain_llm.train.finetuning import LORA_RECIPE, add_lora
from domain_llm.train.recipe import FAST_RECIPE, TrainConfig
from small_runs import outcome

HOW, THREADS = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(THREADS)
late = ['torch.distributed.checkpoint.state_dict', 'torch._dynamo']
for name in [*late, 'peft'] if HOW == 'adapter' else late:
    import_module(name)     # or each life would import it anew, at three times its own work
CFG, TOKENS, STEPS = GPT2Config(50, 2, 2, 32, 16, dropout=0.1), 128, dict(random=24).get(HOW, 12)
if HOW == 'once':      # large enough that several threads share its sums
    CFG, TOKENS, STEPS = GPT2Config(300, 1, 4, 128, 64, dropout=0.1), 2048, 6
TEXT = np.random.default_rng(0).integers(0, CFG.vocab_size, 20_000)


def start():
    "Make what is trained: a model, or with `adapter` one whose weights stay."
    torch.manual_seed(2)
    return add_lora(GPT2(CFG)) if HOW == 'adapter' else GPT2(CFG)


def train(folder, evaluate=None):
    recipe = LORA_RECIPE if HOW == 'adapter' else FAST_RECIPE
    config = TrainConfig(steps=STEPS, tokens_per_step=TOKENS, eval_every=4, save_every=3, **recipe)
    batches = Batches(TEXT, CFG.n_ctx, TOKENS)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        pretraining.pretrain(start(), batches, config, folder, TEXT[:500], evaluate)


def life(folder, prepare=None, evaluate=None):
    "Train in a process of its own, which may be killed; give its number."
    pid = os.fork()
    if pid: return pid
    try:
        if prepare: prepare()
        train(folder, evaluate)
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
    start = time.monotonic()
    end(life('left alone'))
    wanted, length, kills = outcome('left alone'), time.monotonic() - start, 0
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
    return dict(kills=kills)


def killed_once():
    "Kill a run in its fifth step, and let it go on; say with how many threads it computed."
    def die(model, step):
        if step == 4: os.kill(os.getpid(), signal.SIGKILL)
        return {}
    for folder in 'left alone', 'again': assert not end(life(folder))
    wanted = outcome('left alone')
    assert outcome('again') == wanted, 'two runs that nobody disturbed differ'
    assert end(life('killed', evaluate=die)) and not Path('killed', 'model').exists()
    assert not end(life('killed'))
    assert outcome('killed') == wanted, 'a run that was killed differs from one left alone'
    return dict(threads=json.loads(Path('killed/config.json').read_text())['threads'])


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


ways = dict(random=killed_at_random, once=killed_once, inside=killed_inside_a_save,
            adapter=killed_once)
print(json.dumps(ways[HOW]()))
