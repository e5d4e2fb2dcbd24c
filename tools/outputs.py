"""Run lessons, honouring the flags of cells, each in a process of its own.

`python tools outputs` writes outputs and run cards, with DOMAIN_LLM_DATA set; `--compare` writes
nothing and fails where a cell raises or prints something else; `--time` writes the run cards alone,
on a machine without the data. Each way runs the cells that `nbdev_test --flags data` runs, or
`nbdev_test` where DOMAIN_LLM_DATA is not set, and also those flagged gpu on a machine with a GPU
and those flagged real where `domain-llm fetch-model` fetched a model.
`--compare` also runs as a reader without the data what differs for such a reader.
"""
import atexit, contextlib, io, json, math, os, platform, re, sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from difflib import unified_diff
from functools import partial
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from time import perf_counter

from execnb.nbio import read_nb, write_nb
from execnb.shell import CaptureShell
from joblib.externals.loky import get_reusable_executor

from domain_llm.ground.course import device_kind, run_cards
from domain_llm.model.real import has_model
from notebooks import ROOT

CARDS = ROOT / 'domain_llm/stored/run_cards.json'
# how far a number with a point may lie from the committed one: relative to it, absolute
NEAR, TINY = 1e-2, 1e-6
VARIES = [  # what differs from run to run or from machine to machine, and is not compared
    r'^Device: .*$',                                       # begin: where the lesson ran
    r'^(CPU|T4|large GPU) +(\d|not measured).*$',          # begin: the run cards
    r'(?<= s, took ).*$',                                  # budget
    r'(?<!promised )(?<![\d.])\d[\d.,]* ?(s|ms|µs|seconds|minutes)\b',  # wall-clock time
    r'\d[\d.,]* (documents|tokens|characters)(/s| per second)\b',  # speed
    r'\d[\d.,]* times as (fast|slow|long)\b',
    r'\d[\d.]* GiB(?= at most)',                            # the memory of a whole process
    r'\d{4}-\d\d-\d\dT[\d:]+(\+[\d:]*)?',                   # a time of day
    r'\d+ (?=steps of this tiny model fit into)',          # lesson 45 measures it
    r'0x[0-9a-f]{6,}',                                     # addresses in memory
    r"(?<='python': ')[\d.]+',?",                           # begins the versions of lesson 54
]
# what most lessons would each import anew, the optimizers' at their first step
IMPORTED = ['torch._dynamo', 'torch.distributed.checkpoint.state_dict', 'datasets', 'scipy.stats',
            'matplotlib.pyplot', 'execnb.shell', 'transformers.models.gpt2.modeling_gpt2']
# cells not compared
TIMED = {'e33ff74f': 'lesson 82 trains for a time, so for as many steps as the machine makes'}
# cells compared only by the Python that made the committed outputs: lesson 20 reads its help pages,
# and each release changes them
PYTHON, HELP_PAGES = '3.11.7', {'254b3810', '119dff6e', '7a9a2489', '2f3d24ad'}
# cells compared less closely, and how closely: lesson 70 reads a sign that does not exist, and so
# what processors that round otherwise leave different in a trained model
CLOSE = {'f71dc825': 3e-2}
NUMBER = r'[-+−]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?'


def with_data(): return bool(os.environ.get('DOMAIN_LLM_DATA'))


def with_model():
    with contextlib.redirect_stdout(io.StringIO()): return has_model()


def directives(cell): return set(re.findall(r'^#\|\s*(\w+)', cell.source, re.M))


def skipped(cell):
    "Say whether a cell's directives keep it from being run here."
    if cell.cell_type != 'code': return True
    if re.search(r'^#\|\s*eval:\s*false', cell.source, re.M): return True
    missing = {'network', 'slow', 'exercise'}
    if device_kind()[0] == 'CPU': missing.add('gpu')
    if not with_data(): missing.add('data')
    if not with_model(): missing.add('real')
    return bool(directives(cell) & missing)


def run(nb, path):
    "Run a lesson from top to bottom; return the shell and the seconds without and with data."
    shell = CaptureShell(path=path.parent, mpl_format='png')
    seconds = {'plain': 0, 'data': 0}
    os.chdir(path.parent)
    for cell in nb.cells:
        if cell.cell_type == 'code': cell.outputs = []
        if skipped(cell): continue
        start = perf_counter()
        shell.cell(cell)
        if shell.exc: sys.exit(shell.prettytb(path.name))
        cell.outputs = [o for o in cell.outputs if o.get('name') != 'stderr']
        if 'real' in directives(cell): continue            # few have fetched a model
        seconds['data' if 'data' in directives(cell) else 'plain'] += perf_counter() - start
    seconds['data'] += seconds['plain']
    return shell, seconds if with_data() else {'plain': seconds['plain']}


def machine():
    "Name the processor or the GPU, and nobody's machine."
    kind, found = device_kind()
    if kind != 'CPU': return found
    cpuinfo = Path('/proc/cpuinfo')
    text = cpuinfo.read_text() if cpuinfo.exists() else ''
    name = re.search(r'^model name\s*:\s*(.+)', text, re.M)
    processor = name[1] if name else platform.processor() or platform.machine()
    return f'{processor}, {os.cpu_count()} cores'


def store_card(lesson, seconds):
    "Write how long a lesson took, when, and on what."
    cards = json.loads(CARDS.read_text(encoding='utf-8')) if CARDS.exists() else {}
    card = {name: float(f'{s:.3g}') for name, s in seconds.items()}
    card |= {'date': str(date.today()), 'machine': machine()}
    cards.setdefault(lesson, {})[device_kind()[0]] = card
    CARDS.write_text(json.dumps(dict(sorted(cards.items())), indent=1) + '\n', encoding='utf-8')


def words_of(outputs):
    "Give what outputs say as text: printed, shown, and of HTML the words between the tags."
    shown = []
    for o in outputs:
        data = o.get('data', {})
        text = ''.join(o.get('text', data.get('text/plain', '')))
        if text.startswith('<IPython'):
            text = re.sub('<[^>]*>', ' ', ''.join(data.get('text/html', text)))
        shown.append(text)
    return '\n'.join(shown)


def near(old, new, tolerance=NEAR):
    "Compare two written numbers: whole ones exactly, others up to the tolerance."
    a, b = (float(n.replace(',', '').replace('−', '-')) for n in (old, new))
    whole = not re.search('[.e]', old + new)
    return a == b or not whole and math.isclose(a, b, rel_tol=tolerance, abs_tol=TINY)


def same(old, new, tolerance=NEAR):
    "Compare two texts: words must be equal, numbers near; what is declared to vary is left out."
    for pattern in VARIES: old, new = (re.sub(pattern, '…', t, flags=re.M) for t in (old, new))
    words, others = ([part.split() for part in re.split(NUMBER, t)] for t in (old, new))
    numbers = zip(re.findall(NUMBER, old), re.findall(NUMBER, new))
    return words == others and all(near(a, b, tolerance) for a, b in numbers)


def compare(old, new, name):
    "Print each cell that says something else than the committed notebook, and count them."
    different = 0
    for number, (was, cell) in enumerate(zip(old.cells, new.cells)):
        if skipped(cell) or cell.id in TIMED: continue
        if cell.id in HELP_PAGES and platform.python_version() != PYTHON: continue
        before, now = words_of(was.outputs), words_of(cell.outputs)
        alike = same(before, now, CLOSE.get(cell.id, NEAR))
        if alike and len(was.outputs) == len(cell.outputs): continue
        different += 1
        lines = unified_diff(
            before.splitlines(), now.splitlines(), 'committed', 'this run', lineterm='', n=0
        )
        print(f'\n{name}, cell {number} ({cell.id}) prints something else:', *lines, sep='\n')
    return different


def asks_for_data(nb):
    "Say whether what a reader without the data runs depends on there being none."
    return any(re.search(r'\b(has_data|data_dir)\(', c.source) for c in nb.cells
               if c.cell_type == 'code' and not directives(c) & {'data', 'export'})


def run_one(mode, path):
    "Run one lesson, and write or compare what it gave, or in mode 'run' only whether it runs."
    nb = read_nb(path)
    shell, seconds = run(nb, path)
    print(f"{path.name}: {', '.join(f'{s:.0f} s ({n})' for n, s in seconds.items())}")
    said = '\n'.join(words_of(c.outputs) for c in nb.cells if c.cell_type == 'code')
    for line in said.splitlines():
        if 'slower than promised' in line: print(f'  warning: {line}')
    if mode == 'run': return
    if mode == 'compare':
        if different := compare(read_nb(path), nb, path.name): sys.exit(f'{different} cells differ')
        return
    if path.stem[0].isdigit(): store_card(path.stem[:2], seconds)
    if mode == 'time': return
    for cell in nb.cells:  # the card that was just stored is the one to show
        if not skipped(cell) and re.search(r'^begin\(', cell.source, re.M): shell.cell(cell)
    write_nb(nb, path)


def run_and_send(pipe, mode, path):
    "Run one lesson and send what it printed, and whether it failed."
    if mode == 'run': os.environ.pop('DOMAIN_LLM_DATA', None)
    failed = False
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try: run_one(mode, path)
        except SystemExit as why:
            print(f'{path.name}: {why}')
            failed = True
    pipe.send((said.getvalue(), failed))
    # or they would wait minutes for more work, and this process for them
    get_reusable_executor().shutdown(kill_workers=True)
    atexit._run_exitfuncs()  # removes temporary folders; no fork does so before Python 3.13


def in_a_process(context, mode, path):
    "Run one lesson in a process of its own; return what it printed, and whether it failed."
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=run_and_send, args=(theirs, mode, path))
    process.start()
    theirs.close()
    try: return ours.recv()
    except EOFError: return f'{path.name}: its process ended without a word\n', True


def slowest_first(paths):
    "Sort lessons by how long they took when they were last timed."
    cards = run_cards()
    seconds = {lesson: kinds['CPU'].get('data', 0) + kinds['CPU']['plain']
               for lesson, kinds in cards.items() if 'CPU' in kinds}
    return sorted(paths, key=lambda path: seconds.get(path.stem[:2], 0), reverse=True)


def run_all(mode, paths):
    "Run each lesson in a process of its own: side by side to compare, one by one to time."
    if mode == 'write' and not with_data():
        sys.exit('DOMAIN_LLM_DATA should be set, for committed outputs come from a run with data, '
                 'but is not: set it, or use --compare or --time')
    paths = paths or sorted((ROOT / 'nbs').glob('[0-9i]*.ipynb'))
    jobs = [(mode, path) for path in paths]
    if mode == 'compare':
        jobs = [(mode, path) for path in slowest_first(paths)]
        if with_data(): jobs += [('run', path) for path in paths if asks_for_data(read_nb(path))]
    way, failed = 'forkserver' if 'forkserver' in get_all_start_methods() else 'spawn', 0
    context = get_context(way)  # Windows has only the second
    if way == 'forkserver' and len(jobs) > 2:  # forks of one that has imported what takes long
        context.set_forkserver_preload(IMPORTED)
    workers = os.cpu_count() if mode == 'compare' else 1
    with ThreadPoolExecutor(workers) as pool:
        for said, bad in pool.map(partial(in_a_process, context), *zip(*jobs)):
            print(said, end='', flush=True)
            failed += bad
    if failed: sys.exit(f'{failed} of {len(jobs)} runs failed')
