"""Cases against the published files and a local server."""
import json, os, threading
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest

from domain_llm.bench.cases import (
    CASE_SETS, FILES, align, isolated_sentences, load_cases, named_file, read_marked,
    split_sentences, subset, swapped_context)
from domain_llm.bench.scores import paper_labels
from domain_llm.text.synthetic import Case

DATA = os.environ.get('DOMAIN_LLM_DATA')
needs_data = pytest.mark.skipif(not DATA, reason='needs DOMAIN_LLM_DATA')
pytestmark = pytest.mark.usefixtures('one_thread')


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_): pass


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    "A server on this machine with one file, and a cache of its own."
    folder = tmp_path / 'served'
    folder.mkdir()
    (folder / 'cases.csv').write_text('original_abstract,incorrect_abstract\nit rose,it fell\n')
    server = HTTPServer(('127.0.0.1', 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv('DOMAIN_LLM_DATA', raising=False)
    monkeypatch.setattr('pooch.os_cache', lambda name: tmp_path / 'cache')
    import hashlib
    digest = hashlib.sha256((folder / 'cases.csv').read_bytes()).hexdigest()
    monkeypatch.setitem(
        FILES, 'cases.csv', ('brainbench', f'http://127.0.0.1:{server.server_port}', digest)
    )
    yield server, folder, tmp_path
    server.shutdown()


def test_a_file_is_downloaded_once_and_checked(mirror):
    server, folder, tmp_path = mirror
    path = named_file('cases.csv')
    assert path.read_text().endswith('it rose,it fell\n') and tmp_path / 'cache' in path.parents
    server.shutdown()
    # the second time without the server
    assert named_file('cases.csv') == path


def test_a_file_that_was_altered_on_the_way_is_refused(mirror):
    _, folder, tmp_path = mirror
    (folder / 'cases.csv').write_text('original_abstract,incorrect_abstract\nit fell,it rose\n')
    with pytest.raises(ValueError, match='should be the published file'): named_file('cases.csv')
    assert not list((tmp_path / 'cache').glob('cases.csv'))


def test_a_missing_server_is_a_sentence(mirror):
    _, folder, _ = mirror
    (folder / 'cases.csv').unlink()
    with pytest.raises(FileNotFoundError, match='set DOMAIN_LLM_DATA'): named_file('cases.csv')


@needs_data
def test_the_published_hashes_are_those_of_the_published_files():
    from domain_llm.ground.files import file_sha256
    for name, (folder, _, sha256) in FILES.items():
        assert file_sha256(Path(DATA) / folder / name) == sha256


@needs_data
def test_the_published_sets(capsys):
    human, gpt4 = load_cases('brainbench-human'), load_cases('brainbench-gpt4')
    assert (len(human), len(gpt4)) == (200, 100) and human[0].id == '1' and human[61].section
    from collections import Counter
    assert sorted(Counter(c.section for c in human).values()) == [24, 25, 25, 51, 75]
    # T3: damaged in the files themselves
    said = capsys.readouterr().out
    assert 'case 63' in said and 'case 25, 52, 59, 67' in said


MENDED = {  # T3, set and case: what each version has to hold after mending
    ('human', 62): (
        'decreased at the PP-DG and SC-CA1 synapses compared with NREM, while they increased',
        'increased at the PP-DG and SC-CA1 synapses compared with NREM, while they decreased',
    ),
    ('gpt4', 24): ('In contrast, we did not find any evidence', 'Moreover, we found an evidence'),
    ('gpt4', 51): (
        'consistent with previous studies of the base of the cochlea.',
        'are uniform across the apex, contradicting previous studies of the base of the cochlea.',
    ),
    ('gpt4', 58): (
        'static torque were inferior to dynamic stimuli in humans, while in monkeys the opposite '
        'was true.',
        'dynamic torque were inferior to static stimuli in humans, while in monkeys the opposite '
        'was true.',
    ),
    ('gpt4', 66): ('Cav2.2, but not Cav2.3, currents', 'Cav2.3, but not Cav2.2, currents'),
}


@needs_data
def test_both_readings_of_the_marks():
    import pandas as pd
    for maker in ('human', 'gpt4'):
        table = pd.read_csv(
            Path(DATA) / 'brainbench' / CASE_SETS[f'brainbench-{maker}'], keep_default_na=False
        )
        published, mended = (
            load_cases(f'brainbench-{maker}', reading) for reading in ('published', 'mended')
        )
        for i, row in table.iterrows():
            columns = row['original_abstract'].strip(), row['incorrect_abstract'].strip()
            marked = tuple(t.strip() for t in read_marked(row['combined_abstract'], 'published'))
            assert marked == columns == (published[i].original, published[i].altered)
            if (maker, i) not in MENDED: assert mended[i] == published[i]
            else:
                versions = mended[i].original, mended[i].altered
                assert mended[i] != published[i]
                assert all(want in got for want, got in zip(MENDED[maker, i], versions))


@needs_data
def test_marked_texts_alone_and_plain_columns_give_the_same_cases(tmp_path):
    import pandas as pd
    table = pd.read_csv(
        Path(DATA) / 'brainbench' / CASE_SETS['brainbench-human'], keep_default_na=False
    )
    table[['combined_abstract', 'journal_section']].to_csv(tmp_path / 'marked.csv', index=False)
    plain = table.rename(columns={'original_abstract': 'original', 'incorrect_abstract': 'altered'})
    plain[['original', 'altered', 'journal_section']].to_csv(tmp_path / 'plain.csv', index=False)
    assert load_cases(tmp_path / 'marked.csv') == load_cases('brainbench-human')
    assert (load_cases(tmp_path / 'plain.csv') == load_cases('brainbench-human', 'published')
            == load_cases(tmp_path / 'plain.csv', 'published'))


@needs_data
def test_isolated_sentences_and_swapped_context():
    human = load_cases('brainbench-human', 'published')
    stored = json.loads(
        (Path(DATA) / 'brainbench' / 'swap_human_abstracts.json').read_text(encoding='utf-8')
    )
    alone = isolated_sentences(human)
    theirs = [stored[c.section][str(i)] for i, c in enumerate(human)]
    assert [(c.original, c.altered) for c in alone] == [
        p for t in theirs for p in zip(t['original'], t['incorrect'])
    ]
    assert alone == isolated_sentences('brainbench-human', 'published') and len(alone) == 488
    assert len(isolated_sentences('brainbench-gpt4', 'published')) == 239
    for model in (Path(DATA) / 'published').glob('*/abstract_mask_iso.npy'):   # which abstract each sentence is of
        assert np.load(model).tolist() == [int(c.id.split('.')[0]) - 1 for c in alone]
        assert (np.load(model.with_name('labels_iso.npy')) == paper_labels(488)).all()
    for seed, total in ((42, 105), (1234, 102)):
        swapped, labels = swapped_context(human, seed)
        assert labels.sum() == total and swapped == swapped_context(human, seed)[0]
        for case, old in zip(swapped, human):
            own, new = (split_sentences(c.original) for c in (old, case))
            kept = [
                s for s in own if s not in stored[old.section][str(int(old.id) - 1)]['original']
            ]
            assert (
                all(s in case.original and s in case.altered for s in kept)
                and case.original != case.altered
            )


@needs_data
def test_subsets():
    both, from_paper = (
        load_cases('brainbench'),
        {
            'Behavioral/Cognitive': (75, 38),
            'Systems/Circuits': (51, 25),
            'Neurobiology of Disease': (25, 12),
            'Cellular/Molecular': (25, 12),
            'Development/Plasticity/Repair': (24, 13),
        },
    )
    assert len(both) == 300 and len(subset(both, maker='human')) == 200
    for section, (human, gpt4) in from_paper.items():
        assert (len(subset(both, section, 'human')), len(subset(both, section, 'gpt4'))) == (
            human,
            gpt4,
        )
    with pytest.raises(ValueError, match='Systems/Circuits'): subset(both, 'Astronomy')


@pytest.mark.parametrize('text, word', [('original,altered\nrose,\n', 'case 1: both versions should hold text'),
                                        ('original,altered\nit rose,it fell\nrose,rose\n', 'case 2: .*the same'),
                                        ('doi,original_abstract\n1,rose\n', 'columns'),
                                        ('marked\n"it [[rose]]"\n', 'case 1: .*comma'),
                                        ('original,altered\nit rose,it [[fell\n', 'case 1: .*plain text'),
                                        ('original,altered\n"rose,fell\n', 'cannot be read'),
                                        ('original,altered,marked\nrose,sank,"[[rose,fell]]"\n', 'case 1: .*differ')])
def test_bad_files_are_one_sentence(tmp_path, text, word):
    (tmp_path / 'c.csv').write_text(text)
    with pytest.raises(ValueError, match=word) as caught: load_cases(tmp_path / 'c.csv')
    assert '\n' not in str(caught.value).strip()


def test_a_file_in_another_encoding_is_refused(tmp_path):
    (tmp_path / 'c.csv').write_bytes('original,altered\nnaïve rose,naïve fell\n'.encode('latin-1'))
    with pytest.raises(ValueError, match='UTF-8'): load_cases(tmp_path / 'c.csv')


HEAD = 'original_abstract,incorrect_abstract,combined_abstract\n'


@pytest.mark.parametrize('text, word', [
    ('', 'cannot be read'), ('a,b\n1,2\n', 'it has a, b'), (HEAD, 'no cases'),
    (HEAD + 'it [[rose,it fell,x\n', r'\[\['),
    (HEAD + 'it rose,it fell,x\nit rose,it sank,"it [[rose,fell]]"\n', 'case 2'), ('marked\nit rose\n', 'the same'),
    ('id,original,altered\n7,a b,a c\n7,a d,a e\n', '7 occurs twice'),
    ('original,altered\nit rose,"  "\n', 'case 1: .*empty')])
def test_files_that_hold_no_benchmark(tmp_path, text, word):
    (tmp_path / 'c.csv').write_text(text)
    with pytest.raises(ValueError, match=word): load_cases(tmp_path / 'c.csv')


def test_an_unknown_set_names_the_known_ones():
    with pytest.raises(FileNotFoundError, match='brainbench-human'): load_cases('no-such-set')


@pytest.mark.parametrize('text', ['original,altered\nit rose,it fell\n', 'combined_abstract\n"it [[rose,fell]]"\n',
                                  HEAD + 'it rose,it fell,"it [[rose, fell]]"\n'])
def test_three_forms_of_one_case(tmp_path, text):
    (tmp_path / 'c.csv').write_text(text)
    assert load_cases(tmp_path / 'c.csv') == [Case('1', 'it rose', 'it fell')]


def test_aligned_parts_are_equal_or_different_and_whole():
    parts = align([*'abcxdef'], [*'abcyydef'])
    assert [(''.join(p), ''.join(q)) for p, q in parts] == [
        ('abc', 'abc'),
        ('x', 'yy'),
        ('def', 'def'),
    ]
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, b = ([str(x) for x in rng.integers(0, 4, rng.integers(0, 9))] for _ in range(2))
        parts = align(a, b)
        assert [x for p, _ in parts for x in p] == a and [x for _, p in parts for x in p] == b
        same = [p == q for p, q in parts]
        assert all(x != y for x, y in zip(same, same[1:]))
