"""XML under fuzz and attack, large files in little memory, and the articles of CRAFT."""
import random, re, tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from lxml import etree

from corpora import DATA, needs_data, read
from domain_llm.text.jats import _tagged_records, iter_articles, read_jats

HEAD = ('<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE PubmedArticleSet PUBLIC '
        '"-//NLM//DTD PubMedArticle//EN" "https://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed.dtd">\n')
RECORD = ('<PubmedArticle><MedlineCitation><PMID Version="1">{}</PMID><Article><Journal>'
          '<JournalIssue><PubDate><Year>2001</Year></PubDate></JournalIssue></Journal>'
          '<ArticleTitle>Title</ArticleTitle><Abstract><AbstractText>{}</AbstractText></Abstract>'
          '</Article></MedlineCitation></PubmedArticle>')
TAGGED = """
PMID- 16403221
DP  - 2006 Jan-Feb
TI  - A high level interface to
      SCOP.
AB  - BACKGROUND: Benchmarking algorithms often
      involves the construction of datasets. RESULTS: PMID- is a tag. AB  - too.
AU  - Casbon JA
LID - 10.1000/j.1 [doi]

PMID- 16377612
TI  - Second.
DP  - 2006 Mar 1
AB  - SUMMARY: We present it.

PMID- 3
TI  - No abstract.
"""


def record_set(abstracts, head=HEAD):
    records = ''.join(RECORD.format(i, text) for i, text in enumerate(abstracts, 1))
    return f'{head}<PubmedArticleSet>{records}</PubmedArticleSet>'


def craft():
    return sorted(Path(DATA, 'jats').glob('craft-*'))


def words(text):
    return Counter(re.findall(r'\w+', text))


def test_every_word_of_random_inline_markup_survives(tmp_path):
    draw, path = random.Random(1), tmp_path / 'a.nxml'
    for _ in range(50):
        chosen = [draw.choice(['axon', 'β-cell', 'x', 'CA1']) for _ in range(30)]
        cuts = [draw.randrange(len(word) + 1) for word in chosen]
        marked = ' '.join(f'{w[:k]}<italic>{w[k:]}</italic>' for w, k in zip(chosen, cuts))
        path.write_text(f'<article><body><p>{marked}</p></body></article>', encoding='utf-8')
        assert read_jats(path)['text'] == ' '.join(chosen)


@pytest.mark.parametrize('head, reference', [
    ('<!DOCTYPE PubmedArticleSet [<!ENTITY x SYSTEM "{uri}">]>', '&x;'),
    ('<!DOCTYPE PubmedArticleSet [<!ENTITY % p SYSTEM "{uri}"> %p; <!ENTITY x "hunter2">]>', '&x;'),
    ('<!DOCTYPE PubmedArticleSet [<!ENTITY x0 "hunter2">{bomb}]>', '&x11;'),
])
@pytest.mark.parametrize('before', [0, 32_750, 65_520])  # it may lie across the edge of a piece
def test_pubmed_xml_expands_and_fetches_nothing(tmp_path, head, reference, before):
    (tmp_path / 'secret.txt').write_text('hunter2')
    bomb = ''.join(f'<!ENTITY x{i} "{f"&x{i - 1};" * 10}">' for i in range(1, 12))
    head = head.replace('{uri}', (tmp_path / 'secret.txt').as_uri()).replace('{bomb}', bomb)
    for n in range(before + 1, before + 13):
        (tmp_path / 'a.xml').write_text(record_set([f'{"a" * n} {reference} b'], head))
        try: found = read(tmp_path / 'a.xml')[0][0]['text']
        except ValueError: continue  # refused is as good
        assert 'hunter2' not in found and found.endswith(' \ufffd b') and len(found) == n + 4


def test_a_named_character_survives_the_edge_of_a_piece(tmp_path):
    for shift in range(40):
        body = f'{"a " * (2000 + shift)}' + '&alpha;&amp;&#946; ' * 8000
        (tmp_path / 'a.xml').write_text(f'<article><body><p>{body}</p></body></article>')
        text = read_jats(tmp_path / 'a.xml')['text']
        assert text.count('α&β') == 8000 and '\ufffd' not in text


def test_a_version_that_no_integer_holds_is_none(tmp_path):
    for i, said in enumerate(('99999999999', '9' * 5000)):
        record = RECORD.format(7 + i, 'Rats slept.').replace('Version="1"', f'Version="{said}"')
        xml = f'<PubmedArticleSet>{record}</PubmedArticleSet>'
        (tmp_path/f'{i}.xml').write_text(xml, encoding='utf-8')
    data, report = read(tmp_path)
    assert data['version'][:] == [0, 0] and not report.skipped


def test_nesting_without_end_is_skipped(tmp_path):
    deep = '<p>' * 100_000 + 'x' + '</p>' * 100_000
    (tmp_path / 'deep.xml').write_text(f'<article><body>{deep}</body></article>')
    (tmp_path / 'good.txt').write_text('fine')
    data, report = read(tmp_path)
    assert data['id'][:] == ['good.txt'] and report.skipped[0][0] == 'deep.xml'


def test_a_long_pubmed_file_is_read_in_little_memory(tmp_path):
    path = tmp_path / 'a.xml'
    path.write_text(record_set(['Word ' * 400] * 15_000))
    tracemalloc.start()
    with open(path, 'rb') as raw: n = sum(1 for _ in iter_articles(raw))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 15_000 and path.stat().st_size > 30e6 and peak < 4e6


def test_lxml_holds_one_article_at_a_time(tmp_path):
    (tmp_path / 'a.xml').write_text(record_set(['Word ' * 2000] * 60))
    with open(tmp_path / 'a.xml', 'rb') as raw:
        # the parser reads some 32 KB ahead
        assert max(len(node.getparent()) for node in iter_articles(raw)) <= 8


def test_tagged_records_agree_with_biopython():
    theirs = pytest.importorskip('Bio.Medline').parse(TAGGED.splitlines(keepends=True))
    for their, our in zip(theirs, _tagged_records(TAGGED.splitlines()), strict=True):
        for tag in 'PMID', 'TI', 'AB', 'DP':
            assert ' '.join(our.get(tag, [])).split() == their.get(tag, '').split()


@needs_data
def test_craft_articles_have_a_year_and_a_doi_or_the_number_of_their_file():
    articles = {path.stem: read_jats(path) for path in craft()}
    assert len(articles) == 73
    for stem, article in articles.items():
        number = stem.removeprefix('craft-')
        assert article['year'] and (article['id'].startswith('10.') or article['id'] == number)


@needs_data
def test_no_shared_article_leaves_markup():
    data, report = read(Path(DATA, 'jats'))
    assert len(data) == 163 and not report.undecodable
    assert [why for _, why in report.skipped] == ['an erratum', 'a retraction']
    markup = re.compile(r'</\w|&#\w+;|&(lt|gt|amp|alpha);|\\(frac|begin|document)|\x1e')
    for text in data['text'][:]: assert not markup.search(text)


@needs_data
def test_tables_add_the_cells_and_nothing_else():
    for path in craft()[:20]:
        without, with_cells = (words(read_jats(path, back=True, captions=True, tables=on)['text'])
                               for on in (False, True))
        found = etree.parse(str(path)).iter('td', 'th')
        cells = words(' '.join(' '.join(cell.itertext()) for cell in found))
        assert not without - with_cells
        assert (with_cells - without).total() <= cells.total()
        assert bool(with_cells - without) == bool(cells)
