"""Numbers about a labelled folder: what the report says and settings need."""

from __future__ import annotations

import math
from collections import Counter
from typing import Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from .labels import Labels
from .tidy import class_counts

# COCO's limits of small and medium objects, as sides in pixels.
SMALL, MEDIUM = 32, 96


class Summary(NamedTuple):
    """What there is.

    Attributes:
        images: in the folder, damaged ones left out.
        labelled: of them.
        sizes: images by width and height.
        classes: two counts by name: objects and images that have it, or for
            label maps images and pixels.
        per_image: number of objects of each labelled image.
        sides: square root of each object's box area, in pixels.
        ignored: share of the pixels of label maps that no class has.
        masks: objects that have an outline.
    """

    images: int
    labelled: int
    sizes: Dict[Tuple[int, int], int]
    classes: Dict[str, Tuple[int, float]]
    per_image: List[int]
    sides: List[float]
    ignored: float
    masks: int

    @property
    def objects(self) -> int:
        return len(self.sides)

    @property
    def size(self) -> Tuple[int, int]:
        """Median width and height."""
        pairs = [size for size, n in self.sizes.items() for _ in range(n)]
        width, height = np.median(np.array(pairs), axis=0)
        return round(width), round(height)


def summarise(labels: Labels) -> Summary:
    labelled = [p for p in labels.pictures if p.labelled]
    items = [item for p in labelled for item in p.items or ()]
    return Summary(
        images=len(labels.pictures),
        labelled=len(labelled),
        sizes=dict(Counter(p.size for p in labels.pictures)),
        classes=class_counts(labels),
        per_image=[len(p.items) for p in labelled if p.items is not None],
        sides=[math.sqrt(item.box[2] * item.box[3]) for item in items],
        ignored=_ignored(labels),
        masks=sum(item.mask is not None for item in items),
    )


def _ignored(labels: Labels) -> float:
    if not labels.maps:
        return 0.0
    total = ignored = 0
    for counts in labels.maps.counts.values():
        total += sum(counts.values())
        ignored += sum(
            number
            for value, number in counts.items()
            if value not in labels.maps.classes
        )
    return ignored / total


def spread_words(values: Sequence[float], unit: str = '') -> str:
    """Say least, median and most of some numbers."""
    if not values:
        return 'none'
    low, middle, high = np.percentile(values, (0, 50, 100))
    return f'{low:.0f} to {high:.0f}{unit}, median {middle:.0f}'


def size_words(summary: Summary, most: int = 3) -> str:
    """List the commonest sizes of images."""
    rows = sorted(summary.sizes.items(), key=lambda row: -row[1])
    words = [f'{w} x {h} ({n})' for (w, h), n in rows[:most]]
    rest = len(rows) - most
    return ', '.join(words) + (f' and {rest} other sizes' * (rest > 0))


def bands(summary: Summary) -> Dict[str, int]:
    """Count small, medium and large objects, as COCO parts them."""
    sides = np.array(summary.sides)
    return {
        f'small (below {SMALL} px)': int((sides < SMALL).sum()),
        'medium': int(((sides >= SMALL) & (sides < MEDIUM)).sum()),
        f'large (from {MEDIUM} px)': int((sides >= MEDIUM).sum()),
    }


def lines(labels: Labels, summary: Summary) -> List[str]:
    """Write the report for a terminal, a fact a line."""
    share = 1 - summary.labelled / summary.images
    rows = [
        f'format: {labels.format}',
        f'images: {summary.images}, of {size_words(summary)}; '
        f'{share:.0%} without a label',
        f'classes: {len(labels.classes)}'
        + ('' if labels.named else ' (names made up: see --classes)'),
    ]
    heads = ('images', 'pixels') if labels.maps else ('objects', 'images')
    width = max(map(len, [*labels.classes, 'class']))
    rows.append(f'  {"class":<{width}}{heads[0]:>10}{heads[1]:>12}')
    total = sum(n for _, n in summary.classes.values()) or 1
    for name, (first, second) in summary.classes.items():
        last = f'{second / total:.1%}' if labels.maps else str(second)
        rows.append(f'  {name:<{width}}{first:>10}{last:>12}')
    if labels.maps:
        rows.append(f'ignored pixels: {summary.ignored:.1%}')
        return rows
    parts = ', '.join(f'{n} {word}' for word, n in bands(summary).items())
    return [
        *rows,
        f'objects: {summary.objects}, {summary.masks} of them with an outline',
        f'objects an image: {spread_words(summary.per_image)}',
        f'sides of objects: {spread_words(summary.sides, " px")}; {parts}',
    ]
