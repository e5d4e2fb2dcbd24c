"""What is shown: letters that stay letters, safe and whole pages, pieces in their order, the reader's drawings."""
import re, subprocess, sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from jinja2 import UndefinedError
from lxml import html as reader

from domain_llm.ground import course
from domain_llm.ground.course import predict, reveal
from domain_llm.ground import show

matplotlib.use('agg')
FORMULAS = 'a$_$b', r'cost $\frac$ x', '$', r'$\alpha$ and $\beta$'
MARKUP = '<b>bold</b> & "so" on\'s'


@pytest.fixture(autouse=True)
def fresh_session(monkeypatch):
    "Give each test a session without predictions."
    monkeypatch.setattr(course, '_predictions', {})


def test_importing_the_module_loads_nothing_heavy():
    code = ("import sys; before = set(sys.modules); import domain_llm.ground.show; "
            "new = {name.split('.')[0] for name in set(sys.modules) - before}; "
            "print(sorted(new - set(sys.stdlib_module_names) - {'domain_llm', 'lazy_loader'}))")
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == '[]'


# the palette

def contrast(one, other):
    "The contrast of two colours by the formula of WCAG 2."
    light = []
    for colour in one, other:
        parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        light.append(np.dot(linear, (0.2126, 0.7152, 0.0722)) + 0.05)
    return max(light) / min(light)


def test_letters_are_readable_on_tints_and_in_shades():
    assert min(contrast(tint, '#000000') for tint in show.TINTS) > 12
    assert min(contrast(shade, '#ffffff') for shade in show.SHADES + show.GREYS[:2]) > 4.5


@pytest.mark.parametrize('without', ['red', 'green', 'blue'])
def test_what_has_no_colour_looks_the_same_to_everybody(without):
    for grey in range(0, 256, 15):
        assert (
            show.as_seen(f'#{grey:02x}{grey:02x}{grey:02x}', without)
            == f'#{grey:02x}{grey:02x}{grey:02x}'
        )


# figures

@pytest.mark.parametrize('name', FORMULAS)
def test_a_name_with_dollars_is_drawn_as_it_stands(name):
    with show.canvas(4, 3) as (fig, ax):
        ax.bar([0], [1], color=show.SKY, label=name)
        ax.set_xticks([0], [name])
        ax.set(title=name, ylabel=name)
        ax.text(0, 1, name)
        fig.suptitle(name)
        fig.legend(loc='outside lower center')
    assert show.figure_png(fig).startswith(b'\x89PNG')
    texts = [text for text in fig.findobj(matplotlib.text.Text) if text.get_text() == name]
    assert len(texts) >= 6 and not any(text.get_parse_math() for text in texts)


def test_a_canvas_leaves_nothing_behind_also_when_drawing_fails():
    before, settings = plt.get_fignums(), dict(plt.rcParams)
    with show.canvas(3, 2, rows=2, columns=2, font=20) as (fig, axes): assert axes.shape == (2, 2)
    with pytest.raises(ZeroDivisionError):
        with show.canvas(3, 2): 1 / 0
    assert plt.get_fignums() == before and dict(plt.rcParams) == settings
    assert not axes[0, 0].spines['top'].get_visible() and axes[0, 0].title.get_fontsize() > 20


# tables in words

@pytest.mark.parametrize('value, text', [
    (None, '–'), (float('nan'), '–'), (pd.NaT, '–'), (pd.NA, '–'), (True, 'yes'), (np.False_, 'no'), (3, '3'),
    (np.int64(1200), '1200'), (0.0, '0.000'), (np.float32(0.5), '0.500'), (0.00004, '4.0e-05'), ('a_b', 'a_b'),
    ([1, None], '[1, None]'),
])
def test_a_value_is_written_for_people(value, text):
    assert show.as_text(value) == text


def test_a_table_is_read_out():
    table = pd.DataFrame({'who': ['a', 'b'], 'n': [50, 7], 'share': [0.62, None]})
    assert show.in_words(table, 'share', 'n') == 'a: share 0.620, n 50; b: share –, n 7.'


# pages

def small_figure():
    with show.canvas(2, 1) as (fig, ax): ax.plot([1, 2], color=show.BLUE)
    return fig


def test_whatever_a_page_is_given_stays_text():
    table = pd.DataFrame(
        {MARKUP: [MARKUP], 'n': [0.5]}, index=pd.Index([MARKUP], name=MARKUP + '2')
    )
    table.attrs['caption'] = MARKUP
    page = show.page(MARKUP, [(MARKUP, MARKUP, table, (small_figure(), MARKUP))])
    assert '<b>' not in page and '<B>' not in page
    tree = reader.document_fromstring(page)
    assert tree.findtext('.//title') == tree.findtext('.//h1') == tree.findtext('.//h2') == MARKUP
    assert (
        tree.findtext('.//p')
        == tree.findtext('.//caption')
        == tree.find('.//img').get('alt')
        == MARKUP
    )
    assert tree.findtext('.//tbody/tr/th') == tree.findtext('.//tbody/tr/td') == MARKUP
    assert tree.xpath('//@aria-label') == [MARKUP]


def test_a_page_may_load_nothing():
    page = show.page('t', [('h', 'text', (small_figure(), 'a line'))])
    policy = reader.document_fromstring(page).xpath(
        '//meta[@http-equiv="Content-Security-Policy"]/@content'
    )
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert not re.search(r'https?://|@import|url\(|<script', page)


def test_a_value_that_a_template_does_not_get_is_an_error():
    for name in show._templates().list_templates(extensions=['html']):
        if name == 'pieces.html': continue                                     # only macros
        with pytest.raises(UndefinedError): show._templates().get_template(name).render()


def test_the_style_reaches_nothing_outside_of_what_is_shown():
    css = show._templates().get_template('shown.css').render()
    selectors = re.findall(r'([^{}]+)\{[^{}]*\}', re.sub(r'@media[^{]*\{', '', css))
    parts = [part.strip() for found in selectors for part in found.split(',')]
    assert len(parts) > 20 and all(part.startswith('.shown') for part in parts), parts
    assert reader.fragment_fromstring(show.fragment('text')).xpath('//@id') == []


@pytest.mark.parametrize('content, message', [((None, 'x'), 'tuple came'), (5, 'int came'), ({}, 'dict came')])
def test_other_content_is_refused_in_words(content, message):
    for write in lambda: show.page('t', [('h', content)]), lambda: show.fragment(content):
        with pytest.raises(ValueError, match=message): write()


@pytest.mark.parametrize('alt', ['', '  ', '\n'])
def test_a_figure_without_words_is_refused(alt):
    with pytest.raises(ValueError, match='says what it shows'): show.fragment((small_figure(), alt))


# pieces

def test_what_nobody_sees_is_written_visibly():
    assert show.visible('a\n\x00\x7f') == 'a␊␀␡'
    assert show.visible('\u202e\u2066\u200b\xad\ufeff\u2028\x85\ud800') == (
        r'\u202e\u2066\u200b\xad\ufeff\u2028\x85\ud800')
    for plain in ('naïve', 'שלום', '日本', '🧠', ' a b', r'\xe6'): assert show.visible(plain) == plain


def test_every_piece_runs_in_its_own_direction():
    pieces = show.with_values(['שלום', ' ', 'עולם', '\u202eab'], [1, 2, 3, 4])
    for page in (show.Pieces({'': pieces})._repr_html_(), show.piece_tables([[('x', [pieces])]], 4)):
        assert reader.fragment_fromstring(page, create_parent=True).xpath('//bdi/text()') == [
            'שלום',
            '·',
            'עולם',
            r'\u202eab',
        ]


def test_pieces_of_any_text_stay_text():
    pieces = show.with_values([MARKUP, '<i>'], [1, None])
    drawn = [show.Pieces({MARKUP: pieces}, unit=MARKUP)._repr_html_(),
             show.Pieces({'': [(MARKUP, None)]})._repr_html_(),
             show.piece_tables([[(MARKUP, [pieces, MARKUP])]], 1, MARKUP, MARKUP)]
    for page in drawn: assert '<b>bold' not in page and '<i>' not in page and 'bold' in page
    assert repr(show.Pieces({'': pieces})) == MARKUP + '[1]|<i>'


def test_numbers_of_pieces_are_pairs_or_refused():
    with pytest.raises(ValueError, match='each of the 2 tokens of mine, but 1 came'):
        show.with_values('ab', [1], 'mine')
    assert show.with_values('ab') == [('a', None), ('b', None)]
    assert [show.two_digits(v) for v in (None, float('nan'), 0, 3.14159, 99.9, 12345.6)] == [
        '', '', '0', '3.1', '1e+02', '12346']


# the reader's drawings

def test_plot_predictions_falls_back_to_text(capsys):
    assert show.plot_predictions() is None and 'nothing to draw' in capsys.readouterr().out
    reveal(predict('No guess?'), 4)
    reveal(predict('Zero?', 1), 0)
    predict('Not revealed?', 3)
    capsys.readouterr()
    assert show.plot_predictions() is None
    out = capsys.readouterr().out
    assert (
        'Zero? You said 1, it is 0: 1 too high.' in out
        and 'No guess?' not in out
        and 'Not revealed?' not in out
    )


def test_plot_predictions_draws_every_factor_and_any_question():
    for guess in (0.001, 0.4, 0.5, 2, 5000):
        reveal(predict(rf'{guess} $\frac$ for 1?', guess), 1)
    reveal(predict('Zero?', 1), 0)
    fig = show.plot_predictions()
    ax, = fig.axes
    drawn = [line.get_xdata()[0] for line in ax.lines if line.get_marker() in ('<', '>')]
    low, high = ax.get_xlim()
    assert (
        drawn == [0.001, 0.4, 0.5, 2, 5000]
        and low < 0.001
        and high > 5000
        and ax.get_xscale() == 'log'
    )
    assert len(ax.get_yticklabels()) == 5 and ax.get_title().startswith('2 of 5')
    assert show.figure_png(fig) and not [
        t for t in ax.get_xticklabels(which='both') if '$' in t.get_text()
    ]


def test_progress_draws_the_solved_share_of_each_level(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('DOMAIN_LLM_ANSWERS', str(tmp_path / 'none'))
    assert show.progress() is None and capsys.readouterr().out.startswith(
        'There is nothing to draw'
    )
    tries = [('a', 'create', True), ('b', 'apply', True), ('c', 'apply', False)]
    (ax,) = show.progress(
        [dict(name=name, level=level, right=right) for name, level, right in tries]
    ).axes
    assert capsys.readouterr().out.split('\n')[2:6] == [
        'apply       1 of 2 solved',
        'analyse     none tried',
        'evaluate    none tried',
        'create      1 of 1 solved',
    ]
    assert list(ax.lines[0].get_ydata()) == [0, 0, 0.5, 0, 0, 1] and ax.get_title().startswith(
        '2 of 3 exercises'
    )
    assert [t.get_text() for t in ax.get_xticklabels()] == [
        'remember\n–',
        'understand\n–',
        'apply\n1 of 2',
        'analyse\n–',
        'evaluate\n–',
        'create\n1 of 1',
    ]
