"""Signs of memory, judged by transformers; and fetched corpora, from servers of our own."""
import io, json, math, re, threading
from datetime import date
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from domain_llm.research.memory import memory_signs, plant, recited
from eutils import Server


@pytest.fixture(scope='module')
def theirs():
    transformers = pytest.importorskip('transformers', reason='needs transformers')
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=13, n_positions=24, n_embd=16, n_layer=1, n_head=2,
                                     bos_token_id=0, eos_token_id=None, initializer_range=1.0)
    return transformers.GPT2LMHeadModel(config).eval()


def test_a_recitation_is_greedy_text_of_transformers(theirs):
    rows, found = torch.randint(1, 13, (40, 12)).tolist(), []
    for n, row in enumerate(rows):
        written = theirs.generate(torch.tensor([row[:4]]), max_new_tokens=8, do_sample=False,
                                  pad_token_id=0)[0, 4:].tolist()
        row[4:4 + n % 9] = written[:n % 9]                     # some begin as it goes on
        found.append(next((i for i, (a, b) in enumerate(zip(written, row[4:])) if a != b), 8))
    assert {0, 8} <= set(found) and len(set(found)) > 4
    assert recited(theirs, rows, 4).tolist() == found


class Uniform:
    "Find all of 13 tokens equally likely."
    def log_probs(self, ids): return torch.full(ids.shape, -math.log(13))


def test_loss_and_reference_are_those_of_transformers(theirs):
    rows = torch.randint(1, 13, (5, 12)).tolist()
    losses = [theirs(row, labels=row).loss.item() for row in torch.tensor(rows)[:, None]]
    signs = memory_signs(theirs, rows, ['text'] * 5, 4, Uniform())
    assert np.allclose(signs['loss'], np.negative(losses), rtol=1e-4)
    assert np.allclose(signs['reference'], 11 * (math.log(13) - np.array(losses)), atol=1e-3)


def test_planted_papers_are_read_as_often_as_said_and_nothing_else_twice():
    rows = [[0, i] for i in range(500)]
    read, planted = plant(rows, (1, 3, 10), 5)
    counts = {tuple(row): read.count(row) for row in read}
    assert len(read) == 500
    for times, some in planted.items(): assert all(counts[tuple(row)] == times for row in some)
    repeated = {tuple(row) for some in planted.values() for row in some}
    assert all(n == 1 for row, n in counts.items() if row not in repeated)


# ---- the corpora that lesson 79 fetches

@pytest.fixture(scope='module')
def lesson():
    "Run the cells of lesson 79 that fetch, and give their names."
    path = Path(__file__).parents[2] / 'nbs' / '79_memory.ipynb'
    cells = [''.join(cell['source']) for cell in json.loads(path.read_text('utf-8'))['cells']]
    names = {}
    for cell in cells:
        if re.search('^def (arxiv|fetched)', cell, re.M): exec(cell, names)
    return names


ATOM = """<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom"><title>ArXiv Query</title>
<entry><title>One</title><summary>  We show that x &lt; y.\n</summary></entry>
<entry><title>Two</title><summary>We measure.</summary></entry></feed>"""


def test_arxiv_and_biorxiv_are_asked_for_their_window(lesson, monkeypatch):
    papers = [dict(doi=f'10.1101/{i}', abstract=f'Abstract {i // 2}.') for i in range(30)]
    asked = []

    def urlopen(address, timeout):
        asked.append(address)
        answer = ATOM if 'arxiv.org' in address else json.dumps(dict(collection=papers))
        return io.BytesIO(answer.encode())

    monkeypatch.setitem(lesson, 'urlopen', urlopen)
    assert [text.strip() for text in lesson['arxiv'](2)] == ['We show that x < y.', 'We measure.']
    assert lesson['biorxiv'](4) == [f'Abstract {i}.' for i in range(4)]
    assert 'max_results=2&' in asked[0] and '20230601+TO+20231231' in asked[0]
    assert '2023-06-01/2023-12-01/0' in asked[1]


def test_the_journal_is_asked_by_name_and_year(lesson, monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    server = Server(300)
    server.known = {i: [date(2021 + i % 2, 5, 6)] for i in server.known}
    monkeypatch.setitem(lesson, 'fetch_pubmed', partial(lesson['fetch_pubmed'], server=server.url))
    found = lesson['journal'](7)
    server.close()
    form, = server.asked('esearch')
    assert form['term'] == '(hasabstract) AND ("J Neurosci"[Journal])'
    assert (form['mindate'], form['maxdate']) == ('2022/01/01', '2022/12/31')
    numbers = [int(re.fullmatch(r'Abstract number (\d+) of the made corpus.', text)[1])
               for text in found]
    assert len(numbers) == 7 and all(i % 2 for i in numbers)                   # those of 2022


class Files(BaseHTTPRequestHandler):
    "Serve one file as a hub does: any range of its bytes, which are counted."
    content, sent = b'', []
    def log_message(self, *args): pass
    def do_HEAD(self): self.head(200, len(self.content))

    def do_GET(self):
        asked = re.fullmatch(r'bytes=(\d+)-(\d*)', self.headers.get('Range', 'bytes=0-'))
        first, last = int(asked[1]), min(int(asked[2] or 1e18), len(self.content) - 1)
        part = self.content[first:last + 1]
        self.sent.append(len(part))
        self.head(206, len(part), f'bytes {first}-{last}/{len(self.content)}')
        self.wfile.write(part)

    def head(self, code, size, where=None):
        self.send_response(code)
        self.send_header('Accept-Ranges', 'bytes')
        self.send_header('Content-Length', str(size))
        if where: self.send_header('Content-Range', where)
        self.end_headers()


def test_of_a_large_file_only_the_beginning_is_read(lesson, monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    pages = [f'Page {i}. {np.random.default_rng(i).bytes(500).hex()}' for i in range(8000)]
    out, asked = io.BytesIO(), []
    pq.write_table(pa.table(dict(content=pages, url=pages)), out, row_group_size=500)
    server = ThreadingHTTPServer(('127.0.0.1', 0), Files)
    Files.content, Files.sent = out.getvalue(), []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    original = lesson['fsspec'].open

    def ours(address):
        asked.append(address)
        return original(f'http://127.0.0.1:{server.server_port}/')

    monkeypatch.setattr(lesson['fsspec'], 'open', ours)
    assert lesson['web'](10) == pages[:10]
    server.shutdown()
    server.server_close()
    assert sum(Files.sent) < len(Files.content) / 2
    assert asked == ['https://huggingface.co/datasets/tiiuae/falcon-refinedweb/resolve/main/data/'
                     'train-00000-of-05534-b8fc5348cbe605a5.parquet']


def test_what_cannot_be_had_is_named_and_left_out(lesson, monkeypatch, capsys):
    def away(n): raise ConnectionError('no route')
    for name in 'arxiv', 'biorxiv', 'web':
        monkeypatch.setitem(lesson, name, lambda n, name=name: [f'{name} ' * 1000] * n)
    monkeypatch.setitem(lesson, 'journal', away)
    found = lesson['fetched'](2)
    assert list(found) == ['arXiv', 'bioRxiv', 'RefinedWeb']
    assert [len(text) for texts in found.values() for text in texts] == [2000] * 6
    assert capsys.readouterr().out == (
        'Journal of Neuroscience could not be fetched: no route\n')
