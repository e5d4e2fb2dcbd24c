"""A server that behaves like NCBI's E-utilities, on bad days too: it fails, stalls and lies."""
import gzip, re, threading, time
from collections import Counter
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

N = 16_000  # an answer to a search names 9,999 at most, and even one year holds more
CC = 'creativecommons.org/licenses'
LICENCES = [
    f'<license xlink:href="https://{CC}/by/4.0/"><license-p>Free.</license-p></license>',
    f'<license><license-p>See <ext-link xlink:href="http://{CC}/by-nc-nd/4.0/">this</ext-link>'
    '</license-p></license>',
    '<license><license-p>© The Publisher. All rights reserved.</license-p></license>',
    '',
]
PUBMED = (
    '<PubmedArticle><MedlineCitation><PMID Version="1">{i}</PMID><Article>'
    '<ArticleTitle>Title {i}</ArticleTitle><Abstract>'
    '<AbstractText>Abstract number {i} of the made corpus.</AbstractText>{rights}</Abstract>'
    '</Article><CommentsCorrectionsList><CommentsCorrections><PMID>999999</PMID>'
    '</CommentsCorrections></CommentsCorrectionsList></MedlineCitation><PubmedData>'
    '<ArticleIdList><ArticleId IdType="doi">10.1/{i}</ArticleId></ArticleIdList><ReferenceList>'
    '<Reference><ArticleIdList><ArticleId IdType="doi">10.9/wrong</ArticleId></ArticleIdList>'
    '</Reference></ReferenceList></PubmedData></PubmedArticle>')
PMC = (
    '<article xmlns:xlink="http://www.w3.org/1999/xlink"><front><article-meta>'
    '<article-id pub-id-type="pmcid">PMC{i}</article-id>'
    '<article-id pub-id-type="doi">10.1/{i}</article-id><pub-date><year>2010</year></pub-date>'
    '<permissions>{licence}</permissions></article-meta></front>'
    '<body><p>Full text number {i} &amp; more.</p></body></article>')
HEAD = ('<?xml version="1.0" ?>\n'
        '<!DOCTYPE {0} PUBLIC "-//NLM//DTD {0}//EN" "https://dtd.invalid/{0}.dtd">\n')


def dates_of(i):
    "Give the dates of a record: most lie in 2010, and every tenth has a second one, years later."
    first = date(2010, 1, 1) + timedelta(i % 360) if i % 3 else date(1990 + i % 31, 1 + i % 12, 1)
    return [first] if i % 10 else [first, first + timedelta(500)]


def pubmed_record(i):
    rights = f'<CopyrightInformation>Copyright © {i} Someone</CopyrightInformation>'
    return PUBMED.format(i=i, rights=rights if i % 2 else '')


def pmc_record(i):
    return PMC.format(i=i, licence=LICENCES[i % 4])


class Server:
    "The corpus, what was asked of it (with times), and a list of what shall go wrong next."
    def __init__(self, n=N):
        self.known = {i: dates_of(i) for i in range(1, n + 1)}
        self.log, self.trouble, self.slow = [], {}, 0
        handler = type('Handler', (Handler,), {'corpus': self})
        self.http = ThreadingHTTPServer(('127.0.0.1', 0), handler)
        self.http.daemon_threads = True
        self.url = f'http://127.0.0.1:{self.http.server_port}/'
        how = dict(poll_interval=0.05)
        threading.Thread(target=self.http.serve_forever, kwargs=how, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    def asked(self, tool): return [form for _, t, form in self.log if t == tool]
    def fetched(self):
        return Counter(i for form in self.asked('efetch') for i in form['id'].split(','))

    def search(self, form):
        first, last = (date(*map(int, form[k].split('/'))) for k in ('mindate', 'maxdate'))
        found = [i for i, days in self.known.items() if any(first <= d <= last for d in days)]
        if 'nothing' in form['term']: found = []
        ids = ''.join(f'<Id>{i}</Id>' for i in found[:min(9999, int(form['retmax']))][::-1])
        answer = f'<eSearchResult><Count>{len(found)}</Count><IdList>{ids}</IdList></eSearchResult>'
        return HEAD.format('eSearchResult') + answer

    def fetch(self, form):
        ids = [int(i) for i in form['id'].split(',') if int(i) in self.known]
        assert len(ids) <= 500
        tag, record = dict(pubmed=('PubmedArticleSet', pubmed_record),
                           pmc=('pmc-articleset', pmc_record))[form['db']]
        return HEAD.format(tag) + f'<{tag}>' + ''.join(map(record, ids)) + f'</{tag}>'


class Handler(BaseHTTPRequestHandler):
    corpus, protocol_version = None, 'HTTP/1.0'
    def log_message(self, *args): pass

    def do_POST(self):
        sent = self.rfile.read(int(self.headers['Content-Length'])).decode()
        form = {name: values[0] for name, values in parse_qs(sent).items()}
        tool = re.sub(r'\W*(\w+)\.fcgi', r'\1', self.path)
        number = len(self.corpus.log)
        self.corpus.log.append((time.monotonic(), tool, form))
        time.sleep(self.corpus.slow)
        what = self.corpus.trouble.pop(number, None)
        if what == 'half': form['id'] = ','.join(form['id'].split(',')[::2])
        body = (self.corpus.search if tool == 'esearch' else self.corpus.fetch)(form).encode()
        try: self.answer(what, body)
        except OSError: pass  # the client has given up

    def send(self, code, body, length=True, **headers):
        self.send_response(code)
        for name, value in headers.items(): self.send_header(name.replace('_', '-'), value)
        if length: self.send_header('Content-Length', str(len(body) if length is True else length))
        self.end_headers()
        self.wfile.write(body)

    def answer(self, what, body):
        "Answer well, or with a trouble: a status, a dict for `send`, or one of these names."
        half = body[:len(body) // 2]
        words = {  # an answer with status 200 that is none
            'error': b'<eFetchResult><ERROR>Cannot retrieve history data</ERROR></eFetchResult>',
            'error in kind': b'<eSearchResult><ERROR>Search Backend failed</ERROR></eSearchResult>',
            'html': b'<html><body>Down for maintenance</body></html>',
            'json': b'{"error":"error forwarding request"}', 'empty': b''}
        if isinstance(what, dict): self.send(**dict(length=False, body=b'') | what)
        elif what in words: self.send(200, words[what])
        elif what in (400, 500, 503): self.send(what, b'{"error":"API key invalid"}')
        elif what == 429: self.send(429, b'{"error":"API rate limit exceeded"}', Retry_After='1')
        elif what == 'long': self.send(429, b'{}', Retry_After='7200')
        elif what == 'zipped': self.send(200, gzip.compress(body), Content_Encoding='gzip')
        elif what == 'short': self.send(200, half, length=len(body))
        elif what == 'cut': self.send(200, half, length=False)
        elif what == 'hang up': pass
        elif what == 'silent': time.sleep(30)
        elif what in ('flood', 'endless'):  # without end, as a good and as a bad answer
            self.send(200 if what == 'flood' else 503, b'', length=False)
            while True:
                self.wfile.write(bytes(2**16))
                time.sleep(0.001)
        elif what == 'stall':
            self.send(200, body[:50], length=len(body))
            time.sleep(30)
        elif what == 'drip':
            self.send(200, b'', length=len(body))
            for byte in body[:500]:
                self.wfile.write(bytes([byte]))
                time.sleep(0.05)
        else: self.send(200, body)
