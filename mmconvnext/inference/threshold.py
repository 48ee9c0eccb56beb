"""From which score a detector is right more often than not.

At each validation all scores are tried as the threshold; the one with the
best F1 is written to ``threshold.json`` in the work dir, and what draws
predictions of a checkpoint in there takes it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import numpy as np
from mmengine.dist import master_only
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..files import write_text
from .instances import box_ious

FILE = 'threshold.json'
DEFAULT = 0.3  # where no validation has said it
IOU = 0.5  # of a detection and the object that it finds
STEP = re.compile(r'(iter|epoch)_(\d+)\.\w+$')


class Best(NamedTuple):
    """The threshold with the best F1, and its F1."""

    score: float
    f1: float


def best_f1(scores: np.ndarray, hits: np.ndarray, objects: int) -> Best:
    """Find the lowest score to keep for the best F1 = 2 TP / (P + objects).

    Args:
        scores: ``(N,)`` of all detections.
        hits: ``(N,)`` bool, whether each finds an object of its own.
        objects: number of labelled objects.
    """
    if not len(scores) or not objects:
        return Best(DEFAULT, 0.0)
    order = np.argsort(-scores, kind='stable')
    scores, hits = scores[order], hits[order]
    f1 = 2 * np.cumsum(hits) / (np.arange(1, len(hits) + 1) + objects)
    # Detections of one score are kept together.
    ends = np.append(scores[1:] < scores[:-1], True)
    place = int(np.argmax(np.where(ends, f1, -1)))
    return Best(float(scores[place]), float(f1[place]))


def matched(
    boxes: np.ndarray, labels: np.ndarray, truth: np.ndarray, kinds: np.ndarray
) -> np.ndarray:
    """Say which detections find an object, the first one to do so.

    Args:
        boxes: ``(N, 4)`` detections, surest first.
        labels: ``(N,)`` classes of them.
        truth: ``(M, 4)`` labelled boxes.
        kinds: ``(M,)`` classes of them.

    Returns:
        ``(N,)`` bool.
    """
    hits = np.zeros(len(boxes), bool)
    if not len(truth):
        return hits
    overlaps = box_ious(boxes, truth)
    overlaps[labels[:, None] != kinds[None]] = 0
    free = np.ones(len(truth), bool)
    for i, row in enumerate(overlaps):
        place = int(np.argmax(np.where(free, row, -1)))
        if free[place] and row[place] >= IOU:
            hits[i], free[place] = True, False
    return hits


class ThresholdMetric(BaseMetric):
    """Counts hits by score at validation; the best threshold is ``best``.

    Args:
        objects: boxes ``(M, 4)`` and labels ``(M,)`` by image id.
    """

    default_prefix = ''

    def __init__(self, objects: Dict[Any, tuple]) -> None:
        super().__init__()
        self.objects = objects
        self.best: Optional[Best] = None

    def process(self, data_batch: Any, data_samples: Sequence[Dict]) -> None:
        """Match the detections of a batch."""
        for sample in data_samples:
            found = sample['pred_instances']
            scores, boxes, labels = (
                found[key].cpu().numpy()
                for key in ('scores', 'bboxes', 'labels')
            )
            order = np.argsort(-scores, kind='stable')
            truth, kinds = self.objects[sample['img_id']]
            hits = matched(boxes[order], labels[order], truth, kinds)
            self.results.append((scores[order], hits, len(truth)))

    def compute_metrics(self, results: List[tuple]) -> Dict[str, float]:
        """Return F1 at the best threshold; nothing where nothing is found.

        The hosts' metrics have no values then, and mmengine picks no best
        checkpoint: one of ours alone would let it look for the others.
        """
        scores, hits = (
            np.concatenate([row[i] for row in results]) for i in (0, 1)
        )
        self.best = best_f1(scores, hits, sum(row[2] for row in results))
        return dict(F1=self.best.f1) if len(scores) else {}


class ThresholdHook(Hook):
    """Adds :class:`ThresholdMetric` to validation and writes its results.

    For detectors whose data set gives its objects one by one, as all of
    MMDetection's do; it does nothing for others.
    """

    def __init__(self) -> None:
        self.metric: Optional[ThresholdMetric] = None

    def before_train(self, runner: Runner) -> None:
        if runner.val_loop is None:
            return
        objects = objects_by_image(runner.val_dataloader.dataset)
        if objects is None:
            return
        evaluator = runner.val_loop.evaluator
        self.metric = ThresholdMetric(objects)
        self.metric.dataset_meta = evaluator.dataset_meta
        evaluator.metrics.append(self.metric)

    @master_only
    def after_val_epoch(
        self, runner: Runner, metrics: Optional[Dict[str, float]] = None
    ) -> None:
        if not self.metric or not self.metric.best:
            return
        path = Path(runner.work_dir, FILE)
        row = dict(iter=runner.iter, epoch=runner.epoch)
        row.update(self.metric.best._asdict())
        rows = [r for r in _rows(path) if r['iter'] < row['iter']]
        text = json.dumps(dict(iou=IOU, validations=[*rows, row]), indent=1)
        write_text(text + '\n', path)


def objects_by_image(dataset: Any) -> Optional[Dict[Any, tuple]]:
    """Take boxes and labels of all images; None where a data set has none."""
    if not hasattr(dataset, 'get_data_info'):
        return None
    found = {}
    for i in range(len(dataset)):
        row = dataset.get_data_info(i)
        if 'instances' not in row or 'img_id' not in row:
            return None
        # Crowds and difficult ones count neither way.
        rows = [r for r in row['instances'] if not r.get('ignore_flag')]
        if any(len(r['bbox']) != 4 for r in rows):
            return None
        boxes = np.array([r['bbox'] for r in rows], float).reshape(-1, 4)
        kinds = np.array([r['bbox_label'] for r in rows], int)
        found[row['img_id']] = boxes, kinds
    return found


def _rows(path: Path) -> List[Dict]:
    if not path.is_file():
        return []
    return json.loads(path.read_text(encoding='utf-8'))['validations']


def threshold_of(checkpoint: str) -> Optional[float]:
    """Look up the threshold of a checkpoint beside it.

    That of the validation at its step, or of the last one before; the last
    of all where the file's name has no step. None without a file.
    """
    rows = _rows(Path(checkpoint).parent / FILE)
    step = STEP.search(Path(checkpoint).name)
    if step:
        limit = int(step[2])
        rows = [r for r in rows if r[step[1]] <= limit] or rows[:1]
    return rows[-1]['score'] if rows else None
