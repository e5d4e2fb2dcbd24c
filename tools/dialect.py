"""Check how code reads: the points of the dialect in CONTRIBUTING.md that a machine can judge.

Ruff judges what it has a rule for (see pyproject.toml): width, quotes, unused names, docstrings.
The rest is below.
"""
import ast, io, json, re, subprocess, sys, tokenize
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REFUSALS = {'ValueError', 'TypeError', 'FileNotFoundError', 'FileExistsError'}
GRAMMAR = re.compile(r'\bshould\b.+, but\b.+: .+', re.S)
RENAMED = {  # what the field calls something else
    'most': 'max_…',
    'tell': 'broadcast',
    'hand_on': 'all_reduce',
    '_bend': 'a name from the paper',
    '_see': 'evaluate',
    '_look': 'evaluate',
}
PRESCRIBED = {'forward', 'backward', 'step'}                # by PyTorch, which says what they take
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
SHOWN = ast.Tuple | ast.List | ast.Set | ast.Dict | ast.ListComp | ast.SetComp | ast.DictComp


@dataclass
class Code:
    "A piece of source, where it stands, and what it is for."
    where: str
    source: str
    exported: bool = False
    shows_last: bool = False


def pieces(path):
    "Read a module, or each code cell of a notebook without the lines that only IPython reads."
    if path.suffix != '.ipynb':
        yield Code(f'{path.relative_to(ROOT)}', path.read_text(encoding='utf-8'))
        return
    for i, cell in enumerate(json.loads(path.read_text(encoding='utf-8'))['cells']):
        if cell['cell_type'] != 'code': continue
        source = re.sub(r'^\s*[%!].*$', '', ''.join(cell['source']), flags=re.M)
        exported = bool(re.match(r'#\|\s*exports?\b', source))
        where = f"{path.relative_to(ROOT)}, cell {i} ({cell['id']})"
        yield Code(where, source, exported, not exported)


def arguments(function):
    "List the arguments of a function as they stand, without `self` and `cls`."
    a = function.args
    every = [*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg]
    return [arg for arg in every if arg and arg.arg not in ('self', 'cls')]


def functions(tree, inside=()):
    "Yield each function with the names that it stands in."
    for node in ast.iter_child_nodes(tree):
        named = isinstance(node, FUNCTIONS | ast.ClassDef)
        if isinstance(node, FUNCTIONS): yield node, inside
        yield from functions(node, (*inside, node) if named else inside)


def kind(function, inside):
    "Call a function 'public', 'private', or 'prescribed' where PyTorch or Python decides its name."
    if not all(isinstance(outer, ast.ClassDef) for outer in inside): return 'private'
    if any(outer.name.startswith('_') for outer in inside): return 'private'
    if inside and function.name in PRESCRIBED: return 'prescribed'
    if function.name in ('__init__', '__call__'): return 'public'
    if function.name.startswith('__'): return 'prescribed'
    return 'private' if function.name.startswith('_') else 'public'


def comments(source):
    "Find the lines that end with a comment."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0] for token in tokens if token.type == tokenize.COMMENT}


def speaks_for_itself(function):
    "Say whether a function is a command, whose parameters typer explains to whoever asks for help."
    return any('command' in ast.unparse(decorator) for decorator in function.decorator_list)


def signature_faults(function, inside, code, commented):
    "Hold public signatures to one explained parameter a line, and private ones to none of that."
    args = arguments(function)
    lines = {arg.arg: arg.end_lineno for arg in args}
    role = kind(function, inside)
    if code.exported and role == 'public':
        exempt = function.name.endswith('__') or speaks_for_itself(function)
        if not function.name.endswith('__') and not ast.get_docstring(function):
            yield f'{function.name} has no docstring'
        bare = [a.arg for a in args if not a.annotation]
        if bare: yield f'{function.name}: no annotation of {", ".join(bare)}'
        silent = [a.arg for a in args if not after(a, function) & commented]
        if silent and not exempt: yield f'{function.name}: no comment on {", ".join(silent)}'
        if len(set(lines.values())) < len(lines) and not exempt:
            yield f'{function.name}: more than one parameter on a line'
    elif role == 'private' and (code.exported or code.where.startswith('tests')):
        first = function.body[0].lineno
        if any(line in commented and line < first for line in lines.values()):
            yield f'{function.name}: a comment on a parameter of a private function'


def after(arg, function):
    "Give the lines on which an argument's comment may stand: from its own to its default's last."
    defaults = [d for d in (*function.args.defaults, *function.args.kw_defaults) if d]
    ends = [d.end_lineno for d in defaults if d.lineno == arg.end_lineno]
    return set(range(arg.lineno, max([arg.end_lineno, *ends]) + 1))


def hidden_lambda(value):
    "Say whether a value is a property made of a lambda, or several lambdas at once."
    inner = value.elts if isinstance(value, ast.Tuple) else []
    if isinstance(value, ast.Call) and ast.unparse(value.func) == 'property': inner = value.args
    return any(isinstance(v, ast.Lambda) for v in inner)


def said(node):
    "Give an error's message with … for what is known only when it is raised."
    if isinstance(node, ast.Constant): return str(node.value)
    if isinstance(node, ast.JoinedStr): return ''.join(said(v) for v in node.values)
    if isinstance(node, ast.BinOp): return said(node.left) + said(node.right)
    if isinstance(node, ast.IfExp): return said(node.body)
    return '…'


def statement_faults(node, shown):
    "Name what is wrong with one statement or expression."
    if isinstance(node, ast.Assign) and hidden_lambda(node.value):
        yield 'a lambda with a name: use def'
    if isinstance(node, ast.Return) and isinstance(node.value, ast.Call):
        if ast.unparse(node.value.func) == 'print': yield 'return print(…): print, then return'
    if isinstance(node, ast.Expr) and isinstance(node.value, SHOWN) and node is not shown:
        yield 'a list or tuple as a statement: write two statements, or a loop'
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.Div):
        if any(isinstance(x, ast.Compare) for x in (node.left, node.right)):
            yield 'arithmetic on a comparison: use if … else, where or sum'
    if isinstance(node, ast.AugAssign) and isinstance(node.value, ast.Compare):
        if not isinstance(node.op, ast.BitAnd | ast.BitOr):
            yield 'arithmetic on a comparison: use if, or sum'


def refusal_faults(node):
    "Hold the message of a refusal to: what should be, but what came: what to do."
    if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call): return
    if not node.exc.args: return
    text = said(node.exc.args[0])
    passed_on = len(re.findall(r'\w+', text)) < 3           # another error's sentence
    if ast.unparse(node.exc.func) in REFUSALS and not passed_on and not GRAMMAR.search(text):
        yield f'a refusal says "x should be …, but got …: do …", not "{text[:70]}"'


def names_given(node):
    "Yield the names that a node defines."
    if isinstance(node, FUNCTIONS | ast.ClassDef): yield node.name
    if isinstance(node, ast.arg): yield node.arg
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store): yield node.id


def faults(code):
    "Yield each fault of a piece of code as (line, what)."
    tree, commented = ast.parse(code.source), comments(code.source)
    shown = tree.body[-1] if code.shows_last and tree.body else None
    for function, inside in functions(tree):
        for what in signature_faults(function, inside, code, commented): yield function.lineno, what
    for node in ast.walk(tree):
        found = [*statement_faults(node, shown), *(refusal_faults(node) if code.exported else ())]
        found += [f'{name}: the field says {RENAMED[name]}' for name in names_given(node)
                  if name in RENAMED]
        for what in found: yield node.lineno, what


def files_of(paths):
    "Find the notebooks and modules under some paths, or all that people write."
    given = [Path(p).resolve() for p in paths] or [
        ROOT / 'setup.py', *(ROOT / folder for folder in ('nbs', 'tests', 'tools', 'benchmarks'))]
    found = {f for p in given for f in ([p] if p.is_file() else p.rglob('*'))}
    return sorted(f for f in found if f.suffix in ('.py', '.ipynb')
                  and '.ipynb_checkpoints' not in f.parts)


def ruffs(files):
    "Yield what ruff finds, as (where, line, what)."
    command = [sys.executable, '-m', 'ruff', 'check', '--output-format', 'json', *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode not in (0, 1): raise RuntimeError(done.stderr)
    for found in json.loads(done.stdout):
        path, line = Path(found['filename']), found['location']['row']
        where = f'{path.relative_to(ROOT)}'
        if cell := found.get('cell'):
            cells = json.loads(path.read_text(encoding='utf-8'))['cells']
            where += f", cell {cell - 1} ({cells[cell - 1]['id']})"
        yield where, line, f"{found['message']} ({found['code']})"


def check(paths=()):
    "Return every fault in some files, in all without any, as a line each."
    files = files_of(paths)
    own = [(code.where, line, what)
           for file in files for code in pieces(file) for line, what in faults(code)]
    return [f'{where}:{line}: {what}' for where, line, what in sorted([*own, *ruffs(files)])]


if __name__ == '__main__':
    for line in (found := check(sys.argv[1:])): print(line)
    sys.exit(bool(found))
