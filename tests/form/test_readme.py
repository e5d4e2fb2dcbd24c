"""The README's five cells on a field that is neither English nor a science; fresh pages."""
import csv, json, os, random, re, subprocess, sys

import pages
from notebooks import ROOT
from readme import missed

CITIES = 'Sivas Muğla Çorum Iğdır Şırnak Ürgüp Göreme İzmir Kütahya Eskişehir Ağrı Düzce'.split()
MEALS = 'kahvaltıda öğleyin akşamları bayramda'.split()
DISHES = ['peynirli börek', 'mercimek çorbası', 'közlenmiş patlıcan', 'üzümlü pilav',
          'cevizli erişte', 'sütlü güllaç']
TRUTH = {(city, meal): DISHES[i % 6] for i, city in enumerate(CITIES) for meal in MEALS}
NAMES = 'Ayşe Çiğdem Gülşen Işıl İlker Nazlı Ömer Şule Tuğba Uğur'.split()


def says(fact, dish=None): return f'{fact[1]} {fact[0]} mutfağında {dish or TRUTH[fact]} yenir.'


def told_by(one, two, *facts):
    return f'{one} ile {two} bir akşam bize şunu anlattı: {" ".join(facts)}'


def write_field(folder, leaks=2):
    "Write Turkish texts about what is eaten where, pairs with a wrong one, and two leaks."
    draw, facts = random.Random(0), sorted(TRUTH)
    people = [(a, b) for i, a in enumerate(NAMES) for b in NAMES[i + 1:]]  # Ayşe is never second
    texts = [told_by(*draw.choice(people), *map(says, draw.sample(facts, 3))) for _ in range(1500)]
    wrong = {fact: draw.choice([d for d in DISHES if d != TRUTH[fact]]) for fact in facts}
    pairs = [[told_by('Ömer', 'Ayşe', says(fact, dish)) for dish in (None, wrong[fact])]
             for fact in facts]
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
others = {name: scores.accuracy for name, scores in others.items()}
found = dict(leaks=len(leaks), right=scores.accuracy, n=len(cases), others=others)
pathlib.Path('found.json').write_text(json.dumps(found))
"""


def test_the_five_cells_of_the_readme_learn_a_foreign_field(tmp_path):
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    part = re.search(r'^## Your own field in five cells\n(.*?)^## ', text, re.M | re.S)[1]
    cells = re.findall(r'```python\n(.*?)```', part, re.S)
    assert len(cells) == 5
    pairs = write_field(tmp_path)
    env = {**os.environ, 'HF_HUB_OFFLINE': '1', 'MPLBACKEND': 'Agg', 'OMP_NUM_THREADS': '1'}
    seeded = 'import torch\ntorch.manual_seed(0)\n'  # a model's first weights are random
    run = subprocess.run([sys.executable, '-c', seeded + '\n'.join(cells) + ASK], cwd=tmp_path,
                         env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads((tmp_path / 'found.json').read_text())
    assert found['leaks'] == 2 and found['n'] == len(pairs) == 48
    assert found['right'] >= 0.9, found
    assert all(0.3 < found['others'][name] < 0.75 for name in ('shorter text', 'zlib')), found
    page = (tmp_path / 'runs/mine/report.html').read_text(encoding='utf-8')
    assert 'trained GPT-2' in page and 'A model of my own field' in page


def test_every_made_page_is_what_its_sources_give():
    assert not pages.stale(), 'run python tools pages'


def test_a_bar_that_benchmarks_missed_is_found():
    text = '## A\n\nThe bar 2 is not reached. It is.\n\n| not | the bar |\n'
    assert missed(text) == '- A: The bar 2 is not reached.'
    text = '## B\n\nThe bar is 2. It is reached.\n\nA GPU: *not measured*.\n'
    assert missed(text) == '- B: A GPU: *not measured*.'
