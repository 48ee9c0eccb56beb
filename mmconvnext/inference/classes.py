"""Classifiers: the names of their classes, and scores against labels."""

from __future__ import annotations

import copy
import functools
import logging
import math
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DATASETS

from ..checkpoint import weights_io
from ..configs import bare_type, enter_scope, host_of, leaves
from . import confusion
from .labels import Score, Scorer, check_exists, test_data

SETTING = 'test_dataloader.dataset.metainfo.classes'
COLUMN = 'p(true)'  # of an image's score


def classifies(cfg: Config) -> bool:
    """Whether a config is of a classifier: mmengine's scope, or its model."""
    host = host_of(cfg)
    return host == 'mmengine' or (
        not host and bare_type(cfg.model) == 'ImageClassifier'
    )


def settle_names(cfg: Config, checkpoint: Optional[str]) -> None:
    """Write the names of a classifier's classes into its test data.

    They are those of the config; else those that training wrote into the
    checkpoint, of which the test data may lack some; else those of the test
    data; else numbers, with a warning. Other models' configs stay as they
    are.

    Args:
        cfg: changed, unless its data gives the names by itself.
        checkpoint: file, or None for a model that brings its weights.

    Raises:
        ValueError: where the names are not as many as the model has
            classes, or the data has some that the checkpoint has not.
    """
    if not classifies(cfg):
        return
    enter_scope(cfg)
    found = _of_data(next(leaves(cfg.test_dataloader.dataset)))
    names = _names(cfg, found, checkpoint)
    count = cfg.model.get('num_classes')
    if names is None and count is None:
        return
    if names is None:
        print_log(
            f'the names of the {count} classes are not known, pictures have '
            f'numbers; name them by --cfg-options {SETTING}="[...]"',
            'current',
            logging.WARNING,
        )
        names = [str(i) for i in range(count)]
    if count is not None and len(names) != count:
        raise ValueError(
            f'the model has {count} classes, but the test data or the '
            f'checkpoint names {len(names)} ({some(names)}); name all, in '
            f'their order, in {SETTING}'
        )
    if names == found:
        return  # mmengine takes seconds to format a long config
    for leaf in leaves(cfg.test_dataloader.dataset):
        leaf['metainfo'] = {**(leaf.get('metainfo') or {}), 'classes': names}


def _names(
    cfg: Config, found: Optional[List[str]], checkpoint: Optional[str]
) -> Optional[List[str]]:
    leaf = next(leaves(cfg.test_dataloader.dataset))
    if (leaf.get('metainfo') or {}).get('classes'):
        return found
    trained = _trained(checkpoint)
    # A list may call classes by their numbers.
    numbers = leaf.get('ann_file') and all(map(str.isdecimal, found or ()))
    if trained and found and not numbers:
        new = [name for name in found if name not in trained]
        if new:
            raise ValueError(
                f'{checkpoint} was trained on the classes {some(trained)}; '
                f'the test data has others: {some(new)}'
            )
    return trained or found


def some(names: Sequence[str], limit: int = 12) -> str:
    """Join names; of many the first, and how many there are."""
    more = f', ... ({len(names)})' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more


def _trained(checkpoint: Optional[str]) -> Optional[List[str]]:
    """Return the classes that mmengine's runner keeps in a checkpoint."""
    raw = weights_io.read(checkpoint) if checkpoint else None
    for key in ('meta', 'dataset_meta', 'classes'):
        raw = raw.get(key) if isinstance(raw, Mapping) else None
    return list(map(str, raw)) if raw else None


def _of_data(leaf: Dict) -> Optional[List[str]]:
    """Return the classes of the test data; None where it is not there.

    Raises:
        ValueError: where the names are to be read from a file that is not
            there.
    """
    options: Dict[str, Any] = dict(pipeline=[], lazy_init=True)
    try:
        names = DATASETS.build({**leaf, **options}).metainfo.get('classes')
    except FileNotFoundError:
        return None
    if isinstance(names, str):  # mmengine keeps the name of the file then
        raise ValueError(f'{SETTING}: no file {names}')
    return list(map(str, names)) if names else None


class ClassScorer(Scorer):
    """Class folders or a list, compared with the predicted classes.

    Args:
        cfg: of a classifier.
        labels: folder of class folders, which has the images in it, or a
            list with lines PATH CLASS, whose paths count from ``root`` or
            from the folder of the config's images; empty means the config's
            test labels.
        root: folder of the images.

    Raises:
        ValueError: for a class that the model does not have, and an image
            with two classes; names the image.
        FileNotFoundError: when the labels are missing.
    """

    rule = (
        'the predicted probability of its true class, so that a sure mistake '
        'comes first'
    )
    absent = (
        'no image is of the class (recall), or none is taken for it '
        '(precision)'
    )

    def __init__(self, cfg: Config, labels: str, root: Path) -> None:
        cfg = copy.deepcopy(cfg)
        settle_names(cfg, None)
        self._source = labels
        self._rows: Dict[str, int] = {}
        for dataset in self._data(cfg, labels, root):
            self.classes = list(dataset.metainfo['classes'])
            self._source = self._source or _source_of(dataset)
            for i in range(len(dataset)):
                self._keep(dataset.get_data_info(i))
        self.colours: Dict[str, Sequence[int]] = {}
        count = len(self.classes)
        self._counts = np.zeros((count, count), int)
        self._ranks: List[int] = []

    def _data(self, cfg: Config, labels: str, root: Path) -> Iterator[Any]:
        """Yield the labelled images, once for each folder they may be in."""
        configured = test_data(cfg, lazy_init=True)
        check_exists(Path(labels or _source_of(configured)))
        if not labels:
            yield test_data(cfg)
            return
        names = dict(classes=configured.metainfo['classes'])
        own: Dict[str, Any] = dict(data_root='', metainfo=names)
        path = os.path.abspath(labels)
        if os.path.isdir(path):
            own.update(ann_file='', data_prefix=dict(img_path=path))
            yield test_data(cfg, **own)
            return
        for folder in dict.fromkeys([str(root), *_folders(cfg)]):
            place = dict(img_path=os.path.abspath(folder))
            yield test_data(cfg, **own, ann_file=path, data_prefix=place)

    def _keep(self, row: Dict[str, Any]) -> None:
        place, label = _place(row['img_path']), row['gt_label']
        if self._rows.setdefault(place, label) != label:
            raise ValueError(
                f'{self._source}: {row["img_path"]} has two classes, '
                f'{self.classes[self._rows[place]]} and {self.classes[label]}'
            )

    def info(self, path: Path) -> Dict[str, Any]:
        """Say what the pipeline needs of an image and its label.

        Raises:
            ValueError: when there is no label.
        """
        label = self._rows.get(_place(path))
        if label is None:
            raise ValueError(f'{self._source} has no label of it')
        return dict(img_path=str(path), gt_label=label)

    def add(self, sample: Any) -> Score:
        """Score an image and count it in :meth:`total`."""
        scores, label = sample.pred_scores, int(sample.gt_label)
        found = int(sample.pred_label)
        self._counts[label, found] += 1
        # Of equal scores the worst place counts, as in Accuracy.
        self._ranks.append(int((scores >= scores[label]).sum()) - 1)
        row = {COLUMN: 100 * float(scores[label])}
        words = dict(true=self.classes[label], predicted=self.classes[found])
        return Score(row, {self.classes[label]: row}, words=words)

    def legend(self, score: Score) -> Dict[str, Sequence[int]]:
        """Return nothing: the bars carry their names."""
        return {}

    def total(self) -> Score:
        """Return recall and precision of each class, and top-k of all."""
        right = np.diag(self._counts)
        columns = {
            'recall': _shares(right, self._counts.sum(1)),
            'precision': _shares(right, self._counts.sum(0)),
        }
        rows = zip(*columns.values())
        classes = {
            name: dict(zip(columns, row))
            for name, row in zip(self.classes, rows)
        }
        means = {key: _mean(values) for key, values in columns.items()}
        return Score(means, classes, self._overall())

    def _overall(self) -> Dict[str, float]:
        ranks = np.array(self._ranks)
        return {
            f'top-{k}': 100 * float((ranks < k).mean())
            for k in (1, 5)
            if k == 1 or k < len(self.classes)
        }

    def details(self) -> str:
        """Return the confusion matrix, or the most confused pairs."""
        return confusion.section(self._counts, self.classes)


def _shares(part: np.ndarray, whole: np.ndarray) -> List[float]:
    return [
        100 * int(a) / int(b) if b else math.nan for a, b in zip(part, whole)
    ]


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def _source_of(dataset: Any) -> str:
    folder = dataset.data_prefix.get('img_path') or dataset.data_root
    return dataset.ann_file or folder


def _folders(cfg: Config) -> Iterator[str]:
    """Yield the folders of the config's test images."""
    for leaf in leaves(cfg.test_dataloader.dataset):
        prefix = leaf.get('data_prefix') or {}
        prefix = prefix if isinstance(prefix, str) else prefix['img_path']
        yield os.path.join(leaf.get('data_root') or '', prefix)


def _place(path: os.PathLike | str) -> str:
    """Name a file the same however its folder is reached, by links or not."""
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(_real(folder), name)


@functools.lru_cache(maxsize=65536)
def _real(folder: str) -> str:
    return os.path.realpath(folder)
