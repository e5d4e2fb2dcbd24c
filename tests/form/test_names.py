"""The names of each part, in any order of import, and those of the first edition."""
import subprocess
import sys
from importlib import import_module

import pytest
from notebooks import ROOT

PARTS = {part.name: sorted(p.stem for p in part.glob('*.py') if not p.stem.startswith('_'))
         for part in sorted((ROOT / 'domain_llm').iterdir()) if (part / '__init__.py').is_file()}
PARTS = {part: rooms for part, rooms in PARTS.items() if rooms}


@pytest.mark.parametrize('part', PARTS)
def test_a_part_gives_every_public_name_of_its_rooms(part):
    given = import_module(f'domain_llm.{part}')
    rooms = {room: import_module(f'domain_llm.{part}.{room}') for room in PARTS[part]}
    names = [(room, name) for room, module in rooms.items() for name in module.__all__]
    assert sorted(given.__all__) == sorted(name for _, name in names)
    assert not set(rooms) & set(given.__all__), 'a name would mean the module or the function'
    for room, name in names: assert getattr(given, name) is getattr(rooms[room], name)


def test_a_name_means_the_same_before_and_after_its_room_is_imported():
    code = f"""import sys
from importlib import import_module
parts = {{import_module('domain_llm.' + name): rooms for name, rooms in {PARTS}.items()}}
assert 'torch' not in sys.modules
before = {{(part, n): getattr(part, n) for part in parts for n in part.__all__}}
for part, rooms in parts.items():
    for room in rooms: import_module(part.__name__ + '.' + room)
assert before and all(getattr(part, n) is thing for (part, n), thing in before.items())
print('same')"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout == 'same\n', done.stderr


@pytest.mark.parametrize('old, name, new', [
    ('course', 'claim', 'ground'), ('synthetic', 'SyntheticScience', 'text'),
    ('corpus', 'read_documents', 'text'), ('tokenizer', 'train_tokenizer', 'tokens'),
    ('gpt2', 'GPT2', 'model'), ('pretrain', 'pretrain', 'train'),
    ('brainbench', 'score_cases', 'bench'), ('game', 'play', 'app'), ('cli', 'main', 'app')])
def test_a_module_of_the_first_edition_is_found_and_says_its_new_name(old, name, new, monkeypatch):
    monkeypatch.delitem(sys.modules, f'domain_llm.{old}', raising=False)
    with pytest.warns(FutureWarning, match=f'domain_llm.{old} is now domain_llm.{new}'):
        module = import_module(f'domain_llm.{old}')
    assert getattr(module, name) is getattr(import_module(f'domain_llm.{new}'), name)
    with pytest.raises(ImportError): exec(f'from domain_llm.{old} import nothing')
