"""Fetching from a server on bad days, killed and resumed, at the permitted rate."""
import io, os, re, signal, subprocess, sys, time, traceback
from collections import Counter
from datetime import date
from email.utils import formatdate
from pathlib import Path

import numpy as np
import pytest
from lxml import etree
from urllib3.util import retry

import eutils
from corpora import DATA, needs_data
from domain_llm.text import fetching
from domain_llm.text.card import _licence_of, keep_licences, licences
from domain_llm.text.documents import ReadReport, read_documents
from domain_llm.text.fetching import fetch_pmc, fetch_pubmed
from domain_llm.text.jats import parse_xml
from eutils import N, Server, dates_of

REAL = {name: getattr(fetching, name) for name in ('_WAITS', '_PAUSES')}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    for name, value in dict(_WAITS=(0.01,) * 6, _PAUSES=(0, 0)).items():
        monkeypatch.setattr(fetching, name, value)
    made = []
    def make(n=N):
        made.append(Server(n))
        return made[-1]
    yield make
    for s in made: s.close()


def contents(folder):
    "Read what lies below a folder, but for our lists and what a kill left of a single file."
    found = [p for p in sorted(Path(folder).rglob('*')) if p.is_file() and p.suffix != '.part']
    names = {p: p.relative_to(folder).as_posix() for p in found if p.name != '.domain_llm.json'}
    return {name: path.read_bytes() for path, name in names.items()}


def pmids(folder):
    paths = sorted(Path(folder).glob('[0-9]*/records.xml'))
    roots = (etree.parse(path).getroot() for path in paths)
    return [int(record.findtext('.//PMID')) for root in roots for record in root]


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
    "Fetch all records without any trouble."
    patch = pytest.MonkeyPatch()
    patch.setenv('no_proxy', '127.0.0.1')
    patch.setattr(fetching, '_PAUSES', (0, 0))
    server, folder = Server(), tmp_path_factory.mktemp('clean')/'pubmed'
    fetch_pubmed('brain', folder, server=server.url, email='me@example.org')
    server.close()
    patch.undo()
    return server, folder


def test_16000_records_arrive_once_each(uninterrupted):
    server, folder = uninterrupted
    assert pmids(folder) == list(range(1, N + 1))
    assert set(server.fetched().values()) == {1}, 'every record is asked for once'
    assert len(server.fetched()) == N
    assert len(server.asked('efetch')) == N // 500
    assert 5 <= len(server.asked('esearch')) < 40
    sent = {(form['tool'], form['email']) for _, _, form in server.log}
    assert sent == {('domain_llm', 'me@example.org')}


def test_a_complete_folder_needs_no_server(uninterrupted, tmp_path):
    folder, before = uninterrupted[1], contents(uninterrupted[1])
    assert fetch_pubmed('brain', folder, server='http://127.0.0.1:9/') == folder
    assert contents(folder) == before


TROUBLES = [500, 503, 429, 'error', 'error in kind', 'html', 'json', 'empty', 'short', 'cut',
            'hang up', 'stall', 'drip', 'silent', 'endless', 'flood']


def test_whatever_goes_wrong_the_result_is_the_same(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, '_STALL', .4)
    monkeypatch.setattr(fetching, '_PATIENCE', 1.5)
    monkeypatch.setattr(fetching, '_LARGEST', 2**22)
    good, bad = server(1200), server(1200)
    fetch_pubmed('brain', tmp_path/'good', server=good.url)
    plan = TROUBLES[:6] + [None] + TROUBLES[6:12] + [None] + TROUBLES[12:] + ['half']
    # the search is answered, then efetch meets each trouble
    bad.trouble = {i: what for i, what in enumerate(plan[1:], 1) if what}
    fetch_pubmed('brain', tmp_path/'bad', server=bad.url)
    assert not bad.trouble, 'every trouble was met'
    assert contents(tmp_path/'good') == contents(tmp_path/'bad')


@pytest.mark.parametrize('what', TROUBLES)
def test_a_search_survives(server, tmp_path, monkeypatch, what):
    monkeypatch.setattr(fetching, '_STALL', .3)
    monkeypatch.setattr(fetching, '_PATIENCE', 1.2)
    monkeypatch.setattr(fetching, '_LARGEST', 2**22)
    s = server(20)
    s.trouble = {0: what, 2: what}
    start = time.monotonic()
    fetch_pubmed('brain', tmp_path/'x', server=s.url)
    assert time.monotonic() - start < 20, 'it waits for no stalled answer'
    assert pmids(tmp_path/'x') == list(range(1, 21)) and len(s.log) == 4


@pytest.mark.parametrize('wish', ['1', 'a date'])
def test_retry_after_is_honoured(server, tmp_path, wish):
    s = server(5)
    if wish == 'a date': wish = formatdate(time.time() + 3, usegmt=True)
    s.trouble = {1: dict(code=503, Retry_After=wish)}
    fetch_pubmed('brain', tmp_path/'x', server=s.url)
    assert 1 <= s.log[2][0] - s.log[1][0] < 4


@pytest.mark.parametrize('wish', [
    '²', '9' * 5000, '-3', '1e3', 'soon', '', '0', formatdate(0, usegmt=True),
    'Fri, 99 Oct 99999999999 07:28:00 GMT'], ids=range(9))
def test_a_wish_that_makes_no_sense_is_none(server, tmp_path, wish):
    s = server(5)
    s.trouble = {1: dict(code=429, Retry_After=wish)}
    fetch_pubmed('brain', tmp_path/'x', server=s.url)
    assert s.log[2][0] - s.log[1][0] < 1 and pmids(tmp_path/'x') == [1, 2, 3, 4, 5]


@pytest.mark.parametrize('wish', ['601', '9' * 400, formatdate(time.time() + 10**6, usegmt=True)],
                         ids=['seconds', 'digits', 'a day'])
def test_nobody_waits_longer_than_the_patience(server, tmp_path, wish):
    s = server(5)
    s.trouble = {1: dict(code=429, Retry_After=wish)}
    with pytest.raises(OSError, match=f'Retry-After is {wish[:30]}.*call again to go on'):
        fetch_pubmed('brain', tmp_path/'x', server=s.url)
    assert len(s.log) == 2


@pytest.mark.parametrize('code', [301, 302, 303, 307, 308])
def test_a_form_with_a_key_goes_to_no_other_address(server, tmp_path, code):
    s, elsewhere = server(5), server(5)
    s.trouble = {0: dict(code=code, Location=f'{elsewhere.url}esearch.fcgi')}
    with pytest.raises(OSError, match=f'{code} .*{elsewhere.url}'):
        fetch_pubmed('brain', tmp_path/'x', api_key='key', server=s.url)
    assert len(s.log) == 1 and not elsewhere.log


@pytest.mark.parametrize('more', ['', 'x' * 250, 'x' * 1000, '. © 2020' * 50_000], ids=range(4))
@pytest.mark.parametrize('code', [200, 400, 503])
def test_no_message_holds_the_key_or_a_control_character(server, tmp_path, more, code):
    s, key = server(5), 'a0b1c2d3e4f5a6b7c8d9'
    body = f'<no>{more}{key}<b/>{key[:9]}\xad{key[9:]} \u202e\u200b\x9b \n {key}{more}</no>'
    if code != 200: body += f'{key[:9]}\x07{key[9:]} \x1b[31m \r\n{more}'
    answer = dict(code=code, body=body.encode(), Location=key, Retry_After=key)
    s.trouble = dict.fromkeys(range(3), answer)
    with pytest.raises(OSError, match=('another: <no>' if code == 200 else str(code))) as caught:
        fetch_pubmed('brain', tmp_path/'x', api_key=key, server=s.url)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500
    assert key[:9] not in ''.join(traceback.format_exception(caught.value))
    s.trouble = {}
    fetch_pubmed('brain', tmp_path/'x', api_key=key, server=s.url)
    assert not any(key.encode() in content for content in contents(tmp_path/'x').values())


def test_no_message_holds_the_password_of_an_address(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, '_WAITS', (0,) * 6)
    word = 'hunter' * 2
    with pytest.raises(OSError, match='no good answer from http://…@127') as told:
        fetch_pubmed('brain', tmp_path/'x', server=f'http://me:{word}@127.0.0.1:9/')
    assert word not in ''.join(traceback.format_exception(told.value))


@pytest.mark.parametrize('bad', [
    '', '<Count/>', '<Count>²</Count>', '<Count>-1</Count>', f'<Count>{"9" * 5000}</Count>',
    '<Count>2</Count><IdList><Id>1</Id><Id/></IdList>',
    '<Count>1</Count><IdList><Id>one</Id></IdList>',
    '<Count>0</Count><IdList/><ERROR>Search Backend failed</ERROR>'], ids=range(8))
@pytest.mark.parametrize('always', [False, True])
def test_an_answer_to_a_search_holds_numbers(server, tmp_path, bad, always):
    s = server(5)
    answer = dict(code=200, body=f'<eSearchResult>{bad}</eSearchResult>'.encode())
    s.trouble = dict.fromkeys(range(3 if always else 1), answer)
    if always:
        with pytest.raises(OSError, match='sound <eSearchResult>.*call again to go on'):
            fetch_pubmed('brain', tmp_path/'x', server=s.url)
    else: assert pmids(fetch_pubmed('brain', tmp_path/'x', server=s.url)) == [1, 2, 3, 4, 5]
    assert len(s.log) == 3


def test_an_answer_in_an_encoding_nobody_knows_is_asked_for_again(server, tmp_path):
    s = server(5)
    body = b'<?xml version="1.0" encoding="klingon"?><eSearchResult/>'
    s.trouble = {0: dict(code=200, body=body)}
    assert pmids(fetch_pubmed('brain', tmp_path/'x', server=s.url)) == [1, 2, 3, 4, 5]


def test_an_answer_may_be_zipped_and_no_larger_than_memory(server, tmp_path, monkeypatch):
    s = server(1100)
    s.trouble = dict.fromkeys(range(100), 'zipped')
    assert pmids(fetch_pubmed('brain', tmp_path/'x', server=s.url)) == list(range(1, 1101))
    monkeypatch.setattr(fetching, '_LARGEST', 2**20)
    monkeypatch.setattr(s, 'search', lambda form: ' ' * 2**24)
    with pytest.raises(OSError, match='at most 1,048,576 bytes'):
        fetch_pubmed('brain', tmp_path/'y', server=s.url)


@pytest.mark.parametrize('what, tries', [(400, 1), ('long', 1), (500, 3), ('html', 3)])
def test_a_server_that_never_answers_well_is_left_alone(server, tmp_path, what, tries):
    s = server(5)
    s.trouble = dict.fromkeys(range(100), what)
    with pytest.raises(OSError, match='call again to go on') as caught:
        fetch_pubmed('brain', tmp_path/'x', server=s.url)
    assert len(s.log) == tries and '\n' not in str(caught.value)
    if what == 400: assert 'API key invalid' in str(caught.value)
    s.trouble = {}
    fetch_pubmed('brain', tmp_path/'x', server=s.url)
    assert pmids(tmp_path/'x') == [1, 2, 3, 4, 5]


def test_a_server_that_fails_halfway_gets_seven_tries_and_loses_nothing(server, tmp_path):
    s = server(1100)
    s.trouble = dict.fromkeys(range(2, 100), 500)
    with pytest.raises(OSError): fetch_pubmed('brain', tmp_path/'x', server=s.url)
    assert len(s.log) == 2 + 7 and len(pmids(tmp_path/'x')) == 500
    s.trouble = {}
    s.log.clear()
    fetch_pubmed('brain', tmp_path/'x', server=s.url)
    assert pmids(tmp_path/'x') == list(range(1, 1101)) and len(s.log) == 2


def test_an_address_whose_encryption_fails_is_not_asked_again(server, clock):
    client, start = fetching._Eutils(server(5).url.replace('http:', 'https:'), {}, 0), clock.now
    with pytest.raises(OSError, match='SSL'): client.ask('esearch', 'eSearchResult')
    assert clock.now == start


def test_nobody_there(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, '_WAITS', (.01,) * 6)
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    with pytest.raises(OSError, match='refused'):
        fetch_pubmed('brain', tmp_path/'x', server='http://127.0.0.1:9/')


SCRIPT = """
import sys
from domain_llm.text import fetching
fetching._PAUSES, fetching._WAITS = (0, 0), (.01,) * 6
fetching.fetch_pubmed('brain', sys.argv[1], server=sys.argv[2])
"""

def killed(folder, url, when):
    "Fetch in a process of its own, which is killed as soon as `when()` is true."
    command = [sys.executable, '-c', SCRIPT, str(folder), url]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not when():
            assert process.poll() is None, 'it ended before it could be killed'
            assert time.monotonic() < end
            time.sleep(.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.skipif(os.name == 'nt', reason='there is no SIGKILL')
def test_killed_three_times_nothing_is_lost_or_fetched_again(server, tmp_path, uninterrupted):
    s, folder = server(), tmp_path/'x'
    s.slow = .02
    for n in 3, 12, 20: killed(folder, s.url, lambda: len(s.asked('efetch')) >= n)
    s.slow = 0
    assert len(list(folder.glob('[0-9]*'))) < N // 500
    fetch_pubmed('brain', folder, server=s.url)
    clean = contents(uninterrupted[1])
    assert contents(folder) == clean
    again = [i for i, n in s.fetched().items() if n > 1]
    assert len(again) <= 3 * 500, 'only the batch in flight is asked for again'
    assert max(s.fetched().values()) <= 4
    once = len(uninterrupted[0].asked('esearch'))
    assert len(s.asked('esearch')) == once, 'the search is not repeated'


@pytest.mark.skipif(os.name == 'nt', reason='there is no SIGKILL')
def test_killed_while_searching(server, tmp_path, uninterrupted):
    s, folder = server(), tmp_path/'x'
    s.slow = .05
    killed(folder, s.url, lambda: len(s.asked('esearch')) >= 3)
    s.slow = 0
    fetch_pubmed('brain', folder, server=s.url)
    assert contents(folder) == contents(uninterrupted[1])


HALF = """
import os, signal, stat, sys
left, fsync = int(sys.argv[3]), os.fsync
def half(handle):
    global left
    left -= stat.S_ISREG(os.fstat(handle).st_mode)
    if left < 0:
        os.truncate(f'/proc/self/fd/{handle}', os.fstat(handle).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(handle)
os.fsync = half
"""

@pytest.mark.skipif(not os.path.exists('/proc/self/fd'), reason='needs /proc and SIGKILL')
@pytest.mark.parametrize('files', range(0, 12, 2))
def test_killed_in_the_middle_of_a_file(server, tmp_path, files):
    s, folder = server(700), tmp_path/'x'
    command = [sys.executable, '-c', HALF + SCRIPT, str(folder), s.url, str(files)]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(list(folder.glob('[0-9]*'))) < 2, 'killed at the plan or in one of the two batches'
    fetch_pubmed('brain', folder, server=s.url)
    fetch_pubmed('brain', tmp_path/'whole', server=s.url)
    assert contents(folder) == contents(tmp_path/'whole')


def test_what_was_half_written_never_counts(server, tmp_path, uninterrupted):
    s, folder = server(1200), tmp_path/'x'
    fetch_pubmed('brain', folder, server=s.url)
    whole = contents(folder)
    half = (folder/'00002').rename(folder/'.00002.0123abcd.part')    # killed before the rename ...
    # ... and in the middle of a file
    (half/'records.xml').write_text('<PubmedArticleSet>')
    assert len(pmids(folder)) == 700 and len(licences(folder)) == 700
    s.log.clear()
    fetch_pubmed('brain', folder, server=s.url)
    assert contents(folder) == whole and len(s.log) == 1


@pytest.mark.skipif(os.name == 'nt', reason='Windows opens no folder')
def test_content_is_on_the_disk_before_its_name_and_that_before_the_next_request(
        server, tmp_path, monkeypatch):
    log, renames, sync, replace = [], [], os.fsync, os.replace
    def synced(fd):
        log.append(os.fstat(fd).st_ino)
        sync(fd)
    def replaced(part, path):
        content = {p.stat().st_ino for p in (part, *part.rglob('*'))}
        assert content <= set(log), f'{path.name} is renamed before all of it is on the disk'
        replace(part, path)
        log.clear()
        if path.name != '.domain_llm.json': renames.append((path.name, len(content)))
    monkeypatch.setattr(os, 'fsync', synced)
    monkeypatch.setattr(os, 'replace', replaced)
    s, folder, said = server(700), tmp_path/'x', []
    real = fetching._Eutils.ask
    def place(): return folder.stat().st_ino
    def ask(*args, **fields):
        said.append(place() in log)
        return real(*args, **fields)
    monkeypatch.setattr(fetching._Eutils, 'ask', ask)
    fetch_pubmed('brain', folder, server=s.url)
    assert renames == [('.request.json', 1), ('00001', 4), ('00002', 4)]
    assert said == [False, True, True], 'the folder is brought to the disk after each rename'
    assert place() in log


class Clock:
    "Time that passes only when somebody sleeps."
    def __init__(self): self.now = 100.
    def monotonic(self): return self.now
    def time(self): return self.now
    def sleep(self, seconds): self.now += seconds


@pytest.fixture
def clock(server, monkeypatch):
    "Give client, urllib3 and server the real pauses, on a clock of their own."
    clock = Clock()
    for module in fetching, retry, eutils: monkeypatch.setattr(module, 'time', clock)
    for name, value in REAL.items(): monkeypatch.setattr(fetching, name, value)
    return clock


@pytest.mark.parametrize('pause, per_second', [(0, 3), (1, 10)])
@pytest.mark.parametrize('takes', [0, .05, .5])
@pytest.mark.parametrize('troubles', [(), (500, 'html', 'hang up', 429)])
def test_the_rate_is_kept(server, clock, pause, per_second, takes, troubles):
    s = server(5)
    s.slow, s.trouble = takes, {3 + 7 * i: what for i, what in enumerate(troubles)}
    client = fetching._Eutils(s.url, {}, fetching._PAUSES[pause])
    for _ in range(60): client.ask('efetch', 'PubmedArticleSet', db='pubmed', id='1')
    starts = [when for when, _, _ in s.log]
    assert len(starts) == 60 + len(troubles)
    pairs = zip(starts, starts[per_second:])
    assert all(late - early > 1 for early, late in pairs), 'too many requests within a second'
    if not takes and not troubles:
        assert len(starts) / (starts[-1] - starts[0]) > .8 * per_second, 'no slower than needed'


@pytest.mark.parametrize('what', [500, 'html', 'hang up'])
def test_the_waits_double(server, clock, what):
    s = server(5)
    s.trouble = dict.fromkeys(range(100), what)
    with pytest.raises(OSError):
        fetching._Eutils(s.url, {}, 0.34, answered=True).ask('efetch', 'PubmedArticleSet')
    starts = [when for when, _, _ in s.log]
    assert [round(b - a) for a, b in zip(starts, starts[1:])] == [1, 2, 4, 8, 16, 32]


def test_journals_dates_limit_and_key_reach_the_server(server, tmp_path):
    s = server(3000)
    fetch_pubmed('sleep', tmp_path/'x', journal=['J Neurosci', 'Neuron'], since=2002,
                 until='2011-06-30', limit=40, api_key='K', server=s.url)
    form = s.asked('esearch')[0]
    assert form['term'] == '(sleep) AND ("J Neurosci"[Journal] OR "Neuron"[Journal])'
    assert (form['api_key'], form['datetype']) == ('K', 'pdat')
    assert (form['mindate'], form['maxdate']) == ('2002/01/01', '2011/06/30')
    got = pmids(tmp_path/'x')
    inside = [i for i in got
              if any(date(2002, 1, 1) <= d <= date(2011, 6, 30) for d in dates_of(i))]
    assert len(got) == 40 and got == inside
    fetch_pubmed('', tmp_path/'y', journal='Neuron', limit=1, server=s.url)
    assert s.asked('esearch')[-1]['term'] == '("Neuron"[Journal])'
    fetch_pmc('sleep', tmp_path/'z', limit=1, server=s.url)
    assert s.asked('esearch')[-1]['term'] == '(sleep) AND (open access[filter])'


@pytest.mark.parametrize('limit', ['7', np.int64(7)])
def test_a_limit_may_be_any_whole_number_from_one(server, tmp_path, limit):
    s = server(50)
    for wrong in 0, -1, '0':
        with pytest.raises(ValueError, match='at least 1 record'):
            fetch_pubmed('brain', tmp_path/'x', limit=wrong, server=s.url)
    fetch_pubmed('brain', tmp_path/'x', limit=limit, server=s.url)
    assert len(pmids(tmp_path/'x')) == 7


def test_withdrawn_records_are_counted_and_not_asked_for_for_ever(server, tmp_path, capsys):
    s = server(20)
    shown = s.search
    def with_one_more(form):
        answer = shown(form).replace('<Id>7</Id>', '<Id>7</Id><Id>70000</Id>')
        return answer.replace('<Count>20<', '<Count>21<')
    s.search = with_one_more
    fetch_pubmed('brain', tmp_path/'x', server=s.url)
    assert pmids(tmp_path/'x') == list(range(1, 21)) and len(s.asked('efetch')) == 3
    assert '1 record could not be had' in capsys.readouterr().err
    s.known = {}
    with pytest.raises(OSError, match='none of 20 records'):
        fetching._fetch_batch(fetching._Eutils(s.url, {}, 0), 'pubmed', list(map(str, range(20))))


def test_a_search_that_finds_nothing_or_too_much_is_refused(server, tmp_path):
    s = server(50)
    with pytest.raises(ValueError, match='should find a record, but got none'):
        fetch_pubmed('nothing', tmp_path/'z', server=s.url)
    s.known = {i: [date(2010, 1, 1)] for i in range(1, 10_002)}
    with pytest.raises(ValueError, match='single day 2010-01-01'):
        fetch_pubmed('brain', tmp_path/'day', server=s.url)


def test_pmc_gives_full_texts_and_a_licence_for_each(server, tmp_path):
    s = server(120)
    folder = fetch_pmc('brain', tmp_path/'pmc', server=s.url)
    names = [f'0000{i}/{name}' for i in (1, 2, 3) for name in ('.licences.json', 'records.xml')]
    assert sorted(contents(folder)) == ['.request.json'] + names
    assert len(s.asked('efetch')) == 3
    table = licences(folder)
    four = 'CC BY 4.0', 'CC BY-NC-ND 4.0', 'other terms', 'none stated'
    assert Counter(table.licence) == dict.fromkeys(four, 30)
    assert table.set_index('pmcid').loc['PMC1', 'terms'].startswith('http') and len(table) == 120
    documents = read_documents(folder, report=ReadReport())
    assert len(documents) == 120 and 'Full text number 1 & more.' in documents['text'][:]
    kept = keep_licences(documents, table)
    numbers = [int(re.search(r'number (\d+)', text)[1]) for text in kept['text']]
    assert sorted(numbers) == list(range(4, 121, 4))
    assert len(keep_licences(documents, table, keep=('CC BY', 'CC BY-NC-ND'))) == 60
    assert len(keep_licences(documents, table.head(0), keep=('not recorded',))) == 120
    def place(row, i): return dict(id=f'pmc/{table.place[i]}')
    nameless = documents.map(place, with_indices=True, load_from_cache_file=False)
    assert _licence_of(nameless, table) == _licence_of(documents, table)


def test_pubmed_rights_are_recorded(uninterrupted):
    table = licences(uninterrupted[1])
    first = ['1', '10.1/1', 'other terms', 'Copyright © 1 Someone']
    assert len(table) == N and list(table.loc[0, ['pmid', 'doi', 'licence', 'terms']]) == first
    assert table.loc[1, 'licence'] == 'none stated'


def test_the_reader_reads_what_pubmed_gave(uninterrupted):
    report = ReadReport()
    documents = read_documents(uninterrupted[1], report=report)
    assert len(documents) == N and not report.skipped
    assert set(_licence_of(documents, licences(uninterrupted[1]))) == {'other terms', 'none stated'}


def test_nothing_in_an_answer_is_expanded_or_fetched(server, tmp_path):
    s = server(3)
    (tmp_path/'secret').write_text('password')
    attack = f'<!DOCTYPE pmc-articleset [<!ENTITY x SYSTEM "{(tmp_path/"secret").as_uri()}">]>'
    shown = s.fetch
    def attacking(form):
        plain = re.sub(r'^<\?xml.*?<pmc', '<pmc', shown(form), flags=re.S)
        return attack + plain.replace('Full text', 'Full &x; text')
    s.fetch = attacking
    folder = fetch_pmc('brain', tmp_path/'pmc', server=s.url)
    texts = b''.join(contents(folder).values())
    assert b'password' not in texts and b'Full' in texts


@needs_data
def test_licences_of_165_real_articles():
    paths = sorted((Path(DATA)/'jats').glob('*ml'))
    rows = {p.name: fetching._licence_row(parse_xml(io.BytesIO(p.read_bytes()))) for p in paths}
    names = Counter(row['licence'] for row in rows.values())
    assert names == {'CC BY': 82, 'CC BY 4.0': 29, 'CC BY 2.0': 23, 'other terms': 22, 'CC0': 7,
                     'CC BY-NC 2.0': 1, 'CC BY 3.0': 1}
    assert rows['craft-16870721.nxml']['licence'] == 'CC BY-NC 2.0'
    for name in 'craft-15784609.nxml', 'plos-journal.pmed.1001080.xml':
        assert rows[name]['licence'] == 'other terms'
    assert all(row['doi'] or row['pmid'] for row in rows.values())
