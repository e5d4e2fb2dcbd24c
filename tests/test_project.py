"""The project as a whole: light imports, true names in the texts, notebooks as GitHub wants them."""
import json, re, subprocess, sys
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / 'nbs').glob('*.ipynb'))
CODE = [
    p for folder in ('tests', 'tools', 'benchmarks') for p in sorted((ROOT / folder).glob('*.py'))
]
TEXTS = [*sorted(ROOT.glob('*.md')), *NOTEBOOKS, *sorted((ROOT / 'nbs').glob('*.md')),
         *sorted((ROOT / 'tools').glob('*.py')), *sorted((ROOT / 'benchmarks').glob('*.*'))]


def cells(path): return json.loads(path.read_text(encoding='utf-8'))['cells']


def text_of(path):
    if path.suffix != '.ipynb': return path.read_text(encoding='utf-8')
    return '\n'.join(''.join(c['source']) for c in cells(path))


def prose_of(path):
    if path.suffix != '.ipynb': return text_of(path)
    return '\n'.join(''.join(c['source']) for c in cells(path) if c['cell_type'] == 'markdown')


MODULES = [m[1] for p in NOTEBOOKS if (m := re.search(r'#\|\s*default_exp ([\w.]+)', text_of(p)))]


def loaded(code):
    "The modules that are loaded after some code ran in a fresh process."
    out = subprocess.run(
        [sys.executable, '-c', f'import sys\n{code}\nprint(*sys.modules)'],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(out.stdout.split('\n')[-2].split())


@pytest.mark.parametrize('code', [
    'import domain_llm', 'import domain_llm.app.cli',
    'from domain_llm.app.cli import main\ntry: main(["--help"])\nexcept SystemExit: pass'])
def test_torch_is_not_imported_before_it_is_needed(code):
    assert not loaded(code) & {'torch', 'datasets', 'pandas', 'matplotlib', 'transformers'}


@pytest.mark.parametrize('module', MODULES)
def test_a_module_loads_no_later_one_and_no_dev_tool(module):
    modules = loaded(f'import domain_llm.{module}')
    assert not {f'domain_llm.{m}' for m in MODULES[MODULES.index(module) + 1:]} & modules
    assert not {'transformers', 'fastcore', 'nbdev', 'IPython'} & modules


def test_each_module_has_its_notebook():
    there = {'.'.join(p.relative_to(ROOT / 'domain_llm').with_suffix('').parts)
             for p in (ROOT / 'domain_llm').rglob('*.py') if not p.stem.startswith('_')}
    assert there == set(MODULES)


def test_commands_and_options_in_the_texts_exist():
    from domain_llm.app.cli import SIZES, app
    import typer
    commands = {c.callback.__name__ for c in app.registered_commands}
    group = typer.main.get_command(app)
    options = {o for c in group.commands.values() for p in c.params for o in p.opts}
    options |= {'--help', '--flags', '--check', '--store'}
    for path in TEXTS:
        for line in re.findall(r'domain-llm +([^\n`"\']+)', text_of(path)):
            words = line.split()
            if re.fullmatch(r'[a-z][a-z-]*', words[0]) and not path.suffix == '.py':
                assert words[0] in commands | {'that', 'wrote'}, f'{path.name}: domain-llm {line}'
            if words[0] in commands:
                assert set(re.findall(r'(?<!\S)--[a-z-]+', line)) <= options, f'{path.name}: {line}'
            if '--size' in words and words[0] in commands:
                assert words[words.index('--size') + 1] in SIZES


def test_files_named_in_the_texts_exist():
    for path in TEXTS:
        text, here = text_of(path), path.parent
        for name in re.findall(r'`((?:nbs|tests|tools|benchmarks|domain_llm|\.ci)/[\w./-]+)`', text):
            assert (ROOT / name).exists(), f'{path.name}: {name}'
        if path.suffix in ('.ipynb', '.md'):
            for link in re.findall(r'\]\((?!https?://|#)([^)\s]+)\)', prose_of(path)):
                assert (here / link.split('#')[0]).exists(), f'{path.name}: {link}'


def test_functions_named_in_the_lessons_exist():
    import importlib
    for path in NOTEBOOKS:
        for module, names in re.findall(r'^from domain_llm\.([\w.]+) import ([\w, ]+)', text_of(path), re.M):
            found = importlib.import_module(f'domain_llm.{module}')
            for name in names.split(','):
                assert hasattr(found, name.strip()), f'{path.name}: {module}.{name}'


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_directives_stand_where_they_do_something(path):
    import nbformat
    for c in nbformat.read(path, 4).cells:
        lines = [l for l in c.source.splitlines() if l.strip()]
        late = [l for i, l in enumerate(lines) if re.match(r'#\|\s*\w', l)
                and any(not p.startswith(('#|', '%%', '#@')) for p in lines[:i])]
        assert c.cell_type != 'code' or not late, (
            f'a directive below another line does nothing: {late}'
        )


def test_the_metadata_name_what_exists():
    settings = ConfigParser(delimiters=['='])
    settings.read(ROOT / 'settings.ini', encoding='utf-8')
    cfg = settings['DEFAULT']
    module, function = cfg['console_scripts'].split('=')[1].split(':')
    assert hasattr(__import__(module, fromlist=['_']), function)
    assert all((ROOT / cfg[k]).is_dir() for k in ('nbs_path', 'lib_path'))
    assert ('constraints.txt' in (ROOT / '.ci/run').read_text()
            and (ROOT / '.ci/constraints.txt').read_text().startswith('torch=='))
    flags = set(cfg['tst_flags'].split())
    flag = re.compile(r'^#\|\s*(gpu|network|data|slow|exercise)\b', re.M)
    used = {w for p in NOTEBOOKS for c in cells(p) for w in flag.findall(''.join(c['source']))}
    assert used <= flags


@pytest.mark.parametrize('path', [*CODE, *NOTEBOOKS], ids=lambda p: p.stem)
def test_a_line_of_code_has_at_most_120_characters(path):
    notebook = path.suffix == '.ipynb'
    parts = (
        [''.join(c['source']) for c in cells(path) if c['cell_type'] == 'code']
        if notebook
        else [text_of(path)]
    )
    lines = [line for part in parts for line in part.splitlines()]
    # a table's row stays whole
    long = [line for line in lines if len(line) > 120 and not line.startswith('| ')]
    assert not long, f'{path.name}: {len(long)} longer lines, the first: {long[0]}'
