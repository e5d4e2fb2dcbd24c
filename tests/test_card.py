"Near copies against brute force, and the corpus card as data, page and picture."
import csv, gzip, itertools, json, os, random, re, subprocess, sys, time, tracemalloc
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings, strategies as st
from lxml import html

from domain_llm.text import card as card_room, overlap
from domain_llm.text.card import corpus_card
from domain_llm.text.documents import ReadReport, read_documents
from domain_llm.text.overlap import deduplicate, split_documents

DATA = os.environ.get('DOMAIN_LLM_DATA')
needs_data = pytest.mark.skipif(not DATA, reason='needs DOMAIN_LLM_DATA')


def dataset(texts, **more):
    return Dataset.from_dict(
        dict(id=[f'd{i}' for i in range(len(texts))], text=list(texts), **more)
    )


def runs(text):
    "The three-word runs of a text, written down another way than the lesson's"
    words = re.findall(r'\w+', text.casefold())
    return {tuple(words[i:i + 3]) for i in range(max(1, len(words) - 2))} if words else set()


def alike(a, b):
    a, b = runs(a), runs(b)
    return len(a & b) / len(a | b) if a | b else 0


def edited(text, n, draw):
    words = text.split()
    for i in draw.sample(range(len(words)), n): words[i] = f'other{draw.randrange(10**6)}'
    return ' '.join(words)


def made(n, words, draw):
    return [' '.join(f'w{draw.randrange(2000)}' for _ in range(words)) for _ in range(n)]


# ---- near copies

@settings(deadline=None, max_examples=150)
@given(st.text(alphabet='ab \n.é', max_size=40), st.text(alphabet='ab \n.é', max_size=40))
def test_the_similarity_is_that_of_the_sets(a, b):
    assert overlap._jaccard(overlap._shingles(a), overlap._shingles(b)) == pytest.approx(
        alike(a, b)
    )


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(alphabet='ab ', min_size=0, max_size=14), max_size=14), st.sampled_from([.3, .5, .8, 1]))
def test_each_drop_is_justified_by_a_kept_document(texts, near):
    dropped = []
    kept = deduplicate(dataset(texts), near=near, dropped=dropped)['id'][:]
    gone = {who: (why, whose) for who, why, whose in dropped}
    everyone = sorted(kept + list(gone), key=lambda i: int(i[1:]))
    assert everyone == [f'd{i}' for i in range(len(texts))], 'every document is kept or dropped'
    for who, (why, whose) in gone.items():
        a, b = (texts[int(i[1:])] for i in (who, whose))
        assert int(whose[1:]) < int(who[1:])
        if why == 'exact copy': assert a.casefold().split() == b.casefold().split()
        else: assert whose in kept and alike(a, b) >= near


@pytest.mark.parametrize('near', [.3, .5, .6, .8, .95])
def test_recall_and_precision_against_brute_force(near):
    draw = random.Random(1)
    texts = made(150, 120, draw)
    copies = [edited(t, n, draw) for t in texts for n in (1, 3, 8, 16, 30)]
    pairs = {
        (i, 150 + 5 * i + k)
        for i in range(150)
        for k in range(5)
        if alike(texts[i], copies[5 * i + k]) >= near
    }
    assert pairs
    assert overlap._near_copies(dataset(texts), near) == {}, 'unrelated texts stay'
    everything = texts + copies
    found = overlap._near_copies(dataset(everything), near)
    by_first = {(j, i) for i, j in found.items() if j < 150}
    assert by_first <= pairs
    assert len(by_first & pairs) >= .99 * len(pairs)
    for i, j in found.items(): assert alike(everything[i], everything[j]) >= near and j not in found


def test_a_pair_at_the_threshold_is_missed_less_than_once_in_a_thousand():
    for near in np.linspace(.3, 1, 50):
        rows = overlap._band_rows(near)
        assert (1 - near**rows) ** (overlap._RANKS // rows) < .001
    assert overlap._band_rows(.8) == 5 and overlap._band_rows(1.) == 16


def test_the_sketch_estimates_the_similarity():
    draw = random.Random(2)
    texts = made(60, 150, draw)
    copies = [edited(t, 8, draw) for t in texts]
    a, b = (overlap._signatures(dataset(t)) for t in (texts, copies))
    error = [(x == y).mean() - alike(s, t) for x, y, s, t in zip(a, b, texts, copies)]
    assert abs(np.mean(error)) < .02 and np.std(error) < .06


def test_a_thousand_copies_of_one_text_are_not_compared_with_each_other(monkeypatch):
    draw = random.Random(3)
    text, = made(1, 200, draw)
    asked, real = [], overlap._jaccard
    monkeypatch.setattr(overlap, '_jaccard', lambda a, b: asked.append(1) or real(a, b))
    found = overlap._near_copies(dataset([text] + [edited(text, 2, draw) for _ in range(1000)]), .6)
    assert len(found) == 1000 and set(found.values()) == {0} and len(asked) < 2500
    links = overlap._suspects(np.zeros((3000, overlap._RANKS), np.uint32), .6)
    assert sum(map(len, links.values())) <= 4 * 3000, (
        'a few links for each document, however many are alike'
    )


def test_memory_and_time_grow_with_the_documents_and_not_with_their_pairs():
    draw = random.Random(4)
    def cost(n):
        signatures = np.random.default_rng(n).integers(0, 2**32, (n, 128), dtype=np.uint32)
        tracemalloc.start()
        start = time.process_time()
        assert len(overlap._suspects(signatures, .6)) < 10
        spent, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return spent, peak / n
    cost(1000)
    small, large = cost(10_000), cost(80_000)
    assert large[0] < 8 * 3 * small[0] + .5, 'no worse than n log n'
    assert large[1] < 400, 'bytes for each document, beside 512 for its ranks'


def test_the_result_does_not_depend_on_the_hash_seed():
    code = """if True:
        import random
        from datasets import Dataset
        from domain_llm.text.overlap import _near_copies, _signatures
        d = random.Random(0)
        t = [' '.join(f'w{d.randrange(300)}' for _ in range(50)) for _ in range(30)]
        t += [x.replace('w1', 'w2') for x in t]
        s = Dataset.from_dict(dict(id=list(map(str, range(60))), text=t))
        print(_near_copies(s, .3), _signatures(s).sum())"""
    said = lambda seed: (
        subprocess.run(
            [sys.executable, '-c', code],
            env={**os.environ, 'PYTHONHASHSEED': seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    outs = {said('1'), said('2')}
    assert len(outs) == 1


def test_near_needs_a_sensible_number():
    for near in (0, .29, 1.01, -1):
        with pytest.raises(ValueError, match='between 0.3 and 1'):
            deduplicate(dataset(['a', 'b']), near=near)
    assert len(deduplicate(dataset([]), near=.5)) == 0
    assert len(deduplicate(dataset(['one text']), near=.5)) == 1
    short = dataset(['', '?!', 'one', 'One.', 'two words', 'Two; words', 'two other'])
    kept = deduplicate(short, near=.5)['text'][:]
    assert kept == ['', '?!', 'one', 'two words', 'two other'], 'short texts have one run'


def test_any_script_has_near_copies():
    greek = 'ο ιππόκαμπος των τρωκτικών αποθηκεύει διαδρομές στον λαβύρινθο κατά τη διάρκεια του ύπνου τους κάθε βράδυ'
    other = 'κάτι άλλο εντελώς διαφορετικό για τον εγκέφαλο'
    assert (
        len(deduplicate(dataset([greek, greek.replace('λαβύρινθο', 'κλουβί'), other]), near=0.5))
        == 2
    )


@needs_data
def test_brainbench_and_the_reviews():
    with open(Path(DATA)/'brainbench'/'BrainBench_Human_v0.1.csv', encoding='utf-8', newline='') as f:
        cases = list(csv.DictReader(f))
    with gzip.open(Path(DATA)/'corpus'/'neuro_reviews.jsonl.gz', 'rt', encoding='utf-8') as f:
        reviews = [json.loads(line)['text'] for line in f]
    n = len(reviews)
    texts = reviews + [c[k] for c in cases for k in ('original_abstract', 'incorrect_abstract')]
    found = overlap._near_copies(dataset(texts), .6)
    altered = {n + 2 * k + 1: n + 2 * k for k in range(len(cases))}
    assert {i: j for i, j in found.items() if i >= n} == altered, (
        'each altered abstract, and no original'
    )
    for i, j in found.items(): assert alike(texts[i], texts[j]) >= .6
    assert sum(i < n for i in found) <= 3


# ---- the card

@pytest.fixture(scope='module')
def card():
    data = dataset(
        ['one two three', 'four five', 'six', 'seven eight'],
        year=[1999, 2001, None, 2001],
        source=[
            f'/home/me/secret/{name}'
            for name in ('b/x.jsonl', 'b/x.jsonl', '<script>alert(1).txt', 'b/y.xml')
        ],
        title=[''] * 4,
    )
    import pandas as pd
    known = [('d0', 'CC BY 4.0'), ('d1', 'CC0 & more')]
    table = pd.DataFrame(
        [dict(pmcid='', pmid=i, doi='', licence=name, terms='', place='') for i, name in known]
    )
    report = ReadReport(
        skipped=[('f', 'broken: no <tag> here'), ('g', 'broken: something else'), ('h', 'no text')]
    )
    dropped = [('a', 'exact copy', 'b'), ('c', 'near copy', 'b'), ('e', 'near copy', 'b')]
    return corpus_card(split_documents(data, .3), report, dropped, ['leak'], table)


def test_the_card_counts(card):
    assert (card.documents, card.words) == (4, 8)
    assert sum(card.splits.values()) == 4 and list(card.splits) == ['train', 'validation']
    assert card.years == {'1999': 1, '2001': 2, 'unknown': 1}
    assert card.sources == {'b': 3, '<script>alert(1).txt': 1}
    assert card.licences == {'not recorded': 2, 'CC BY 4.0': 1, 'CC0 & more': 1}
    assert card.dropped == {
        'not read: broken': 2,
        'near copy': 2,
        'not read: no text': 1,
        'exact copy': 1,
        'shares words with the benchmark': 1,
    }
    assert '4 documents with 8 words' in str(card) and '2 near copy' in str(card)


def test_the_card_of_a_plain_dataset_and_nothing_else():
    card = corpus_card(dataset(['a b'], year=[None], source=['owner/name'], title=['']))
    assert (
        card.splits == {'all': 1}
        and card.dropped == {}
        and card.sources == {'name': 1}
        and 'nothing' in str(card)
    )
    assert card.licences == {'not recorded': 1}
    import matplotlib.pyplot as plt
    plt.close(card.plot())
    assert 'none with a known year' in card.alt


def test_the_saved_card(card, tmp_path):
    folder = card.save(tmp_path/'card')
    assert sorted(p.name for p in folder.iterdir()) == ['card.html', 'card.json', 'card.png']
    from dataclasses import asdict
    assert json.loads((folder/'card.json').read_text(encoding='utf-8')) == asdict(card)
    assert (folder/'card.png').read_bytes()[:4] == b'\x89PNG'
    with pytest.raises(FileNotFoundError): read_documents(folder)


def test_the_page_is_accessible_and_safe(card, tmp_path):
    page = (card.save(tmp_path)/'card.html').read_text(encoding='utf-8')
    assert (
        'secret' not in page
        and '/home' not in page
        and '<script' not in page
        and 'CC0 &amp; more' in page
    )
    tree = html.document_fromstring(page)
    assert (
        tree.get('lang') == 'en' and tree.findtext('.//title') and len(tree.findall('.//h1')) == 1
    )
    for table in tree.findall('.//table'):
        assert table.findtext('caption') and all(
            th.get('scope') == 'col' for th in table.findall('thead//th')
        )
        for row in table.findall('tbody/tr'):
            assert row.find('th').get('scope') == 'row' and row.find('td') is not None
    assert len(tree.findall('.//table')) == 5
    policy, = tree.xpath('//meta[@http-equiv="Content-Security-Policy"]/@content')
    assert policy.startswith("default-src 'none'") and 'prefers-color-scheme:dark' in page
    image, = tree.findall('.//img')
    assert image.get('src').startswith('data:image/png;base64,') and '2001 (2)' in image.get('alt')
    assert not re.findall(r'(?:src|href)="(?!data:)', page), 'nothing outside is loaded'


def test_names_with_dollars_are_no_formulas(tmp_path):
    names = [f'/home/me/{name}/x.jsonl' for name in ('a$_$b', 'cost $^$ x')]
    card = corpus_card(dataset(['one', 'two'], year=[1999, 2001], source=names, title=['', '']))
    page = (card.save(tmp_path)/'card.html').read_text(encoding='utf-8')
    assert card.sources == {'a$_$b': 1, 'cost $^$ x': 1} and 'cost $^$ x 1' in page
    assert [label.get_text() for label in card.plot().axes[1].get_yticklabels()] == list(
        card.sources
    )


def test_many_sources_become_their_folder():
    assert card_room._origins(f'/a/pmc/{i:05}/records.xml' for i in range(40)) == {'pmc': 40}
    assert card_room._origins(['C:\\data\\a\\x.txt', 'C:\\data\\b\\y.txt']) == {'a': 1, 'b': 1}
    paths = [f'/a/{db}/{i:05}/records.xml' for db in ('pmc', 'pubmed') for i in range(9)]
    assert card_room._origins(paths) == {'pmc': 9, 'pubmed': 9}
    assert card_room._origins([]) == {}
