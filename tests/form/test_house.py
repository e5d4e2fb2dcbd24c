"""The house: a module imports only what lies below it, nothing goes round in a circle, and no private name leaves home.

The order is that of the notebooks' numbers. Imports inside functions count like those above them.
"""
import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXPORTS = re.compile(r'#\| default_exp ([\w.]+)')


def house():
    "The modules from the ground to the roof, each with its source."
    named = [
        m[1]
        for p in sorted((ROOT / 'nbs').glob('[0-9]*.ipynb'))
        if (m := EXPORTS.search(p.read_text('utf-8')))
    ]
    return {
        name: (ROOT / 'domain_llm' / f'{name.replace(".", "/")}.py').read_text('utf-8')
        for name in named
    }


def imports(name, source, modules):
    "What a module takes from other modules of the house: (module, name or None), lazy imports included."
    package = ['domain_llm', *name.split('.')[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = (
                '.'.join([*package[: len(package) + 1 - node.level], *filter(None, [node.module])])
                if node.level
                else node.module
            )
            found = [(base, alias.name) for alias in node.names]
        else:
            continue
        for base, what in found:
            if base != 'domain_llm' and not base.startswith('domain_llm.'): continue
            inner = base.removeprefix('domain_llm').lstrip('.')
            whole = '.'.join(filter(None, [inner, what]))
            if whole in modules: yield whole, None             # from domain_llm import corpus
            elif inner in modules: yield inner, what


def faults(modules):
    "Every import upwards, and every private name that crosses a wall."
    order, found = list(modules), []
    for name, source in modules.items():
        taken = list(imports(name, source, modules))
        for other, what in taken:
            if order.index(other) >= order.index(name):
                found.append(f'{name} imports {other}, which lies above it')
            if what and what.startswith('_'):
                found.append(f'{name} takes the private {what} of {other}')
        aliases = {
            alias.asname or alias.name
            for node in ast.walk(ast.parse(source))
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
            if (alias.asname or alias.name)
            in {other.split('.')[-1] for other, what in taken if not what}
        }
        for node in ast.walk(ast.parse(source)):               # corpus._ngrams
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases \
                    and node.attr.startswith('_') and not node.attr.startswith('__'):
                found.append(f'{name} reaches for {node.value.id}.{node.attr}')
    return found


def test_imports_go_down_and_private_names_stay_at_home():
    modules = house()
    assert len(modules) >= 10
    assert not faults(modules)


def test_no_lesson_reaches_for_the_private_names_of_another():
    import nbformat
    for path in sorted((ROOT / 'nbs').glob('*.ipynb')):
        own = EXPORTS.search(path.read_text('utf-8'))
        for cell in nbformat.read(path, 4).cells:
            if cell.cell_type != 'code': continue
            for module, names in re.findall(r'^ *from domain_llm\.([\w.]+) import \(?([^()\n]+)', cell.source, re.M):
                if own and module == own[1]: continue
                private = [n for n in re.split(r',\s*', names) if n.strip().startswith('_')]
                assert not private, f'{path.name} takes {private} of {module}'


@pytest.mark.parametrize('change, fault', [
    (dict(a='from domain_llm.b import f'), 'a imports b, which lies above it'),
    (dict(a='def g():\n    from domain_llm.b import f'), 'a imports b, which lies above it'),
    (dict(a='from .b import f', b='from .a import g'), 'a imports b, which lies above it'),
    (dict(b='from domain_llm.a import _g'), 'b takes the private _g of a'),
    (dict(b='from domain_llm import a\na._g()'), 'b reaches for a._g'),
    ({'c.d': 'from ..e import f', 'e': ''}, 'c.d imports e, which lies above it'),
    ({'c.d': '', 'c.e': 'from .d import _f'}, 'c.e takes the private _f of c.d'),
], ids=['up', 'lazily up', 'a circle', 'private', 'private by module', 'up out of a part', 'private in a part'])
def test_each_fault_is_found(change, fault):
    modules = dict(a='', b='') | change if not any('.' in name for name in change) else change
    assert fault in faults(modules)
    assert not faults(
        dict(a='import json\nfrom . import __version__', b='from domain_llm.a import g\njson._x')
    )
