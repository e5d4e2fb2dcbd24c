"""Functions that kill their process at a chosen call, for tests of what a kill leaves behind."""
import os, signal, time
from pathlib import Path


def dying_after(calls):
    "Give a wrapper: functions wrapped with it share `calls` calls, and the next one kills."
    left = calls
    def wrap(real):
        def call(*args, **kwargs):
            nonlocal left
            left -= 1
            if left < 0: os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)
        return call
    return wrap


def in_a_fork(act):
    "Call a function in a fork of this process; give its exit code, negative for a signal."
    pid = os.fork()
    if pid: return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        act()
        os._exit(0)
    finally: os._exit(1)


def read_or_die(files, out, options):
    "Read some files as a worker does, but die in the middle where one is called 11.xml."
    from domain_llm.text import documents
    if any(name == '11.xml' for name, _ in files):
        open(f'{out}.part', 'w').write('half')
        os.kill(os.getpid(), signal.SIGKILL)
    return documents._read_whole(files, out, options)


def encode_or_die(made_from, texts):
    "Encode some texts as a worker does, but die at rat 40."
    from domain_llm.tokens import dataset
    if any(text.startswith('rat 40 ') for text in texts): os.kill(os.getpid(), signal.SIGKILL)
    return dataset._encode(made_from, texts)


def wait_here(folder):
    "Say that a worker has begun, and wait for its end."
    Path(folder, str(os.getpid())).touch()
    time.sleep(600)


def all_end(pids, seconds=30):
    "Say whether processes end in time."
    stats = {pid: Path(f'/proc/{pid}/stat') for pid in pids}
    def alive(): return [p for p, s in stats.items() if s.exists() and ' Z ' not in s.read_text()]
    deadline = time.monotonic() + seconds
    while alive() and time.monotonic() < deadline: time.sleep(0.1)
    return not alive()
