"""What the texts name is there: commands, options, files, links, functions, flags, versions."""
import ast
import re
from importlib import import_module

import pytest
import yaml
from notebooks import ROOT, cells, lessons, prose, settings, sources

NOTEBOOKS = [ROOT / 'nbs/index.ipynb', *lessons()]
PAGES = [*ROOT.glob('*.md'), *ROOT.glob('nbs/*.md'), *ROOT.glob('benchmarks/*.md')]
SCRIPTS = [*ROOT.glob('tools/*.py'), *ROOT.glob('benchmarks/*.py')]
TEXTS = [*NOTEBOOKS, *PAGES, *SCRIPTS]


def text_of(path):
    if path.suffix != '.ipynb': return path.read_text(encoding='utf-8')
    return '\n'.join(cell['source'] for cell in cells(path))


@pytest.fixture(scope='module')
def commands():
    "Read which commands `domain-llm` has, and all their options."
    import typer
    from domain_llm.app.cli import app
    group = typer.main.get_command(app)
    options = {o for c in group.commands.values() for p in c.params for o in p.opts}
    # of Python's and torch's own programs, and of nbdev_test and the tools
    return set(group.commands), options | {'--help', '--flags', '--check', '--store'}


@pytest.mark.parametrize('path', TEXTS, ids=lambda p: p.name)
def test_commands_and_options_exist(path, commands):
    from domain_llm.app.cli import SIZES
    known, options = commands
    for line in re.findall(r'domain-llm +([^\n`"\']+)', text_of(path)):
        words = line.split()
        if re.fullmatch(r'[a-z][a-z-]*', words[0]) and path.suffix != '.py':
            assert words[0] in known | {'that', 'wrote'}, f'domain-llm {line}'
        if words[0] not in known: continue
        assert set(re.findall(r'(?<!\S)--[a-z-]+', line)) <= options, line
        if '--size' in words: assert words[words.index('--size') + 1] in SIZES


@pytest.mark.parametrize('path', TEXTS, ids=lambda p: p.name)
def test_files_and_links_exist(path):
    folders = 'nbs|tests|tools|benchmarks|domain_llm|\\.ci'
    names = re.findall(rf'`((?:{folders})/[\w./-]+)`', text_of(path))
    if path.name != 'CHANGELOG.md':                            # where files of the past are named
        missing = [name for name in names if not (ROOT / name).exists()]
        assert not missing, missing
    if path in SCRIPTS: return
    text = prose(path) if path.suffix == '.ipynb' else text_of(path)
    links = re.findall(r'\]\((?!https?://|#)([^)\s]+)\)', text)
    dead = [link for link in links if not (path.parent / link.split('#')[0]).exists()]
    assert not dead, dead


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_functions_that_a_lesson_imports_exist(path):
    imports = re.findall(r'^from domain_llm\.([\w.]+) import ([\w, ]+)', text_of(path), re.M)
    for module, names in imports:
        found = import_module(f'domain_llm.{module}')
        missing = [n.strip() for n in names.split(',') if not hasattr(found, n.strip())]
        assert not missing, f'{module} has no {missing}'


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_directives_stand_where_they_do_something(path):
    for source in sources(path, 'code'):
        lines = [line for line in source.splitlines() if line.strip()]
        tops = [line.startswith(('#|', '%%', '#@')) for line in lines]
        late = [line for i, line in enumerate(lines)
                if re.match(r'#\|\s*\w', line) and not all(tops[:i])]
        assert not late, f'a directive below another line does nothing: {late}'


def guarded(source):
    "Say whether a flagged cell only imports and defines before it asks for what it needs."
    harmless = ast.Import | ast.ImportFrom | ast.FunctionDef
    body = [s for s in ast.parse(source).body if not isinstance(s, harmless)]
    asks = [isinstance(s, ast.If | ast.Try)
            and re.search('needs |has_data|has_model|recomputes', ast.unparse(s)) for s in body]
    return bool(asks) and all(asks)


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_a_flagged_cell_guards_itself_for_readers_in_jupyter(path):
    flag = re.compile(r'#\| *(data|gpu|network|slow|real)\b')
    flagged = [s for s in sources(path, 'code') if flag.match(s)]
    bare = [source for source in flagged if not guarded(source)]
    assert not bare, 'should ask first whether it has what it needs, but does not:\n' + bare[0]


def test_what_counts_as_guarded():
    assert guarded('#| data\nimport gzip\nif has_data():\n    read()')
    assert guarded('#| real\nif has_model(): load()') and not guarded('#| real\nload()')
    assert guarded('#| network\ntry: fetch()\nexcept OSError: print("needs the network")')
    assert not guarded('#| data\nread()\nif has_data(): read()')
    assert not guarded('#| data\nif True: read()') and not guarded('#| data\nread()')


def test_the_settings_name_what_exists():
    cfg = settings()
    module, function = cfg['console_scripts'].split('=')[1].split(':')
    assert hasattr(import_module(module), function)
    assert all((ROOT / cfg[k]).is_dir() for k in ('nbs_path', 'lib_path'))
    flags = set(cfg['tst_flags'].split())
    found = r'^#\|\s*(gpu|network|data|slow|real|exercise)\b'
    assert {w for p in NOTEBOOKS for w in re.findall(found, text_of(p), re.M)} <= flags
    guide = (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8')
    assert set(re.findall(r'^\| `#\| (\w+)`', guide, re.M)) == flags
    assert f'git clone {cfg["git_url"]} ' in guide


def test_the_citation_names_this_version_and_the_paper():
    cite, cfg = yaml.safe_load((ROOT / 'CITATION.cff').read_text(encoding='utf-8')), settings()
    assert (cite['title'], cite['version']) == (cfg['title'], cfg['version'])
    assert cite['repository-code'] == cfg['git_url']
    paper, = cite['references']
    assert '2405.09395' in paper['url']
    assert paper['title'] in (ROOT / 'README.md').read_text(encoding='utf-8')


def test_every_place_names_the_same_versions_of_python():
    oldest = int(settings()['min_python'].split('.')[1])
    project = (ROOT / 'pyproject.toml').read_text(encoding='utf-8')
    assert f'requires-python=">=3.{oldest}"' in project
    assert f'target-version = "py3{oldest}"' in project
    workflow = yaml.safe_load((ROOT / '.github/workflows/test.yaml').read_text(encoding='utf-8'))
    tested = workflow['jobs']['everything']['strategy']['matrix']['python']
    newest = int(tested[-1].split('.')[1])
    assert tested == [f'3.{minor}' for minor in range(oldest, newest + 1)]
    assert f'range({oldest}, {newest + 1})' in (ROOT / 'setup.py').read_text(encoding='utf-8')
    said = f'Python 3.{oldest} to 3.{newest}'
    assert said in (ROOT / 'README.md').read_text(encoding='utf-8')
