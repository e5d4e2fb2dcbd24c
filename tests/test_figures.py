"""Pictures that can be read by everyone: one palette, alt text, titles, sizes, and the numbers as text beside them."""
import ast, base64, io, json, re
from colorsys import rgb_to_hls
from pathlib import Path

import pytest
from lxml import etree
from matplotlib import colors, image

from domain_llm.ground import show

ROOT = Path(__file__).parent.parent
LESSONS = sorted((ROOT / 'nbs').glob('[0-9]*.ipynb'))
DRAWN = sorted((ROOT / 'nbs/images').glob('*.svg'))

STRONG = [c.lower() for c in (*show.COLOURS, show.YELLOW)]
# and any grey
PALETTE = {*STRONG, *show.TINTS, *show.SHADES, 'none', show.COLOUR_MAP, f'{show.COLOUR_MAP}_r'}
# what matplotlib takes by itself
THEIRS = [name for name in colors.TABLEAU_COLORS if name != 'tab:gray']
# on a page 750 pixels wide, no letter is smaller than 12 pixels
SMALLEST = 12 / 750
COLOURED = {
    'color',
    'c',
    'ec',
    'fc',
    'facecolor',
    'edgecolor',
    'backgroundcolor',
    'markerfacecolor',
    'ecolor',
    'cmap',
}
DRAWING = set(
    'plot bar barh scatter hist fill_between errorbar semilogx semilogy loglog hlines vlines '
    'stackplot axhline axvline axvspan axhspan imshow pcolormesh stairs'.split()
)


def allowed(colour):
    "Say whether a colour is one of the palette's, or a grey."
    if colour.lower() in PALETTE: return True
    if not colors.is_color_like(colour): return False
    r, g, b = colors.to_rgb(colour)
    return colors.to_hex(colour) in PALETTE or max(r, g, b) - min(r, g, b) <= 12 / 255


def cells(path, kind):
    return [
        c for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == kind
    ]


def sources(path, kind): return [''.join(c['source']) for c in cells(path, kind)]


def shown_in(text):
    "The pictures that Markdown shows: (alt text, link)."
    tags = [dict(re.findall(r'(\w+)="([^"]*)"', tag)) for tag in re.findall(r'<img\b[^>]*>', text)]
    return re.findall(r'!\[([^\]]*)\]\(([^)\s]+)\)', text) + [
        (t.get('alt', ''), t.get('src', '')) for t in tags
    ]


def python(path):
    "The trees of a notebook's code cells, without lines that only IPython reads."
    for source in sources(path, 'code'):
        yield ast.parse(re.sub(r'^\s*[%!].*$', '', source, flags=re.M))


def colours_in(tree):
    "Every colour that code names: hexadecimal anywhere, and words given as a colour."
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r'#(?:[0-9a-fA-F]{6}|[0-9a-fA-F]{3})\b', node.value)
        given = [(k.arg, k.value) for k in node.keywords] if isinstance(node, ast.Call) else []
        for name, value in given:
            words = ast.walk(value) if name in COLOURED else []
            yield from (
                w.value for w in words if isinstance(w, ast.Constant) and isinstance(w.value, str)
            )


def left_to_chance(tree):
    "Calls that draw without saying in which colour: matplotlib would take its own."
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or getattr(node.func, 'attr', '') not in DRAWING: continue
        # None: `**look`
        named = {k.arg for k in node.keywords}
        if node.args and not named & (COLOURED | {None, 'colors'}): yield ast.unparse(node)[:80]


def pictures_of(cell):
    "The PNG figures that a cell's committed output holds."
    return [o['data']['image/png'] for o in cell['outputs'] if 'image/png' in o.get('data', {})]


def printed(cell):
    "The text of a cell's committed output."
    parts = [o.get('text') or o.get('data', {}).get('text/plain', '') for o in cell['outputs']]
    return re.sub(r'<Figure size[^>]*>', '', '\n'.join(''.join(p) for p in parts))


@pytest.mark.parametrize('path', DRAWN, ids=lambda p: p.stem)
def test_a_drawn_picture_is_safe_titled_readable_and_in_the_palette(path):
    text = path.read_text(encoding='utf-8')
    assert '<!DOCTYPE' not in text and '<!ENTITY' not in text
    tree = etree.fromstring(text.encode(), etree.XMLParser(resolve_entities=False, no_network=True))
    tags = {etree.QName(e).localname for e in tree.iter(etree.Element)}
    assert not tags & {'script', 'foreignObject', 'image', 'use', 'a'}
    attributes = [
        (etree.QName(k).localname, v) for e in tree.iter(etree.Element) for k, v in e.attrib.items()
    ]
    assert not [
        k
        for k, v in attributes
        if k.startswith('on') or k == 'href' or 'url(' in v.replace('url(#', '')
    ]
    title = tree.find('{*}title')
    assert title is not None and len(title.text.strip()) >= 20
    style = ''.join(e.text or '' for e in tree.iter('{*}style'))
    used = re.findall(r'(?:fill|stroke|color)\s*:\s*([^;}]+)', style)
    used += [v for k, v in attributes if k in ('fill', 'stroke') and not v.startswith('url(#')]
    assert not (wrong := {c for c in used if not allowed(c.strip())}), (
        f'{path.name}: not in the palette: {wrong}'
    )
    width = float(tree.get('viewBox').split()[2])
    sizes = [float(s) for s in re.findall(r'font-size\s*:\s*([\d.]+)', style)]
    sizes += [float(v.removesuffix('px')) for k, v in attributes if k == 'font-size']
    assert sizes and min(sizes) / width >= SMALLEST, (
        f'{path.name}: letters of {min(sizes):g} in a width of {width:g}'
    )


@pytest.mark.parametrize('path', LESSONS, ids=lambda p: p.stem)
def test_every_picture_of_a_lesson_has_alt_text_and_exists(path):
    shown = shown_in('\n'.join(sources(path, 'markdown')))
    for alt, link in shown:
        assert len(alt.strip()) >= (40 if link.startswith('images/') else 1), (
            f'{path.name}: no alt text for {link}'
        )
        assert '://' in link or (ROOT / 'nbs' / link).exists(), f'{path.name}: {link}'


@pytest.mark.parametrize('path', LESSONS, ids=lambda p: p.stem)
def test_figures_are_drawn_in_the_palette(path):
    wrong = {c for tree in python(path) for c in colours_in(tree) if not allowed(c)}
    assert not wrong, f'{path.name}: not in the palette: {", ".join(sorted(wrong))}'
    chance = [call for tree in python(path) for call in left_to_chance(tree)]
    assert not chance, f'{path.name}: no colour given in {chance}'


@pytest.mark.parametrize('path', LESSONS, ids=lambda p: p.stem)
def test_a_computed_figure_has_its_numbers_as_text_and_no_colours_of_matplotlib(path):
    code = cells(path, 'code')
    for i, cell in enumerate(code):
        near = ' '.join(map(printed, code[max(i - 1, 0):i + 2]))
        where = f'{path.name}, figure of\n{"".join(cell["source"])}'
        for png in pictures_of(cell):
            assert len(re.findall(r'\d', near)) >= 2, f'{where}\nhas no number printed beside it'
            pixels = image.imread(io.BytesIO(base64.b64decode(''.join(png))))[..., :3].reshape(
                -1, 3
            )
            for name in THEIRS:
                same = (abs(pixels - colors.to_rgb(name)) < 0.5 / 255).all(1).sum()
                assert same < 50, f'{where}\nhas {same} pixels of {name}'


FRONT = [ROOT / 'nbs/index.ipynb', *sorted(ROOT.glob('*.md')), *sorted((ROOT / 'nbs').glob('*.md'))]


@pytest.mark.parametrize('path', FRONT, ids=lambda p: p.name)
def test_every_picture_of_the_front_has_alt_text(path):
    text = (
        '\n'.join(sources(path, 'markdown'))
        if path.suffix == '.ipynb'
        else path.read_text(encoding='utf-8')
    )
    assert all(alt.strip() for alt, _ in shown_in(text)), [
        link for alt, link in shown_in(text) if not alt.strip()
    ]


def test_the_strong_colours_differ_in_lightness_too():
    light = sorted(rgb_to_hls(*colors.to_rgb(c))[1] for c in STRONG if c != show.BLACK)
    assert len(set(STRONG)) == 8 and light[-1] - light[0] > 0.3


MODULES = sorted((ROOT / 'domain_llm').rglob('[a-z]*.py'))


@pytest.mark.parametrize('path', MODULES, ids=lambda p: p.stem)
def test_only_the_lesson_on_showing_knows_colours_and_opens_figures(path):
    tree = ast.parse(path.read_text(encoding='utf-8'))
    if path.stem == 'show': return
    named = {c for c in colours_in(tree) if c.startswith('#') or c in colors.CSS4_COLORS} - {
        'white',
        'none',
    }
    called = {ast.unparse(n.func).split('.')[-1] for n in ast.walk(tree) if isinstance(n, ast.Call)}
    texts = [
        n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    ]
    markup = {
        tag
        for tag in ('<table', '<td', '<span', '<style', '<img', '<html')
        for t in texts
        if tag in t.lower()
    }
    own = named | markup | called & {'subplots', 'savefig'}
    assert not own, f'{path.name}: leave {own} to domain_llm.ground.show'
