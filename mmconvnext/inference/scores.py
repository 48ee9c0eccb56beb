"""Labels of a folder of images, and scores against them by the hosts' metrics.

One class per host; ``SCORERS`` chooses. The metrics are MMSegmentation's
IoUMetric and MMDetection's CocoMetric, built from the config's evaluator;
classifiers are scored in :mod:`.classes`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
from pathlib import Path
from typing import (
    Any,
    Dict,
    Iterator,
    List,
    Sequence,
    Tuple,
)

import numpy as np
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmengine.registry import METRICS

from ..configs import as_list, bare_type, enter_scope, host_of
from .classes import ClassScorer, classifies
from .labels import Score, Scorer, check_exists, test_data


class MapScorer(Scorer):
    """Label maps in a folder, compared by IoU.

    A map has the path of its image below the folder, and the suffix of the
    config's data set.

    Args:
        cfg: of MMSegmentation.
        labels: folder of label maps; empty means the config's test labels.
        root: folder of the images.

    Raises:
        ValueError: for a config without the evaluator or without labels.
        FileNotFoundError: when the folder is missing.
    """

    rule = (
        'mean IoU of the classes in its label or its prediction. Acc: the '
        'share of the labelled pixels of a class that were found'
    )

    def __init__(self, cfg: Config, labels: str, root: Path) -> None:
        dataset = test_data(cfg, lazy_init=True)
        self._folder = Path(labels or dataset.data_prefix['seg_map_path'])
        check_exists(self._folder)
        self._root, self._suffix = root, dataset.seg_map_suffix
        self._images = Path(dataset.data_prefix.get('img_path') or '')
        self._images = self._images.absolute()
        self._info = dict(
            label_map=dataset.label_map,
            reduce_zero_label=dataset.reduce_zero_label,
            seg_fields=[],
        )
        self.classes, self.colours = _names(dataset)
        self._metric = _metric(cfg, 'IoUMetric', dataset, output_dir=None)

    def info(self, path: Path) -> Dict[str, Any]:
        """Say what the pipeline needs to load the label of an image.

        Raises:
            ValueError: when there is no label.
        """
        found = [name for name in self._names_of(path) if name.is_file()]
        if not found:
            raise ValueError(f'no label map at {next(self._names_of(path))}')
        label = found[0]
        return dict(img_path=str(path), seg_map_path=str(label), **self._info)

    def _names_of(self, path: Path) -> Iterator[Path]:
        """Yield where the map of an image may be.

        Below the folder as the image is below the one that was given, or
        below the data set's; x.png, or x.jpg.png where endings differ.
        """
        places = [path.relative_to(self._root)]
        with contextlib.suppress(ValueError):
            places.append(path.absolute().relative_to(self._images))
        for place in places:
            yield self._folder / place.with_suffix(self._suffix)
            yield self._folder / f'{place}{self._suffix}'

    def add(self, sample: Any) -> Score:
        """Score an image and count it in :meth:`total`.

        Raises:
            ValueError: for a label of another size, or with unknown classes.
        """
        label = sample.gt_sem_seg.data
        self._check(label, sample.pred_sem_seg.data)
        self._metric.process({}, [sample.to_dict()])
        return self._score(self._metric.results[-1:])

    def _check(self, label: Any, predicted: Any) -> None:
        if label.shape != predicted.shape:
            raise ValueError(
                f'the label map is {tuple(label.shape[1:])}, the image '
                f'{tuple(predicted.shape[1:])} (height, width)'
            )
        known = label[label != self._metric.ignore_index]
        if known.numel() and int(known.max()) >= len(self.classes):
            raise ValueError(
                f'the label map has class {int(known.max())} of '
                f'{len(self.classes)} (counted from 0)'
            )

    def legend(self, score: Score) -> Dict[str, Sequence[int]]:
        """Pick the colours of the classes in an image or its label."""
        return {
            name: self.colours[name]
            for name, row in score.classes.items()
            if not math.isnan(row['IoU'])
        }

    def total(self) -> Score:
        return self._score(self._metric.results)

    def _score(self, results: List[Tuple]) -> Score:
        areas = [sum(part) for part in zip(*results)]
        found = self._metric.total_area_to_metrics(*areas)
        columns = {key: 100 * found[key] for key in ('IoU', 'Acc')}
        rows = zip(*columns.values())
        classes = {
            name: dict(zip(columns, map(float, row)))
            for name, row in zip(self.classes, rows)
        }
        means = {key: _mean(values) for key, values in columns.items()}
        return Score(means, classes)


class CocoScorer(Scorer):
    """A COCO file, compared by average precision.

    Args:
        cfg: of MMDetection.
        labels: JSON file; empty means the config's test labels.
        root: folder of the images; ``file_name`` counts from here, or from
            the folder of the config's images.

    Raises:
        ValueError, FileNotFoundError: as :class:`MapScorer`.
    """

    rule = 'box AP of its objects; images without labelled objects come last'

    def __init__(self, cfg: Config, labels: str, root: Path) -> None:
        configured = test_data(cfg, lazy_init=True)
        self._file = labels or configured.ann_file
        check_exists(Path(self._file))
        dataset = test_data(
            cfg,
            # Absolute paths: others are joined to the config's data_root.
            ann_file=os.path.abspath(self._file),
            data_prefix=dict(img=os.path.abspath(root)),
            test_mode=True,  # keeps images without objects
        )
        rows = [dataset.get_data_info(i) for i in range(len(dataset))]
        own = configured.data_prefix.get('img') or ''
        self._infos = {
            os.path.abspath(Path(folder, _below(row, root))): row
            for folder in (own, root)
            for row in rows
        }
        self._objects = {row['img_id']: row['instances'] for row in rows}
        self.classes, self.colours = _names(dataset)
        options = dict(ann_file=self._file, classwise=True, metric_items=None)
        options.update(format_only=False, outfile_prefix=None)
        self._metrics = {
            kind: _metric(cfg, 'CocoMetric', dataset, metric=kind, **options)
            for kind in ('bbox', 'segm')
        }
        self._results: List[Tuple] = []

    def info(self, path: Path) -> Dict[str, Any]:
        """Say what the pipeline needs to load the label of an image.

        Raises:
            ValueError: when there is no label.
        """
        row = self._infos.get(os.path.abspath(path))
        if row is None:
            raise ValueError(f'{self._file} does not list it')
        return {**row, 'img_path': str(path)}

    def add(self, sample: Any) -> Score:
        """Score an image and count it in :meth:`total`."""
        boxes = self._metrics['bbox']
        boxes.process({}, [sample.to_dict()])
        self._results += boxes.results
        boxes.results.clear()
        return self._score(self._results[-1:])

    def legend(self, score: Score) -> Dict[str, Sequence[int]]:
        """Return nothing: the boxes carry their names."""
        return {}

    def total(self) -> Score:
        return self._score(self._results)

    def _score(self, results: List[Tuple]) -> Score:
        masks = 'masks' in results[0][1]
        kinds = {'box AP': 'bbox', **({'mask AP': 'segm'} if masks else {})}
        columns = {
            name: self._precision(self._metrics[kind], results)
            for name, kind in kinds.items()
        }
        means = {name: _mean(column) for name, column in columns.items()}
        rows = zip(*columns.values())
        classes = {
            name: dict(zip(columns, row))
            for name, row in zip(self.classes, rows)
        }
        return Score(means, classes)

    def _precision(
        self, metric: BaseMetric, results: List[Tuple]
    ) -> List[float]:
        """AP of each class; NaN without an object of it."""
        metric.img_ids = [truth['img_id'] for truth, _ in results]
        with _quiet():
            found = metric.compute_metrics(results)
        labelled = {
            instance['bbox_label']
            for key in metric.img_ids
            for instance in self._objects[key]
        }
        # Without any detection the metric returns nothing: all are missed.
        missed = {True: 0.0, False: math.nan}
        return [
            100 * float(found.get(f'{name}_precision', missed[i in labelled]))
            for i, name in enumerate(self.classes)
        ]


SCORERS: Dict[str, Any] = {
    'mmseg': MapScorer,
    'mmdet': CocoScorer,
    'mmengine': ClassScorer,
}


def scorer(cfg: Config, labels: str, root: Path) -> Any:
    """Build the scorer of the config's host.

    Raises:
        ValueError: for a config of another host.
    """
    host = 'mmengine' if classifies(cfg) else host_of(cfg)
    if host not in SCORERS:
        raise ValueError(
            f'labels are read for {list(SCORERS)}, the config has '
            f'default_scope {host!r}'
        )
    enter_scope(cfg)
    return SCORERS[host](cfg, labels, root)


def _below(row: Dict[str, Any], root: Path) -> str:
    """Return an image's ``file_name``."""
    return os.path.relpath(row['img_path'], os.path.abspath(root))


def _names(dataset: Any) -> Tuple[List[str], Dict[str, Sequence[int]]]:
    """Return the classes and the RGB colour of each."""
    meta = dataset.metainfo
    return list(meta['classes']), dict(zip(meta['classes'], meta['palette']))


def _metric(cfg: Config, name: str, dataset: Any, **options: Any) -> Any:
    given = as_list(cfg.test_evaluator)
    found = [row for row in given if bare_type(row) == name]
    if not found:
        raise ValueError(
            f'test_evaluator has no {name}, only '
            f'{[bare_type(row) for row in given]}'
        )
    metric = METRICS.build({**found[0], **options})
    metric.dataset_meta = dataset.metainfo
    return metric


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep pycocotools' tables, printed for each image, off the screen."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
