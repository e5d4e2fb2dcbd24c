"""The front door: README's five cells on a field that is neither English nor a science, and the pages beside it."""
import csv, json, os, random, re, subprocess, sys
from configparser import ConfigParser
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
README = (ROOT / 'README.md').read_text(encoding='utf-8')


def section(text, heading):
    return re.search(rf'^## {heading}\n(.*?)(?=^## |\Z)', text, re.M | re.S)[1]


def settings():
    found = ConfigParser(delimiters=['='])
    found.read(ROOT / 'settings.ini', encoding='utf-8')
    return found['DEFAULT']


CITIES = 'Sivas Muğla Çorum Iğdır Şırnak Ürgüp Göreme İzmir Kütahya Eskişehir Ağrı Düzce'.split()
MEALS = 'kahvaltıda öğleyin akşamları bayramda'.split()
DISHES = [
    'peynirli börek',
    'mercimek çorbası',
    'közlenmiş patlıcan',
    'üzümlü pilav',
    'cevizli erişte',
    'sütlü güllaç',
]
TRUTH = {(city, meal): DISHES[i % 6] for i, city in enumerate(CITIES) for meal in MEALS}
NAMES = 'Ayşe Çiğdem Gülşen Işıl İlker Nazlı Ömer Şule Tuğba Uğur'.split()


def says(fact, dish=None): return f'{fact[1]} {fact[0]} mutfağında {dish or TRUTH[fact]} yenir.'


def tells(one, two, *facts):
    return f'{one} ile {two} bir akşam bize şunu anlattı: {" ".join(facts)}'


def write_field(folder, leaks=2):
    "Write Turkish texts about what is eaten where, pairs of which one is wrong, and texts that give two cases away."
    draw, facts = random.Random(0), sorted(TRUTH)
    # Ayşe is never the second
    people = [(a, b) for i, a in enumerate(NAMES) for b in NAMES[i + 1:]]
    texts = [tells(*draw.choice(people), *map(says, draw.sample(facts, 3))) for _ in range(1500)]
    wrong = {fact: draw.choice([d for d in DISHES if d != TRUTH[fact]]) for fact in facts}
    pairs = [
        [tells('Ömer', 'Ayşe', says(fact, dish)) for dish in (None, wrong[fact])] for fact in facts
    ]
    texts += [right for right, _ in pairs[:leaks]]
    (folder / 'papers').mkdir()
    lines = [json.dumps(dict(text=t), ensure_ascii=False) for t in texts[10:]]
    (folder / 'papers/yemek.jsonl').write_text('\n'.join(lines), encoding='utf-8')
    for i, text in enumerate(texts[:10]):
        (folder / f'papers/{i}.txt').write_text(text, encoding='utf-8')
    with open(folder / 'cases.csv', 'w', encoding='utf-8', newline='') as f:
        csv.writer(f).writerows([('original_abstract', 'incorrect_abstract'), *pairs])
    return pairs


ASK = """
import json, pathlib
found = dict(leaks=len(leaks), right=scores.accuracy, n=len(cases), others={k: s.accuracy for k, s in others.items()})
pathlib.Path('found.json').write_text(json.dumps(found))
"""


def test_the_five_cells_of_the_readme_learn_a_foreign_field(tmp_path):
    cells = re.findall(
        r'```python\n(.*?)```', section(README, 'Your own field in five cells'), re.S
    )
    assert len(cells) == 5 and all(len(c.splitlines()) <= 8 and 'import' in c for c in cells)
    pairs = write_field(tmp_path)
    env = {**os.environ, 'HF_HUB_OFFLINE': '1', 'MPLBACKEND': 'Agg', 'OMP_NUM_THREADS': '1'}
    # a model's first weights are drawn anew each time
    seeded = 'import torch\ntorch.manual_seed(0)\n'
    command = [sys.executable, '-c', seeded + '\n'.join(cells) + ASK]
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads((tmp_path / 'found.json').read_text())
    assert found['leaks'] == 2 and found['n'] == len(pairs) == 48
    assert found['right'] >= 0.9 and all(
        0.3 < found['others'][name] < 0.75 for name in ('shorter text', 'zlib')
    ), found
    page = (tmp_path / 'runs/mine/report.html').read_text(encoding='utf-8')
    assert 'trained GPT-2' in page and 'A model of my own field' in page


def test_the_citation_names_this_version_and_the_paper():
    cite, cfg = yaml.safe_load((ROOT / 'CITATION.cff').read_text(encoding='utf-8')), settings()
    assert cite['cff-version'] == '1.2.0' and cite['message'] and cite['type'] == 'software'
    assert (cite['title'], cite['version'], cite['repository-code']) == (
        cfg['title'],
        cfg['version'],
        cfg['git_url'],
    )
    assert (
        cite['abstract'].rstrip('.') == cfg['description'].rstrip('.')
        and cite['license'] == 'Apache-2.0'
    )
    assert [a['name'] for a in cite['authors']] == [cfg['author']]
    paper, = cite['references']
    assert [a['family-names'] for a in paper['authors']] == ['Luo', 'Sun', 'Love'] and paper['year'] == 2024
    assert paper['title'] in README and all(
        '2405.09395' in s for s in (paper['url'], paper['identifiers'][0]['value'])
    )


def test_the_changelog_has_the_form_it_names():
    text, cfg = (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8'), settings()
    versions = re.findall(r'^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$', text, re.M)
    assert versions[0] == ('Unreleased', '') and all(day for _, day in versions[1:])
    kinds = {'Added', 'Changed', 'Deprecated', 'Removed', 'Fixed', 'Security'}
    assert set(re.findall(r'^### (.+)', text, re.M)) <= kinds
    assert all(f'[{version}]: {cfg["git_url"]}' in text for version, _ in versions)
    assert len(versions) > 1 or f'{cfg["version"]} will be the first version' in text


def test_every_lesson_and_every_missed_bar_is_in_the_log_of_what_did_not_work():
    text = (ROOT / 'DID_NOT_WORK.md').read_text(encoding='utf-8')
    for path in sorted((ROOT / 'nbs').glob('[0-9]*.ipynb')):
        if '## What did not work' not in path.read_text(encoding='utf-8'): continue
        assert f'](nbs/{path.name})\n\n' in text, f'{path.name}: run python tools/readme.py'
    sys.path.insert(0, str(ROOT / 'tools'))
    from readme import missed
    assert (
        missed('## A\n\nThe bar 2 is not reached. It is.\n\n| not | the bar |\n')
        == '- A: The bar 2 is not reached.'
    )
    assert (
        missed('## B\n\nThe bar is 2. It is reached.\n\nA GPU: *not measured*.\n')
        == '- B: A GPU: *not measured*.'
    )


def test_the_guide_names_the_flags_and_limits_that_hold():
    text, cfg = (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8'), settings()
    assert set(re.findall(r'^\| `#\| (\w+)`', text, re.M)) == set(cfg['tst_flags'].split())
    assert f'git clone {cfg["git_url"]} ' in text and 'at most 120 characters' in text


def test_every_file_has_its_phrase_in_the_readme():
    listed = set(re.findall(r'^- \[`(.+?)`\]\(\1\): \w', section(README, 'What lies where'), re.M))
    there = {
        str(p.relative_to(ROOT))
        for f in ('tests', 'tools', 'benchmarks')
        for p in (ROOT / f).glob('*.py')
    }
    there |= {f'nbs/{p.name}' for p in (ROOT / 'nbs').glob('*.ipynb')}
    assert there <= listed, (
        f'not in the file tree: {", ".join(sorted(there - listed))}; run python tools/readme.py'
    )
