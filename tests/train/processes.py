"""How the tests of this part start processes."""
import json, os, subprocess, sys
from pathlib import Path

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
