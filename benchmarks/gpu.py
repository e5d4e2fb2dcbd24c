"""Measure training on one large GPU, in parts that begin nothing new after six minutes each.

    python benchmarks/gpu.py speed [--sizes gpt2] [--nanogpt FOLDER]   tokens/s, MFU, peak memory
    python benchmarks/gpu.py profile [--picture FILE]                  where the time of a step goes
    python benchmarks/gpu.py half                                      float16 against bfloat16
    python benchmarks/gpu.py recipes                                   PAPER against FAST
    python benchmarks/gpu.py long [--scores FOLDER]                    all the text, then BrainBench

Without a part all of them run. The context is 1,024, the precision what `device_info` chooses:
bfloat16 on a large GPU. MFU is the share of the card's own matrix rate, which is measured first.
The peers are nanoGPT's step, when its folder is given, and the paper's loop, where transformers is
installed. The last three parts read real text: `gpu.py pack FILE` packs that of DOMAIN_LLM_DATA,
cut by the paper's tokenizer, on a machine that has everything; then `--text FILE` needs no more
than torch, numpy, safetensors and tokenizers and this repository. `--store FILE` writes what was
measured as JSON. `--smoke` runs everything tiny on a CPU. What was not measured is said so.
"""
import argparse, contextlib, gc, io, itertools, json, os, platform, re, shutil, statistics
import subprocess, sys, time
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
# rows of a micro-batch, and micro-batches in a step: of 124M the paper's 524,288 tokens
TRY = {'gpt2': ((32, 64), 16), 'gpt2-medium': ((32,), 4), 'gpt2-large': ((16,), 8)}
FOUND = []                                          # rows of what was measured, to be stored


@dataclass(frozen=True)
class Plan:
    "Hold what is measured: the real thing, or tiny on a CPU."
    sizes: dict = field(default_factory=lambda: {
        name: (GPT2Config.preset(name, 50_257), *how) for name, how in TRY.items()})
    seconds: float = 3                # how long each speed is measured
    matrix: int = 8192                # side of the matrices whose product gives the card's rate
    copied: int = 2**30               # numbers of four bytes whose copy gives its bandwidth
    rows: int = 32                    # rows of a step on real text: 32,768 tokens
    epochs: int = 6                   # how often PAPER reads the text
    shares: tuple = (0.06, 0.08, 0.1)  # of PAPER's steps, after which FAST ends
    seeds: tuple = (0, 1, 2)
    half_steps: int = 300             # steps in float16 and in bfloat16
    long_epochs: int = 3              # how often the longest run reads the text
    minutes: float = 6                # after which a part begins nothing new
    compile: bool = True              # a smoke test does not wait for compilers
SMOKE = Plan({'tiny': (GPT2Config(256, 2, 2, 32, 32), (2, 4), 2)}, 0.2, 128, 2**18, 4, 4, (0.5,),
             (0,), 12, 2, 2, False)


def found(what, **row): FOUND.append(dict(what=what, **row))


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

def our_trainer(plan, cfg, micro, pieces, compiled, **recipe):
    "Prepare our model and optimizers."
    settings = dict(steps=10**6, micro_batch_size=micro, compile=compiled and plan.compile,
                    tokens_per_step=micro * pieces * cfg.n_ctx)
    with torch.device(device_info().device):
        return Trainer(GPT2(cfg), TrainConfig(**{**FAST_RECIPE, **recipe, **settings}))


def our_step(plan, cfg, micro, pieces, compiled, **recipe):
    "Prepare our own step."
    trainer = our_trainer(plan, cfg, micro, pieces, compiled, **recipe)
    batch, step = noise(cfg, micro * pieces), itertools.count(1000)
    def work():
        trainer.update(batch, next(step))
        if trainer.micro_batch_size != micro:
            raise torch.OutOfMemoryError(f'{micro} rows do not fit')
    return work, trainer.config.tokens_per_step


def nanogpt_step(plan, cfg, micro, pieces, folder, device):
    "Prepare nanoGPT's own step, compiled as a whole: model, fused AdamW, accumulation."
    sys.path.insert(0, str(folder))
    from model import GPT, GPTConfig
    shape = {k: getattr(cfg, k) for k in ('n_layer', 'n_head', 'n_embd', 'bias')}
    with contextlib.redirect_stdout(io.StringIO()):
        model = GPT(GPTConfig(block_size=cfg.n_ctx, vocab_size=-(-cfg.vocab_size // 64) * 64,
                              dropout=0.0, **shape)).to(device.device)
        optimizer = model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), device.device)
    model = torch.compile(model) if plan.compile else model
    def finish():
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return accumulated(cfg, micro, pieces, device, lambda x, y: model(x, y)[1], finish)


def paper_step(plan, cfg, micro, pieces, device):
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
    return accumulated(cfg, micro, pieces, device, loss, finish)


def accumulated(cfg, micro, pieces, device, loss, finish):
    "Make a peer's step: its loss on each micro-batch, then its end of a step."
    x, y = (torch.from_numpy(t).contiguous().to(device.device) for t in noise(cfg, micro))
    def work():
        for _ in range(pieces):
            with torch.autocast(device.device, device.dtype, enabled=device.dtype != torch.float32):
                part = loss(x, y) / pieces
            part.backward()
        finish()
        return part.item()
    return work, micro * pieces * cfg.n_ctx


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


def causal_flops(cfg):
    "Count a training token's operations with the half of attention that a causal kernel computes."
    return flops_per_token(cfg) - 6 * cfg.n_layer * cfg.n_embd * cfg.n_ctx


def driver():
    "Ask for the version of the card's driver, where there is one to ask."
    if not shutil.which('nvidia-smi'): return None
    asked = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
    return subprocess.run(asked, capture_output=True, text=True).stdout.split('\n')[0]


def speed(plan, device, late, args):
    "Print the card's rates, and a table of speeds for each size."
    peak, copy = matrix_rate(plan, device), bandwidth(plan, device)
    found('card', driver=driver(), device=device.name, torch=torch.__version__, matrix_rate=peak,
          copy=copy, date=time.strftime('%Y-%m-%d'))
    print(f'Matrix product of side {plan.matrix:,}: {peak / 1e12:,.2f} TFLOP/s. '
          f'Copy: {copy / 1e9:,.0f} GB/s read and written.')
    for name in plan.sizes: speed_of(name, plan, device, peak, late, args)


def speed_of(name, plan, device, peak, late, args):
    "Print the table of one size; 124M is compared with the peers, each twice, in turn."
    (cfg, rows, pieces), best, compared = plan.sizes[name], {}, name in ('gpt2', 'tiny')
    print(f'\n| {name}: step of {rows[0] * pieces * cfg.n_ctx:,} tokens | micro-batch | tokens/s '
          '| MFU, attention in full | MFU, causal | peak GiB |\n|---|---|---|---|---|---|')
    def row(way, micro, prepare, cfg=cfg, pieces=rows[0] * pieces):
        how = cfg, micro, pieces // micro
        if late(): got, memory = None, 'no time left'
        else: got, memory = measured(lambda: prepare(*how), plan)
        if got is None:
            print(f'| {way} | {micro} | not measured: {memory} | | | |', flush=True)
            return
        mfu = [got * flops(cfg) / peak for flops in (flops_per_token, causal_flops)]
        gib = f'{memory:.1f}' if memory else 'not measured'
        print(f'| {way} | {micro} | {got:,.0f} | {mfu[0]:.1%} | {mfu[1]:.1%} | {gib} |', flush=True)
        found('speed', size=name, way=way, micro_batch=micro, tokens=how[2] * micro * cfg.n_ctx,
              tokens_per_second=got, mfu=mfu[0], mfu_causal=mfu[1], gib=memory)
        best[way] = max(best.get(way, (0, 0, micro)), (got, mfu[0], micro))
    def ours(compiled, **recipe): return lambda *how: our_step(plan, *how, compiled, **recipe)
    def nanogpt(*how): return nanogpt_step(plan, *how, args.nanogpt, device)

    bare = replace(cfg, bias=False)               # as nanoGPT's train.py has it
    row('ours, FAST, compiled', rows[0], ours(True))
    if compared and args.nanogpt:
        row('nanoGPT, compiled', rows[0], nanogpt)
        row('ours, FAST, compiled', rows[0], ours(True))
        row('nanoGPT, compiled', rows[0], nanogpt)
        row('nanoGPT without biases, compiled', rows[0], nanogpt, bare)
        row('ours without biases, FAST, compiled', rows[0], ours(True), bare)
    for micro in rows[1:]:
        row('ours, FAST, compiled', micro, ours(True))
        if compared and args.nanogpt: row('nanoGPT, compiled', micro, nanogpt)
    if not compared: return
    row('ours, AdamW, compiled', rows[0], ours(True, muon_lr=0.0))
    row('ours, FAST, eager', rows[0], ours(False))
    row("the paper's loop", rows[0] // 2, lambda *how: paper_step(plan, *how, device),
        pieces=2 * rows[0])
    bars(best)


def bars(best):
    "Say which bars are reached."
    ours, peers = best.get('ours, FAST, compiled'), ('nanoGPT, compiled', "the paper's loop")

    def say(what, got, bar):
        print(f'- {what}: {"not measured" if got is None else f"{got:.2f}"}{bar}')

    print()
    say('share of the measured matrix rate', ours and ours[1], f' (bar {BARS["mfu"]:g})')
    for name, bar in zip(peers, (f' (bar {BARS["nanogpt"]:g})', '')):
        say(
            f'times the tokens per second of {name}',
            ours[0] / best[name][0] if ours and name in best else None,
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
    times = dict(attention=0.0, product=0.0, other=0.0)
    for event in seen.key_averages():
        if (event.device_type.name == 'CPU') == gpu: continue
        times[kind(event.key)] += (
            (event.self_device_time_total if gpu else event.self_cpu_time_total) / 1e6 / n
        )
    return times


def profile(plan, device, late, args):
    "Print where the time of our step goes with the first size, and draw it."
    cfg, (micro, *_), pieces = next(iter(plan.sizes.values()))
    trainer, batch = our_trainer(plan, cfg, micro, pieces, True), noise(cfg, micro * pieces)
    step = itertools.count(1000)
    def update(): trainer.update(batch, next(step))
    wall, whole = 1 / rate(update, plan.seconds), kernels(update, 1)
    x = torch.randn(micro * cfg.n_ctx, cfg.n_embd, device=device.device, requires_grad=True)
    targets = torch.zeros(len(x), dtype=torch.long, device=device.device)
    table, softmax = trainer.model.wte.weight, trainer.model.softmax
    def loss():
        for _ in range(pieces):
            with torch.autocast(device.device, device.dtype, enabled=device.dtype != torch.float32):
                part = chunked_cross_entropy(x, table, targets, None, softmax)
            part.backward()
    def move():
        for optimizer in trainer.optimizers: optimizer.step()
    loss()                                        # a loss of weights of other requirements
    head = kernels(loss, 1)
    for p in trainer.model.parameters(): p.grad = torch.randn_like(p)
    moved = kernels(move)
    def rest(k): return whole[k] - head[k] - moved[k]

    parts = {'matrix products of the blocks': rest('product'), 'attention': whole['attention'],
             'loss over the token table: products': head['product'],
             'loss over the token table: the rest': head['other'],
             'optimizers': sum(moved.values()),
             'everything elementwise': rest('other'), 'no kernel runs': wall - sum(whole.values())}
    print(f'A step of {trainer.config.tokens_per_step:,} tokens in micro-batches of {micro} rows: '
          f'{wall * 1e3:,.1f} ms.\n\n| part | ms | share |\n|---|---|---|')
    for name, seconds in parts.items():
        print(f'| {name} | {seconds * 1e3:,.1f} | {seconds / wall:.1%} |')
    found('profile', tokens=trainer.config.tokens_per_step, seconds=wall, parts=parts)
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


# real text: what the recipes and precisions learn

def pack(file):
    "Write the ids of all the text of DOMAIN_LLM_DATA, cut by the paper's tokenizer, into one file."
    from domain_llm.text.documents import read_documents
    from domain_llm.text.overlap import split_documents
    from domain_llm.tokens.tokenizer import EOS, load_tokenizer
    data = Path(os.environ['DOMAIN_LLM_DATA'])
    tokenizer = load_tokenizer(data / 'tokenizers/neuro')
    texts = split_documents(
        read_documents([data / 'corpus/neuro_reviews.jsonl.gz', data / 'jats']), 0.04)
    end, ids = tokenizer.token_to_id(EOS), {}
    for part in 'train', 'validation':
        read = tokenizer.encode_batch(texts[part]['text'])
        ids[part] = np.concatenate([[end, *one.ids] for one in read]).astype(np.uint16)
        print(f'{part}: {len(read):,} documents, {len(ids[part]):,} tokens')
    np.savez(file, **ids)


def real_text(plan, cfg, args):
    "Give training and validation ids; made up for a smoke test."
    if plan.compile or args.text:
        ids = np.load(args.text)
        return ids['train'], ids['validation']
    ids = np.random.default_rng(1).zipf(1.3, 8 * plan.rows * cfg.n_ctx) % cfg.vocab_size
    return ids[:-300].astype(np.uint16), ids[-300:].astype(np.uint16)


def train(plan, cfg, recipe, steps, seed, ids, device, looks):
    "Train on real text; give the trainer and its (tokens, seconds of training, validation loss)."
    (learnt, held_out), rows = ids, plan.rows
    tokens, curve, seconds = rows * cfg.n_ctx, [], 0.0
    torch.manual_seed(seed)
    with torch.device(device.device): model = GPT2(cfg)
    trainer = Trainer(model, TrainConfig(**{
        **recipe, 'steps': steps, 'tokens_per_step': tokens, 'micro_batch_size': rows, 'seed': seed,
        'compile': plan.compile}), device=device)
    batches = Batches(learnt, cfg.n_ctx, tokens, seed)
    for step in range(steps + 1):
        if step % max(1, steps // looks) == 0 or step == steps:
            loss = validation_loss(model, held_out, rows=rows, device=device)
            curve.append((step * tokens, seconds, loss))
        if step == steps: break
        start = time.perf_counter()
        trainer.update(batches[step], step)
        seconds += time.perf_counter() - start
    return trainer, curve


def recipes(plan, device, late, args):
    "Print the validation loss of PAPER, and after how many tokens FAST ends below its best."
    cfg = next(iter(plan.sizes.values()))[0]
    ids = real_text(plan, cfg, args)
    steps, runs = plan.epochs * (len(ids[0]) // (plan.rows * cfg.n_ctx)), []
    print(f'{len(ids[0]):,} tokens of text, {len(ids[1]):,} of validation; PAPER makes {steps} '
          'updates.\n\n| recipe | seed | updates | seconds | validation loss over tokens '
          '|\n|---|---|---|---|---|')
    def run(name, recipe, n, seed, looks):
        if late(): return
        _, curve = train(plan, cfg, recipe, n, seed, ids, device, looks)
        runs.append(dict(recipe=name, seed=seed, steps=n, curve=curve))
        found('run', **runs[-1])
        told = ', '.join(f'{loss:.3f} at {tokens / 1e6:.1f}M' for tokens, _, loss in curve)
        print(f'| {name} | {seed} | {n} | {curve[-1][1]:.1f} | {told} |', flush=True)
    for seed in plan.seeds:
        run('PAPER', PAPER_RECIPE, steps, seed, 8)
        for share in plan.shares: run('FAST', FAST_RECIPE, max(2, round(share * steps)), seed, 1)
    for seed in plan.seeds:
        mine = [r for r in runs if r['seed'] == seed]
        best = min((loss for r in mine if r['recipe'] == 'PAPER' for *_, loss in r['curve']),
                   default=None)
        enough = [r['curve'][-1][0] for r in mine
                  if r['recipe'] == 'FAST' and best and r['curve'][-1][2] <= best]
        if best: print(f'\nSeed {seed}: the best loss of PAPER is {best:.3f}; FAST ends below it '
                       f'after {min(enough):,} tokens.' if enough else f'\nSeed {seed}: FAST does '
                       f'not reach {best:.3f}.')


def half(plan, device, late, args):
    "Print the losses of float16 with a scaled loss beside the usual ones; one overflow is forced."
    cfg = next(iter(plan.sizes.values()))[0]
    ids, lines, rows, at = real_text(plan, cfg, args), {}, plan.rows // 4, plan.half_steps // 2
    for where in (device, replace(device, dtype=torch.float16)):
        torch.manual_seed(0)
        with torch.device(device.device): model = GPT2(cfg)
        trainer = Trainer(model, TrainConfig(**{
            **FAST_RECIPE, 'steps': plan.half_steps, 'tokens_per_step': rows * cfg.n_ctx,
            'micro_batch_size': rows, 'compile': plan.compile}), device=where)
        batches = Batches(ids[0], cfg.n_ctx, rows * cfg.n_ctx)
        line = lines[str(where.dtype).removeprefix('torch.')] = []
        for step in range(plan.half_steps):
            # once, at half time, one gradient is infinite
            broken = where.dtype == torch.float16 and step == at and model.wte.weight.register_hook(
                lambda g: g.index_fill(0, g.new_zeros(1, dtype=torch.long), float('inf')))
            trainer.update(batches[step], step)
            if broken: broken.remove()
            line.append(trainer.smoothed)
        line.append(validation_loss(model, ids[1], rows=rows, device=where))
        if where.dtype == torch.float16: scale = trainer.scaler.get_scale()
    print(f'| updates of {rows * cfg.n_ctx:,} tokens | {" | ".join(lines)} |\n'
          f'|{"---|" * (1 + len(lines))}')
    for n in range(plan.half_steps // 6, plan.half_steps + 1, plan.half_steps // 6):
        told = [f'{line[n - 1]:.3f}' for line in lines.values()]
        print(f'| {n}, training loss, smoothed | ' + ' | '.join(told) + ' |')
    print('| validation loss | ' + ' | '.join(f'{line[-1]:.3f}' for line in lines.values()) + ' |')
    print(f'\nAt the end the loss is multiplied by {scale:,.0f}.')
    found('half', tokens=rows * cfg.n_ctx, overflow_at=at, scale=scale, lines=lines)


def long(plan, device, late, args):
    "Train FAST on all the text, and score BrainBench where its cases are."
    cfg = next(iter(plan.sizes.values()))[0]
    ids = real_text(plan, cfg, args)
    steps = plan.long_epochs * (len(ids[0]) // (plan.rows * cfg.n_ctx))
    trainer, curve = train(plan, cfg, FAST_RECIPE, steps, 0, ids, device, 12)
    told = ', '.join(f'{loss:.3f} at {tokens / 1e6:.1f}M' for tokens, _, loss in curve)
    print(f'{num_params(cfg):,} parameters, {steps} updates in {curve[-1][1]:.1f} s; validation '
          f'loss {told}.')
    found('long', parameters=num_params(cfg), steps=steps, curve=curve)
    data = os.environ.get('DOMAIN_LLM_DATA')
    if not data or not plan.compile: return
    from domain_llm.bench.cases import load_cases
    from domain_llm.bench.scores import score_cases
    from domain_llm.model.fast import eager
    from domain_llm.tokens.tokenizer import load_tokenizer
    tokenizer = load_tokenizer(Path(data) / 'tokenizers/neuro')
    for name in 'human', 'gpt4':
        with eager(trainer.model):
            scores = score_cases(trainer.model, tokenizer, load_cases(f'brainbench-{name}'),
                                 'paper', name=f'124M, {name}')
        print(scores)
        if args.scores: scores.save(args.scores / f'own124m-{name}.parquet')


PARTS = dict(speed=speed, profile=profile, half=half, recipes=recipes, long=long)


def main(plan, args):
    device = device_info()
    if not plan.compile: print('A smoke test, without compilers: the speeds below mean nothing.\n')
    sizes = ', '.join(
        f'{name} with {num_params(cfg):,} parameters' for name, (cfg, *_) in plan.sizes.items()
    )
    print(
        f'{time.strftime("%Y-%m-%d")}, {device}, {platform.system()}, Python '
        f'{platform.python_version()}, torch {torch.__version__}; {sizes}', flush=True
    )
    for name in args.parts or PARTS:
        start = time.perf_counter()
        forget(plan)
        print(f'\n## {name}\n')
        PARTS[name](plan, device, lambda: time.perf_counter() - start > 60 * plan.minutes, args)
        print(f'\nTook {(time.perf_counter() - start) / 60:.1f} minutes.', flush=True)
        if args.store: args.store.write_text(json.dumps(FOUND, indent=1))


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
    parser.add_argument('--text', type=Path, help='what `pack FILE` wrote')
    parser.add_argument('--scores', type=Path, help="a folder for the long run's scores")
    parser.add_argument('--store', type=Path, help='a file to write what was measured into')
    parser.add_argument('--picture', type=Path, help='a file to draw the profile into')
    parser.add_argument(
        '--smoke', action='store_true', help='run everything tiny, on whatever is there'
    )
    args = parser.parse_args()
    if args.parts[:1] == ['pack'] and len(args.parts) == 2: sys.exit(pack(args.parts[1]))
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f'no part is called {", ".join(unknown)}')
    if not args.smoke and not torch.cuda.is_available():
        sys.exit('no GPU is here: --smoke runs everything tiny on a CPU')
    if not (args.smoke or args.text) and not {*(args.parts or PARTS)} <= {'speed', 'profile'}:
        parser.error('half, recipes and long read real text: name the file of `gpu.py pack` with '
                     '--text, or ask for speed and profile alone')
    plan = SMOKE if args.smoke else Plan()
    if args.sizes and not args.smoke:
        plan = replace(plan, sizes={k: plan.sizes[k] for k in args.sizes})
    main(plan, args)
