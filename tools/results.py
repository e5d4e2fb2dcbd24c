"""Run the slow cells of lessons that keep results in the package, to compare or store them."""
import os, subprocess, sys

from domain_llm.ground.course import device_kind
from notebooks import ROOT, lessons, sources


def keepers():
    "List the lessons that keep results."
    calls = {path: '\n'.join(sources(path, 'code')) for path in lessons()}
    return [path for path, code in calls.items()
            if 'keep_results(' in code and 'def keep_results' not in code]


def run_all(chosen, store):
    "Run every cell of some lessons, one after another, and end with 1 if one of them failed."
    env = {**os.environ, 'DOMAIN_LLM_STORE': str(int(store))}
    if not env.get('DOMAIN_LLM_DATA'): print('DOMAIN_LLM_DATA is not set: some cells only say so')
    flags, failed = 'slow data real gpu', []
    if device_kind()[0] == 'CPU':
        flags = flags.removesuffix(' gpu')
        print('no GPU is here: cells that need one are left out')
    for path in chosen or keepers():
        print(f'=== {path.name}', flush=True)
        command = ['nbdev_test', '--path', path, '--flags', flags, '--n_workers', '0']
        if subprocess.run([*command, '--do_print'], cwd=ROOT, env=env).returncode:
            failed.append(path.name)
    if failed: sys.exit(f'not as stored: {", ".join(failed)}')
