"""Measure training on one large GPU: python benchmarks/gpu.py [--nanogpt FOLDER] [--smoke]

124M parameters, context 1,024, bfloat16 (what `device_info` chooses). In under eight minutes:
(1) tokens per second, share of the card's own measured matrix rate (MFU) and peak memory, compiled and eager, at the
best micro-batch; (2) nanoGPT's own step, when its folder is given, alternating with ours; (3) PAPER against FAST, loss
over tokens. Needs torch, numpy, safetensors, tokenizers and this repository. `--smoke` runs all of it tiny on a CPU.
A figure that was not measured says so.
"""
import argparse, contextlib, io, itertools, math, platform, statistics, sys, tempfile, time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from domain_llm.gpt2 import GPT2, GPT2Config, flops_per_token, num_params
from domain_llm.pretrain import FAST_RECIPE, PAPER_RECIPE, TrainConfig, Trainer, device_info, validation_loss
from domain_llm.tokens import Batches, NGram

PAPER_SPEED = 36_000                                # tokens/s of one of the paper's GPUs
BARS = dict(mfu=0.55, nanogpt=1.25, paper=10)       # what we aim at


@dataclass(frozen=True)
class Plan:
    "Hold what is measured: the real thing, or tiny on a CPU."
    cfg: GPT2Config = GPT2Config(vocab_size=50_257)
    micro: tuple = (16, 32, 64)       # rows of a micro-batch to try
    pieces: int = 4                   # micro-batches in a step
    seconds: float = 8                # how long each speed is measured
    matrix: int = 8192                # side of the matrices whose product gives the card's rate
    curve_steps: int = 100            # steps of PAPER and of FAST
    curve_rows: int = 128             # rows of a step of the curves
    minutes: float = 8                # all in all
    compile: bool = True              # a smoke test does not wait for compilers
SMOKE = Plan(GPT2Config(256, 2, 2, 32, 32), (2, 4), 2, 0.2, 128, 12, 8, 2, False)


def wait():
    "Let the device finish, so that the clock is right."
    if torch.cuda.is_available(): torch.cuda.synchronize()


def rate(work, seconds):
    "Give how often a second some work is done: the median of three rounds after one that does not count."
    work(), wait()
    start = time.perf_counter()
    work(), wait()
    n, rates = max(1, int(seconds / 3 / (time.perf_counter() - start))), []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(n): work()
        wait()
        rates.append(n / (time.perf_counter() - start))
    return statistics.median(rates)


def matrix_rate(plan, device):
    "Measure the card's floating-point operations per second on square matrices in the training precision."
    a, b = (torch.randn(plan.matrix, plan.matrix, device=device.device, dtype=device.dtype) for _ in range(2))
    return 2 * plan.matrix ** 3 * rate(lambda: a @ b, plan.seconds)


def noise(plan, rows, seed=0):
    "Make random ids: speed does not depend on what is read."
    ids = np.random.default_rng(seed).integers(0, plan.cfg.vocab_size, rows * plan.cfg.n_ctx * 2 + 1).astype(np.uint16)
    return Batches(ids, plan.cfg.n_ctx, rows * plan.cfg.n_ctx)


def our_step(plan, micro, compiled, recipe=FAST_RECIPE):
    "Prepare one of our steps; give the function that makes it and the tokens it reads."
    tokens = micro * plan.pieces * plan.cfg.n_ctx
    config = TrainConfig(**{**recipe, 'steps': 10**6, 'tokens_per_step': tokens, 'micro_rows': micro,
                            'compile': compiled and plan.compile})
    trainer, batch = Trainer(GPT2(plan.cfg), config), noise(plan, micro * plan.pieces)[0]
    step = itertools.count(1000)
    def work():
        trainer.update(batch, next(step))
        if trainer.rows != micro: raise torch.OutOfMemoryError(f'{micro} rows do not fit')
    return work, tokens


def their_step(plan, micro, folder, device):
    "Prepare nanoGPT's own step: its model, its fused AdamW, its loop's accumulation, compiled as a whole."
    sys.path.insert(0, str(folder))
    from model import GPT, GPTConfig
    c = plan.cfg
    with contextlib.redirect_stdout(io.StringIO()):
        config = GPTConfig(block_size=c.n_ctx, vocab_size=-(-c.vocab_size // 64) * 64, n_layer=c.n_layer,
                           n_head=c.n_head, n_embd=c.n_embd, dropout=0.0, bias=False)
        model = GPT(config).to(device.device)
        optimizer = model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), device.device)
    model = torch.compile(model) if plan.compile else model
    x, y = (torch.from_numpy(t).contiguous().to(device.device) for t in noise(plan, micro)[0])
    mixed = device.dtype != torch.float32
    def work():
        for _ in range(plan.pieces):
            with torch.autocast(device.device, device.dtype, enabled=mixed): loss = model(x, y)[1] / plan.pieces
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()
    return work, micro * plan.pieces * c.n_ctx


def speed(prepare, plan):
    "Give tokens per second and peak GiB, or what stopped it."
    if torch.cuda.is_available(): torch.cuda.empty_cache(), torch.cuda.reset_peak_memory_stats()
    try:
        work, tokens = prepare()
        per_second = tokens * rate(work, plan.seconds)
    except torch.OutOfMemoryError: return None, 'out of memory'
    except ImportError as error: return None, f'no {error.name}'
    return per_second, torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None


def speeds(plan, device, nanogpt, peak, late):
    "Print the table of speeds."
    print("| step | micro-batch | tokens/s | MFU of the measured rate | times the paper's GPU | peak GiB |\n"
          "|---|---|---|---|---|---|")
    found = {}
    ways = [('ours, FAST, compiled', lambda m: our_step(plan, m, True)),
            ('ours, FAST, eager', lambda m: our_step(plan, m, False)),
            ('ours, AdamW, compiled', lambda m: our_step(plan, m, True, {**FAST_RECIPE, 'muon_lr': 0.0}))]
    if nanogpt: ways.append(('nanoGPT, compiled', lambda m: their_step(plan, m, nanogpt, device)))
    tries = [(way, micro) for way in ways for micro in plan.micro if way[0].endswith('compiled')] + [(ways[1], None)]
    for (name, prepare), micro in sorted(tries, key=lambda t: t[0][0] not in (ways[0][0], ways[-1][0])):
        micro = micro or max(found.get(ways[0][0], (0, 0, plan.micro[0]))[2:])    # eager: where compiled was best
        if late(): print(f'| {name} | {micro} | not measured: no time left | | | |'); continue
        got, memory = speed(lambda: prepare(micro), plan)
        if got is None: print(f'| {name} | {micro} | not measured: {memory} | | | |'); continue
        mfu, gib = got * flops_per_token(plan.cfg) / peak, f'{memory:.1f}' if memory else 'not measured'
        print(f'| {name} | {micro} | {got:,.0f} | {mfu:.1%} | {got / PAPER_SPEED:.1f} | {gib} |', flush=True)
        if got > found.get(name, (0, 0))[0]: found[name] = got, mfu, micro
    if not nanogpt: print('| nanoGPT, compiled | | not measured: give --nanogpt | | | |')
    return found


def bars(found):
    "Say which bars are reached."
    ours, theirs = found.get('ours, FAST, compiled'), found.get('nanoGPT, compiled')
    say = lambda what, got, bar: print(f'- {what}: {"not measured" if got is None else f"{got:.2f}"} (bar {bar:g})')
    say('share of the measured matrix rate', ours and ours[1], BARS['mfu'])
    say("times nanoGPT's tokens per second", ours[0] / theirs[0] if ours and theirs else None, BARS['nanogpt'])
    say("times the tokens per second of one of the paper's GPUs", ours and ours[0] / PAPER_SPEED, BARS['paper'])


def text(plan, n):
    "Make text with something to learn: words drawn by a power law, each followed by one of four."
    rng = np.random.default_rng(1)
    follow = rng.zipf(1.3, (plan.cfg.vocab_size, 4)) % plan.cfg.vocab_size
    ids, choice, new = np.empty(n, np.uint16), rng.integers(0, 4, n), rng.random(n) < 0.1
    fresh, now = rng.zipf(1.3, n) % plan.cfg.vocab_size, 0
    for i in range(n):
        now = fresh[i] if new[i] else follow[now, choice[i]]
        ids[i] = now
    return ids


def curves(plan, late):
    "Print PAPER's and FAST's validation loss over tokens."
    tokens = plan.curve_rows * plan.cfg.n_ctx
    ids = text(plan, min(20_000_000, plan.curve_steps * tokens // 2) + 20 * plan.cfg.n_ctx)
    held_out, train = ids[:20 * plan.cfg.n_ctx], ids[20 * plan.cfg.n_ctx:]
    batches, lines = Batches(train, plan.cfg.n_ctx, tokens), {}
    for name, recipe in (('PAPER', PAPER_RECIPE), ('FAST', {**FAST_RECIPE, 'lr': 3e-3})):
        torch.manual_seed(0)
        config = TrainConfig(**{**recipe, 'steps': plan.curve_steps, 'tokens_per_step': tokens})
        trainer, lines[name] = Trainer(GPT2(plan.cfg), config), {}
        for step in range(plan.curve_steps + 1):
            if step % (plan.curve_steps // 4) == 0:
                lines[name][step * tokens] = validation_loss(trainer.model, held_out, rows=4, device=trainer.device)
            if step == plan.curve_steps or late(): break
            trainer.update(batches[step], step)
    print(f'| tokens | PAPER | FAST |\n|---|---|---|')
    for at in lines['PAPER']:
        cells = [f'{line[at]:.3f}' if at in line else 'not measured' for line in lines.values()]
        print(f'| {at:,} | ' + ' | '.join(cells) + ' |')


def main(plan, nanogpt):
    start = time.perf_counter()
    late = lambda: time.perf_counter() - start > 60 * plan.minutes * 0.75
    device = device_info()
    if not plan.compile: print('A smoke test, without compilers: the speeds below mean nothing.\n')
    print(f'{time.strftime("%Y-%m-%d")}, {device}, {platform.system()}, Python {platform.python_version()}, '
          f'torch {torch.__version__}; {num_params(plan.cfg):,} parameters, context {plan.cfg.n_ctx:,}, '
          f'{plan.pieces} micro-batches in a step\n')
    peak = matrix_rate(plan, device)
    print(f'Matrix product of side {plan.matrix:,}: {peak / 1e12:,.2f} TFLOP/s.\n')
    bars(speeds(plan, device, nanogpt, peak, late))
    print('\nThe recipes on a made-up text, the same steps and start:\n')
    curves(plan, lambda: time.perf_counter() - start > 60 * plan.minutes * 0.95)
    print(f'\nTook {(time.perf_counter() - start) / 60:.1f} minutes.')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--nanogpt', type=Path, help="a clone of nanoGPT: its step is measured on the same card")
    parser.add_argument('--smoke', action='store_true', help='run everything tiny, on whatever is there')
    args = parser.parse_args()
    if not args.smoke and not torch.cuda.is_available():
        sys.exit('no GPU is here: --smoke runs everything tiny on a CPU')
    main(SMOKE if args.smoke else Plan(), args.nanogpt)
