"PubMed's three forms, gzip, long files, mojibake, and the articles of CRAFT against their curators."

import gzip, json, os, re, tracemalloc
from collections import Counter
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given, settings, strategies as st

from domain_llm.text.clean import _repaired, clean_text
from domain_llm.text.documents import ReadReport, read_documents
from domain_llm.text.jats import _tagged_records, iter_articles, read_jats
from domain_llm.text.overlap import decontaminate

DATA = os.environ.get('DOMAIN_LLM_DATA')
needs_data = pytest.mark.skipif(not DATA, reason='needs DOMAIN_LLM_DATA')


def read(paths, **kw):
    report = ReadReport()
    return read_documents(paths, report=report, **kw), report


def pubmed(pmid, abstract, more='', tail=''):
    return (
        '<PubmedArticle><MedlineCitation><PMID '
        f'Version="1">{pmid}</PMID><Article><Journal><JournalIssue><PubDate><Year>2001</Year><Month>Jun</Month></PubDate></JournalIssue></Journal><ArticleTitle>Title '
        f'{pmid} of '
        f'<i>Pvalb</i>.</ArticleTitle><Abstract>{abstract}</Abstract>{more}</Article></MedlineCitation>{tail}</PubmedArticle>'
    )


def pubmed_set(
    *articles,
    head='<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD '
         'PubMedArticle//EN" "https://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd">\n',
):
    return f'{head}<PubmedArticleSet>{"".join(articles)}</PubmedArticleSet>'


# ---- PubMed's XML


def test_all_parts_of_an_abstract_are_read_with_their_labels(tmp_path):
    parts = (
        '<AbstractText Label="OBJECTIVE" NlmCategory="X">Why <i>TERT</i> &amp; '
        'p<sub>trend</sub>?</AbstractText><AbstractText Label="UNLABELLED">In 10<sup>6</sup> '
        'cells.</AbstractText><AbstractText>Yes.</AbstractText><CopyrightInformation>Copyright '
        '2001 Nobody.</CopyrightInformation>'
    )
    other = '<OtherAbstract><AbstractText>Résumé.</AbstractText></OtherAbstract>'
    tail = (
        '<PubmedData><ArticleIdList><ArticleId IdType="pubmed">1</ArticleId><ArticleId '
        'IdType="doi">10.1/x</ArticleId></ArticleIdList><ReferenceList><Reference><ArticleIdList><ArticleId '
        'IdType="doi">10.9/cited</ArticleId></ArticleIdList></Reference></ReferenceList></PubmedData>'
    )
    (tmp_path / 'a.xml').write_text(
        pubmed_set(pubmed(1, parts, other, tail), pubmed(2, '<AbstractText>B.</AbstractText>')),
        encoding='utf-8',
    )
    data, report = read(tmp_path)
    assert (
        data['text'][:] == ['OBJECTIVE: Why TERT & ptrend?\n\nIn 10^6 cells.\n\nYes.', 'B.']
        and not report.skipped
    )
    assert (
        data['id'][:] == ['10.1/x', '2']
        and data['year'][:] == [2001] * 2
        and data[0]['title'] == 'Title 1 of Pvalb.'
    )


def test_records_without_an_abstract_are_counted_and_the_rest_of_a_broken_file_is_told(tmp_path):
    text = pubmed_set(
        pubmed(1, '<AbstractText>A.</AbstractText>'),
        pubmed(2, ''),
        pubmed(3, '<AbstractText>C.</AbstractText>'),
    )
    (tmp_path / 'a.xml').write_text(text)
    (tmp_path / 'b.xml').write_text(text[:-60])
    data, report = read(tmp_path)
    assert data['text'][:] == ['A.', 'C.', 'A.'] and data['id'][:] == ['1', '3', '1']
    assert [where for where, _ in report.skipped] == [
        'a.xml:2',
        'b.xml:2',
        'b.xml',
    ] and 'broken' in report.skipped[2][1]


@pytest.mark.parametrize(
    'head, reference',
    [
        ('<!DOCTYPE PubmedArticleSet [<!ENTITY x SYSTEM "{uri}">]>', '&x;'),
        ('<!DOCTYPE PubmedArticleSet [<!ENTITY % p SYSTEM "{uri}"> %p; <!ENTITY x "hunter2">]>', '&x;'),
        ('<!DOCTYPE PubmedArticleSet [<!ENTITY x0 "hunter2">{bomb}]>', '&x11;'),
    ],
)
@pytest.mark.parametrize('before', [0, 32_750, 65_520])  # the reference may lie across the edge of a piece
def test_pubmed_xml_expands_and_fetches_nothing(tmp_path, head, reference, before):
    (tmp_path / 'secret.txt').write_text('hunter2')
    bomb = ''.join(f'<!ENTITY x{i} "{f"&x{i - 1};" * 10}">' for i in range(1, 12))
    head = head.replace('{uri}', (tmp_path / 'secret.txt').as_uri()).replace('{bomb}', bomb)
    for shift in range(1, 13):
        text = pubmed_set(
            pubmed(1, f'<AbstractText>{"a" * (before + shift)} {reference} b</AbstractText>'),
            head=head,
        )
        (tmp_path / 'a.xml').write_text(text)
        try:
            found = read(tmp_path / 'a.xml')[0][0]['text']
        except ValueError:
            continue  # refused is as good
        assert (
            'hunter2' not in found
            and found.endswith(' \ufffd b')
            and len(found) == before + shift + 4
        )


def test_a_named_character_survives_the_edge_of_a_piece(tmp_path):
    for shift in range(0, 40):
        (tmp_path / 'a.xml').write_text(
            f'<article><body><p>{"a " * (2000 + shift)}'
            + '&alpha;&amp;&#946; ' * 8000
            + '</p></body></article>'
        )
        text = read_jats(tmp_path / 'a.xml')['text']
        assert text.count('α&β') == 8000 and '\ufffd' not in text


def test_a_long_pubmed_file_is_read_in_little_memory(tmp_path):
    big = tmp_path / 'a.xml'
    with open(big, 'w') as f:
        f.write('<PubmedArticleSet>')
        for i in range(15_000):
            f.write(pubmed(i, f'<AbstractText>{"Word " * 400}</AbstractText>'))
        f.write('</PubmedArticleSet>')
    tracemalloc.start()
    with open(big, 'rb') as raw:
        n = sum(1 for _ in iter_articles(raw))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 15_000 and big.stat().st_size > 30e6 and peak < 4e6


def test_lxml_holds_one_article_at_a_time(tmp_path):
    with open(tmp_path / 'a.xml', 'w') as f:
        f.write(
            pubmed_set(
                *(pubmed(i, f'<AbstractText>{"Word " * 2000}</AbstractText>') for i in range(60))
            )
        )
    with open(tmp_path / 'a.xml', 'rb') as raw:
        # the parser reads some 32 KB ahead
        assert max(len(node.getparent()) for node in iter_articles(raw)) <= 8


def test_several_jats_articles_in_one_file_and_a_namespace(tmp_path):
    figure = '<fig><caption><p>no</p></caption></fig>'
    one = (
        f'<article xmlns="https://jats.nlm.nih.gov"><body><p>One {figure}two.</p></body></article>'
    )
    (tmp_path / 'a.xml').write_text(
        f'<pmc-articleset>{one}<article><body><p>Three.</p></body></article></pmc-articleset>'
    )
    data, _ = read(tmp_path)
    assert data['text'][:] == ['One two.', 'Three.'] and data['id'][:] == ['a.xml:1', 'a.xml:2']


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'iso-8859-1'])
def test_xml_in_its_declared_encoding(tmp_path, encoding):
    declared = encoding.removesuffix('-sig')
    (tmp_path / 'a.xml').write_bytes(
        f'<?xml version="1.0" encoding="{declared}"?><article><body><p>é '
        '&eacute;</p></body></article>'.encode(
            encoding
        )
    )
    assert read_jats(tmp_path / 'a.xml')['text'] == 'é é'


# ---- PubMed's text

TAGGED = """
PMID- 16403221
DP  - 2006 Jan-Feb
TI  - A high level interface to
      SCOP.
AB  - BACKGROUND: Benchmarking algorithms often
      involves the construction of datasets. RESULTS: PMID- is a tag. AB  - too.
AU  - Casbon JA
LID - 10.1000/j.1 [doi]
AID - 1471-2105 [pii]

PMID- 16377612
TI  - Second.
DP  - 2006 Mar 1
AB  - SUMMARY: We present it.

PMID- 3
TI  - No abstract.
"""

ABSTRACTS = """1. J Neurochem. 2013 Dec;127(5):1-9. doi: 10.1111/jnc.1. Epub 2013 Oct 1.

Unfolding of PKCγ in
ataxia.

Jezierska J(1), Goedhart J, van der Kampinga HH(2)(3), Reits EA Jr.

Author information:
(1)Department of Cell Biology, Groningen.
(2)Elsewhere.

BACKGROUND: PKCγ is mutated. There were
1. three, and 2. four cells.
RESULTS: It unfolds.

© 2013 International Society for Neurochemistry.

DOI: 10.1111/jnc.1
PMCID: PMC1
PMID: 24134140 [Indexed for MEDLINE]

Conflict of interest statement: None.


2. Nature. 1999 Jul 1;400(6739):1-2.

A note without authors.

We saw it once, in 1998, and never again.

PMID: 7


3. Brain. 2000;1:1.

[Nothing to read].

Doe J.

PMID: 8
"""


@pytest.mark.parametrize('name', ['a.txt', 'a.nbib', 'a.txt.gz'])
def test_tagged_export(tmp_path, name):
    data = TAGGED.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith('gz') else data)
    found, report = read(tmp_path)
    assert found['id'][:] == ['10.1000/j.1', '16377612'] and found['year'][:] == [2006, 2006]
    assert found['title'][:] == ['A high level interface to SCOP.', 'Second.']
    assert found[0]['text'] == (
        'BACKGROUND: Benchmarking algorithms often involves the construction of datasets. '
        'RESULTS: PMID- is a tag. AB  - too.'
    ).replace('  ', ' ')
    assert [where for where, _ in report.skipped] == [f'{name}:3']


def test_tagged_export_agrees_with_biopython(tmp_path):
    Medline = pytest.importorskip('Bio.Medline')
    for theirs, ours in zip(Medline.parse(TAGGED.splitlines(keepends=True)), _tagged_records(TAGGED.splitlines())):
        for tag in 'PMID', 'TI', 'AB', 'DP':
            assert ' '.join(ours.get(tag, [])).split() == theirs.get(tag, '').split()


def test_export_of_abstracts(tmp_path):
    (tmp_path / 'a.txt').write_text(ABSTRACTS, encoding='utf-8')
    found, report = read(tmp_path)
    assert found['id'][:] == ['10.1111/jnc.1', '7'] and found['year'][:] == [2013, 1999]
    assert found['title'][:] == ['Unfolding of PKCγ in ataxia.', 'A note without authors.']
    assert (
        found[0]['text']
        == 'BACKGROUND: PKCγ is mutated. There were 1. three, and 2. four cells. RESULTS: It '
           'unfolds.'
    )
    assert found[1]['text'] == 'We saw it once, in 1998, and never again.'
    assert [where for where, _ in report.skipped] == ['a.txt:3']


@pytest.mark.parametrize(
    'text', ['1. First we fry.\n\nThen we eat.\n', 'PMIDs are numbers.\n', '1. A list\n\n\n2. goes on\n']
)
def test_plain_text_stays_plain(tmp_path, text):
    (tmp_path / 'a.txt').write_text(text)
    assert read(tmp_path)[0]['text'][:] == [clean_text(text)]


# ---- gzip and long files


def test_every_text_format_is_read_from_gzip(tmp_path):
    rows = {
        'a.txt': 'one',
        'b.csv': 'id,text\n1,two\n',
        'c.jsonl': '{"text": "three"}',
        'd.xml': '<article><body><p>four</p></body></article>',
        'e.nxml': pubmed_set(pubmed(1, '<AbstractText>five</AbstractText>')),
    }
    for name, content in rows.items():
        (tmp_path / f'{name}.gz').write_bytes(gzip.compress(content.encode()))
    (tmp_path / 'f.txt.gz').write_bytes(gzip.compress(b'x' * 100_000)[:60])
    data, report = read(tmp_path)
    assert data['text'][:] == 'one two three four five'.split() and [
        w for w, _ in report.skipped
    ] == ['f.txt.gz']


def test_a_long_text_is_cut_at_blank_lines_and_loses_nothing(tmp_path, monkeypatch):
    from domain_llm.text import documents

    monkeypatch.setattr(documents, '_PIECE', 1000)
    text = '\n\n'.join(f'Paragraph {i} is here,\nand goes on.' for i in range(300))
    (tmp_path / 'a.txt').write_text(text)
    data, _ = read(tmp_path / 'a.txt')
    assert (
        len(data) > 5
        and '\n\n'.join(data['text'][:]) == text
        and data['id'][:3] == ['a.txt', 'a.txt:2', 'a.txt:3']
    )
    (tmp_path / 'b.txt').write_text('x' * 5500)  # a line without an end
    pieces = read(tmp_path / 'b.txt')[0]['text'][:]
    assert ''.join(pieces) == 'x' * 5500 and max(map(len, pieces)) <= 3000
    # no blank line anywhere
    (tmp_path / 'c.txt').write_text('\n'.join(f'line {i}' for i in range(5000)))
    pieces = read(tmp_path / 'c.txt')[0]['text'][:]
    assert (
        '\n'.join(pieces) == '\n'.join(f'line {i}' for i in range(5000))
        and max(map(len, pieces)) <= 3000
    )


# ---- mojibake

WORDS = [
    'β-amyloid',
    'naïve',
    'Müller',
    'µm',
    '±2 °C',
    'café',
    'Alzheimer’s',
    '“so”',
    '10−3',
    '×',
    'α → β',
    '≥',
    'Ångström',
    'Ca²⁺',
    '…',
]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), st.sampled_from([1, 2]))
def test_what_was_broken_comes_back(words, times):
    text = broken = clean_text(' '.join(words))
    for _ in range(times):
        broken = ''.join(bytes([b]).decode('cp1252', 'ignore') or chr(b) for b in broken.encode())
    assert clean_text(broken) == text or 'Å' in text and times == 2


@pytest.mark.parametrize(
    'text',
    [
        '20 Å² and 5 Å³',
        'CAFÉ»',
        'ÎLE À VENDRE',
        'São Paulo, NÃO',
        'Łódź, Kraków',
        'Příliš žluťoučký kůň',
        'Việt Nam',
        'Ελληνικά',
        'ЁЖИК Привет',
        '日本語の文章',
        'Ärzte – Ö',
        'ÂGE',
        '10 µm ± 2 °C × 3',
        '“Noël”',
        'ÇA VA – où ?',
    ],
)
def test_whole_text_is_left_alone(text):
    assert clean_text(text) == text


def test_ftfy_is_left_out_for_a_reason():
    ftfy = pytest.importorskip('ftfy')
    area = '20 Å² and 5 Å³'
    assert ftfy.fix_encoding(area) == '20 Ų and 5 ų' and clean_text(area) == area


@needs_data
def test_the_repair_touches_no_real_abstract():
    with gzip.open(Path(DATA, 'corpus/neuro_reviews.jsonl.gz'), 'rt', encoding='utf-8') as f:
        texts = [json.loads(line)['text'] for line in f]
    assert len(texts) == 6332 and all(_repaired(t) == t for t in texts)
    assert (
        sum(len(clean_text(t)) < len(' '.join(t.split())) - 3 for t in texts) == 0
    ), 'no notice is found where there is none'


@needs_data
def test_nearly_every_broken_real_abstract_comes_back_whole():
    with gzip.open(Path(DATA, 'corpus/neuro_reviews.jsonl.gz'), 'rt', encoding='utf-8') as f:
        texts = [t for t in (json.loads(line)['text'] for line in f) if not t.isascii()]
    broken = (
        ''.join(bytes([b]).decode('cp1252', 'ignore') or chr(b) for b in t.encode()) for t in texts
    )
    back = sum(clean_text(b) == clean_text(t) for b, t in zip(broken, texts))
    assert len(texts) > 100 and back / len(texts) >= 0.99, (back, len(texts))


# ---- CRAFT's curators


def agreement(text, truth):
    a, b = (Counter(re.findall(r'\w+', t)) for t in (text, truth))
    shared = (a & b).total()
    return shared / a.total(), shared / b.total()


def in_order(text, truth, n=20):
    "Of the n longest paragraphs of the truth (without its keywords), how many stand whole in the text, in order?"
    flat = lambda t: re.sub(r'[\s^_]', '', t)
    paragraphs = [flat(p) for p in truth.split('\n') if not p.startswith('Keywords:')]
    longest = sorted(range(len(paragraphs)), key=lambda i: -len(paragraphs[i]))[:n]
    place, found, text = 0, 0, flat(text)
    for p in (paragraphs[i] for i in sorted(longest)):
        at = text.find(p, place)
        if at >= 0:
            place, found = at + len(p), found + 1
    return found


def craft(**kw):
    "(precision, recall, paragraphs in order) of each article"
    for path in sorted(Path(DATA, 'jats').glob('craft-*')):
        article, truth = (
            read_jats(path, **kw),
            Path(DATA, 'jats_text', path.stem + '.txt').read_text(encoding='utf-8'),
        )
        text = article['title'] + '\n' + article['text']
        yield *agreement(text, truth), in_order(text, truth)


@needs_data
def test_craft_with_back_and_captions_has_all_the_curators_words_in_their_order():
    precision, recall, order = zip(*craft(back=True, captions=True))
    assert len(order) == 73 and median(precision) >= 0.995 and median(recall) >= 0.995, (
        median(precision),
        median(recall),
    )
    assert min(precision) >= 0.98 and min(recall) >= 0.98, (min(precision), min(recall))
    assert set(order) == {20}, Counter(order)


@needs_data
def test_craft_by_default_has_no_words_of_its_own():
    precision, recall, _ = zip(*craft())
    assert median(precision) >= 0.998 and min(precision) >= 0.99, (
        median(precision),
        min(precision),
    )
    assert 0.7 < median(recall) < 0.95, 'captions and acknowledgements are left out'


@needs_data
def test_tables_add_the_cells_and_nothing_else():
    for path in sorted(Path(DATA, 'jats').glob('craft-*'))[:20]:
        without, with_cells = (
            Counter(
                re.findall(r'\w+', read_jats(path, back=True, captions=True, tables=on)['text'])
            )
            for on in (False, True)
        )
        assert not without - with_cells
        from lxml import etree

        cells = Counter(
            re.findall(
                r'\w+',
                ' '.join(' '.join(e.itertext()) for e in etree.parse(str(path)).iter('td', 'th')),
            )
        )
        assert (with_cells - without).total() <= cells.total() and bool(
            with_cells - without
        ) == bool(cells)


# ---- leaks


@needs_data
def test_every_planted_case_is_found_and_almost_nothing_else(tmp_path):
    import csv

    cases = [
        c
        for f in sorted(Path(DATA, 'brainbench').glob('BrainBench_*.csv'))
        for c in csv.DictReader(open(f, encoding='utf-8', newline=''))
    ]
    texts = [c[side] for c in cases for side in ('original_abstract', 'incorrect_abstract')]
    assert len(texts) == 600
    with open(tmp_path / 'planted.jsonl', 'w', encoding='utf-8') as f:
        for i, t in enumerate(texts):
            disguised = re.sub(r'([.;])', r' \1 ', t).title()
            f.write(json.dumps(dict(id=f'planted-{i}', text=f'Before. {disguised} After.')) + '\n')
    data, _ = read([Path(DATA, 'corpus'), tmp_path])
    _, dropped = decontaminate(data, texts)
    own = [i for i in dropped if not i.startswith('planted-')]
    assert len(dropped) - len(own) == 600 and len(own) / 6332 < 0.002, own


def test_floats_and_footnotes_move_behind_their_paragraph_in_order(tmp_path):
    figure = '<fig><label>Fig. {0}</label><caption><p>See {0}.</p></caption></fig>'
    note = '<fn><label>a</label><p>A note.</p></fn>'
    body = f'<p>so<italic>me</italic>{figure.format(1)} words{note} go{figure.format(2)}on</p><p>end</p>'
    (tmp_path / 'a.xml').write_text(
        f'<article><body>{body}</body><back><ack><p>Thanks.</p></ack><ref-list><p>No.</p></ref-list></back></article>'
    )
    text = lambda **kw: read_jats(tmp_path / 'a.xml', **kw)['text']
    assert text() == 'some words go on\n\nend'
    assert text(back=True) == 'some words go on\n\nA note.\n\nend\n\nThanks.'
    assert text(captions=True) == 'some words go on\n\nFig. 1\n\nSee 1.\n\nFig. 2\n\nSee 2.\n\nend'
