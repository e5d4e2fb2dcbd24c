"""Train a small language model from scratch on one field's papers and test it against that field's experts."""
__version__ = "0.2.0"

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.util import spec_from_loader
from warnings import warn

_MOVED = {  # a module of the first edition: the part where its names are now
    'course': 'ground',
    'synthetic': 'text',
    'corpus': 'text',
    'tokenizer': 'tokens',
    'gpt2': 'model',
    'pretrain': 'train',
    'brainbench': 'bench',
    'game': 'app',
    'cli': 'app',
}


class _Moved(MetaPathFinder, Loader):
    "Import a module by its name of the first edition, for one version, and say the new one."
    def find_spec(self, name, path=None, target=None):
        return spec_from_loader(name, self) if name.removeprefix('domain_llm.') in _MOVED else None

    def create_module(self, spec): return None

    def exec_module(self, module):
        old = module.__name__
        part = f"domain_llm.{_MOVED[old.removeprefix('domain_llm.')]}"
        warn(f'{old} is now {part}: import from there', FutureWarning, stacklevel=2)
        def find(name):
            if hasattr(import_module(part), name): return getattr(import_module(part), name)
            raise AttributeError(f'{old} has no {name}; look in {part}')
        module.__getattr__ = find

sys.meta_path.insert(0, _Moved())
