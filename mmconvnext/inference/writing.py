r"""Text in any script on pictures, where OpenCV's font has ASCII alone.

The font is DejaVu Sans, which comes with matplotlib. A name with letters
that it lacks is written in another installed font that has them all; where
there is none they are written as ``\\u4e2d``, and a warning says so.
"""

from __future__ import annotations

import functools
import logging
import math
import os
from typing import Any, FrozenSet, List, NamedTuple, Sequence

import numpy as np
from mmengine.logging import print_log

Colour = Sequence[int]
ELLIPSIS = '…'


class Line(NamedTuple):
    """A piece of text: where its middle left or right is, and its look.

    Attributes:
        text: in any script.
        x, y: pixels; ``x`` is the left end, or the right one.
        size: of the font, in pixels.
        width: pixels it may take; longer text ends in an ellipsis.
        colour: RGB.
        right: whether ``x`` is the right end.
    """

    text: str
    x: int
    y: int
    size: int
    width: int
    colour: Colour = (0, 0, 0)
    right: bool = False


def write(image: np.ndarray, lines: Sequence[Line]) -> np.ndarray:
    """Write lines of text on an RGB picture; returns a new one."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    for line in lines:
        text, font = prepared(line.text, line.size)
        draw.text(
            (line.x, line.y),
            shortened(text, font, line.width),
            fill=tuple(map(int, line.colour)),
            font=font,
            anchor='rm' if line.right else 'lm',
        )
    return np.array(picture)


def width_of(text: str, size: int) -> int:
    """Return how many pixels a text takes at a size of the font."""
    text, font = prepared(text, size)
    return math.ceil(font.getlength(text))


def prepared(text: str, size: int) -> tuple:
    """Return text that can be written, and the font to write it in."""
    # One line of what can be seen; ELLIPSIS may be added.
    text = ' '.join(text.split())
    path = font_of(frozenset(text + ELLIPSIS))
    if path:
        return text, _load(path, size)
    known = _letters(_default())
    plain = ''.join(c if ord(c) in known else _escape(c) for c in text)
    _warn_once(text, plain)
    return plain, _load(_default(), size)


def shortened(text: str, font: Any, width: int) -> str:
    """Cut text that is wider than ``width`` pixels, with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    low, high = 0, len(text)  # how many letters fit
    while low < high:
        middle = (low + high + 1) // 2
        fits = font.getlength(text[:middle].rstrip() + ELLIPSIS) <= width
        low, high = (middle, high) if fits else (low, middle - 1)
    return text[:low].rstrip() + ELLIPSIS


@functools.lru_cache(maxsize=1024)
def font_of(letters: FrozenSet[str]) -> str:
    """Find the file of a font that has all letters; '' for none."""
    codes = {ord(letter) for letter in letters if letter != ' '}
    if codes <= _letters(_default()):
        return _default()
    for path in _installed():
        if codes <= _letters(path):
            return path
    return ''


def _default() -> str:
    import matplotlib

    return os.path.join(
        matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf'
    )


@functools.lru_cache(maxsize=1)
def _installed() -> List[str]:
    from matplotlib import font_manager

    return sorted(font_manager.findSystemFonts())


@functools.cache
def _letters(path: str) -> FrozenSet[int]:
    """Return the code points that a font has; none of a broken file."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except Exception:  # bitmap fonts, colour fonts, files that are none
        return frozenset()


@functools.cache
def _load(path: str, size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.truetype(path, size)


def _escape(letter: str) -> str:
    return letter.encode('ascii', 'backslashreplace').decode('ascii')


@functools.cache
def _warn_once(text: str, plain: str) -> None:
    print_log(
        f'no installed font has all letters of {text!r}: pictures say '
        f'{plain!r}; install a font of its script, such as Noto Sans',
        'current',
        logging.WARNING,
    )
