"""The doors of the house: what a part gives by name, in any order of import, and the names of the first edition."""
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = {part.name: sorted(p.stem for p in part.glob('*.py') if not p.stem.startswith('_'))
         for part in sorted((ROOT / 'domain_llm').iterdir()) if (part / '__init__.py').is_file()}


@pytest.mark.parametrize('part', [name for name, rooms in PARTS.items() if rooms])
def test_a_part_gives_every_public_name_of_its_rooms(part):
    given = import_module(f'domain_llm.{part}')
    names = [
        (room, name)
        for room in PARTS[part]
        for name in import_module(f'domain_llm.{part}.{room}').__all__
    ]
    assert sorted(given.__all__) == sorted(name for _, name in names)
    assert not set(PARTS[part]) & set(given.__all__), 'a name would mean the module or the function'
    for room, name in names:
        assert getattr(given, name) is getattr(import_module(f'domain_llm.{part}.{room}'), name)


@pytest.mark.parametrize('part', [name for name, rooms in PARTS.items() if rooms])
def test_a_name_means_the_same_before_and_after_its_room_is_imported(part):
    code = '\n'.join(
        [
            'import sys',
            f'import domain_llm.{part} as part',
            'assert "torch" not in sys.modules',
            'before = {n: getattr(part, n) for n in part.__all__}',
            *(f'import domain_llm.{part}.{room}' for room in PARTS[part]),
            'assert all(getattr(part, n) is before[n] for n in part.__all__)',
            'print("same")',
        ]
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout == 'same\n', done.stderr


@pytest.mark.parametrize('old, name, new', [
    ('course', 'claim', 'ground'), ('synthetic', 'SyntheticScience', 'text'), ('corpus', 'read_documents', 'text'),
    ('tokenizer', 'train_tokenizer', 'tokens'), ('gpt2', 'GPT2', 'model'), ('pretrain', 'pretrain', 'train'),
    ('brainbench', 'score_cases', 'bench'), ('game', 'play', 'app'), ('cli', 'main', 'app')])
def test_a_module_of_the_first_edition_is_found_and_says_its_new_name(old, name, new):
    code = f'from domain_llm.{old} import {name}\nimport domain_llm.{new}\nassert {name} is domain_llm.{new}.{name}'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0 and f'domain_llm.{old} is now domain_llm.{new}' in done.stderr, (
        done.stderr
    )
    code = f'from domain_llm.{old} import nothing'
    missing = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert 'ImportError' in missing.stderr
