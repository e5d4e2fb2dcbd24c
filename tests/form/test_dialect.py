"""One dialect: all code that people write keeps to the ten points in CONTRIBUTING.md."""
import re

import dialect
import pytest


def test_all_code_speaks_one_dialect():
    pytest.importorskip('ruff', reason='needs ruff')
    found = dialect.check()
    assert not found, '\n'.join([f'{len(found)} faults, see python tools check:', *found[:20]])


GOOD = """
def read(
    path: Path,        # the file
    limit: int = 10,   # the most lines to read
) -> list:             # its lines
    "Read the lines of a file."
    def inner(text): return text
    if not limit: raise ValueError(f'`limit` should be 1 or more, but got {limit}: drop it')
    return sorted(path.open(), key=lambda line: -len(line))

def _private(x, y): return x if x > y else y

class Reader:
    def __init__(self, path: Path): self.path = path
    def forward(self, x): return x
"""


def code(source, exported=True):
    return dialect.Code('nbs/00, cell 1', source, exported, not exported)


def test_what_keeps_to_it_passes():
    assert not list(dialect.faults(code(GOOD)))
    assert not list(dialect.faults(code('x = 1\nx, 2 * x', exported=False)))


@pytest.mark.parametrize('old, new, fault', [
    ('path: Path,        # the file', 'path,  # the file', 'read: no annotation of path'),
    ('path: Path,        # the file', 'path: Path,', 'read: no comment on path'),
    ('path: Path,        # the file\n', 'path: Path,', 'more than one parameter on a line'),
    ('    "Read the lines of a file."\n', '', 'read has no docstring'),
    ('_private(x, y)', '_private(x,  # one\n    y)', 'a comment on a parameter of a private'),
    ('self, path: Path', 'self, path', '__init__: no annotation of path'),
    ('should be 1 or more, but got', 'must be positive, not', 'a refusal says'),
    (': drop it', '', 'a refusal says'),
    ('x if x > y else y', 'x * (x > y)', 'arithmetic on a comparison'),
    ('self.path = path', 'self.n += path == 1', 'arithmetic on a comparison'),
    ('return x\n', 'return print(x)\n', 'return print'),
    ('return x\n', 'a.x(), b.y()\n', 'a list or tuple as a statement'),
    ('return x\n', '[print(y) for y in x]\n', 'a list or tuple as a statement'),
    ('def inner(text): return text', 'n = property(lambda self: 1)', 'a lambda with a name'),
    ('_private(x, y)', '_private(x, most)', 'most: the field says'),
])
def test_each_fault_is_found(old, new, fault):
    assert GOOD.count(old) >= 1
    assert any(fault in what for _, what in dialect.faults(code(GOOD.replace(old, new))))


def test_the_example_in_the_guide_keeps_to_it():
    guide = (dialect.ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8')
    example, = re.findall(r'```python\n(.*?)```', guide, re.S)
    assert not list(dialect.faults(code(example)))
