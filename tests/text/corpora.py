"""What the tests of this part share: the data, small corpora, and processes of their own."""
import os, subprocess, sys

import pytest
from datasets import Dataset

from domain_llm.text.documents import ReadReport, read_documents

DATA = os.environ.get('DOMAIN_LLM_DATA')
needs_data = pytest.mark.skipif(not DATA, reason='needs DOMAIN_LLM_DATA')


def dataset(texts):
    "Make a dataset of texts that are called d0, d1, ..."
    return Dataset.from_dict(dict(id=[f'd{i}' for i in range(len(texts))], text=list(texts)))


def read(paths, **options):
    "Read documents, and return them with their report."
    report = ReadReport()
    return read_documents(paths, report=report, **options), report


def python(*args, **env):
    "Run Python in a fresh process, where a variable set to None is unset, and return what it did."
    env = {name: value for name, value in {**os.environ, **env}.items() if value is not None}
    done = subprocess.run([sys.executable, *map(str, args)], env=env, capture_output=True,
                          text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done
