"""Measure `domain_llm.model` against nanoGPT's and `transformers` in one run.

python benchmarks/gpt2.py   prints the tables of RESULTS.md; transformers is the peer
  --nanogpt PATH            also measures a checkout of karpathy/nanoGPT
  --before PATH             also measures another version of ours
  --only speed|memory|generate, --rounds N, --sizes 124M:1024 toy:4096 (model:tokens)   a part

Peers are measured in turn within each round; a ratio is the median of the rounds' ratios, with
their range. A training step is zero_grad, loss, backward and AdamW's step, each in the
project's own way.
Peak memory is the largest resident set of a process of its own that makes two training steps.
"""
import argparse, json, os, statistics, subprocess, sys, time
from contextlib import nullcontext
from functools import partial
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import torch

from domain_llm.ground.files import peak_memory
from domain_llm.model.fast import GPT2
from domain_llm.model.gpt2 import GPT2Config
from machine import machine

DEFAULT_SIZES = ['124M:1024', '124M:4096', 'toy:1024', 'toy:4096']
SIZES = {'124M': ('gpt2', 50257), 'toy': ('toy', 4096)}


def ours(name, device):
    "Our model with the optimizer of lesson 45 and its loss."
    model = GPT2(GPT2Config.preset(*SIZES[name])).to(device)
    return model, torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.1, fused=True), model


def before(name, device):
    "Our model as it is in another checkout, whose package is imported under a name of its own."
    model = import_module('domain_llm_before.model.fast').GPT2(
        import_module('domain_llm_before.model.gpt2').GPT2Config.preset(*SIZES[name])).to(device)
    return model, torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.1, fused=True), model


def import_before(path):
    "Import the package of another checkout as `domain_llm_before`."
    folder = Path(path) / 'domain_llm'
    spec = spec_from_file_location(  # its modules import each other relatively
        'domain_llm_before', folder / '__init__.py', submodule_search_locations=[str(folder)])
    sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[spec.name])


def nanogpt(name, device):
    "nanoGPT's model, vocabulary padded as in its defaults, with the optimizer it makes itself."
    from model import GPT, GPTConfig
    cfg = GPT2Config.preset(*SIZES[name])
    stdout, sys.stdout = sys.stdout, open(os.devnull, 'w')
    model = GPT(
        GPTConfig(
            block_size=cfg.n_ctx,
            vocab_size=-(-cfg.vocab_size // 64) * 64,
            n_layer=cfg.n_layer,
            n_head=cfg.n_head,
            n_embd=cfg.n_embd,
        )
    ).to(device)
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.95), device)
    sys.stdout = stdout
    return model, optimizer, lambda ids, targets: model(ids, targets)[1]


def hugging(name, device):
    "Make the model of transformers, with its default attention (SDPA) and PyTorch's AdamW."
    import transformers
    cfg = GPT2Config.preset(*SIZES[name])
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=cfg.vocab_size,
            n_positions=cfg.n_ctx,
            n_embd=cfg.n_embd,
            n_layer=cfg.n_layer,
            n_head=cfg.n_head,
            resid_pdrop=0,
            embd_pdrop=0,
            attn_pdrop=0,
        )
    ).to(device)

    def loss(ids, targets):
        logits = model(ids).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    return model, torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.1), loss


PEERS = {'ours': ours, 'before': before, 'nanoGPT': nanogpt, 'transformers': hugging}


def gradient(optimizer, loss, ids, targets, cast=nullcontext()):
    "Compute the loss and its gradient."
    optimizer.zero_grad(set_to_none=True)
    with cast: value = loss(ids, targets)
    value.backward()


def step(optimizer, loss, ids, targets, cast=nullcontext()):
    "Make one training step."
    gradient(optimizer, loss, ids, targets, cast)
    optimizer.step()


@torch.no_grad()
def forward(optimizer, loss, ids, targets, cast=nullcontext()):
    "Compute the loss only."
    with cast: loss(ids, targets)


def clock(f, device):
    "Give the seconds that a call takes."
    if device == 'cuda': torch.cuda.synchronize()
    start = time.perf_counter()
    f()
    if device == 'cuda': torch.cuda.synchronize()
    return time.perf_counter() - start


def batch(name, tokens, device):
    "Draw ids and targets (B, T) of so many tokens."
    cfg = GPT2Config.preset(*SIZES[name])
    shape, rng = (tokens // cfg.n_ctx, cfg.n_ctx + 1), torch.Generator().manual_seed(0)
    ids = torch.randint(cfg.vocab_size, shape, generator=rng).to(device)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def has_bf16(device):
    "Say whether the processor multiplies bfloat16 itself."
    if device == 'cuda': return torch.cuda.get_device_capability() >= (8, 0)
    try: return bool({'avx512_bf16', 'amx_bf16'} & set(open('/proc/cpuinfo').read().split()))
    except OSError: return False


def compare(name, tokens, what, rounds, device, peers):
    "Time all peers in turn, some rounds of it; give each peer's median of a round, in seconds."
    made, ids = {p: PEERS[p](name, device) for p in peers}, batch(name, tokens, device)
    in_half = (peers if device == 'cuda' else ['ours']) if has_bf16(device) else []
    made |= {f'{p}, bf16': made[p] for p in in_half}
    repeats, times = 10 if name == 'toy' else 1, {job: [] for job in made}
    for round in range(rounds + 1):  # the first warms up
        for job, (_, *how) in made.items():
            cast = torch.autocast(device, torch.bfloat16) if 'bf16' in job else nullcontext()
            call = partial(what, *how, *ids, cast)
            found = statistics.median(clock(call, device) for _ in range(repeats))
            if round: times[job].append(found)
    return times


def ratio(theirs, ours):
    "Write the median of the rounds' ratios, and from where to where they go."
    found = sorted(b / a for a, b in zip(ours, theirs))
    return f'{statistics.median(found):.2f} ({found[0]:.2f} to {found[-1]:.2f})'


def speed(rounds, device, peers, sizes):
    "Print the times of the loss, of the loss with its gradient, and of the training step."
    names = [*peers, *(['ours, bf16'] if has_bf16(device) else [])]
    heads = ['model', 'B·T', 'what']
    heads += [f'{p}, ms' for p in names] + [f'× {p}' for p in peers[1:]]
    print('\n| ' + ' | '.join(heads) + ' |')
    print('|---' * len(heads) + '|')
    kinds = {'loss': forward, 'loss and gradient': gradient, 'training step': step}
    for name, tokens in sizes:
        digits = 1 if name == 'toy' else 0
        for label, what in kinds.items():
            times = compare(name, tokens, what, rounds, device, peers)
            cells = [f'{1000 * statistics.median(times[p]):,.{digits}f}' for p in names]
            cells += [ratio(times[p], times['ours']) for p in peers[1:]]
            print(f'| {name} | {tokens:,} | {label} | ' + ' | '.join(cells) + ' |', flush=True)


def one_memory(peer):
    "In a process of its own: make two steps and print the peak of resident memory."
    torch.set_num_threads(int(os.environ['BENCH_THREADS']))
    model, optimizer, loss = PEERS[peer.split(',')[0]]('124M', 'cpu')
    if peer.endswith('checkpointing'): model.recompute = True
    for _ in range(2): step(optimizer, loss, *batch('124M', 4096, 'cpu'))
    print(json.dumps(peak_memory() / 1e6))


def memory(peers):
    "Print peak memory of the training step at 4,096 tokens, each case in its own process."
    print(
        "| training step, 124M, B·T = 4,096, fp32, CPU | peak memory, MB | of nanoGPT's "
        "|\n|---|---|---|"
    )
    found = {}
    for peer in [*reversed(peers), 'ours, block checkpointing']:
        command = [sys.executable, __file__, *sys.argv[1:], '--one-memory', peer]
        env = os.environ | {'BENCH_THREADS': str(torch.get_num_threads())}
        out = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, env=env)
        found[peer] = json.loads(out.stdout.splitlines()[-1])
    for peer, mb in found.items():
        print(
            f'| {peer} | {mb:,.0f} | '
            + (f"{mb / found['nanoGPT']:.2f} |" if 'nanoGPT' in found else '|')
        )


@torch.no_grad()
def generation(peers, device, every=4):
    "Print the time of 256 new tokens after 256; without a cache, every fourth length is timed."
    model, prompt = ours('124M', device)[0].eval(), batch('124M', 1024, device)[0][:, :256]
    rows = {
        'ours': statistics.median(
            clock(lambda: model.generate(prompt, 256, 0), device) for _ in range(3)
        )
    }
    rows['ours, batch of 8, per row'] = (
        clock(lambda: model.generate(prompt.expand(8, -1), 256, 0), device) / 8
    )
    if 'transformers' in peers:
        theirs = hugging('124M', device)[0].eval()
        how = dict(max_new_tokens=256, min_new_tokens=256, do_sample=False, pad_token_id=0)
        rows['transformers'] = clock(lambda: theirs.generate(prompt, **how), device)
    if 'nanoGPT' in peers:
        nano = nanogpt('124M', device)[0].eval()
        long = batch('124M', 1024, device)[0]
        nano.generate(prompt, 1)
        rows['nanoGPT (every fourth length timed, times four)'] = every * sum(
            clock(lambda: nano.generate(long[:, : 256 + n], 1), device)
            for n in range(every // 2, 256, every)
        )
    print(
        f'\n| 256 new tokens after 256, 124M, fp32, {device} | seconds | tokens/s | ours is faster '
        'by |\n|---|---|---|---|'
    )
    for name, seconds in rows.items():
        print(f"| {name} | {seconds:.1f} | {256 / seconds:.1f} | {seconds / rows['ours']:.1f}× |")


def main():
    parser = argparse.ArgumentParser()
    for option in ('--nanogpt', '--before', '--only', '--one-memory'): parser.add_argument(option)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--sizes', nargs='+', default=DEFAULT_SIZES)
    args = parser.parse_args()
    if args.nanogpt: sys.path.insert(0, args.nanogpt)
    if args.before: import_before(args.before)
    if args.one_memory: return one_memory(args.one_memory)
    given = {'before': args.before, 'nanoGPT': args.nanogpt}
    peers = ['ours', *(peer for peer, path in given.items() if path), 'transformers']
    sizes = [(name, int(tokens)) for name, tokens in (size.split(':') for size in args.sizes)]
    start = time.monotonic()
    print(f"{machine('torch', 'transformers')}, {torch.get_num_threads()} threads\n")
    for device in ['cpu'] + ['cuda'] * torch.cuda.is_available():
        if device == 'cuda': print(f'\n{torch.cuda.get_device_name()}\n')
        if args.only in (None, 'memory') and device == 'cpu': memory(peers)
        if args.only in (None, 'speed'): speed(args.rounds, device, peers, sizes)
        if args.only in (None, 'generate'): generation(peers, device)
    print(f'\n{time.monotonic() - start:.0f} seconds, load {os.getloadavg()[0]:.1f} at the end')


if __name__ == '__main__': main()
