"""Writers that are killed at any point or meet each other, and parts that share a folder."""
import os, signal, subprocess, sys, threading

import pytest

from dying import dying_after, in_a_fork
from domain_llm.ground.files import foreign_files, only_writer, whole_folder

def save(folder, kind='test', **texts):
    with whole_folder(folder, kind) as part:
        for name, text in texts.items(): (part / name).write_text(text)


def contents(box): return {p.name: p.read_text() for p in box.iterdir() if p.name[0] != '.'}


def stop_early(box):
    try:
        with whole_folder(box, 'test'): raise OSError('the next attempt fails early')
    except OSError: pass


def save_or_die(box, point, **texts):
    "Save, but die at the sync, rename or deletion of this number."
    counted = dying_after(point)
    for name in ('replace', 'fsync', 'unlink'): setattr(os, name, counted(getattr(os, name)))
    save(box, **texts)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
@pytest.mark.parametrize('guest', [{}, dict(thesis='mine')], ids=['alone', 'with a guest'])
def test_a_kill_at_any_point_leaves_the_old_or_the_new(tmp_path, guest):
    old, new, finished = dict(a='old', b='old', c='old'), dict(a='new', b='new'), False
    for point in range(60):
        home = tmp_path / str(point)
        save(home / 'box', **old)
        for name in guest: (home / 'box' / name).write_text('mine')
        code = in_a_fork(lambda: save_or_die(home / 'box', point, **new))
        assert code in (0, -signal.SIGKILL)
        finished = not code
        stop_early(home / 'box')                                       # gives back what was moved
        left = contents(home / 'box')
        assert {n: left.pop(n) for n in guest} == guest                # the guest is never touched
        if guest: assert {left.get(n) for n in 'ab'} <= {'old', 'new'} # the files change one by one
        else: assert left in (old, new)
        assert foreign_files(home / 'box') == sorted(guest)            # what is ours is known
        save(home / 'box', **new)
        assert contents(home / 'box') == new | guest and [p.name for p in home.iterdir()] == ['box']
        if finished: break
    assert finished


def test_of_two_processes_that_write_at_once_one_is_refused(tmp_path):
    code = ('import sys\nfrom domain_llm.ground.files import whole_folder\n'
            'with whole_folder(sys.argv[1], "test") as part:\n'
            '    (part / "a").write_text("first"); print("in", flush=True); sys.stdin.readline()')
    first = subprocess.Popen([sys.executable, '-c', code, tmp_path / 'box'], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == 'in\n'
    with pytest.raises(BlockingIOError, match='should have one writer at a time, but got a second'):
        save(tmp_path / 'box', a='second')
    save(tmp_path / 'other', a='second')                              # a neighbour is free
    first.stdin.write('\n')
    first.stdin.close()
    assert first.wait() == 0 and contents(tmp_path / 'box') == dict(a='first')
    save(tmp_path / 'box', a='second')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['box', 'other']


def test_a_killed_writer_holds_no_lock(tmp_path):
    code = ('import sys, time\nfrom domain_llm.ground.files import whole_folder\n'
            'with whole_folder(sys.argv[1], "test"): print("in", flush=True); time.sleep(60)')
    first = subprocess.Popen([sys.executable, '-c', code, tmp_path / 'box'], stdout=subprocess.PIPE)
    first.stdout.readline()
    first.send_signal(signal.SIGKILL)
    first.wait()
    save(tmp_path / 'box', a='second')
    assert [p.name for p in tmp_path.iterdir()] == ['box']


def test_two_threads_do_not_write_at_once(tmp_path):
    seen = []
    with only_writer(tmp_path / 'box'):
        def other():
            try: save(tmp_path / 'box', a='other')
            except BlockingIOError as error: seen.append(error)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(seen) == 1


@pytest.fixture(scope='module')
def tokenizer():
    from domain_llm.tokens.tokenizer import train_tokenizer
    return train_tokenizer(['rats freeze in the maze'] * 20, 300)


def test_a_tokenizer_saved_into_the_folder_of_its_model_leaves_the_weights(tmp_path, tokenizer):
    from domain_llm.model.fast import GPT2
    from domain_llm.model.gpt2 import GPT2Config
    from domain_llm.model.weights import load_gpt2, save_model
    from domain_llm.tokens.tokenizer import load_tokenizer, save_tokenizer
    model = GPT2(GPT2Config(tokenizer.get_vocab_size(), 1, 1, 16, 8))
    for order in ('model', 'tokenizer'), ('tokenizer', 'model'):
        folder = tmp_path / '-'.join(order)
        folder.mkdir()
        (folder / 'thesis.docx').write_text('mine')
        for _ in range(2):  # and again, over what is ours
            for what in order:
                save_model(model, folder) if what == 'model' else save_tokenizer(tokenizer, folder)
        assert (folder / 'thesis.docx').read_text() == 'mine'
        assert load_tokenizer(folder).get_vocab() == tokenizer.get_vocab()
        assert load_gpt2(folder).cfg == model.cfg
    (tmp_path / 'theirs').mkdir()
    (tmp_path / 'theirs/tokenizer.json').write_text('of another program')
    with pytest.raises(FileExistsError, match='tokenizer.json'):
        save_tokenizer(tokenizer, tmp_path / 'theirs')
    assert (tmp_path / 'theirs/tokenizer.json').read_text() == 'of another program'


def test_tokens_written_into_the_folder_of_the_papers_leave_the_papers(tmp_path, tokenizer):
    from domain_llm.tokens.dataset import TokenFile, write_tokens
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/papers.jsonl').write_text('mine')
    for text in 'rats freeze', 'the maze':
        write_tokens({'train': [text] * 9}, tokenizer, tmp_path / 'data', shard_chars=20)
    # fewer shards: the others are gone
    write_tokens({'train': ['rats']}, tokenizer, tmp_path / 'data')
    left = sorted(p.name for p in (tmp_path / 'data').iterdir())
    assert left == ['.domain_llm.json', 'meta.json', 'papers.jsonl', 'train.bin']
    assert (tmp_path / 'data/papers.jsonl').read_text() == 'mine'
    assert len(TokenFile(tmp_path / 'data')) > 0


def test_a_harness_task_leaves_its_neighbours(tmp_path):
    from domain_llm.bench.controls import write_harness_task
    from domain_llm.text.synthetic import Case
    (tmp_path / 'thesis.docx').write_text('mine')
    write_harness_task(tmp_path, [Case('1', 'rose', 'fell')])
    assert (tmp_path / 'thesis.docx').read_text() == 'mine'
