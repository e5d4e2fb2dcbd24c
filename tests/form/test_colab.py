"""Colab without Colab: how every lesson begins, and what its install cell would do there."""
import json, os, shutil, subprocess, sys
from pathlib import Path

import pytest
import tops
from notebooks import ROOT, cells, lessons, settings, sources
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as plain

SETTINGS = settings()
ADDRESS = f"https://github.com/{SETTINGS['user']}/{SETTINGS['repo']}"
LISTS = sorted((ROOT / 'tests/form/colab').glob('pip-freeze-*.txt'))
COLAB = dict(line.split('==') for line in LISTS[-1].read_text(encoding='utf-8').split()
             if '==' in line)
VERSION = {plain(name): version for name, version in COLAB.items()}


@pytest.mark.parametrize('path', lessons(), ids=lambda p: p.stem)
def test_a_lesson_begins_with_its_badge_and_its_first_cell(path):
    assert path.read_text(encoding='utf-8') == tops.with_top(path), 'run python tools pages'
    every = cells(path)
    first = next(i for i, c in enumerate(every) if c['cell_type'] == 'code')
    assert every[first - 1]['source'] == tops.NEXT


def test_badge_and_cell_follow_settings_ini_and_replace_earlier_ones(tmp_path, monkeypatch):
    path = Path(shutil.copy(lessons()[5], tmp_path))
    monkeypatch.setattr(tops, 'settings', lambda: dict(SETTINGS, user='somebody', tag='next'))
    for _ in range(2): path.write_text(tops.with_top(path), encoding='utf-8')
    new = [c['source'] for c, old in zip(cells(path), cells(lessons()[5]), strict=True) if c != old]
    assert len(new) == 2
    assert f"/somebody/{SETTINGS['repo']}/blob/next/nbs/{path.name})" in new[0]
    assert f"/somebody/{SETTINGS['repo']}@next'" in new[1]


def test_a_lesson_that_uses_a_gpu_asks_colab_for_one():
    metadata = {p.stem: json.loads(p.read_text(encoding='utf-8'))['metadata'] for p in lessons()}
    asking = {stem for stem, found in metadata.items() if found.get('accelerator') == 'GPU'}
    flagged = {p.stem for p in lessons() if any(s.startswith('#| gpu') for s in sources(p, 'code'))}
    assert asking == {'45_pretraining'} | flagged
    assert all(metadata[stem]['colab']['gpuType'] == 'T4' for stem in asking)


needs_sh = pytest.mark.skipif(os.name == 'nt', reason='needs a shell as Colab has')


def run_first_cell(tmp_path, colab, found, **env):
    "Run a first cell but for its last two lines, told whether it is on Colab and has the package."
    fake = f"""import importlib.util, sys
if {colab}: sys.modules['google.colab'] = sys
importlib.util.find_spec = lambda name: {found} or None
"""
    cell = tops.first_cell(lessons()[5]).split('\nfrom domain_llm')[0]
    return subprocess.run([sys.executable, '-c', fake + cell], cwd=tmp_path, env=env,
                          capture_output=True, text=True, timeout=300)


@needs_sh
@pytest.mark.parametrize('found', [False, True])
@pytest.mark.parametrize('colab', [False, True])
def test_only_on_colab_and_only_once_is_anything_installed(tmp_path, colab, found):
    pip = tmp_path / 'pip'
    pip.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    pip.chmod(0o755)
    done = run_first_cell(tmp_path, colab, found, PATH=f'{tmp_path}:/usr/bin:/bin')
    assert done.returncode == 0, done.stderr
    asked = tmp_path / 'asked'
    if found or not colab: assert not asked.exists()
    else:
        assert asked.read_text().splitlines() == [
            'list --format=freeze',
            f"install -q -c /tmp/have.txt git+{ADDRESS}@{SETTINGS['tag']}"]


@pytest.mark.parametrize('requirement', SETTINGS['requirements'].split())
def test_colab_has_what_the_lower_bound_asks_or_nothing(requirement):
    asked = Requirement(requirement)
    there = VERSION.get(plain(asked.name))
    assert there is None or asked.specifier.contains(there)


@pytest.fixture(scope='module')
def index():
    "Skip where no package index answers."
    command = [sys.executable, '-m', 'pip', 'index', 'versions', 'datasketch']
    if subprocess.run(command, capture_output=True).returncode: pytest.skip('needs a package index')


@pytest.fixture(scope='module')
def colab(tmp_path_factory):
    "Make an environment in which pip finds the name and version of every package of Colab's."
    home = tmp_path_factory.mktemp('colab')
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', home], check=True)
    site = next(home.glob('lib/python*/site-packages'))
    for name, version in COLAB.items():
        folder = site / f'{name.replace("-", "_")}-{version}.dist-info'
        folder.mkdir()
        (folder / 'METADATA').write_text(
            f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
        (folder / 'INSTALLER').write_text('pip\n')
    return home


@pytest.fixture(scope='module')
def repository(tmp_path_factory):
    "Make this working tree a repository of one commit, which has the tag that the cell names."
    home = tmp_path_factory.mktemp('repository')
    listed = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True,
                            check=True)
    for name in listed.stdout.split('\0')[:-1]:
        if name.startswith(('tests/', 'nbs/', 'benchmarks/')): continue
        if not (ROOT / name).exists(): continue
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, home / name)
    git = ['git', '-c', 'user.name=x', '-c', 'user.email=x@x']
    steps = ['init', '-q'], ['add', '.'], ['commit', '-q', '-m', 'x'], ['tag', SETTINGS['tag']]
    for words in steps: subprocess.run([*git, *words], cwd=home, check=True)
    return home


def without_constraint():
    return {k: v for k, v in os.environ.items() if k != 'PIP_CONSTRAINT'}


def dry_run(home, repository, tmp_path):
    "Run the install cell there with a pip that only says what it would install, and return that."
    pip, report = tmp_path / 'pip', tmp_path / 'report.json'
    pip.write_text(
        f'#!/bin/sh\n[ "$1" = list ] || more="--dry-run --report {report}"\nexec {sys.executable} '
        f'-m pip --python {home} "$@" $more\n')
    pip.chmod(0o755)
    env = without_constraint() | dict(
        PATH=f"{tmp_path}:{os.environ['PATH']}", PIP_DISABLE_PIP_VERSION_CHECK='1',
        GIT_CONFIG_COUNT='1', GIT_CONFIG_KEY_0=f'url.{repository.as_uri()}.insteadOf',
        GIT_CONFIG_VALUE_0=ADDRESS)
    done = run_first_cell(tmp_path, True, False, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())['install']
    return {plain(p['metadata']['name']): p['metadata']['version'] for p in found}


@needs_sh
def test_the_install_cell_changes_no_package_that_colab_has(index, colab, repository, tmp_path):
    new = dry_run(colab, repository, tmp_path)
    print('added on Colab:', *(f'{name} {version}' for name, version in new.items()))
    assert plain(SETTINGS['lib_name']) in new and not new.keys() & VERSION.keys()
    assert len(new) <= 4, 'the course should add little to Colab'


def test_the_game_has_buttons_with_the_ipywidgets_of_colab(index, tmp_path):
    wanted = [f'{name}=={VERSION[name]}' for name in ('ipywidgets', 'ipython-genutils')]
    install = [sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--target', tmp_path]
    subprocess.run([*install, *wanted], env=without_constraint(), check=True)
    test, = (ROOT / 'tests').rglob('test_game.py')
    code = f"""import sys, ipywidgets, pytest
assert ipywidgets.__version__ == {VERSION['ipywidgets']!r}
sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', {str(test)!r}, '-k', 'buttons']))"""
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True,
                          env=without_constraint() | dict(PYTHONPATH=str(tmp_path)), timeout=300)
    assert done.returncode == 0 and ' passed' in done.stdout, done.stdout + done.stderr
