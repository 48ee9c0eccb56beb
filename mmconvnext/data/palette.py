"""Colours for classes that have none: far apart, and the same each time."""

from __future__ import annotations

import colorsys
from typing import List, Tuple

GOLDEN = 0.618033988749895
# Saturation and value by turns, so that neighbours in hue differ too.
TONES = ((0.75, 0.9), (0.55, 0.65), (0.9, 0.75), (0.4, 0.95))


def colours(count: int) -> List[Tuple[int, int, int]]:
    """Return RGB colours; the hue goes round by the golden ratio."""
    made = []
    for i in range(count):
        saturation, value = TONES[i % len(TONES)]
        rgb = colorsys.hsv_to_rgb(i * GOLDEN % 1, saturation, value)
        made.append(tuple(round(255 * part) for part in rgb))
    return made
