"""Colab without Colab: what every lesson begins with, and what its install cell would do to Colab's packages."""
import json, os, shutil, subprocess, sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as plain

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'tools'))
from lesson_tops import NEXT, first_cell, with_badge

LESSONS = sorted((ROOT / 'nbs').glob('[0-9]*.ipynb'))
SETTINGS = ConfigParser(delimiters=['='])
SETTINGS.read(ROOT / 'settings.ini', encoding='utf-8')
SETTINGS = SETTINGS['DEFAULT']
LISTS = sorted((ROOT / 'tests/colab').glob('pip-freeze-*.txt'))
COLAB = dict(
    line.split('==') for line in LISTS[-1].read_text(encoding='utf-8').split() if '==' in line
)
VERSION = {plain(name): version for name, version in COLAB.items()}


def cells(path):
    return [
        c | dict(source=''.join(c['source']))
        for c in json.loads(path.read_text(encoding='utf-8'))['cells']
    ]


@pytest.mark.parametrize('path', LESSONS, ids=lambda p: p.stem)
def test_a_lesson_begins_with_its_badge_and_its_first_cell(path):
    lesson = cells(path)
    title = next(c['source'] for c in lesson if c['source'].startswith('# '))
    assert title == with_badge(title, path), 'run python tools/lesson_tops.py'
    at = next(i for i, c in enumerate(lesson) if c['cell_type'] == 'code')
    assert lesson[at]['source'] == first_cell(path), 'run python tools/lesson_tops.py'
    assert lesson[at - 1]['source'] == NEXT


def test_badge_and_cell_follow_settings_ini_and_replace_what_they_wrote_before(tmp_path):
    (tmp_path / 'nbs').mkdir(), shutil.copytree(ROOT / 'tools', tmp_path / 'tools')
    path = Path(shutil.copy(LESSONS[5], tmp_path / 'nbs'))
    text = (ROOT / 'settings.ini').read_text(encoding='utf-8')
    (tmp_path / 'settings.ini').write_text(
        text.replace('user = domain-llm', 'user = somebody').replace(
            f"tag = {SETTINGS['tag']}", 'tag = next'
        ),
        encoding='utf-8',
    )
    for _ in range(2):
        subprocess.run([sys.executable, tmp_path / 'tools/lesson_tops.py'], check=True)
    before, after = cells(LESSONS[5]), cells(path)
    new = [c['source'] for c, old in zip(after, before, strict=True) if c != old]
    assert (len(new) == 2 and f"/somebody/{SETTINGS['repo']}/blob/next/nbs/{path.name})" in new[0]
            and f"/somebody/{SETTINGS['repo']}@next'" in new[1])


def test_a_lesson_that_uses_a_gpu_asks_colab_for_one():
    asking = {
        p.stem
        for p in LESSONS
        if json.loads(p.read_text(encoding='utf-8'))['metadata'].get('accelerator') == 'GPU'
    }
    flagged = {p.stem for p in LESSONS for c in cells(p) if c['source'].startswith('#| gpu')}
    assert asking == {'45_pretraining'} | flagged
    for stem in asking: assert json.loads((ROOT / f'nbs/{stem}.ipynb').read_text(encoding='utf-8'))['metadata'][
        'colab']['gpuType'] == 'T4'


def run_first_cell(tmp_path, colab, found, **env):
    "Run a first cell without its last two lines, told whether it is on Colab and whether the package is there."
    fake = f"""import importlib.util, sys
if {colab}: sys.modules['google.colab'] = sys
importlib.util.find_spec = lambda name: {found} or None
"""
    cell = first_cell(LESSONS[5]).split('\nfrom domain_llm')[0]
    return subprocess.run(
        [sys.executable, '-c', fake + cell],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize('colab, found', [(True, False), (True, True), (False, False), (False, True)])
def test_only_on_colab_and_only_once_is_anything_installed(tmp_path, colab, found):
    pip = tmp_path / 'pip'
    pip.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    pip.chmod(0o755)
    done = run_first_cell(tmp_path, colab, found, PATH=f'{tmp_path}:/usr/bin:/bin')
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / 'asked').read_text().splitlines() if (tmp_path / 'asked').exists() else []
    address = f"git+https://github.com/{SETTINGS['user']}/{SETTINGS['repo']}@{SETTINGS['tag']}"
    assert asked == (
        ['list --format=freeze', f'install -q -c /tmp/have.txt {address}']
        if colab and not found
        else []
    )


@pytest.mark.parametrize('requirement', SETTINGS['requirements'].split())
def test_colab_has_what_the_lower_bound_asks_or_nothing(requirement):
    asked = Requirement(requirement)
    assert VERSION.get(plain(asked.name)) is None or asked.specifier.contains(
        VERSION[plain(asked.name)]
    )


@pytest.fixture(scope='module')
def index():
    "Skip where no package index answers."
    asked = subprocess.run(
        [sys.executable, '-m', 'pip', 'index', 'versions', 'datasketch'],
        capture_output=True,
        text=True,
    )
    if asked.returncode: pytest.skip('needs a package index')


@pytest.fixture(scope='module')
def colab(tmp_path_factory):
    "An environment in which pip finds every package that Colab has, by name and version and nothing else."
    home = tmp_path_factory.mktemp('colab')
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', home], check=True)
    site = next(home.glob('lib/python*/site-packages'))
    for name, version in COLAB.items():
        folder = site / f'{name.replace("-", "_")}-{version}.dist-info'
        folder.mkdir()
        (folder / 'METADATA').write_text(
            f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n'
        )
        (folder / 'INSTALLER').write_text('pip\n')
    return home


@pytest.fixture(scope='module')
def repository(tmp_path_factory):
    "This working tree as a repository with one commit, which has the tag that the cell names."
    home = tmp_path_factory.mktemp('repository')
    files = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True,
                           check=True).stdout.split('\0')[:-1]
    for name in files:
        if name.startswith(('tests/', 'nbs/', 'benchmarks/')) or not (ROOT / name).exists():
            continue
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, home / name)
    git = ['git', '-c', 'user.name=x', '-c', 'user.email=x@x']
    for words in (['init', '-q'], ['add', '.'], ['commit', '-q', '-m', 'x'], ['tag', SETTINGS['tag']]):
        subprocess.run([*git, *words], cwd=home, check=True)
    return home


def dry_run(home, repository, tmp_path):
    "Run the install cell in that environment with a pip that only says what it would install; return that."
    pip, report = tmp_path / 'pip', tmp_path / 'report.json'
    pip.write_text(
        f'#!/bin/sh\n[ "$1" = list ] || more="--dry-run --report {report}"\nexec {sys.executable} '
        f'-m pip --python {home} "$@" $more\n'
    )
    pip.chmod(0o755)
    env = {k: v for k, v in os.environ.items() if k != 'PIP_CONSTRAINT'} | dict(
        PATH=f"{tmp_path}:{os.environ['PATH']}",
        PIP_DISABLE_PIP_VERSION_CHECK='1',
        GIT_CONFIG_COUNT='1',
        GIT_CONFIG_KEY_0=f'url.{repository.as_uri()}.insteadOf',
        GIT_CONFIG_VALUE_0=f"https://github.com/{SETTINGS['user']}/{SETTINGS['repo']}",
    )
    done = run_first_cell(tmp_path, True, False, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    return {
        plain(p['metadata']['name']): p['metadata']['version']
        for p in json.loads(report.read_text())['install']
    }


def test_the_install_cell_changes_no_package_that_colab_has(index, colab, repository, tmp_path):
    new = dry_run(colab, repository, tmp_path)
    print('added on Colab:', *(f'{name} {version}' for name, version in new.items()))
    assert plain(SETTINGS['lib_name']) in new and not new.keys() & VERSION.keys()
    assert len(new) <= 4, 'the course should add little to Colab'


def test_the_game_has_buttons_with_the_ipywidgets_of_colab(index, tmp_path):
    wanted = [f'{name}=={VERSION[name]}' for name in ('ipywidgets', 'ipython-genutils')]
    env = {k: v for k, v in os.environ.items() if k != 'PIP_CONSTRAINT'}
    subprocess.run(
        [sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--target', tmp_path, *wanted],
        env=env,
        check=True,
    )
    code = f"""import sys, ipywidgets, pytest
assert ipywidgets.__version__ == {VERSION['ipywidgets']!r}
sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', 'tests/app/test_game.py', '-k', 'buttons']))"""
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=ROOT,
        env=env | dict(PYTHONPATH=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and ' passed' in done.stdout, done.stdout + done.stderr
