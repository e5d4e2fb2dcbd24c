"""Token files whose writing is killed at any moment: by the system, or in one of its workers."""
import json, os, re
from functools import partial

import pytest

import domain_llm.tokens.dataset as tk
import dying
from domain_llm.tokens.dataset import write_tokens
from token_texts import TEXTS, TOKENIZER, contents, script

KILLED = """
import json, os, shutil, sys
from pathlib import Path
import domain_llm.tokens.dataset as tk
from dying import dying_after
from token_texts import TEXTS, TOKENIZER, contents
home, replacing, TEXTS = Path(sys.argv[1]), sys.argv[2] == 'replacing', TEXTS[:20]

def write(texts):
    splits = {'train': texts, 'validation': texts[:5]}
    return tk.write_tokens(splits, TOKENIZER, home / 'box', shard_chars=300)

def attempt(texts, limit):
    "Write in a forked process that dies at its call number `limit`; say whether it lived."
    pid = os.fork()
    if not pid:
        counted = dying_after(limit)
        for name in ('replace', 'fsync', 'unlink'): setattr(os, name, counted(getattr(os, name)))
        tk._Encoder.__call__ = counted(tk._Encoder.__call__)
        write(texts)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0

def box(): return contents(home / 'box')

old_texts = [text.upper() for text in TEXTS]
write(old_texts)
old = box()
shutil.rmtree(home / 'box')
write(TEXTS)
new = box()
shutil.rmtree(home / 'box')
seen, lived, limit = set(), False, 0
while not lived:
    if replacing: write(old_texts)
    lived = attempt(TEXTS, limit)
    if (home / 'box').exists():
        seen.add('new' if box() == new else 'old' if box() == old else 'half')
        for split in ('train', 'validation'): tk.TokenFile(home / 'box', split)
    else: seen.add('none')
    part = next(home.glob('.box.*.part'), home / 'none') / 'meta.json'
    splits = json.loads(part.read_text())['splits'] if part.exists() else {}
    done = sum(len(split['shards']) for split in splits.values())
    stamps = {p: p.stat().st_mtime_ns for p in part.parent.glob('*.bin')} if done else {}
    write(TEXTS)
    assert box() == new and [p.name for p in home.iterdir()] == ['box'], limit
    kept = sum((home / 'box' / p.name).stat().st_mtime_ns == t for p, t in stamps.items())
    if not (replacing and 'new' in seen): assert kept >= done, (limit, kept, done)
    shutil.rmtree(home / 'box')
    limit += 1
tries = 0
while tries < 50 and not attempt(TEXTS, 25): tries += 1       # killed again and again, it arrives
assert box() == new and tries >= 3
print(json.dumps(dict(points=limit, seen=sorted(seen), shards=len(new) - 1, tries=tries)))
"""


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
@pytest.mark.parametrize('how', ['fresh', 'replacing'])
def test_a_kill_at_any_write_sync_or_rename_costs_at_most_one_shard(tmp_path, how):
    found = json.loads(script(KILLED, tmp_path, how, TOKENIZERS_PARALLELISM='false'))
    assert found['shards'] >= 3 and found['points'] > 45 and 'half' not in found['seen']
    assert found['seen'] == (['new', 'none'] if how == 'fresh' else ['new', 'none', 'old'])


def test_a_worker_that_dies_is_told_and_what_was_written_is_kept(tmp_path, monkeypatch):
    write = partial(write_tokens, {'train': TEXTS}, TOKENIZER, shard_chars=700)
    with monkeypatch.context() as patched, pytest.raises(RuntimeError) as caught:
        patched.setattr(tk, '_encode', dying.encode_or_die)
        write(tmp_path / 'box', workers=2)
    assert re.fullmatch('a process that encoded documents died.*=0 .*is kept', str(caught.value))
    part, = tmp_path.glob('.box.*.part')
    shards = json.loads((part / 'meta.json').read_text())['splits']['train']['shards']
    kept = {shard['file']: (part / shard['file']).stat().st_mtime_ns for shard in shards}
    assert len(kept) > 2
    write(tmp_path / 'box', workers=2)
    assert {name: (tmp_path / 'box' / name).stat().st_mtime_ns for name in kept} == kept
    write(tmp_path / 'here')
    assert contents(tmp_path / 'box') == contents(tmp_path / 'here')
