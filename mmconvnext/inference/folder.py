"""Predict on a folder of images: pictures, scores, a page."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Union

import numpy as np

from ..files import find_images, write_image, write_text
from .gallery import Entry, entry, page, worst_first
from .pictures import Drawn, PictureNames, captioned, side_by_side
from .scores import Score


class Prediction(NamedTuple):
    """What :func:`predict_folder` did.

    ``failures`` has a line for each image that could not be drawn;
    ``total`` is the score of all images, None without labels; ``page`` is
    the HTML file, None where none was asked for.
    """

    failures: List[str]
    total: Optional[Score] = None
    page: Optional[Path] = None


def root_of(images: Union[str, Path]) -> Path:
    """Return the folder that images are named from: itself, or a file's."""
    return Path(images).parent if Path(images).is_file() else Path(images)


def predict_folder(
    predictor: Any,
    images: Union[str, Path],
    out: Union[str, Path],
    title: str = '',
    html: bool = False,
    saver: Any = None,
) -> Prediction:
    """Draw all images below a folder, score them where there are labels.

    Written to ``out`` are a picture ``NAME.png`` for each image, with labels
    ``scores.csv`` (images, worst first) and ``scores.json``, and on request
    ``index.html`` with all of it.

    Args:
        predictor: a :class:`.Predictor`, or anything whose ``draw`` takes a
            path and returns a :class:`.Drawn`; its ``labels``, if it has
            any, are asked for the score.
        images: image file, or folder (looked through).
        out: folder for the results.
        title: of the page.
        html: whether to write the page.
        saver: a :class:`.saving.LabelSaver` that keeps the predictions as
            labels, or None.

    Raises:
        FileNotFoundError: where there is no image.
    """
    out, labels = Path(out), getattr(predictor, 'labels', None)
    results = list(_draw_all(predictor, images, out, html, saver))
    failures = [row for row in results if isinstance(row, str)]
    entries = worst_first([row for row in results if isinstance(row, Entry)])
    total = labels.total() if labels and entries else None
    if total:
        write_scores(out, entries, total)
    if not html:
        return Prediction(failures, total)
    about: Dict[str, Any] = dict(failures=failures)
    if total:
        about.update(
            total=total,
            colours=labels.colours,
            rule=labels.rule,
            absent=labels.absent,
            details=labels.details(),
        )
    write_text(page(title, entries, **about), out / 'index.html')
    return Prediction(failures, total, out / 'index.html')


def _draw_all(
    predictor: Any,
    images: Union[str, Path],
    out: Path,
    thumbnails: bool,
    saver: Any,
) -> Iterator[Union[Entry, str]]:
    """Write the pictures; yield an entry for each, a line for a failure."""
    from rich.progress import track

    paths, root = find_images(str(images)), root_of(images)
    names = PictureNames()
    for path in track(paths, 'predicting', disable=len(paths) == 1):
        try:
            drawn = predictor.draw(path)
        except (ValueError, OSError) as error:
            yield f'{path}: {error}'
            continue
        name = path.relative_to(root)
        picture = names.of(name)
        write_image(join(drawn), out / picture)
        if saver:
            saver.add(name, drawn.panels['input'], drawn.sample)
        yield entry(str(name), drawn, thumbnail=thumbnails, picture=picture)


def join(drawn: Drawn) -> np.ndarray:
    """Join panels; input and prediction alone need no captions."""
    if len(drawn.panels) > 2:
        return captioned(drawn)
    return side_by_side(list(drawn.panels.values()))


def plain(row: Dict[str, float]) -> Dict[str, Optional[float]]:
    """Round to what is printed; NaN is null in JSON and empty in CSV."""
    return {
        key: None if math.isnan(value) else round(value, 2)
        for key, value in row.items()
    }


def write_scores(out: Path, entries: List[Entry], total: Score) -> None:
    """Write ``scores.csv``, images worst first, and ``scores.json``."""
    stream = io.StringIO()
    scores = [
        {**item.score.words, **plain(item.score.means)} for item in entries
    ]
    columns = ['image', *scores[0]]
    writer = csv.DictWriter(stream, columns, lineterminator='\n')
    writer.writeheader()
    for item, row in zip(entries, scores):
        writer.writerow({'image': item.name, **row})
    write_text(stream.getvalue(), out / 'scores.csv')
    report = dict(
        unit='percent',
        **({'overall': plain(total.overall)} if total.overall else {}),
        mean=plain(total.means),
        classes={name: plain(row) for name, row in total.classes.items()},
        images={
            item.name: dict(
                **item.score.words,
                mean=plain(item.score.means),
                classes={k: plain(v) for k, v in item.score.classes.items()},
            )
            for item in entries
        },
    )
    write_text(json.dumps(report, indent=1) + '\n', out / 'scores.json')


def table(total: Score) -> str:
    """Format the scores per class for the terminal."""
    rows = {**total.classes, 'mean': total.means}
    width = max(map(len, rows))
    head = ''.join(f'{column:>10}' for column in total.means)
    lines = [f'{"class":<{width}}{head}   (percent)']
    for name, row in rows.items():
        numbers = ''.join(f'{value:>10.1f}' for value in row.values())
        lines.append(f'{name:<{width}}{numbers}')
    lines += [f'{name}: {value:.2f}' for name, value in total.overall.items()]
    return '\n'.join(lines)
