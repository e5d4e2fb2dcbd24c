"""Names that others chose are shown and never obeyed: by a page, a picture or a terminal."""
import warnings

import pandas as pd
import pytest

from domain_llm.ground.show import (
    BLUE, as_label, canvas, figure_png, fragment, harmless, page, piece_tables)

ODD = ['$', 'a$_$b', r'$\frac$', '^_', '_private', r'\foo', '$5 or $6',
       '\x1b[31mred\x1b]0;pwn\x07', 'x\u202egnp', 'two\nlines', '\x00', '<b>$x^2$</b>',
       ' ', '&amp;', '{', '%', '\u2066a']


def test_names_are_drawn_as_they_stand():
    with warnings.catch_warnings(), canvas(8, 8) as (fig, ax):
        warnings.filterwarnings('ignore', message='Glyph')
        for name in ODD: ax.plot([1, 2], [1, 2], color=BLUE, label=as_label(name) or ' ')
        ax.set_yticks(range(len(ODD)), map(as_label, ODD))
        ax.set(title=as_label(r'a$\frac$'), xlabel=as_label('$_$'))
        assert len(ax.legend().get_texts()) == len(ODD), 'a legend leaves out what begins with _'
        assert figure_png(fig)


@pytest.mark.parametrize('name', ODD)
def test_a_page_holds_no_control_and_no_mark_of_direction(name):
    table = pd.DataFrame({name: [name]})
    table.attrs['caption'] = name
    pieces = piece_tables([[(name, [name, [(name, 1.0)]])]], 1.0, unit=name, note=name)
    for html in page(name, [(name, name, table)]), fragment(name, table), pieces:
        html.encode()
        assert not any(c in html for c in '\x00\x07\x1b\u202e\u2066\ud800')
        assert '<b>$x' not in html
    assert "default-src 'none'" in page(name, [])


def test_letters_that_need_their_joiners_and_line_ends_stay():
    for text in 'می\u200cخواهم', '👩\u200d🔬', 'one\n\ttwo': assert harmless(text) == text
    assert harmless('\x1b]0;x\x07') == '␛]0;x␇' and harmless('\u202e') == '\\u202e'


def test_half_a_character_can_be_written():
    assert page('\ud800', [('\udcff', '\ud800')]).encode()
    assert as_label('\udcff.txt') == '\\udcff.txt'
