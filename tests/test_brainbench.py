"""BrainBench against the published files, a local server, and a plain loop with transformers."""
import os, threading
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from domain_llm import brainbench as bb
from domain_llm.gpt2 import GPT2, GPT2Config
from domain_llm.synthetic import SyntheticScience
from domain_llm.tokenizer import train_tokenizer

DATA = os.environ.get('DOMAIN_LLM_DATA')
needs_data = pytest.mark.skipif(not DATA, reason='needs DOMAIN_LLM_DATA')


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
    monkeypatch.setitem(bb.FILES, 'cases.csv', ('brainbench', f'http://127.0.0.1:{server.server_port}', digest))
    yield server, folder, tmp_path
    server.shutdown()


def test_a_file_is_downloaded_once_and_checked(mirror):
    server, folder, tmp_path = mirror
    path = bb.named_file('cases.csv')
    assert path.read_text().endswith('it rose,it fell\n') and tmp_path / 'cache' in path.parents
    server.shutdown()
    assert bb.named_file('cases.csv') == path                       # the second time without the server


def test_a_file_that_was_altered_on_the_way_is_refused(mirror):
    _, folder, tmp_path = mirror
    (folder / 'cases.csv').write_text('original_abstract,incorrect_abstract\nit fell,it rose\n')
    with pytest.raises(ValueError, match='not the published file'): bb.named_file('cases.csv')
    assert not list((tmp_path / 'cache').glob('cases.csv'))


def test_a_missing_server_is_a_sentence(mirror):
    _, folder, _ = mirror
    (folder / 'cases.csv').unlink()
    with pytest.raises(FileNotFoundError, match='set DOMAIN_LLM_DATA'): bb.named_file('cases.csv')


@needs_data
def test_the_published_hashes_are_those_of_the_published_files():
    from domain_llm.tokens import file_sha256
    for name, (folder, _, sha256) in bb.FILES.items(): assert file_sha256(Path(DATA) / folder / name) == sha256


@needs_data
def test_the_published_sets(capsys):
    human, gpt4 = bb.load_cases('brainbench-human'), bb.load_cases('brainbench-gpt4')
    assert (len(human), len(gpt4)) == (200, 100) and human[0].id == '1' and human[61].section
    from collections import Counter
    assert sorted(Counter(c.section for c in human).values()) == [24, 25, 25, 51, 75]
    assert 'case 63' in capsys.readouterr().out                     # T3: a bracket is missing in the file itself
    assert bb.paper_labels(200).sum() == 98 and bb.paper_labels(100).sum() == 47
    assert bb.paper_labels(200)[:10].tolist() == [0, 1, 1, 1, 0, 0, 0, 1, 1, 1]


@needs_data
@pytest.mark.parametrize('model', sorted(p.name for p in (Path(DATA or '.') / 'published').glob('*') if (p / 'labels.npy').exists()) if DATA else [])
def test_the_papers_labels_are_the_stored_ones(model):
    assert (np.load(Path(DATA) / 'published' / model / 'labels.npy') == bb.paper_labels(200)).all()


def test_scores_equal_a_plain_loop_with_transformers(tmp_path):
    cases = SyntheticScience(0).cases()[:5]
    tokenizer = train_tokenizer([c.original for c in cases], 400)
    torch.manual_seed(0)
    model = GPT2(GPT2Config(tokenizer.get_vocab_size(), 2, 2, 32, 128))
    for p in model.parameters(): torch.nn.init.normal_(p, std=0.2)
    model.save_pretrained(tmp_path / 'm')
    judge = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'm').eval()
    plain = []
    for case in cases:
        for text in (case.original, case.altered):
            ids = torch.tensor([tokenizer.encode((bb.PROMPT + text).strip()).ids])
            with torch.no_grad(): plain.append(judge(ids, labels=ids).loss.item())
    for scored in (model, judge):
        for size in (1, 4, 32):
            frame = bb.score_cases(scored, tokenizer, cases, 'paper', batch_size=size).frame
            assert np.abs(np.log(frame[['original', 'altered']].to_numpy().ravel()) - plain).max() < 1e-5


def test_untrained_models_guess():
    cases = SyntheticScience(0).cases()
    tokenizer = train_tokenizer([c.original for c in cases], 600)
    right = []
    for seed in range(5):
        torch.manual_seed(seed)
        right.append(bb.score_cases(GPT2(GPT2Config.preset('toy', tokenizer.get_vocab_size())), tokenizer, cases, prompt='').accuracy)
    assert abs(np.mean(right) - 0.5) < 3 * 0.5 / (5 * len(cases)) ** 0.5
