"""How the tests of this part start processes."""
import json, os, runpy, subprocess, sys
from pathlib import Path

from forks import fork, said_into
from torch.distributed import TCPStore

HERE = Path(__file__).parent
ENV = {**os.environ, 'OMP_NUM_THREADS': '1', 'TOKENIZERS_PARALLELISM': 'false',
       'PYTHONWARNINGS': 'ignore', 'HF_HUB_OFFLINE': '1'}
TORCHRUN = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']


def launch(*command, ok=True, **how):
    "Run a command; unless it may fail, show what it said when it does."
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          timeout=240, **{'env': ENV, **how})
    assert not ok or done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def in_a_process(*arguments, **how):
    "Run Python; give what it printed last, read as JSON."
    return json.loads(launch(sys.executable, *arguments, **how).stdout.splitlines()[-1])


def one_rank(env, folder, words):
    "Run a script as one of several processes; write down what it says."
    os.environ.update(env)
    os.chdir(folder)
    sys.argv = [str(word) for word in words]
    said_into(f"said-{env['RANK']}", runpy.run_path, sys.argv[0], None, '__main__')


def on_ranks(world_size, folder, *words, ok=True):
    "Run a script as torchrun does, in forks of one process; give what they said."
    store = TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)
    env = dict(WORLD_SIZE=str(world_size), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(store.port),
               TORCHELASTIC_RUN_ID='tests', TORCHELASTIC_USE_AGENT_STORE='True',
               TORCHELASTIC_RESTART_COUNT='0') if world_size > 1 else {}
    ranks = [fork(one_rank, env | dict(RANK=str(n)), folder, words) for n in range(world_size)]
    for rank in ranks:
        rank.join(240)
        rank.kill()  # it waits for one that has failed
    assert not ok or [rank.exitcode for rank in ranks] == [0] * world_size
    return ''.join(Path(folder, f'said-{n}').read_text() for n in range(world_size))


def on_one_rank(folder, *words):
    "Run a script in a process that need not import PyTorch anew; give its last line as JSON."
    return json.loads(on_ranks(1, folder, *words).splitlines()[-1])
