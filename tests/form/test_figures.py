"""Pictures for everyone: alt text, a palette safe for the colour blind, and the numbers as text."""
import ast
import re
from colorsys import rgb_to_hls

import pytest
from lxml import etree
from matplotlib import colors
from notebooks import ROOT, cells, lessons, printed, prose, sources

from domain_llm.ground import show

DRAWN = sorted((ROOT / 'nbs/images').glob('*.svg'))
PAGES = [ROOT / 'nbs/index.ipynb', *lessons(), *ROOT.glob('*.md'), *ROOT.glob('nbs/*.md')]
PALETTE = {c.lower() for c in (*show.COLOURS, show.YELLOW, *show.TINTS, *show.SHADES)}
PALETTE |= {'none', show.COLOUR_MAP, f'{show.COLOUR_MAP}_r'}
COLOURED = ('color', 'c', 'ec', 'fc', 'facecolor', 'edgecolor', 'backgroundcolor',
            'markerfacecolor', 'ecolor', 'cmap')


def allowed(colour):
    "Say whether a colour is one of the palette's, or a grey."
    if colour.lower() in PALETTE: return True
    if not colors.is_color_like(colour): return False
    r, g, b = colors.to_rgb(colour)
    return colors.to_hex(colour) in PALETTE or max(r, g, b) - min(r, g, b) <= 12 / 255


def shown_in(text):
    "List the pictures that Markdown shows: (alt text, link)."
    tags = [dict(re.findall(r'(\w+)="([^"]*)"', tag)) for tag in re.findall(r'<img\b[^>]*>', text)]
    return re.findall(r'!\[([^\]]*)\]\(([^)\s]+)\)', text) + [
        (tag.get('alt', ''), tag.get('src', '')) for tag in tags]


def strings(tree):
    "Yield the texts that code holds."
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str): yield node.value


def colours_in(source):
    "Yield every colour that code names: hexadecimal anywhere, and words given as a colour."
    tree = ast.parse(re.sub(r'^\s*[%!].*$', '', source, flags=re.M))
    for text in strings(tree):
        yield from re.findall(r'(?<!&)#(?:[0-9a-fA-F]{6}|[0-9a-fA-F]{3})\b', text)
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in COLOURED: yield from strings(node.value)


@pytest.mark.parametrize('path', PAGES, ids=lambda p: p.name)
def test_every_picture_has_alt_text(path):
    text = prose(path) if path.suffix == '.ipynb' else path.read_text(encoding='utf-8')
    silent = [link for alt, link in shown_in(text)
              if len(alt.strip()) < (40 if link.startswith('images/') else 1)]
    assert not silent, f'no alt text for {silent}'


@pytest.mark.parametrize('path', DRAWN, ids=lambda p: p.stem)
def test_a_drawn_picture_is_titled_in_the_palette_and_runs_nothing(path):
    text = path.read_text(encoding='utf-8')
    active = r'<!(?:DOCTYPE|ENTITY)|<(?:script|foreignObject|image|use|a)\b|\bhref=|\son\w+='
    assert not re.search(active, text)
    tree = etree.fromstring(text.encode(), etree.XMLParser(resolve_entities=False, no_network=True))
    title = tree.find('{*}title')
    assert title is not None and len(title.text.strip()) >= 20
    used = re.findall(r'(?:fill|stroke|color)(?:\s*:\s*|=")([^;}"]+)', text)
    wrong = {c for c in used if not c.startswith('url(#') and not allowed(c.strip())}
    assert not wrong, f'not in the palette: {wrong}'


@pytest.mark.parametrize('path', lessons(), ids=lambda p: p.stem)
def test_figures_are_drawn_in_the_palette(path):
    wrong = {c for source in sources(path, 'code') for c in colours_in(source) if not allowed(c)}
    assert not wrong, f'not in the palette: {sorted(wrong)}'


@pytest.mark.parametrize('path', lessons(), ids=lambda p: p.stem)
def test_a_computed_figure_has_its_numbers_as_text(path):
    code = cells(path, 'code')
    for i, cell in enumerate(code):
        if not any('image/png' in o.get('data', {}) for o in cell['outputs']): continue
        text = ' '.join(printed(c) for c in code[max(i - 1, 0):i + 2])
        numbers = re.findall(r'\d', re.sub(r'<Figure size[^>]*>', '', text))
        assert len(numbers) >= 2, f'no number is printed beside the figure of\n{cell["source"]}'


def test_the_strong_colours_differ_in_lightness_too():
    strong = {c for c in (*show.COLOURS, show.YELLOW) if c != show.BLACK}
    light = sorted(rgb_to_hls(*colors.to_rgb(c))[1] for c in strong)
    assert len(strong) == 7 and light[-1] - light[0] > 0.3
