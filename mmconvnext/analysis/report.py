"""Numbers and plots of measured features, as files and for the terminal."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Dict, List, Mapping, NamedTuple, Sequence, Tuple

import numpy as np

from ..files import write_text
from . import plots
from .features import (
    Looked,
    Settings,
    Source,
    classes_of,
    look,
    prepare,
    read_all,
)
from .measure import DEFINITIONS, WHERE

COLUMNS = (
    'label',
    'layer',
    'depth',
    'channels',
    'distance',
    'distance_std',
    'dead',
    'saturated',
    'selectivity',
)


class Report(NamedTuple):
    """A row per block and model, the images used, and why others were not."""

    rows: List[Dict]
    images: int
    broken: Dict[str, str]


def analyze(
    checkpoints: Sequence[str],
    configs: Sequence[str],
    out: Path,
    settings: Settings,
) -> Report:
    """Measure and draw what the features do on a folder of images.

    Args:
        checkpoints: of backbones, in any format, each PATH or NAME=PATH.
        configs: whose backbones get random weights, PATH or NAME=PATH.
        out: folder for ``features.csv``, ``features.json`` and plots.
        settings: how to measure.

    Raises:
        ValueError, FileNotFoundError: for what cannot be measured.
    """
    broken: Dict[str, str] = {}
    images, models = prepare(checkpoints, configs, settings)
    found = {s: look(s, images, settings, broken) for s in models}
    used = [path for path in images if str(path) not in broken]
    if not used:
        raise ValueError(f'no usable image: {broken}')
    selective = settings.class_folders
    classes = classes_of(used, settings) if selective else []
    rows = []
    for source, looked in found.items():
        rows += rows_of(source, looked, selective)
    write_numbers(out, rows, describe(settings, models, len(used), broken))
    ((_, example),) = read_all(used[:1], settings.size, {})
    draw(out, settings, found, rows, (len(used), len(classes)), example)
    return Report(rows, len(used), broken)


def rows_of(source: Source, looked: Looked, selective: bool) -> List[Dict]:
    """Lay the numbers of a model out, a row per block."""
    last = max(len(looked.statistics) - 1, 1)
    rows = []
    for index, (layer, found) in enumerate(looked.statistics.items()):
        row = dict(label=source.label, layer=layer, depth=index / last)
        row.update(channels=found.channels, **found.summary())
        row['selectivity'] = math.nan
        if selective:
            row['selectivity'] = found.selectivity().mean().item()
        rows.append(row)
    return rows


def write_numbers(out: Path, rows: List[Dict], about: Dict) -> None:
    """Write ``features.csv`` and ``features.json``; NaN is empty and null."""
    rows = [{key: _plain(row[key]) for key in COLUMNS} for row in rows]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_text(stream.getvalue(), out / 'features.csv')
    text = json.dumps({**about, 'layers': rows}, indent=1, allow_nan=False)
    write_text(text + '\n', out / 'features.json')


def _plain(value: object) -> object:
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 6)
    return value


def draw(
    out: Path,
    settings: Settings,
    found: Mapping[Source, Looked],
    rows: Sequence[Dict],
    counts: Tuple[int, int],
    example: np.ndarray,
) -> None:
    """Draw all plots; ``counts`` are those of images and classes."""
    where, (images, classes) = settings.where, counts
    curves = [
        plots.Curve(s.label, [r for r in rows if r['label'] == s.label])
        for s in found
    ]
    plots.save(
        plots.plot_distance(curves, where, images), out / 'distance.png'
    )
    plots.save(
        plots.plot_channels(curves, where, images), out / 'channels.png'
    )
    layers = dict.fromkeys(n for f in found.values() for n in f.mosaics)
    for layer in layers:
        mosaics = [
            f.mosaics[layer] for f in found.values() if layer in f.mosaics
        ]
        figure = plots.plot_mosaics(layer, where, example, mosaics)
        plots.save(figure, out / f'mosaic_{layer}.png')
    if settings.class_folders:
        index = {
            layer: {
                s.label: f.statistics[layer].selectivity().cpu().numpy()
                for s, f in found.items()
                if layer in f.mosaics
            }
            for layer in layers
        }
        figure = plots.plot_selectivity(index, where, classes)
        plots.save(figure, out / 'selectivity.png')


def table(rows: List[Dict]) -> str:
    """Lay the numbers out for the terminal."""
    lines = [
        f'{"label":<20} {"layer":<12} {"depth":>5} {"channels":>8} '
        f'{"distance":>8} {"dead":>6} {"saturated":>9}'
    ]
    lines += [
        f'{row["label"]:<20} {row["layer"]:<12} {row["depth"]:>5.2f} '
        f'{row["channels"]:>8} {row["distance"]:>8.3f} {row["dead"]:>6.1%} '
        f'{row["saturated"]:>9.1%}'
        for row in rows
    ]
    return '\n'.join(lines)


def describe(
    settings: Settings,
    models: Sequence[Source],
    images: int,
    broken: Mapping[str, str],
) -> Dict:
    """Say what the numbers are, for ``features.json``."""
    return dict(
        where=settings.where,
        where_text=WHERE[settings.where],
        definitions=DEFINITIONS,
        images=images,
        size=settings.size,
        unreadable=broken,
        models={s.label: dict(path=s.path, about=s.about) for s in models},
    )
