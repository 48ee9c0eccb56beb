"""Text on pictures: any script, and what does not fit."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from mmconvnext.inference import writing
from mmconvnext.inference.writing import ELLIPSIS, Line, prepared, write

# Letters that DejaVu Sans has, and that no font has (a private code point).
KNOWN = ('größe', 'Ζέβρα', 'выдра', 'čmelák', '½ – “x”')
UNKNOWN = '\ue123'


def ink(text: str, width: int = 300) -> np.ndarray:
    blank = np.full((30, 320, 3), 255, np.uint8)
    return write(blank, [Line(text, 5, 15, 15, width)]) < 128


@pytest.mark.parametrize('text', KNOWN)
def test_letters_are_drawn_as_they_are(text: str) -> None:
    assert prepared(text, 15)[0] == text
    question = ink('?' * len(text))
    assert ink(text).any() and (ink(text) != question).any()


def test_letters_of_no_font_are_spelt_and_named(monkeypatch) -> None:
    said = []
    monkeypatch.setattr(writing, 'print_log', lambda *args: said.append(args))
    for _ in range(2):
        assert prepared(f'ä{UNKNOWN}b', 15)[0] == 'ä\\ue123b'
    ((text, _, level),) = said
    assert 'no installed font' in text and level == logging.WARNING


def test_another_font_is_taken_where_it_has_the_letters(monkeypatch) -> None:
    (path, *_) = writing._installed() or [writing._default()]
    letters = writing._letters
    monkeypatch.setattr(
        writing,
        '_letters',
        lambda p: letters(p) | ({0xE123} if p == 'other.ttf' else set()),
    )
    monkeypatch.setattr(writing, '_installed', lambda: ['other.ttf', path])
    assert writing.font_of.__wrapped__(frozenset(UNKNOWN)) == 'other.ttf'


@pytest.mark.parametrize('width', [0, 10, 40, 100, 1000])
def test_long_names_end_in_an_ellipsis(width: int) -> None:
    text, font = prepared('a golden retriever in the snow', 15)
    short = writing.shortened(text, font, width)
    if width == 1000:
        assert short == text
        return
    assert short.endswith(ELLIPSIS) and text.startswith(short[:-1])
    assert font.getlength(short) <= max(width, font.getlength(ELLIPSIS))
    if width == 100:  # no room for a letter more is left
        longer = text[: len(short)] + ELLIPSIS
        assert font.getlength(longer) > width
    assert not ink(text, width)[:, width + 20 :].any()


def test_names_of_several_lines_become_one() -> None:
    assert prepared('a\n b\tc', 15)[0] == 'a b c'
