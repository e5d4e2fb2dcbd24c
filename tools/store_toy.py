"""Train the demo's model and store it, in half precision, with its tokenizer and its log where `stored_model` finds it.

python tools/store_toy.py            trains in a temporary folder; about four minutes on two quiet cores
python tools/store_toy.py FOLDER     trains in a folder that stays, goes on there, or only stores what is finished

`benchmarks/demo.py --store` calls it for its first seed, so that the stored curves and the stored model are of one run.
"""
import copy, json, shutil, subprocess, sys, tempfile
from pathlib import Path

from domain_llm.bench.scores import score_cases
from domain_llm.ground.files import write_whole
from domain_llm.model.weights import TOY, load_model, save_model
from domain_llm.text.synthetic import SyntheticScience
from domain_llm.tokens.tokenizer import load_tokenizer
from domain_llm.train.runs import read_log


def short_log(run):
    "Keep what was looked at along the way, samples of text included, and the loss of every tenth step."
    lines = read_log(run / 'pretrain')
    return [
        {
            k: line[k]
            for k in ('step', 'loss', 'smoothed', 'validation_loss', 'sample', 'accuracy')
            if k in line
        }
        for line in lines
        if 'validation_loss' in line or line['step'] % 10 == 0
    ]


def store(run, folder):
    "Write a run's model, tokenizer and log; say what half precision has cost."
    model, tokenizer = load_model(run / 'pretrain/model'), load_tokenizer(run / 'tokenizer')
    with tempfile.TemporaryDirectory() as home:
        save_model(copy.deepcopy(model).half(), Path(home) / 'toy', tokenizer)
        folder.mkdir(exist_ok=True)
        for path in Path(home, 'toy').glob('[!.]*'): shutil.copyfile(path, folder / path.name)
    write_whole(folder / 'log.jsonl', ''.join(json.dumps(line) + '\n' for line in short_log(run)))
    cases = SyntheticScience(0).cases()
    exact, short = (score_cases(m, tokenizer, cases, prompt='', name=name)
                    for m, name in ((model, 'as trained'), (load_model(folder), 'as stored')))
    print(exact, short, sep='\n')
    print(f'other answers: {(exact.correct != short.correct).sum()}, '
          f'{sum(p.stat().st_size for p in folder.iterdir()):,} bytes in {folder.name}')


def main(run):
    "Run the demo, and store what it has trained."
    subprocess.run([sys.executable, '-m', 'domain_llm', 'demo', '--out', str(run)], check=True)
    store(run, TOY)


if len(sys.argv) > 1: main(Path(sys.argv[1]))
else:
    with tempfile.TemporaryDirectory() as folder: main(Path(folder) / 'demo')
