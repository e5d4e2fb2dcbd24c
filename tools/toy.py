"""Train the demo's model and store it with its tokenizer and its log, for `stored_model`.

It is stored in half precision. `benchmarks/demo.py --store` stores its first seed, so that the
stored curves and the stored model are of one run.
"""
import copy, json, shutil, subprocess, sys, tempfile
from pathlib import Path

from domain_llm.bench.scores import score_cases
from domain_llm.ground.files import write_whole
from domain_llm.model.weights import TOY, load_gpt2, save_model
from domain_llm.text.synthetic import SyntheticScience
from domain_llm.tokens.tokenizer import load_tokenizer
from domain_llm.train.runs import read_log


KEPT = ('step', 'loss', 'smoothed', 'validation_loss', 'sample', 'accuracy')


def short_log(run):
    "Keep what was measured along the way, with samples of text, and the loss of every tenth step."
    lines = read_log(run / 'pretrain')
    lines = [x for x in lines if 'validation_loss' in x or x['step'] % 10 == 0]
    return [{k: line[k] for k in KEPT if k in line} for line in lines]


def store(run, folder):
    "Write a run's model, tokenizer and log; say what half precision has cost."
    model, tokenizer = load_gpt2(run / 'pretrain/model'), load_tokenizer(run / 'tokenizer')
    with tempfile.TemporaryDirectory() as home:
        save_model(copy.deepcopy(model).half(), Path(home) / 'toy', tokenizer)
        folder.mkdir(exist_ok=True)
        for path in Path(home, 'toy').glob('[!.]*'): shutil.copyfile(path, folder / path.name)
    write_whole(folder / 'log.jsonl', ''.join(json.dumps(line) + '\n' for line in short_log(run)))
    cases = SyntheticScience(0).cases()
    both = {'as trained': model, 'as stored': load_gpt2(folder)}
    exact, short = (score_cases(m, tokenizer, cases, prompt='', name=n) for n, m in both.items())
    print(exact, short, sep='\n')
    print(f'other answers: {(exact.correct != short.correct).sum()}, '
          f'{sum(p.stat().st_size for p in folder.iterdir()):,} bytes in {folder.name}')


def make(folder=None):
    "Run the demo in a folder, or in one that goes again, and store what it has trained."
    if folder is None:
        with tempfile.TemporaryDirectory() as home: return make(Path(home) / 'demo')
    subprocess.run([sys.executable, '-m', 'domain_llm', 'demo', '--out', str(folder)], check=True)
    store(folder, TOY)
