"""Processes that tests start as forks of one that has imported what takes long."""
import multiprocessing, os
from contextlib import redirect_stderr, redirect_stdout

# what each process would import anew, the optimizers' at their first step
IMPORTED = ['domain_llm.app.cli', 'domain_llm.train.pretraining', 'domain_llm.experts.report',
            'domain_llm.text.documents', 'datasets', 'torch._dynamo', 'torch.distributed.fsdp',
            'torch.distributed.checkpoint.state_dict']


def fork(work, *arguments):
    "Start a function in a fork; `exitcode` says how it ended, negative for a signal."
    forks = multiprocessing.get_context('forkserver')
    forks.set_forkserver_preload(IMPORTED)
    os.environ.setdefault('GOMP_SPINCOUNT', '1000')  # threads that wait leave the cores to others
    process = forks.Process(target=work, args=arguments)
    process.start()
    return process


def said_into(path, work, *arguments):
    "Call a function in this process; write down what it prints."
    with open(path, 'w') as said, redirect_stdout(said), redirect_stderr(said): work(*arguments)
