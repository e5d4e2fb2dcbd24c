"""Measure training on one large GPU, in parts that begin nothing new after six minutes each.

    python benchmarks/gpu.py speed [--sizes gpt2] [--nanogpt FOLDER]   tokens/s, MFU, peak memory
    python benchmarks/gpu.py profile [--picture FILE]                  where the time of a step goes
    python benchmarks/gpu.py curves                                    losses of PAPER and of FAST

Without a part all of them run. The context is 1,024, the text random or made up, the precision what
`device_info` chooses: bfloat16 on a large GPU. MFU is the share of the card's own matrix rate,
which is measured first. The peers are nanoGPT's step, when its folder is given, and the paper's
loop, where transformers is installed. All else needs torch, numpy, safetensors, tokenizers and this
repository. `--smoke` runs everything tiny on a CPU. A figure that was not measured says so.
"""
import argparse, contextlib, gc, io, itertools, platform, re, statistics, sys, time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from domain_llm.model.fast import GPT2, chunked_cross_entropy
from domain_llm.model.gpt2 import GPT2Config, flops_per_token, num_params
from domain_llm.train.distributed import Trainer
from domain_llm.train.recipe import FAST_RECIPE, PAPER_RECIPE, TrainConfig, device_info
from domain_llm.train.runs import validation_loss
from domain_llm.tokens.dataset import Batches

PAPER_SPEED = 36_000                                # tokens/s of one of the paper's GPUs with 124M
BARS = dict(mfu=0.55, nanogpt=1.25, paper=10)       # what we aim at with 124M
# rows of a micro-batch
TRY = {'gpt2': (16, 32, 64), 'gpt2-medium': (8, 16, 32), 'gpt2-large': (8, 16)}


@dataclass(frozen=True)
class Plan:
    "Hold what is measured: the real thing, or tiny on a CPU."
    sizes: dict = field(default_factory=lambda: {
        name: (GPT2Config.preset(name, 50_257), rows) for name, rows in TRY.items()})
    pieces: int = 4                   # micro-batches in a step
    seconds: float = 8                # how long each speed is measured
    matrix: int = 8192                # side of the matrices whose product gives the card's rate
    copied: int = 2**30               # numbers of four bytes whose copy gives its bandwidth
    curve_steps: int = 300            # steps of each curve
    curve_rows: int = 64              # rows of a step of the curves
    minutes: float = 6                # after which a part begins nothing new
    compile: bool = True              # a smoke test does not wait for compilers
SMOKE = Plan({'tiny': (GPT2Config(256, 2, 2, 32, 32), (2, 4))}, 2, 0.2, 128, 2**18, 12, 8, 2, False)


def wait():
    "Let the device finish, so that the clock is right."
    if torch.cuda.is_available(): torch.cuda.synchronize()


def rate(work, seconds):
    "Give how often a second some work is done: the median of three rounds after a first one."
    work()
    wait()
    start = time.perf_counter()
    work()
    wait()
    n, rates = max(1, int(seconds / 3 / (time.perf_counter() - start))), []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(n): work()
        wait()
        rates.append(n / (time.perf_counter() - start))
    return statistics.median(rates)


def matrix_rate(plan, device):
    "Measure the floating-point operations per second on square matrices in the training precision."
    a, b = (
        torch.randn(plan.matrix, plan.matrix, device=device.device, dtype=device.dtype)
        for _ in range(2)
    )
    return 2 * plan.matrix ** 3 * rate(lambda: a @ b, plan.seconds)


def bandwidth(plan, device):
    "Measure the bytes per second that a copy reads and writes."
    a, b = (torch.zeros(plan.copied, device=device.device) for _ in range(2))
    return 8 * plan.copied * rate(lambda: b.copy_(a), plan.seconds)


def noise(cfg, rows):
    "Make a step of random ids, as unequally frequent as words: equal ids' gradients are added up."
    share, n = 1 / np.arange(2, cfg.vocab_size + 2), rows * cfg.n_ctx * 2 + 1     # Zipf
    ids = np.random.default_rng(0).choice(len(share), n, p=share / share.sum()).astype(np.uint16)
    return Batches(ids, cfg.n_ctx, rows * cfg.n_ctx)[0]


# speed: one step of ours and of the peers; each prepares a function, and says its tokens

def our_trainer(plan, cfg, micro, compiled, **recipe):
    "Prepare our model and optimizers."
    config = TrainConfig(
        **{
            **FAST_RECIPE,
            **recipe,
            'steps': 10**6,
            'micro_batch_size': micro,
            'tokens_per_step': micro * plan.pieces * cfg.n_ctx,
            'compile': compiled and plan.compile,
        }
    )
    with torch.device(device_info().device): return Trainer(GPT2(cfg), config)


def our_step(plan, cfg, micro, compiled, **recipe):
    "Prepare our own step."
    trainer, batch = (
        our_trainer(plan, cfg, micro, compiled, **recipe),
        noise(cfg, micro * plan.pieces),
    )
    step = itertools.count(1000)
    def work():
        trainer.update(batch, next(step))
        if trainer.micro_batch_size != micro:
            raise torch.OutOfMemoryError(f'{micro} rows do not fit')
    return work, trainer.config.tokens_per_step


def nanogpt_step(plan, cfg, micro, folder, device):
    "Prepare nanoGPT's own step, compiled as a whole: model, fused AdamW, accumulation."
    sys.path.insert(0, str(folder))
    from model import GPT, GPTConfig
    with contextlib.redirect_stdout(io.StringIO()):
        model = GPT(
            GPTConfig(
                block_size=cfg.n_ctx,
                vocab_size=-(-cfg.vocab_size // 64) * 64,
                n_layer=cfg.n_layer,
                n_head=cfg.n_head,
                n_embd=cfg.n_embd,
                dropout=0.0,
                bias=False,
            )
        ).to(device.device)
        optimizer = model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), device.device)
    model = torch.compile(model) if plan.compile else model
    def finish():
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return accumulated(plan, cfg, micro, device, lambda x, y: model(x, y)[1], finish)


def paper_step(plan, cfg, micro, device):
    "Prepare the paper's step: transformers' model, not compiled, float32 logits, no clipping."
    from transformers import GPT2Config as TheirConfig, GPT2LMHeadModel
    shape = {k: getattr(cfg, k) for k in ('vocab_size', 'n_layer', 'n_head', 'n_embd')}
    model = GPT2LMHeadModel(
        TheirConfig(**shape, n_positions=cfg.n_ctx, attn_implementation='eager')
    )
    model.to(device.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-5, (0.9, 0.999), 1e-6, 0.001)
    def loss(x, y):
        logits = model(input_ids=x, use_cache=False).logits.float()
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten())
    def finish():
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return accumulated(plan, cfg, micro, device, loss, finish)


def accumulated(plan, cfg, micro, device, loss, finish):
    "Make a peer's step: its loss on each micro-batch, then its end of a step."
    x, y = (torch.from_numpy(t).contiguous().to(device.device) for t in noise(cfg, micro))
    def work():
        for _ in range(plan.pieces):
            with torch.autocast(device.device, device.dtype, enabled=device.dtype != torch.float32):
                part = loss(x, y) / plan.pieces
            part.backward()
        finish()
        return part.item()
    return work, micro * plan.pieces * cfg.n_ctx


def forget(plan):
    "Forget what was compiled and held: the compiler gives up on a function after a few shapes."
    if plan.compile: torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def measured(prepare, plan):
    "Give tokens per second and peak GiB, or None and what stopped it."
    forget(plan)
    try:
        work, tokens = prepare()
        per_second = tokens * rate(work, plan.seconds)
    except torch.OutOfMemoryError: return None, 'out of memory'
    except ImportError as error: return None, f'no {error.name}'
    return (
        per_second,
        torch.cuda.max_memory_allocated() / 2** 30 if torch.cuda.is_available() else None,
    )


def speed(plan, device, late, args):
    "Print the card's rates, and a table of speeds for each size."
    peak = matrix_rate(plan, device)
    print(f'Matrix product of side {plan.matrix:,}: {peak / 1e12:,.2f} TFLOP/s. '
          f'Copy: {bandwidth(plan, device) / 1e9:,.0f} GB/s read and written.')
    for name in plan.sizes: speed_of(name, plan, device, peak, late, args)


def speed_of(name, plan, device, peak, late, args):
    "Print the table of one size; 124M is compared with the peers."
    (cfg, rows), best, compared = plan.sizes[name], {}, name in ('gpt2', 'tiny')
    print(
        f'\n| {name}: step | micro-batch | tokens/s | MFU of the measured rate | peak GiB '
        '|\n|---|---|---|---|---|'
    )
    def row(way, micro, prepare):
        got, memory = (None, 'no time left') if late() else measured(lambda: prepare(micro), plan)
        if got is None:
            print(f'| {way} | {micro} | not measured: {memory} | | |', flush=True)
            return
        mfu, gib = got * flops_per_token(cfg) / peak, f'{memory:.1f}' if memory else 'not measured'
        print(f'| {way} | {micro} | {got:,.0f} | {mfu:.1%} | {gib} |', flush=True)
        best[way] = max(best.get(way, (0, 0, micro)), (got, mfu, micro))
    for micro in rows:  # ours and nanoGPT's in turn
        row('ours, FAST, compiled', micro, lambda m: our_step(plan, cfg, m, True))
        if compared and args.nanogpt:
            row(
                'nanoGPT, compiled',
                micro,
                lambda m: nanogpt_step(plan, cfg, m, args.nanogpt, device),
            )
    micro = best.get('ours, FAST, compiled', (0, 0, rows[0]))[2]
    row('ours, FAST, eager', micro, lambda m: our_step(plan, cfg, m, False))
    if not compared: return
    row("the paper's loop", rows[0], lambda m: paper_step(plan, cfg, m, device))
    row('ours, AdamW, compiled', micro, lambda m: our_step(plan, cfg, m, True, muon_lr=0.0))
    bars(best)


def bars(found):
    "Say which bars are reached."
    ours, peers = found.get('ours, FAST, compiled'), ('nanoGPT, compiled', "the paper's loop")

    def say(what, got, bar):
        print(f'- {what}: {"not measured" if got is None else f"{got:.2f}"}{bar}')

    print()
    say('share of the measured matrix rate', ours and ours[1], f' (bar {BARS["mfu"]:g})')
    for name, bar in zip(peers, (f' (bar {BARS["nanogpt"]:g})', '')):
        say(
            f'times the tokens per second of {name}',
            ours[0] / found[name][0] if ours and name in found else None,
            bar,
        )
    say("times the tokens per second of one of the paper's GPUs", ours and ours[0] / PAPER_SPEED,
        f' (bar {BARS["paper"]:g})')


# profile: what the kernels of a step are

def kind(kernel):
    "Say by its name what a kernel, or on a CPU an operation, does."
    if re.search('flash|fmha|attention|sdp', kernel): return 'attention'
    return 'product' if re.search('gemm|nvjet|cutlass|::(add|b)?mm$', kernel) else 'other'


def kernels(work, n=3):
    "Give the seconds of each kind of kernel in one piece of work."
    from torch.profiler import ProfilerActivity, profile as profiler
    gpu = torch.cuda.is_available()
    with profiler(activities=[ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU]) as seen:
        for _ in range(n): work()
        wait()
    found = dict(attention=0.0, product=0.0, other=0.0)
    for event in seen.key_averages():
        if (event.device_type.name == 'CPU') == gpu: continue
        found[kind(event.key)] += (
            (event.self_device_time_total if gpu else event.self_cpu_time_total) / 1e6 / n
        )
    return found


def profile(plan, device, late, args):
    "Print where the time of our step goes with the first size, and draw it."
    cfg, rows = next(iter(plan.sizes.values()))
    micro = rows[len(rows) // 2]
    trainer, batch, step = (
        our_trainer(plan, cfg, micro, True),
        noise(cfg, micro * plan.pieces),
        itertools.count(1000),
    )
    def update(): trainer.update(batch, next(step))
    wall, whole = 1 / rate(update, plan.seconds), kernels(update)
    x = torch.randn(micro * cfg.n_ctx, cfg.n_embd, device=device.device, requires_grad=True)
    targets, table = (
        torch.zeros(len(x), dtype=torch.long, device=device.device),
        trainer.model.wte.weight,
    )
    def loss():
        for _ in range(plan.pieces):
            with torch.autocast(device.device, device.dtype, enabled=device.dtype != torch.float32):
                part = chunked_cross_entropy(x, table, targets)
            part.backward()
    def move():
        for optimizer in trainer.optimizers: optimizer.step()
    head = kernels(loss)
    for p in trainer.model.parameters(): p.grad = torch.randn_like(p)
    moved = kernels(move)
    def rest(k): return whole[k] - head[k] - moved[k]

    parts = {'matrix products of the blocks': rest('product'), 'attention': whole['attention'],
             'loss over the token table': sum(head.values()), 'optimizers': sum(moved.values()),
             'everything elementwise': rest('other'), 'no kernel runs': wall - sum(whole.values())}
    print(
        f'A step of {trainer.config.tokens_per_step:,} tokens in micro-batches of {micro} rows: '
        f'{wall * 1e3:,.1f} ms.\n\n| part | ms | share |\n|---|---|---|'
    )
    for name, seconds in parts.items():
        print(f'| {name} | {seconds * 1e3:,.1f} | {seconds / wall:.1%} |')
    if args.picture: draw(parts, wall, args.picture)


def draw(parts, wall, path):
    "Draw the shares of a step as bars."
    from matplotlib import pyplot as plt
    fig, ax = plt.subplots(figsize=(8, 3.2), layout='constrained')
    bars = ax.barh(
        [*parts][::-1],
        [100 * s / wall for s in parts.values()][::-1],
        color='#0072B2',
        edgecolor='black',
    )
    ax.bar_label(bars, fmt='%.0f %%', padding=3, fontsize=11)
    ax.margins(x=0.15)   # room for the numbers
    ax.set(xlabel='% of the time of a step', title='Where the time of a training step goes')
    fig.savefig(path)


# curves: what the recipes and precisions learn

def text(cfg, n):
    "Make text with something to learn: words drawn by a power law, each followed by one of four."
    rng = np.random.default_rng(1)
    follow = rng.zipf(1.3, (cfg.vocab_size, 4)) % cfg.vocab_size
    ids, choice, new = np.empty(n, np.uint16), rng.integers(0, 4, n), rng.random(n) < 0.1
    fresh, now = rng.zipf(1.3, n) % cfg.vocab_size, 0
    for i in range(n):
        now = fresh[i] if new[i] else follow[now, choice[i]]
        ids[i] = now
    return ids


def curves(plan, device, late, args):
    "Print the validation loss over tokens of both recipes, and of FAST in float16."
    cfg = next(iter(plan.sizes.values()))[0]
    tokens = plan.curve_rows * cfg.n_ctx
    ids = text(cfg, plan.curve_steps * tokens // 2 + 20 * cfg.n_ctx)
    held_out, train = ids[:20 * cfg.n_ctx], ids[20 * cfg.n_ctx:]
    batches, lines, fast = Batches(train, cfg.n_ctx, tokens), {}, {**FAST_RECIPE, 'lr': 3e-3}
    half = replace(device, dtype=torch.float16)
    ways = ('PAPER', PAPER_RECIPE, device), ('FAST', fast, device), ('FAST', fast, half)
    for name, recipe, where in ways:
        torch.manual_seed(0)
        config = TrainConfig(**{**recipe, 'steps': plan.curve_steps, 'tokens_per_step': tokens})
        trainer = Trainer(GPT2(cfg), config, device=where)
        line = lines[f'{name} in {trainer.device.dtype}'.replace('torch.', '')] = {}
        for step in range(plan.curve_steps + 1):
            if step % (plan.curve_steps // 6) == 0:
                line[step * tokens] = validation_loss(trainer.model, held_out, rows=4, device=where)
            if step == plan.curve_steps or late(): break
            trainer.update(batches[step], step)
    print(f'| tokens | {" | ".join(lines)} |\n|{"---|" * (1 + len(lines))}')
    for at in range(0, plan.curve_steps * tokens + 1, plan.curve_steps // 6 * tokens):
        cells = [f'{line[at]:.3f}' if at in line else 'not measured' for line in lines.values()]
        print(f'| {at:,} | ' + ' | '.join(cells) + ' |')


PARTS = dict(speed=speed, profile=profile, curves=curves)


def main(plan, args):
    device = device_info()
    if not plan.compile: print('A smoke test, without compilers: the speeds below mean nothing.\n')
    sizes = ', '.join(
        f'{name} with {num_params(cfg):,} parameters' for name, (cfg, _) in plan.sizes.items()
    )
    print(
        f'{time.strftime("%Y-%m-%d")}, {device}, {platform.system()}, Python '
        f'{platform.python_version()}, torch {torch.__version__}; {sizes}; '
        f'{plan.pieces} micro-batches in a step'
    )
    for name in args.parts or PARTS:
        start = time.perf_counter()
        forget(plan)
        print(f'\n## {name}\n')
        PARTS[name](plan, device, lambda: time.perf_counter() - start > 60 * plan.minutes, args)
        print(f'\nTook {(time.perf_counter() - start) / 60:.1f} minutes.')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        'parts', nargs='*', metavar='part', help=f'any of {", ".join(PARTS)}; all by default'
    )
    parser.add_argument(
        '--sizes', nargs='+', choices=[*TRY], help='models whose speed is measured; all by default'
    )
    parser.add_argument(
        '--nanogpt', type=Path, help='a clone of nanoGPT: its step is measured on the same card'
    )
    parser.add_argument('--picture', type=Path, help='a file to draw the profile into')
    parser.add_argument(
        '--smoke', action='store_true', help='run everything tiny, on whatever is there'
    )
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f'no part is called {", ".join(unknown)}')
    if not args.smoke and not torch.cuda.is_available():
        sys.exit('no GPU is here: --smoke runs everything tiny on a CPU')
    plan = SMOKE if args.smoke else Plan()
    if args.sizes and not args.smoke:
        plan = replace(plan, sizes={k: plan.sizes[k] for k in args.sizes})
    main(plan, args)
