"""Published files from a local server: downloaded once, checked, or refused in a sentence."""
import hashlib
import threading
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler

import pytest

from domain_llm.bench.cases import FILES, named_file


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_): pass


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    "Serve one file on this machine, and keep a cache of its own."
    folder = tmp_path / 'served'
    folder.mkdir()
    (folder / 'cases.csv').write_text('original_abstract,incorrect_abstract\nit rose,it fell\n')
    server = HTTPServer(('127.0.0.1', 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv('DOMAIN_LLM_DATA', raising=False)
    monkeypatch.setattr('pooch.os_cache', lambda name: tmp_path / 'cache')
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
