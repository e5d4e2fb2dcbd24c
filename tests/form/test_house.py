"""The house: imports go down, private names stay at home, nothing heavy is loaded too early.

The order is that of the notebooks' numbers. Imports inside functions count like those above them.
"""
import ast
import re
import subprocess
import sys

import pytest
from notebooks import ROOT, lessons, module_of, sources

MODULES = [module_of(path) for path in lessons()]


def source_of(module):
    return (ROOT / 'domain_llm' / f"{module.replace('.', '/')}.py").read_text(encoding='utf-8')


def imports(name, source, modules):
    "Yield what a module takes from others of the house, lazily too: (module, name or None)."
    package = ['domain_llm', *name.split('.')[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            up = package[:len(package) + 1 - node.level] if node.level else []
            base = '.'.join([*up, *filter(None, [node.module])])
            found = [(base, alias.name) for alias in node.names]
        else: continue
        for base, what in found:
            if base != 'domain_llm' and not base.startswith('domain_llm.'): continue
            inner = base.removeprefix('domain_llm').lstrip('.')
            whole = '.'.join(filter(None, [inner, what]))
            if whole in modules: yield whole, None             # from domain_llm import corpus
            elif inner in modules: yield inner, what


def is_private(name): return name.startswith('_') and not name.startswith('__')


def reached_for(source, modules):
    "Yield the private names that code takes from a module it has imported whole: corpus._ngrams."
    nodes = list(ast.walk(ast.parse(source)))
    names = {alias.asname or alias.name for node in nodes
             if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in names & modules and is_private(node.attr):
                yield f'{node.value.id}.{node.attr}'


def faults(modules):
    "List every import upwards, and every private name that crosses a wall."
    order, found = list(modules), []
    for name, source in modules.items():
        taken = list(imports(name, source, modules))
        for other, what in taken:
            if order.index(other) >= order.index(name):
                found.append(f'{name} imports {other}, which lies above it')
            if what and what.startswith('_'):
                found.append(f'{name} takes the private {what} of {other}')
        whole = {other.split('.')[-1] for other, what in taken if not what}
        found += [f'{name} reaches for {reached}' for reached in reached_for(source, whole)]
    return found


def test_imports_go_down_and_private_names_stay_at_home():
    assert len(MODULES) >= 10
    assert not faults({module: source_of(module) for module in MODULES})


def test_no_lesson_reaches_for_the_private_names_of_another():
    for path in lessons():
        taken = re.findall(r'^ *from domain_llm\.([\w.]+) import \(?([^()\n]+)',
                           '\n'.join(sources(path, 'code')), re.M)
        private = [f'{module}: {names}' for module, names in taken
                   if module != module_of(path) and re.search(r'(?<!\w)_', names)]
        assert not private, f'{path.name} takes {private}'


UP = 'a imports b, which lies above it'


@pytest.mark.parametrize('change, fault', [
    (dict(a='from domain_llm.b import f'), UP),
    (dict(a='def g():\n    from domain_llm.b import f'), UP),
    (dict(a='from .b import f', b='from .a import g'), UP),
    (dict(b='from domain_llm.a import _g'), 'b takes the private _g of a'),
    (dict(b='from domain_llm import a\na._g()'), 'b reaches for a._g'),
    ({'c.d': 'from ..e import f', 'e': ''}, 'c.d imports e, which lies above it'),
    ({'c.d': '', 'c.e': 'from .d import _f'}, 'c.e takes the private _f of c.d'),
], ids=['up', 'lazily up', 'a circle', 'private', 'private by module', 'up out of a part',
        'private in a part'])
def test_each_fault_is_found(change, fault):
    modules = dict(a='', b='') | change if not any('.' in name for name in change) else change
    assert fault in faults(modules)
    good = 'import json\nfrom . import __version__'
    assert not faults(dict(a=good, b='from domain_llm.a import g\njson._x'))


def run(code):
    "Run code in a fresh process that fails with what is wrong."
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('code', [
    'import domain_llm', 'import domain_llm.app.cli',
    'from domain_llm.app.cli import main\ntry: main(["--help"])\nexcept SystemExit: pass'])
def test_torch_is_not_imported_before_it_is_needed(code):
    heavy = {'torch', 'datasets', 'pandas', 'matplotlib', 'transformers'}
    run(f'import sys\n{code}\nassert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)')


def test_from_the_ground_up_a_module_loads_no_later_one_and_no_dev_tool():
    run(f"""import sys
from importlib import import_module
modules = {MODULES}
for i, module in enumerate(modules):
    import_module('domain_llm.' + module)
    unwanted = {{'transformers', 'fastcore', 'nbdev', 'IPython'}}
    unwanted |= {{'domain_llm.' + later for later in modules[i + 1:]}}
    assert not unwanted & set(sys.modules), (module, unwanted & set(sys.modules))
""")


def test_each_module_has_its_notebook():
    home = ROOT / 'domain_llm'
    there = {'.'.join(p.relative_to(home).with_suffix('').parts)
             for p in home.rglob('*.py') if not p.stem.startswith('_')}
    assert there == set(MODULES)


@pytest.mark.parametrize('module', MODULES)
def test_only_the_lesson_on_showing_writes_markup_and_opens_figures(module):
    nodes = list(ast.walk(ast.parse(source_of(module))))
    if module == 'ground.show': return
    texts = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    called = {ast.unparse(n.func).split('.')[-1] for n in nodes if isinstance(n, ast.Call)}
    own = set(re.findall(r'<(?:table|td|span|style|img|html)\b|#[0-9a-fA-F]{6}\b', ' '.join(texts)))
    own |= called & {'subplots', 'savefig'}
    assert not own, f'{module}: leave {own} to domain_llm.ground.show'
