"""Plots of what :mod:`mmconvnext.analysis` measures.

Colours are those of Okabe and Ito (jfly.uni-koeln.de/color), distinct for
every kind of colour vision; markers distinguish curves without colours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Mapping, NamedTuple, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..files import whole_file
from .measure import SATURATED, WHERE

COLOURS = (
    '#0072B2',
    '#D55E00',
    '#009E73',
    '#CC79A7',
    '#E69F00',
    '#56B4E9',
    '#000000',
)
MARKERS = 'osD^vPX'
DEAD_COLOUR, SATURATED_COLOUR = '#000000', '#E69F00'
SIDE = 8  # channels along a mosaic's side
DPI = 120


class Curve(NamedTuple):
    """A model's layers in order, each a row of numbers.

    ``layers`` have ``layer`` (its name), ``depth`` (0 to 1), ``distance``,
    ``distance_std``, ``dead``, ``saturated``.
    """

    label: str
    layers: Sequence[Mapping[str, float]]


class Mosaic(NamedTuple):
    """Some channels of a layer for one image.

    ``maps`` is ``(H, W, n)``; ``dead`` and ``saturated`` are ``(n,)`` bool;
    ``channels`` says how many the layer has.
    """

    label: str
    maps: np.ndarray
    dead: np.ndarray
    saturated: np.ndarray
    channels: int


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    FigureCanvasAgg(figure)
    with whole_file(path) as part:
        figure.savefig(part, dpi=DPI, format='png')


def style(index: int) -> Dict[str, str]:
    """Choose colour, marker and line of a curve: 28 before they repeat."""
    lines = ('-', '--', ':', '-.')
    return dict(
        color=COLOURS[index % len(COLOURS)],
        marker=MARKERS[index % len(MARKERS)],
        linestyle=lines[index // len(COLOURS) % len(lines)],
    )


def plot_distance(curves: Sequence[Curve], where: str, images: int) -> Figure:
    """Draw distance against depth, one curve per model, as the paper does."""
    figure = Figure(figsize=(8, 5), layout='constrained')
    axes = figure.add_subplot()
    for index, curve in enumerate(curves):
        depth, middle, spread = (
            np.array([row[key] for row in curve.layers], float)
            for key in ('depth', 'distance', 'distance_std')
        )
        look = style(index)
        axes.plot(depth, middle, label=curve.label, markersize=5, **look)
        axes.fill_between(
            depth,
            np.clip(middle - spread, 0, 0.5),
            np.clip(middle + spread, 0, 0.5),
            color=look['color'],
            alpha=0.15,
            linewidth=0,
        )
    axes.set(
        xlim=(-0.02, 1.02),
        ylim=(0, 0.54),
        xlabel='normalised depth (0: first block, 1: last block)',
        ylabel='feature cosine distance over live channels',
        title=f'Feature diversity of {WHERE[where]}\n'
        f'mean of {images} images, band: one standard deviation over them',
    )
    axes.axhline(0.5, color='grey', linewidth=0.8, linestyle=':')
    note = dict(color='dimgrey', fontsize=9, ha='right')
    axes.text(1, 0.51, 'channels orthogonal', **note)
    axes.text(1, 0.006, 'channels all alike', **note)
    axes.grid(alpha=0.3)
    axes.legend(loc='lower left', bbox_to_anchor=(0, 0.04), fontsize=9)
    return figure


def plot_channels(curves: Sequence[Curve], where: str, images: int) -> Figure:
    """Draw the shares of dead and saturated channels, a row per model."""
    width = max(8, 0.34 * max(len(curve.layers) for curve in curves) + 2)
    height = 1.2 + 2.3 * len(curves)
    figure = Figure(figsize=(width, height), layout='constrained')
    rows = figure.subplots(len(curves), sharey=True, squeeze=False)[:, 0]
    for axes, curve in zip(rows, curves):
        _bars(axes, curve)
    top = max(
        bar.get_y() + bar.get_height() for a in rows for bar in a.patches
    )
    rows[0].set_ylim(0, min(100, max(5, 1.05 * top)))
    handles, labels = rows[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower right', ncols=2)
    figure.suptitle(
        f'Dead and saturated channels of {WHERE[where]}, mean of {images} '
        f'images',
        fontsize=11,
    )
    rows[-1].set_xlabel('block (stage.block), from input to output')
    return figure


def _bars(axes, curve: Curve) -> None:
    dead, flat = (
        100 * np.nan_to_num([row[key] for row in curve.layers])
        for key in ('dead', 'saturated')
    )
    places = np.arange(len(dead))
    axes.bar(places, dead, color=DEAD_COLOUR, label='dead')
    axes.bar(
        places,
        flat,
        bottom=dead,
        color=SATURATED_COLOUR,
        hatch='///',
        edgecolor='white',
        label=f'saturated (varies by {SATURATED:.0%} or less)',
    )
    names = [row['layer'].removeprefix('stages.') for row in curve.layers]
    axes.set_xticks(places, names, rotation=90)
    axes.tick_params(labelsize=8)
    axes.set_title(curve.label, fontsize=10, loc='left')
    axes.set_ylabel('channels (%)')
    axes.grid(axis='y', alpha=0.3)
    axes.set_axisbelow(True)


def plot_mosaics(
    layer: str, where: str, image: np.ndarray, mosaics: Sequence[Mosaic]
) -> Figure:
    """Draw 64 channels of a layer for one image, one panel per model.

    Args:
        layer: its name.
        where: a key of ``WHERE``.
        image: what the models saw, RGB.
        mosaics: one per model that has the layer.
    """
    panels = len(mosaics) + 1
    figure = Figure(figsize=(4.6 * panels, 5), layout='constrained')
    axes = figure.subplots(1, panels)
    axes[0].imshow(image)
    axes[0].set_title('input', fontsize=10)
    axes[0].axis('off')
    for place, mosaic in zip(axes[1:], mosaics):
        _mosaic(figure, place, mosaic)
    figure.suptitle(f'{layer}: {WHERE[where]}', fontsize=11)
    figure.supxlabel('x: dead    o: saturated', fontsize=10)
    return figure


def _mosaic(figure: Figure, axes, mosaic: Mosaic) -> None:
    count = mosaic.maps.shape[-1]
    canvas, centres = _tile(mosaic.maps)
    low, high = np.nanpercentile(mosaic.maps, [1, 99])
    shown = axes.imshow(
        canvas, vmin=low, vmax=high, cmap='viridis', interpolation='nearest'
    )
    bar = figure.colorbar(shown, ax=axes, shrink=0.7, extend='both')
    bar.set_label('activation (colours span 1 % to 99 %)', fontsize=8)
    for flags, marker in ((mosaic.dead, 'x'), (mosaic.saturated, 'o')):
        x, y = centres[flags].T
        axes.plot(x, y, marker, color='#D55E00', fillstyle='none', ms=6)
    axes.axis('off')
    axes.set_title(
        f'{mosaic.label}\n{count} of {mosaic.channels} channels, '
        f'{mosaic.dead.sum()} dead, {mosaic.saturated.sum()} saturated',
        fontsize=10,
    )


def _tile(maps: np.ndarray) -> tuple:
    """Arrange ``(H, W, n)`` in a square with NaN (white) between the maps."""
    height, width, count = maps.shape
    gap = max(1, round(max(height, width) / 14))
    cell = np.array([height + gap, width + gap])
    canvas = np.full(SIDE * cell - gap, np.nan, np.float32)
    corners = np.stack(np.divmod(np.arange(count), SIDE), axis=1) * cell
    for channel, (y, x) in enumerate(corners):
        canvas[y : y + height, x : x + width] = maps[..., channel]
    middle = corners + (np.array([height, width]) - 1) / 2
    return canvas, middle[:, ::-1]


def plot_selectivity(
    found: Mapping[str, Mapping[str, np.ndarray]], where: str, classes: int
) -> Figure:
    """Draw the density of the class selectivity index, a panel per layer.

    Args:
        found: layer to label to index of each channel.
        where: a key of ``WHERE``.
        classes: number of them.
    """
    columns = min(2, len(found))
    rows = -(-len(found) // columns)
    size = (4.6 * columns + 0.6, 2.8 * rows + 1)
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
    labels: List[str] = list(
        dict.fromkeys(label for row in found.values() for label in row)
    )
    for place, (layer, row) in zip(axes.flat, found.items()):
        for label, index in row.items():
            _density(place, index, label, style(labels.index(label)))
        place.set_title(layer, fontsize=10)
        place.grid(alpha=0.3)
        place.legend(fontsize=8)
    for place in axes.flat[len(found) :]:
        place.axis('off')
    figure.suptitle(
        f'Class selectivity of {WHERE[where]}, {classes} classes', fontsize=11
    )
    figure.supxlabel('selectivity index (0: all classes alike, 1: one class)')
    figure.supylabel('density of channels')
    return figure


def _density(axes, index: np.ndarray, label: str, look: Dict) -> None:
    heights, edges = np.histogram(index, bins=25, range=(0, 1), density=True)
    mean = float(index.mean())
    look = {key: look[key] for key in ('color', 'linestyle')}
    axes.stairs(
        heights, edges, label=f'{label} (mean {mean:.2f})', lw=1.6, **look
    )
