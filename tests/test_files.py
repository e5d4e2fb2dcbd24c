"""Files and folders that appear whole or not at all, replace only what is ours, and survive a kill at any point."""
import os, signal, subprocess, sys, threading, time

import pytest

from domain_llm.ground.files import (
    files_written, foreign_files, is_mounted, note_written, only_writer, read_json, sync,
    whole_folder, write_whole)

DIE_AT = """
import os, sys
from pathlib import Path
from domain_llm.ground.files import whole_folder
from dying import dying_after
counted = dying_after(int(sys.argv[1]))
os.replace, os.fsync, os.unlink = counted(os.replace), counted(os.fsync), counted(os.unlink)
with whole_folder(Path(sys.argv[2]) / 'box', 'test') as box:
    for name in 'ab': (box / name).write_text('new')
print('whole')
"""


def save(folder, kind='test', **texts):
    with whole_folder(folder, kind) as part:
        for name, text in texts.items(): (part / name).write_text(text)


def contents(box): return {p.name: p.read_text() for p in box.iterdir() if p.name[0] != '.'}


def stop_early(box):
    try:
        with whole_folder(box, 'test'): raise OSError('the next attempt fails early')
    except OSError: pass


@pytest.mark.parametrize('guest', [{}, dict(thesis='mine')], ids=['alone', 'with a guest'])
def test_a_kill_at_any_point_leaves_the_old_or_the_new(tmp_path, guest):
    old, new, finished = dict(a='old', b='old', c='old'), dict(a='new', b='new'), False
    for point in range(60):
        home = tmp_path / str(point)
        save(home / 'box', **old)
        for name in guest: (home / 'box' / name).write_text('mine')
        done = subprocess.run(
            [sys.executable, '-c', DIE_AT, str(point), str(home)], capture_output=True, text=True
        )
        finished = 'whole' in done.stdout
        # what was moved away is given back
        stop_early(home / 'box')
        left = contents(home / 'box')
        assert {n: left.pop(n) for n in guest} == guest                # the guest is never touched
        if guest: assert {left.get(n) for n in 'ab'} <= {'old', 'new'} # the files change one by one
        else: assert left in (old, new)
        # and all that is ours is known as ours
        assert foreign_files(home / 'box') == sorted(guest)
        save(home / 'box', **new)
        assert contents(home / 'box') == new | guest and [p.name for p in home.iterdir()] == ['box']
        if finished: break
    assert finished


def test_a_rename_that_fails_gives_the_old_folder_back(tmp_path, monkeypatch):
    save(tmp_path / 'box', a='old')
    real = os.replace
    def failing(source, target):
        if str(source).endswith('.part') and str(target).endswith('box'):
            raise OSError(5, 'the disk failed')
        return real(source, target)
    monkeypatch.setattr(os, 'replace', failing)
    with pytest.raises(OSError, match='the disk failed'): save(tmp_path / 'box', a='new')
    monkeypatch.undo()
    assert contents(tmp_path / 'box') == dict(a='old') and [p.name for p in tmp_path.iterdir()] == [
        'box'
    ]


def test_a_file_is_replaced_whole(tmp_path, monkeypatch):
    write_whole(tmp_path / 'f', 'old')
    def full(*_): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError): write_whole(tmp_path / 'f', 'new')
    monkeypatch.undo()
    assert (tmp_path / 'f').read_text() == 'old' and [p.name for p in tmp_path.iterdir()] == ['f']


def test_neighbours_with_the_names_of_the_first_edition_stay(tmp_path):
    for name in 'box.old', 'box.part', '.box.01234567.old', '.box.0123abcd.part':    # the last two: no list inside
        (tmp_path / name).mkdir()
        (tmp_path / name / 'precious.txt').write_text('mine')
    (tmp_path / 'f.part').write_text('mine')
    for text in 'first', 'second':
        save(tmp_path / 'box', a=text)
        write_whole(tmp_path / 'f', text)
    assert [p.read_text() for p in sorted(tmp_path.rglob('precious.txt'))] == ['mine'] * 4
    assert (tmp_path / 'f.part').read_text() == 'mine' and contents(tmp_path / 'box') == dict(
        a='second'
    )


def test_a_file_that_is_not_ours_is_refused_by_name_and_nothing_is_touched(tmp_path):
    box = tmp_path / 'box'
    box.mkdir()
    (box / 'b').write_text('mine')
    with pytest.raises(FileExistsError, match='holds b, which domain_llm did not write'):
        save(box, a='1', b='2')
    assert contents(box) == dict(b='mine') and [p.name for p in tmp_path.iterdir()] == ['box']
    save(box, a='1')
    assert contents(box) == dict(a='1', b='mine')
    with pytest.raises(FileExistsError): save(box, a='2', b='2')
    assert contents(box) == dict(a='1', b='mine')


def test_kinds_do_not_replace_each_other(tmp_path):
    save(tmp_path / 'box', 'model', weights='w', config='c')
    save(tmp_path / 'box', 'tokenizer', merges='m', old='o')
    save(tmp_path / 'box', 'tokenizer', merges='n')
    assert contents(tmp_path / 'box') == dict(weights='w', config='c', merges='n')
    assert files_written(tmp_path / 'box') == dict(
        model=['config', 'weights'], tokenizer=['merges']
    )
    note_written(tmp_path / 'box', 'logs', ['events/'])
    (tmp_path / 'box/events').mkdir()
    (tmp_path / 'box/events/1').write_text('')
    assert not foreign_files(tmp_path / 'box') and not foreign_files(tmp_path / 'absent')


def test_the_working_folder_is_written_into_and_not_exchanged(tmp_path, monkeypatch):
    save(tmp_path / 'box', a='old')
    monkeypatch.chdir(tmp_path / 'box')
    save('.', a='new')
    assert os.listdir() and contents(tmp_path / 'box') == dict(a='new')


def test_of_two_processes_that_write_at_once_one_is_refused(tmp_path):
    code = ('import sys, time\nfrom domain_llm.ground.files import whole_folder\n'
            'with whole_folder(sys.argv[1], "test") as part:\n'
            '    (part / "a").write_text("first"); print("in", flush=True); sys.stdin.readline()')
    first = subprocess.Popen([sys.executable, '-c', code, tmp_path / 'box'], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == 'in\n'
    with pytest.raises(BlockingIOError, match='is being written by another process'):
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


@pytest.mark.parametrize('text, said', [('[]', 'a JSON object'), ('{', 'cut short'), ('[' * 200_000, 'cut short'),
                                        (None, 'no such file')], ids=['a list', 'cut', 'deep', 'absent'])
def test_json_that_cannot_be_read_is_a_sentence(tmp_path, text, said):
    if text is not None: (tmp_path / 'f').write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=said) as caught:
        read_json(tmp_path / 'f', 'the settings')
    assert 'should be the settings' in str(caught.value)


def test_sync_waits_for_files_and_folders(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, 'fsync', lambda handle: seen.append(os.fstat(handle).st_ino))
    (tmp_path / 'file').write_text('x')
    for path in (tmp_path / 'file', tmp_path): sync(path)
    assert seen == [path.stat().st_ino for path in (tmp_path / 'file', tmp_path)]


def test_a_mounted_drive_is_known_by_the_table_of_mounts(tmp_path):
    table = tmp_path / 'mounts'
    table.write_text(
        'overlay / overlay rw\ndrive /content/drive fuse.drive rw\ntmpfs /dev tmpfs rw\n'
        'server:/x /data/nfs nfs4 rw\n'
    )
    assert is_mounted('/content/drive/MyDrive/run', table) and is_mounted('/data/nfs/a', table)
    assert not is_mounted('/content/run', table) and not is_mounted('/content/driveway', table)
    assert not is_mounted('.', tmp_path / 'no such table')


@pytest.fixture(scope='module')
def tokenizer():
    from domain_llm.tokens.tokenizer import train_tokenizer
    return train_tokenizer(['rats freeze in the maze'] * 20, 300)


def test_a_tokenizer_saved_into_the_folder_of_its_model_leaves_the_weights(tmp_path, tokenizer):
    from domain_llm.model.fast import GPT2
    from domain_llm.model.gpt2 import GPT2Config
    from domain_llm.model.weights import load_model, save_model
    from domain_llm.tokens.tokenizer import load_tokenizer, save_tokenizer
    model = GPT2(GPT2Config(tokenizer.get_vocab_size(), 1, 1, 16, 8))
    for order in ('model', 'tokenizer'), ('tokenizer', 'model'):
        folder = tmp_path / '-'.join(order)
        folder.mkdir()
        (folder / 'thesis.docx').write_text('mine')
        for _ in range(2):                                             # and again, over what is ours
            for what in order:
                save_model(model, folder) if what == 'model' else save_tokenizer(tokenizer, folder)
        assert (folder / 'thesis.docx').read_text() == 'mine'
        assert load_tokenizer(folder).get_vocab() == tokenizer.get_vocab()
        assert load_model(folder).cfg == model.cfg
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
    assert sorted(p.name for p in (tmp_path / 'data').iterdir()) == [
        '.domain_llm.json',
        'meta.json',
        'papers.jsonl',
        'train.bin',
    ]
    assert (tmp_path / 'data/papers.jsonl').read_text() == 'mine' and len(
        TokenFile(tmp_path / 'data')
    ) > 0


def test_a_harness_task_leaves_its_neighbours(tmp_path):
    from domain_llm.bench.controls import write_harness_task
    from domain_llm.text.synthetic import Case
    (tmp_path / 'thesis.docx').write_text('mine')
    write_harness_task(tmp_path, [Case('1', 'rose', 'fell')])
    assert (tmp_path / 'thesis.docx').read_text() == 'mine'
