"""Score the cases of BrainBench: ours against a plain loop with transformers.

DOMAIN_LLM_DATA=… python benchmarks/scoring.py              the 200 that people made
DOMAIN_LLM_DATA=… python benchmarks/scoring.py --of brainbench --slices 1   all 300, on a GPU
DOMAIN_LLM_DATA=… python benchmarks/scoring.py --cases 12   a quick try instead of all 200 cases
DOMAIN_LLM_DATA=… python benchmarks/scoring.py --model smollm2   weights that load_model finds

The weights are random and made here (124M, seed 0), the tokenizer is the paper's, the protocol is
the paper's. The ways take turns on slices of the cases. A time is the sum over the slices, a ratio
that of the sums. Where there is a GPU the ways are measured on it, and the CPU gives only the
values that they are compared with. With --model the weights and the tokenizer are that model's, and
the plain loop is compared with `score_cases` of the same model.
"""
import argparse, os, tempfile, time
from pathlib import Path

import numpy as np
import torch
import transformers

from domain_llm.tokens.tokenizer import load_tokenizer
from domain_llm.bench.cases import load_cases
from domain_llm.bench.losses import PROMPT, backend_tokenizer
from domain_llm.bench.scores import score_cases
from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config
from domain_llm.model.models import load_model
from domain_llm.model.weights import save_model
from machine import machine


def plain_loop(model, tokenizer, cases):
    "Read every prompt on its own, as the paper's code does; give ln PPL of both versions (n, 2)."
    device, found = model.device, []
    with torch.no_grad():
        for case in cases:
            for text in (case.original, case.altered):
                read = backend_tokenizer(tokenizer).encode((PROMPT + text).strip())
                ids = torch.tensor([read.ids], device=device)
                found.append(model(ids, labels=ids).loss.item())
    return np.array(found).reshape(-1, 2)


def ours(model, tokenizer, cases, **how):
    "Score with `score_cases`; give ln PPL of both versions (n, 2)."
    return np.log(
        score_cases(model, tokenizer, cases, 'paper', **how)
        .frame[['original', 'altered']]
        .to_numpy()
    )


def timed(way, *args):
    "Run a way once; give its result and its seconds, on a processor those of its own work."
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    start = clock()
    found = way(*args)
    if torch.cuda.is_available(): torch.cuda.synchronize()
    return found, clock() - start


def measure(ways, tokenizer, cases, slices):
    "Let the ways take turns on slices; give {way: (ln PPL (n, 2), seconds per slice)}."
    few = cases[:60 if torch.cuda.is_available() else 1]  # a GPU first loads what it computes with
    for way in ways.values(): way(tokenizer, few)                                          # warm up
    found = {name: ([], []) for name in ways}
    for k, part in enumerate(np.array_split(np.arange(len(cases)), slices)):
        order = list(ways.items())
        for name, way in order[k % len(order):] + order[:k % len(order)]:
            values, seconds = timed(way, tokenizer, [cases[i] for i in part])
            found[name][0].append(values)
            found[name][1].append(seconds)
    return {
        name: (np.concatenate(values), np.array(seconds))
        for name, (values, seconds) in found.items()
    }


def show(device, found, cases):
    "Print a device's rows, compared with the first; give changed choices."
    (base, base_seconds), notes = next(iter(found.values())), []
    for name, (values, seconds) in found.items():
        ratios, total = base_seconds / seconds, base_seconds.sum() / seconds.sum()
        changed = np.flatnonzero(np.argmin(values, 1) != np.argmin(base, 1))
        print(
            f'| {device} | {name} | {seconds.sum():.1f} | {len(cases) / seconds.sum():.1f} | '
            f'{total:.2f} | {ratios.min():.2f} to {ratios.max():.2f} | '
            f'{abs(values - base).max():.1e} | {len(changed)} |'
        )
        before, after = base[:, 1] - base[:, 0], values[:, 1] - values[:, 0]
        margins = [
            f'case {cases[i].id} (margin {before[i]:+.1e} → {after[i]:+.1e})' for i in changed
        ]
        if margins: notes.append(f"Changed choices, {device}, {name}: {'; '.join(margins)}.")
    return notes


def ways_on(model, judge):
    "List the ways to score, the plain loop first; ours only where there is a model of ours."
    if model is None:
        name = type(judge).__name__
        return {f'plain loop, {name}, fp32': lambda t, c: plain_loop(judge, t, c),
                f'`score_cases`, {name}, fp32': lambda t, c: ours(judge, t, c)}
    def coarser(t, c):
        torch.backends.cuda.matmul.allow_tf32 = True
        try: return ours(model, t, c)
        finally: torch.backends.cuda.matmul.allow_tf32 = False
    tf32 = {'`score_cases`, our GPT2, fp32 by products in TF32': coarser}
    return {'plain loop, transformers, fp32': lambda t, c: plain_loop(judge, t, c),
            '`score_cases`, our GPT2, fp32': lambda t, c: ours(model, t, c),
            **(tf32 if torch.cuda.is_available() else {}),
            '`score_cases`, our GPT2, bf16': lambda t, c: ours(model, t, c, dtype='bfloat16'),
            '`score_cases`, transformers, fp32': lambda t, c: ours(judge, t, c)}


def random_gpt2():
    "Make a model of GPT-2's size, ours and theirs, and read the paper's tokenizer."
    torch.manual_seed(0)
    model = GPT2(GPT2Config()).eval()
    with tempfile.TemporaryDirectory() as home:
        save_model(model, f'{home}/model')
        judge = transformers.AutoModelForCausalLM.from_pretrained(
            f'{home}/model', dtype=torch.float32
        ).eval()
    tokenizers = Path(os.environ['DOMAIN_LLM_DATA']) / 'tokenizers'
    return model, judge, load_tokenizer(tokenizers / 'neuro')


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--of', default='brainbench-human', help='a name that load_cases knows')
    parser.add_argument('--cases', type=int, help='only so many')
    parser.add_argument('--slices', type=int, default=4)
    parser.add_argument('--model', help='a name or folder that load_model reads by transformers')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if not os.environ.get('DOMAIN_LLM_DATA'):
        parser.error("needs DOMAIN_LLM_DATA for the cases and the paper's tokenizer")
    cases = load_cases(chosen.of)[:chosen.cases]
    if chosen.model:
        model, (judge, tokenizer) = None, load_model(chosen.model)
        about = f'of {chosen.model}, its tokenizer'
    else:
        model, judge, tokenizer = random_gpt2()
        about = "that are random, the paper's tokenizer"
    print(
        f"\n{machine('torch', 'transformers')}, {torch.get_num_threads()} threads; {len(cases)} "
        f"cases, {sum(p.numel() for p in judge.parameters()):,} parameters {about} and the paper's "
        'protocol\n'
    )
    print(
        '| on | way | seconds | cases/s | times as fast | in the slices | largest Δ ln PPL | '
        'changed choices |\n|---|---|---|---|---|---|---|---|'
    )
    device, few = 'CPU', cases[:20]
    if torch.cuda.is_available():
        exact = ours(model or judge, tokenizer, few)
        device, model, judge = torch.cuda.get_device_name(), model and model.cuda(), judge.cuda()
    found = measure(ways_on(model, judge), tokenizer, cases, chosen.slices)
    notes = show(device, found, cases)
    if device != 'CPU':
        far = {way: abs(values[:len(few)] - exact).max() for way, (values, _) in found.items()}
        notes.append(f'Largest Δ ln PPL from the CPU in float32, over {len(few)} cases: '
                     + ', '.join(f'{way} {largest:.1e}' for way, largest in far.items()) + '.')
    print('\n' + '\n\n'.join(notes or ['No choice changed.']))


if __name__ == '__main__': main()
