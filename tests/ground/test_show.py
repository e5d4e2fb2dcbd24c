"""Pages and pieces as another library reads them: safe, whole, and in their order."""
import re

import matplotlib
import pandas as pd
from lxml import html as reader

from domain_llm.ground import show

matplotlib.use('agg')
MARKUP = '<b>bold</b> & "so" on\'s'


def small_figure():
    with show.canvas(2, 1) as (fig, ax): ax.plot([1, 2], color=show.BLUE)
    return fig


def test_whatever_a_page_is_given_stays_text():
    index = pd.Index([MARKUP], name=MARKUP + '2')
    table = pd.DataFrame({MARKUP: [MARKUP], 'n': [0.5]}, index=index)
    table.attrs['caption'] = MARKUP
    page = show.page(MARKUP, [(MARKUP, MARKUP, table, (small_figure(), MARKUP))])
    assert '<b>' not in page and '<B>' not in page
    tree = reader.document_fromstring(page)
    assert tree.findtext('.//title') == tree.findtext('.//h1') == tree.findtext('.//h2') == MARKUP
    assert tree.findtext('.//p') == tree.findtext('.//caption') == MARKUP
    assert tree.find('.//img').get('alt') == MARKUP
    assert tree.findtext('.//tbody/tr/th') == tree.findtext('.//tbody/tr/td') == MARKUP
    assert tree.xpath('//@aria-label') == [MARKUP]


def test_a_page_may_load_nothing():
    page = show.page('t', [('h', 'text', (small_figure(), 'a line'))])
    found = '//meta[@http-equiv="Content-Security-Policy"]/@content'
    policy = reader.document_fromstring(page).xpath(found)
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert not re.search(r'https?://|@import|url\(|<script', page)


def test_the_style_reaches_nothing_outside_of_what_is_shown():
    css = show._templates().get_template('shown.css').render()
    selectors = re.findall(r'([^{}]+)\{[^{}]*\}', re.sub(r'@media[^{]*\{', '', css))
    parts = [part.strip() for found in selectors for part in found.split(',')]
    assert len(parts) > 20 and all(part.startswith('.shown') for part in parts), parts
    assert reader.fragment_fromstring(show.fragment('text')).xpath('//@id') == []


def test_every_piece_runs_in_its_own_direction():
    pieces = show.with_values(['שלום', ' ', 'עולם', '\u202eab'], [1, 2, 3, 4])
    tables = show.piece_tables([[('x', [pieces])]], 4)
    for page in show.Pieces({'': pieces})._repr_html_(), tables:
        read = reader.fragment_fromstring(page, create_parent=True).xpath('//bdi/text()')
        assert read == ['שלום', '·', 'עולם', r'\u202eab']
