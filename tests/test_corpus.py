"What a cell of lessons 11 to 14 cannot show well: fuzzing, other processes, attacks, real articles."
import gzip, json, os, random, re, subprocess, sys, unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import assume, given, settings, strategies as st

from domain_llm.text.clean import _INVISIBLE, _repaired, clean_text
from domain_llm.text.documents import ReadReport, read_documents
from domain_llm.text.jats import read_jats
from domain_llm.text.overlap import decontaminate, deduplicate, split_documents

DATA = os.environ.get('DOMAIN_LLM_DATA')
needs_data = pytest.mark.skipif(not DATA, reason='needs DOMAIN_LLM_DATA')
LETTERS = st.text(alphabet=st.characters(exclude_categories=['Cs']), max_size=60)


def dataset(texts):
    from datasets import Dataset
    return Dataset.from_dict(dict(id=[f'd{i}' for i in range(len(texts))], text=list(texts)))


def read(paths, **kw):
    report = ReadReport()
    return read_documents(paths, report=report, **kw), report


def jats(tmp_path, body, head='', **kw):
    path = tmp_path/'a.nxml'
    path.write_text(f'{head}<article><body>{body}</body></article>', encoding='utf-8')
    return read_jats(path, **kw)['text']


def run(code, **env):
    "Run Python code in a fresh process (a variable set to None is unset) and return what it printed"
    env = {k: v for k, v in {**os.environ, **env}.items() if v is not None}
    done = subprocess.run(
        [sys.executable, '-c', code], env=env, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done


# ---- cleaning

def letters(text): return Counter(c for c in unicodedata.normalize('NFD', text) if c.isalpha())

@settings(deadline=None, max_examples=400)
@given(LETTERS)
def test_clean_text_is_idempotent_and_keeps_exactly_the_letters(text):
    seen = [text, unicodedata.normalize('NFC', _INVISIBLE.sub('', text))]
    assume(all(_repaired(t) == t for t in seen))  # a repair changes letters: that is what it is for
    once = clean_text(text)
    assert clean_text(once) == once
    assert letters(once) == letters(text) or '©' in text  # a copyright notice at the end goes

@settings(deadline=None, max_examples=400)
@given(st.text(alphabet=st.sampled_from('aé\u0301 \t\n\r\x00\x0b\x1c\x85\u2028\u3000\u200b\xad'), max_size=40))
def test_clean_text_leaves_single_spaces_and_one_blank_line(text):
    once = clean_text(text)
    assert not re.search(r'  |\n\n\n| \n|\n |[^\S\n ]', once) and once == once.strip()
    assert all(c == '\n' or unicodedata.category(c) not in ('Cc', 'Cs') for c in once)
    assert unicodedata.is_normalized('NFC', once)

def test_clean_text_keeps_paragraphs_and_replaces_lone_surrogates():
    assert clean_text('a\nb\n \n\n\nc\r\rd') == 'a\nb\n\nc\n\nd'
    assert clean_text('x\udc80y') == 'x\ufffdy'

def test_clean_text_composes_hangul_and_keeps_what_spells_words():
    draw, alphabet = (
        random.Random(0),
        'ab é e\u0301\n\r\t\x00\x0c\x1e\xad\u200b\u2028\u3000ÅK\u0323\ufeff가ᄀ',
    )
    for _ in range(2000):
        noise = ''.join(draw.choices(alphabet, k=draw.randrange(20)))
        once = clean_text(noise)
        assert clean_text(once) == once and letters(once) == letters(noise), ascii(noise)
        assert '\n\n\n' not in once and '  ' not in once
    assert clean_text('a\u200cb') == 'a\u200cb', 'the zero-width non-joiner spells Persian words'
    assert clean_text('') == clean_text(' \n \u200b ') == ''

def test_clean_text_repairs_twice_and_leaves_legal_letters():
    assert clean_text('AmyloidÃ¢â‚¬â„¢s') == 'Amyloid’s', 'broken twice'
    for legal in '20 Å² × 3 °C', 'CAFÉ»', 'São', 'Ελληνικά', 'Â\x80':
        assert clean_text(legal).rstrip('\x80') == legal.rstrip('\x80')

def test_clean_text_goes_down_no_level_for_each_notice_or_repair():
    assert clean_text('A.\n' + '©\n' * 1000) == 'A.'
    assert clean_text('It fell' + '. © 2020' * 50_000) == 'It fell.'
    assert clean_text('Ã' + '\x83' * 2000) == 'Ã', 'broken two thousand times'

def test_clean_text_drops_notices_at_the_end_and_no_prose():
    for notice in ('© 2013 Nobody.', 'Copyright (c) 2001 A. B. All rights reserved.',
                   '(ABSTRACT TRUNCATED AT 250 WORDS)'):
        assert (
            clean_text(f'It fell. {notice}') == 'It fell.'
            and clean_text(f'It fell.\n\n{notice}') == 'It fell.'
        )
    for prose in 'We review the law. Copyright matters.', 'Doses: (a) 1 mg, (b) 2 mg, (c) 2012 mg.':
        assert clean_text(prose) == prose


# ---- JATS

def test_external_entity_is_not_read(tmp_path):
    (tmp_path/'secret.txt').write_text('hunter2')
    uri = (tmp_path/'secret.txt').as_uri()
    for head in (f'<!DOCTYPE article [<!ENTITY x SYSTEM "{uri}">]>',
                 f'<!DOCTYPE article [<!ENTITY % p SYSTEM "{uri}"> %p; <!ENTITY x "hunter2">]>'):
        text = jats(tmp_path, '<p>a &x; b</p>', head)
        assert 'hunter2' not in text and text.startswith('a') and text.endswith('b')
    assert (
        jats(tmp_path, '<p>a &x; b</p>', f'<!DOCTYPE article [<!ENTITY x SYSTEM "{uri}">]>')
        == 'a \ufffd b'
    )

def test_billion_laughs_stays_small(tmp_path):
    bomb = '<!ENTITY e0 "lol">' + ''.join(
        f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12)
    )
    assert len(jats(tmp_path, '<p x="&e11;">&e11;</p>', f'<!DOCTYPE article [{bomb}]>')) < 10
    assert (
        jats(tmp_path, '<p a="&e9;">a &e9; b</p>', f'<!DOCTYPE article [{bomb}]>') == 'a \ufffd b'
    )

def test_parameter_entity_bomb_stays_small(tmp_path):
    bomb = '<!ENTITY % p0 "lol">' + ''.join(
        f'<!ENTITY % p{i} "{f"&#37;p{i - 1};" * 10}">' for i in range(1, 12)
    )
    path = tmp_path/'a.nxml'
    path.write_text(f'<!DOCTYPE article [{bomb} %p11;]><article><body><p>a</p></body></article>')
    try: assert len(read_jats(path)['text']) < 10
    except SyntaxError: pass  # refused is as good

def test_nesting_bomb_is_skipped(tmp_path):
    (tmp_path / 'deep.xml').write_text(
        '<article><body>' + '<p>' * 100000 + 'x' + '</p>' * 100000 + '</body></article>'
    )
    (tmp_path/'good.txt').write_text('fine')
    data, report = read(tmp_path)
    assert data['id'][:] == ['good.txt'] and report.skipped[0][0] == 'deep.xml'

@pytest.mark.parametrize('body, text', [
    ('<p>&alpha;-synuclein &amp; &lt;5 &mu;m&nbsp;x</p>', 'α-synuclein & <5 μm x'),
    ('<p>Re<italic>entry</italic>ing <bold>a</bold><italic>b</italic>\n c</p>', 'Reentrying ab c'),
    ('<sec><title>One</title><p>two</p><p>three</p></sec>', 'One\n\ntwo\n\nthree'),
    ('<p>before<list><list-item><p>in</p></list-item></list>after</p>', 'before\n\nin\n\nafter'),
    ('<p>10<sup>6</sup> 10<sup>−3</sup> Ca<sup>2+</sup> H<sub>2</sub>O <sup>32</sup>P</p>', '10^6 10^−3 Ca2+ H2O 32P'),
    ('<p>a <inline-formula><alternatives><tex-math>x^2</tex-math></alternatives></inline-formula> '
     'b</p>', 'a b'),
    ('<p xmlns:m="http://www.w3.org/1998/Math/MathML">a <m:math><m:mi>z</m:mi></m:math>b</p>', 'a b'),
    ('<p>a<fig><caption><p>no</p></caption></fig></p><table-wrap><table><tr><td>no</td></tr></table></table-wrap>',
     'a'),
    ('<p>5 &lt; 6 &amp; &nbsp;&NotEqualTilde;</p>', '5 < 6 & \u2242\u0338'),
    ('<p>gene<sup><xref>3</xref>,<xref>4</xref></sup> cell<xref><sup>7</sup></xref></p>', 'gene [3,4] cell [7]'),
    ('<p>x<sub>2</sub> CO<sub>2</sub> P42<sub>1</sub> Ca<sup>2+</sup> 10<sup>-3</sup></p>', 'x2 CO2 P42_1 Ca2+ 10^-3'),
    ('<p>a<!-- no -->b <bold>c</bold>d</p><p>e</p>', 'ab cd\n\ne'),
    ('<p>so<disp-formula>x</disp-formula>that<fn><p>Note.</p></fn> is</p><p>end</p>', 'so that is\n\nend'),
    ('<def-list><def-item><term>CA</term><def><p>a field</p></def></def-item></def-list>', 'CA - a field'),
])
def test_jats_prose(tmp_path, body, text): assert jats(tmp_path, body) == text

def test_jats_options_and_a_declared_encoding(tmp_path):
    figure = '<p>so<fig><label>Fig. 1</label><caption><p>See.</p></caption></fig>that</p>'
    assert jats(tmp_path, figure, captions=True) == 'so that\n\nFig. 1\n\nSee.'
    table = '<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>'
    table = f'<table-wrap><label>T</label>{table}</table-wrap><p>d</p>'
    assert (
        jats(tmp_path, table, tables=True) == 'a b\n\nc\n\nd'
        and jats(tmp_path, table, captions=True) == 'T\n\nd'
    )
    latin = '<?xml version="1.0" encoding="iso-8859-1"?><article><body>é</body></article>'
    (tmp_path/'a.nxml').write_bytes(latin.encode('latin-1'))
    assert read_jats(tmp_path/'a.nxml')['text'] == 'é'
    (tmp_path/'a.nxml').write_text('<html/>')
    with pytest.raises(ValueError, match='<html>'): read_jats(tmp_path/'a.nxml')

def test_front_matter(tmp_path):
    path = tmp_path/'a.nxml'
    path.write_text("""<article><front><article-meta><article-id pub-id-type="pmid">7</article-id>
        <title-group><article-title>A <bold>b</bold>old<break/>title</article-title></title-group>
        <pub-date><year>2011</year></pub-date><pub-date><year>2010</year></pub-date>
        <abstract><p>One.</p></abstract><abstract abstract-type="toc"><p>Two.</p></abstract>
        <abstract abstract-type="summary"><p>Three.</p></abstract></article-meta></front><body><p>Four.</p></body>
        <back><ref-list><ref><article-title>Five</article-title></ref></ref-list></back></article>""")
    assert read_jats(path) == dict(
        id='7', title='A bold title', text='One.\n\nThree.\n\nFour.', year=2010
    )

def test_every_word_of_random_inline_markup_survives(tmp_path):
    draw = random.Random(1)
    for _ in range(50):
        words = [draw.choice(['axon', 'β-cell', 'x', 'CA1']) for _ in range(30)]
        marked = ' '.join(
            f'{w[:k]}<italic>{w[k:]}</italic>' for w in words for k in [draw.randrange(len(w) + 1)]
        )
        assert jats(tmp_path, f'<p>{marked}</p>') == ' '.join(words)

@needs_data
def test_craft_articles_have_a_year_and_a_doi_or_the_number_of_their_file():
    articles = {path.stem: read_jats(path) for path in sorted(Path(DATA, 'jats').glob('craft-*'))}
    assert len(articles) == 73
    for stem, article in articles.items():
        assert article['year'] and (
            article['id'].startswith('10.') or article['id'] == stem.removeprefix('craft-')
        )

@needs_data
def test_no_shared_article_leaves_markup():
    data, report = read(Path(DATA, 'jats'))
    assert len(data) == 165 and not report.skipped and not report.undecodable
    for text in data['text'][:]:
        assert not re.search(r'</\w|&#\w+;|&(lt|gt|amp|alpha);|\\(frac|begin|document)|\x1e', text)


# ---- formats

def test_every_format_gives_the_same_documents(tmp_path):
    import pandas as pd
    rows = [
        dict(
            id=f'p{i}',
            text=f'Text number {i}\n\nwith "quotes", commas; ünïcode.',
            title=f'T{i}',
            year=1990 + i,
        )
        for i in range(5)
    ]
    lines = '\n'.join(map(json.dumps, rows))
    (tmp_path/'a.jsonl').write_text(lines)
    with gzip.open(tmp_path/'a.jsonl.gz', 'wt') as f: f.write(lines)
    pd.DataFrame(rows).to_csv(tmp_path/'a.csv', index=False)
    pd.DataFrame(rows).to_parquet(tmp_path/'a.parquet')
    for name in 'a.jsonl', 'a.jsonl.gz', 'a.csv', 'a.parquet':
        data, report = read(tmp_path/name)
        assert [{k: row[k] for k in rows[0]} for row in data] == rows, name
        assert report.documents == 5 and not report.skipped and data[0]['source'].endswith(name)

def test_bom_windows_lines_and_missing_fields(tmp_path):
    (tmp_path/'a.txt').write_bytes(b'\xef\xbb\xbfone\r\n\r\ntwo')
    (tmp_path / 'b.jsonl').write_bytes(
        '\ufeff{"text": "x", "id": 0, "year": "May 2003"}\r\n\r\n{"text": "y"}'.encode()
    )
    data, _ = read(tmp_path)
    assert data['text'][:] == ['one\n\ntwo', 'x', 'y'] and data['id'][:] == [
        'a.txt',
        '0',
        'b.jsonl:3',
    ]
    assert data['year'][:] == [None, 2003, None] and data['title'][:] == ['', '', '']

def test_folders_are_recursive_sorted_and_independent_of_place(tmp_path):
    for place in 'here', 'there':
        for name in 'b.txt', 'a/z.txt', 'a/b/c.TXT', '.hidden/x.txt', 'readme.md':
            path = tmp_path/place/name
            path.parent.mkdir(parents=True, exist_ok=True); path.write_text(name)
    ids = [read(tmp_path/place)[0]['id'][:] for place in ('here', 'there')]
    assert ids == [['a/b/c.TXT', 'a/z.txt', 'b.txt']] * 2
    assert len(read([tmp_path/'here', str(tmp_path/'there'/'b.txt')])[0]) == 4

def test_accidents_are_counted_and_told(tmp_path):
    (tmp_path / 'a.jsonl').write_bytes(
        b'{"text": "caf\xe9"}\n{"text": "ok\n[1]\n{"text": 5}\n{"no": 1}\n'
        b'{"text": "\\ud800"}\n' + b'[' * 100000
    )
    (tmp_path/'b.jsonl.gz').write_bytes(gzip.compress(b'{"text": "one"}\n' * 5000)[:60])
    (tmp_path/'c.parquet').write_bytes(b'PAR1 nonsense')
    (tmp_path/'d.xml').write_text('<svg><body>words of a picture</body></svg>')
    (tmp_path/'e.nxml').write_bytes(b'<?xml version="1.0" encoding="klingon"?><article/>')
    (tmp_path/'f.txt').write_bytes(b'\xff\xfe\xfa fine')
    (tmp_path/'g.csv').touch()
    (tmp_path/'h.xml').write_bytes(b'<article><body><p>caf\xe9</p></body></article>')
    data, report = read(tmp_path)
    names = [where for where, _ in report.skipped]
    assert names == [
        'a.jsonl line 2',
        'a.jsonl line 3',
        'a.jsonl:4',
        'a.jsonl:5',
        'a.jsonl line 7',
        'b.jsonl.gz',
        'c.parquet',
        'd.xml',
        'e.nxml',
        'g.csv',
    ]
    assert (
        report.undecodable == 4
        and data[-1]['text'] == 'caf\ufffd'
        and data['text'][:2] == ['caf\ufffd', '\ufffd']
    )
    assert '4 documents hold bytes that are not UTF-8' in str(report) and 'and 7 more' in str(
        report
    )
    assert 'Skipped 10: a.jsonl line 2 (invalid JSON)' in str(report) and '\n' not in str(report)

@pytest.mark.parametrize('name, content, kind, words', [
    ('missing.txt', None, FileNotFoundError, 'no file or folder'),
    ('paper.pdf', 'x', ValueError, 'convert'),
    ('a.csv', 'id,abstract\n1,x\n', ValueError, 'found id, abstract'),
    ('a.jsonl', '{"body": "x"}', ValueError, 'found body'),
    ('a.txt', ' \n', ValueError, 'no text'),
])
def test_errors_say_what_to_do(tmp_path, name, content, kind, words):
    if content is not None: (tmp_path/name).write_text(content)
    with pytest.raises(kind, match=words) as caught: read(tmp_path/name)
    assert '\n' not in str(caught.value) and name in str(caught.value)

def test_parquet_without_text_and_empty_folder(tmp_path):
    import pandas as pd
    with pytest.raises(FileNotFoundError, match='0 other files'): read(tmp_path)
    (tmp_path/'paper.pdf').touch()
    with pytest.raises(FileNotFoundError, match='1 other file:'): read(tmp_path)
    pd.DataFrame(dict(abstract=['x'], doi=['y'])).to_parquet(tmp_path/'a.parquet')
    with pytest.raises(ValueError, match='found abstract, doi'): read(tmp_path/'a.parquet')
    with pytest.raises(ValueError, match='empty list'): read([])
    with pytest.raises(ValueError, match='limit'): read(tmp_path, limit=0)

def test_an_edited_file_is_read_again(tmp_path):
    path = tmp_path/'a.txt'
    path.write_text('old'); first = read(path)[0]
    path.write_text('new'); second = read(path)[0]
    assert (first[0]['text'], second[0]['text']) == ('old', 'new'), (
        'and the dataset read before does not change'
    )

def test_a_table_may_hold_texts_longer_than_pythons_limit(tmp_path):
    (tmp_path/'a.csv').write_text('id,text\n7,"' + 'word ' * 40000 + '"\n')
    data, _ = read(tmp_path/'a.csv')
    assert data[0]['id'] == '7' and len(data[0]['text'].split()) == 40000

def test_a_relative_path_is_not_taken_for_a_hub_name(tmp_path, monkeypatch):
    import datasets
    monkeypatch.setattr(datasets, 'load_dataset', lambda *a, **kw: pytest.fail('asked the network'))
    monkeypatch.chdir(tmp_path)
    (tmp_path/'data').mkdir(); (tmp_path/'data'/'a.txt').write_text('x')
    assert len(read('data/a.txt')[0]) == 1
    with pytest.raises(FileNotFoundError, match='no file or folder'): read('data/b.txt')

def test_limit_stops_early(tmp_path):
    (tmp_path/'a.jsonl').write_text('{"text": "x"}\n' * 10 + 'not json')
    data, report = read(tmp_path, limit=3)
    assert len(data) == report.documents == 3 and not report.skipped


# ---- processes

def test_import_is_light():
    heavy = run(
        'import domain_llm.text.overlap, domain_llm.text.fetching, sys; print([m for m in "torch '
        'datasets pandas pyarrow matplotlib tqdm".split() if m in sys.modules])'
    )
    assert heavy.stdout.strip() == '[]'

def test_reading_imports_no_torch_and_leaves_nothing_behind(tmp_path):
    (tmp_path/'in').mkdir(); (tmp_path/'home').mkdir(); (tmp_path/'tmp').mkdir()
    for i in range(3): (tmp_path/'in'/f'{i}.txt').write_text(f'document {i}')
    code = f"""if True:
        import sys
        from domain_llm.text.documents import *
        from domain_llm.text.overlap import *
        d = deduplicate(read_documents({str(tmp_path/"in")!r}))
        d = d.map(lambda row: dict(n=len(row["text"])))
        split_documents(d)
        print(len(d), "torch" in sys.modules)"""
    done = run(
        code,
        HOME=str(tmp_path / 'home'),
        TMPDIR=str(tmp_path / 'tmp'),
        HF_HOME=None,
        HF_DATASETS_CACHE=None,
        XDG_CACHE_HOME=None,
    )
    assert (
        done.stdout.split()[-2:] == ['3', 'False']
        and 'Read 3 documents with 6 words.' in done.stderr
    )
    assert not list((tmp_path / 'home').rglob('*')) and not list(
        (tmp_path / 'tmp').glob('domain_llm-*')
    )

def test_a_hub_name_without_network_is_one_sentence():
    code = """if True:
        from domain_llm.text.documents import read_documents
        try: read_documents("nobody-here/no-such-set", limit=1)
        except OSError as error: print(error)"""
    said = run(code, HF_HUB_OFFLINE='1').stdout.strip()
    assert said.count('\n') == 0 and 'nobody-here/no-such-set' in said and 'network' in said

def test_hub_rows_are_streamed_and_limited(monkeypatch):
    import datasets
    def endless():
        i = 0
        while True: yield dict(text=f'document {i}', other=1); i += 1
    asked = {}
    def load_dataset(name, **kw): asked.update(kw, name=name); return endless()
    monkeypatch.setattr(datasets, 'load_dataset', load_dataset)
    data, _ = read('owner/name', limit=4)
    assert asked == dict(name='owner/name', split='train', streaming=True)
    assert data['id'][:] == [f'owner/name:{i}' for i in (1, 2, 3, 4)] and set(
        data['source'][:]
    ) == {'owner/name'}

def test_progress_goes_to_stderr(tmp_path):
    (tmp_path/'a.jsonl').write_text('{"text": "x y"}\n' * 1000)
    code = f"""if True:
        import time
        from domain_llm.text import documents
        clean = documents.clean_text
        documents.clean_text = lambda t: (time.sleep(.0005), clean(t))[1]
        documents.read_documents({str(tmp_path)!r})"""
    done = run(code, TQDM_MININTERVAL='0.05')
    assert (
        done.stdout == ''
        and 'reading' in done.stderr
        and '%' in done.stderr
        and 'B/s' in done.stderr
    )
    assert re.search(r'\b[1-9]\d?%.*<\d\d:\d\d', done.stderr), (
        'the bar must move, and tell the time left'
    )


# ---- copies, leaks, split

@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(alphabet='aAbB \n', max_size=6), min_size=1, max_size=12))
def test_deduplicate_agrees_with_a_dictionary(texts):
    first = {}
    for i, text in enumerate(texts): first.setdefault(tuple(text.casefold().split()), f'd{i}')
    assert deduplicate(dataset(texts))['id'][:] == list(first.values())

@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(alphabet='ab ', max_size=30), min_size=1, max_size=6), st.text(alphabet='ab ', max_size=20),
       st.integers(1, 4))
def test_decontaminate_agrees_with_brute_force(texts, bench, n):
    want = bench.split()
    if len(want) < n:
        with pytest.raises(ValueError, match='position 0'):
            decontaminate(dataset(texts), [bench], n)
        return
    runs = [' '.join(want[i:i+n]) for i in range(len(want) - n + 1)]
    leak = [any(f' {r} ' in f" {' '.join(t.split())} " for r in runs) for t in texts]
    kept, dropped = decontaminate(dataset(texts), [bench], n)
    assert dropped == [f'd{i}' for i, bad in enumerate(leak) if bad]
    assert kept['id'][:] == [f'd{i}' for i, bad in enumerate(leak) if not bad]

def test_split_moves_no_document_when_the_corpus_grows():
    old = {f'd{i}' for i in range(500)}
    for seed in range(5):
        small, large = (
            split_documents(dataset(['x'] * n), validation=0.05, seed=seed) for n in (500, 3000)
        )
        assert set(small['validation']['id'][:]) == old & set(large['validation']['id'][:])
        assert abs(len(large['validation']) - 150) < 48

def test_split_depends_on_ids_not_on_order_and_covers_everything():
    data = dataset(['x'] * 400)
    a, b = split_documents(data, .1), split_documents(data.select(range(399, -1, -1)), .1)
    assert set(a['validation']['id'][:]) == set(b['validation']['id'][:])
    assert sorted(a['train']['id'][:] + a['validation']['id'][:]) == sorted(data['id'][:])
    assert set(split_documents(data, 0.1, seed=1)['validation']['id'][:]) != set(
        a['validation']['id'][:]
    )

@pytest.mark.parametrize('share', [1e-9, .5, 1 - 1e-9])
def test_split_leaves_no_side_empty(share):
    for n in 2, 3:
        assert all(len(part) for part in split_documents(dataset(['x'] * n), share).values())

@pytest.mark.parametrize('n, share', [(0, .1), (1, .1), (5, 0), (5, 1)])
def test_split_refuses_what_cannot_be_split(n, share):
    with pytest.raises(ValueError, match='expected'): split_documents(dataset(['x'] * n), share)

def test_the_nearest_document_fills_an_empty_side_and_goes_back_when_the_corpus_grows():
    data = dataset(['x'] * 3000)
    large = split_documents(data, .01)
    first = next(i for i in data['id'][:] if i in set(large['validation']['id'][:]))
    few = data.select(
        [
            i
            for i, name in enumerate(data['id'][:])
            if name not in set(large['validation']['id'][:])
        ][:5]
    )
    lonely = split_documents(few, .01)['validation']['id'][:]
    assert len(lonely) == 1, 'none of the five belongs there, so the nearest one is taken'
    more = split_documents(
        data.select([data['id'][:].index(i) for i in few['id'][:] + [first]]), 0.01
    )
    assert more['validation']['id'][:] == [first], 'when one that belongs there comes, it goes back'

@settings(deadline=None, max_examples=200)
@given(LETTERS)
def test_the_report_counts_words_as_python_splits_them(text):
    text = clean_text(text)
    if text: assert 1 + text.count(' ') + text.count('\n') - text.count('\n\n') == len(text.split())
