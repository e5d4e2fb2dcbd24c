"""Folders and files that appear whole or not at all, also when the process dies at any point of a replacement."""
import os, subprocess, sys

import pytest

from domain_llm.tokenizer import whole_folder, write_whole

DIE_AT = '''
import os, sys
from pathlib import Path
from domain_llm.tokenizer import whole_folder
from dying import dying_after
counted = dying_after(int(sys.argv[1]))
os.replace, os.fsync = counted(os.replace), counted(os.fsync)
with whole_folder(Path(sys.argv[2]) / 'box') as box:
    for name in 'ab': (box / name).write_text('new')
print('whole')
'''


def contents(box): return {p.name: p.read_text() for p in box.iterdir()}


def test_a_kill_at_any_point_leaves_the_old_or_the_new(tmp_path):
    old, new, finished = dict(a='old', b='old'), dict(a='new', b='new'), False
    for point in range(20):
        home = tmp_path / str(point)
        with whole_folder(home / 'box') as box:
            for name in 'ab': (box / name).write_text('old')
        done = subprocess.run([sys.executable, '-c', DIE_AT, str(point), str(home)], capture_output=True, text=True)
        finished = 'whole' in done.stdout
        if (home / 'box').exists(): assert contents(home / 'box') in (old, new)
        else: assert contents(home / 'box.old') == old                 # between two renames: kept beside …
        try:
            with whole_folder(home / 'box') as box: raise OSError('the next attempt fails early')
        except OSError: pass
        assert contents(home / 'box') in (old, new)                    # … and given back by the next attempt
        assert [p.name for p in home.iterdir()] == ['box']
        if finished: break
    assert finished and contents(home / 'box') == new


def test_a_rename_that_fails_gives_the_old_folder_back(tmp_path, monkeypatch):
    with whole_folder(tmp_path / 'box') as box: (box / 'a').write_text('old')
    real = os.replace
    def failing(source, target):
        if str(source).endswith('.part'): raise OSError(5, 'the disk failed')
        return real(source, target)
    monkeypatch.setattr(os, 'replace', failing)
    with pytest.raises(OSError, match='the disk failed'):
        with whole_folder(tmp_path / 'box') as box: (box / 'a').write_text('new')
    monkeypatch.undo()
    assert contents(tmp_path / 'box') == dict(a='old') and [p.name for p in tmp_path.iterdir()] == ['box']


def test_a_file_is_replaced_whole(tmp_path, monkeypatch):
    write_whole(tmp_path / 'f', 'old')
    def full(*_): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError): write_whole(tmp_path / 'f', 'new')
    monkeypatch.undo()
    assert (tmp_path / 'f').read_text() == 'old' and [p.name for p in tmp_path.iterdir()] == ['f']
