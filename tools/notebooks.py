"""Read what the tools and the tests of the form need: settings, lessons and their cells."""
import json, re
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def settings():
    "Read settings.ini."
    found = ConfigParser(delimiters=['='])
    found.read(ROOT / 'settings.ini', encoding='utf-8')
    return found['DEFAULT']


def lessons():
    "List the lessons in the order of their numbers."
    return sorted((ROOT / 'nbs').glob('[0-9]*.ipynb'))


def cells(path, kind=None):
    "Read a notebook's cells, or those of one kind, each with its source as one string."
    found = json.loads(path.read_text(encoding='utf-8'))['cells']
    return [cell | {'source': ''.join(cell['source'])}
            for cell in found if kind in (None, cell['cell_type'])]


def sources(path, kind):
    "Read the sources of a notebook's cells of one kind."
    return [cell['source'] for cell in cells(path, kind)]


def prose(path):
    "Read all Markdown of a notebook as one text."
    return '\n\n'.join(sources(path, 'markdown'))


def module_of(path):
    "Read which module a lesson exports to."
    return re.search(r'#\| default_exp ([\w.]+)', path.read_text(encoding='utf-8'))[1]


def printed(cell):
    "Join what a cell's committed outputs say as plain text."
    parts = (o.get('text') or o.get('data', {}).get('text/plain', '') for o in cell['outputs'])
    return ''.join(map(''.join, parts))
