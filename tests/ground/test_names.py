"""Names that others chose are shown and never obeyed: by a page, a picture or a terminal."""
import warnings

import pandas as pd
import pytest

from domain_llm.ground.show import (
    BLUE, as_label, canvas, figure_png, fragment, harmless, page, piece_tables)

ODD = ['$', 'a$_$b', r'$\frac$', '^_', '_private', r'\foo', '$5 or $6', '\x1b[31mred\x1b]0;pwn\x07',
       'x\u202egnp', 'two\nlines', '\ud800', '\x00', '<b>$x^2$</b>', ' ', '&amp;', '{', '%', '\u2066a']


@pytest.mark.parametrize('name', ODD)
def test_a_name_is_drawn_as_it_stands(name):
    with warnings.catch_warnings(), canvas(4, 3) as (fig, ax):
        warnings.filterwarnings('ignore', message='Glyph')
        ax.plot([1, 2], [1, 2], color=BLUE, label=as_label(name) or ' ')
        ax.set_yticks([1], [as_label(name)])
        ax.set(title=as_label(name), xlabel=as_label(name))
        legend = ax.legend()
        assert figure_png(fig)
        assert len(legend.get_texts()) == 1, 'a legend leaves out what begins with _'


@pytest.mark.parametrize('name', ODD)
def test_a_page_holds_no_control_and_no_mark_of_direction(name):
    table = pd.DataFrame({name: [name]})
    table.attrs['caption'] = name
    pieces = piece_tables([[(name, [name, [(name, 1.0)]])]], 1.0, unit=name, note=name)
    for html in page(name, [(name, name, table)]), fragment(name, table), pieces:
        html.encode()
        assert not any(c in html for c in '\x00\x07\x1b\u202e\u2066\ud800')
        assert '<b>$' not in html
    assert "default-src 'none'" in page(name, [])


def test_letters_that_need_their_joiners_and_line_ends_stay():
    for text in 'می\u200cخواهم', '👩\u200d🔬', 'one\n\ttwo': assert harmless(text) == text
    assert harmless('\x1b]0;x\x07') == '␛]0;x␇' and harmless('\u202e') == '\\u202e'
