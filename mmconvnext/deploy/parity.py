"""Compare a file with the model that it was exported from, on images.

Both take the whole way: read, resize, compute, back to the image's size.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, init_default_scope
from torch import nn

from .. import files
from ..configs import bare_type
from . import geometry, supported
from .runner import Classifier, Detections, Model, Segmentor

Array = np.ndarray
# Largest differences by precision. In float32 both compute the same in
# another order. In float16 single labels and objects change: what counts is
# the share of pixels, and of sure detections that are found again.
LIMITS: Dict[str, Dict[str, Dict[str, float]]] = {
    'segmentation': {
        'fp32': {'logits': 1e-3, 'labels %': 0.01},
        'fp16': {'labels %': 0.5},
    },
    'detection': {
        'fp32': {
            'objects': 0,
            'classes': 0,
            'boxes px': 0.01,
            'scores': 1e-4,
            'mask pixels %': 0.01,
        },
        'fp16': {'missed %': 5.0},
    },
    'classification': {
        'fp32': {'logits': 1e-3, 'scores': 2e-5, 'classes': 0},
        'fp16': {'scores': 0.02},
    },
}
SURE, OVERLAP = 0.3, 0.8
# Rounding decides the order of scores that are as close as this.
TIE = 1e-5


class Row(NamedTuple):
    """One comparison: what was compared, differences, whether all fit."""

    what: str
    size: Tuple[int, int]
    values: Dict[str, float]
    fits: bool


class Reference:
    """The model with its test pipeline.

    Args:
        model: with its weights, in eval mode.
        cfg: of the model.
    """

    def __init__(self, model: nn.Module, cfg: Any) -> None:
        init_default_scope(cfg['default_scope'])
        self.model = model
        self.classifies = supported.check(cfg) == 'classification'
        steps = supported.pipeline_of(cfg)
        drop = ('LoadImage', 'LoadImageFromFile', 'LoadAnnotations')
        self.pipeline = Compose([s for s in steps if bare_type(s) not in drop])

    @torch.no_grad()
    def __call__(self, images: Sequence[Array]) -> List[Any]:
        """Predict on RGB images of one size, as one batch."""
        data = [self.pipeline(self._info(image)) for image in images]
        batch = pseudo_collate(data)
        if not self.classifies:
            return self.model.test_step(batch)
        inputs = self.model.data_preprocessor(batch)['inputs']
        logits = self.model(inputs)
        samples = self.model(inputs, mode='predict')
        for sample, row in zip(samples, logits):
            sample.set_field(row, 'logits')
        return samples

    def _info(self, image: Array) -> Dict[str, Any]:
        shape = image.shape[:2]
        image = image if self.classifies else image[..., ::-1]
        return dict(
            img=np.ascontiguousarray(image),
            img_path='',
            img_id=0,
            img_shape=shape,
            ori_shape=shape,
        )


def cases(
    paths: Sequence[Path], any_size: bool
) -> Iterator[Tuple[str, List[Array]]]:
    """Yield batches of images to compare on, with their names.

    Each image; where the file takes any size, a part of it whose sides are
    odd, which no file was traced at; and the first image with its mirror
    image, a batch of two.
    """
    for i, path in enumerate(paths):
        image = files.read_image(path)
        yield path.name, [image]
        if any_size:
            height, width = (int(side * 0.8) | 1 for side in image.shape[:2])
            yield f'{path.name}, a part', [image[:height, :width]]
        if i == 0:
            mirrored = np.ascontiguousarray(image[:, ::-1])
            yield f'{path.name}, batch of 2', [image, mirrored]


def compare(
    reference: Reference,
    exported: Model,
    paths: Sequence[Path],
    precision: str,
) -> Iterator[Row]:
    """Compare on images, one row for each image of a batch.

    Args:
        reference: what the file should compute.
        exported: the file.
        paths: image files.
        precision: the file's, a row of :data:`LIMITS`.
    """
    about = exported.description
    limits = LIMITS[about.task][precision]
    for name, images in cases(paths, about.shape is None):
        samples = reference(images)
        batch = _batch(exported, images)
        found = exported.run(batch)
        for i, sample in enumerate(samples):
            size = images[i].shape[:2]
            if isinstance(exported, Segmentor):
                values = maps(exported, sample, batch, i, size, found)
            elif isinstance(exported, Classifier):
                values = classes(sample, i, found)
            else:
                result = exported.after(batch, i, size, found)
                values = objects(sample, result, precision)
            fits = all(values[key] <= limits[key] for key in limits)
            yield Row(name, size, values, fits)


def _batch(exported: Model, images: Sequence[Array]) -> Array:
    rule = exported.description.resize
    resized = [geometry.fit_image(image, rule) for image in images]
    exported.check_size(*resized[0].shape[:2])
    batch = np.stack([x[..., ::-1].transpose(2, 0, 1) for x in resized])
    return np.ascontiguousarray(batch)


def maps(
    exported: Segmentor,
    sample: Any,
    batch: Array,
    i: int,
    size: Tuple[int, int],
    found: Dict[str, Array],
) -> Dict[str, float]:
    """Differences of logits and labels, at the image's own size."""
    about = exported.description
    wanted = sample.seg_logits.data.numpy()
    logits = geometry.resize_maps(
        found['logits'][i], *size, about.align_corners
    )
    if about.threshold is not None:
        logits = 1 / (1 + np.exp(-logits))  # the host keeps probabilities
    labels = exported.after(batch, i, size, found).labels
    differ = labels != sample.pred_sem_seg.data[0].numpy()
    return {
        'logits': float(np.abs(logits - wanted).max()),
        'labels %': 100 * float(differ.mean()),
    }


def classes(sample: Any, i: int, found: Dict[str, Array]) -> Dict[str, float]:
    """Differences of logits, probabilities, and the best class.

    Another class counts unless the model's own scores of the two are equal
    to rounding.
    """
    wanted = sample.pred_scores.numpy()
    scores, logits = found['scores'][i], found['logits'][i]
    lost = wanted.max() - wanted[scores.argmax()]
    return {
        'logits': float(np.abs(logits - sample.logits.numpy()).max()),
        'scores': float(np.abs(scores - wanted).max()),
        'classes': float(lost > TIE),
    }


def objects(
    sample: Any, result: Detections, precision: str
) -> Dict[str, float]:
    """Differences of detections: in order, or of those that matter.

    In float32 the lists must be the same, but for the order of scores that
    are equal to rounding (``moved`` counts those); in other precisions those
    that the reference is sure of are looked for.
    """
    truth = sample.pred_instances.numpy()
    if precision != 'fp32':
        return {'objects': len(truth), 'missed %': _missed(truth, result)}
    values: Dict[str, float] = {
        'objects': abs(len(truth.labels) - len(result.labels))
    }
    # Of another number, none of the rest can be compared.
    same = values['objects'] == 0
    order = in_order(truth, result) if same else np.arange(0)
    values['moved'] = _count(order, np.arange(len(order)), same)
    values['classes'] = _count(truth.labels, result.labels[order], same)
    boxes = result.boxes[order]
    values['boxes px'] = _largest(truth.bboxes, boxes, same)
    # Place by place: the best comes first.
    values['scores'] = _largest(truth.scores, result.scores, same)
    values['mask pixels %'] = 0.0
    if result.masks is not None and same:
        masks = result.masks[order]
        values['mask pixels %'] = 100 * _share(truth.masks, masks)
    return values


def in_order(truth: Any, result: Detections) -> Array:
    """Find each detection of the reference in as many of a file.

    It is the nearest of those of its class whose scores differ by at most
    :data:`TIE`; where there is none, the one at its place.

    Returns:
        Indices into ``result``, each once.
    """
    free = np.ones(len(truth.labels), bool)
    order = np.empty(len(free), int)
    for i, (box, score, label) in enumerate(
        zip(truth.bboxes, truth.scores, truth.labels)
    ):
        tied = free & (result.labels == label)
        tied &= np.abs(result.scores - score) <= TIE
        far = np.where(tied, np.abs(result.boxes - box).max(1), np.inf)
        place = i if free[i] else int(free.argmax())
        order[i] = far.argmin() if tied.any() else place
        free[order[i]] = False
    return order


def _count(a: Array, b: Array, same: bool) -> float:
    return float((a != b).sum()) if same else float('inf')


def _largest(a: Array, b: Array, same: bool) -> float:
    if not same:
        return float('inf')
    return float(np.abs(a - b).max()) if len(a) else 0.0


def _share(a: Array, b: Array) -> float:
    return float((a != b).mean()) if a.size else 0.0


def _missed(truth: Any, result: Detections) -> float:
    """Percentage of the sure boxes without one of their class in place."""
    sure = truth.scores > SURE
    boxes, labels = truth.bboxes[sure], truth.labels[sure]
    if not len(boxes):
        return 0.0
    overlaps = iou(boxes, result.boxes)
    overlaps = np.where(labels[:, None] == result.labels, overlaps, 0)
    best = overlaps.max(1, initial=0)
    return 100 * float((best < OVERLAP).mean())


def iou(a: Array, b: Array) -> Array:
    """Overlap of boxes ``(A, 4)`` with ``(B, 4)``, ``(A, B)``."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = np.prod(np.maximum(high - low, 0), -1)
    areas = [np.prod(x[:, 2:] - x[:, :2], -1) for x in (a, b)]
    union = areas[0][:, None] + areas[1] - both
    return both / np.maximum(union, 1e-9)


def table(rows: Sequence[Row]) -> str:
    """Lay the rows out for the terminal."""
    names = list(dict.fromkeys(key for row in rows for key in row.values))
    width = max(len(row.what) for row in rows)
    head = ''.join(f'{name:>15}' for name in names)
    lines = [f'{"image":<{width}}{"size":>12}{head}']
    for row in rows:
        size = f'{row.size[0]} x {row.size[1]}'
        cells = ''.join(f'{row.values.get(n, 0):>15.3g}' for n in names)
        verdict = '' if row.fits else '   too far'
        lines.append(f'{row.what:<{width}}{size:>12}{cells}{verdict}')
    return '\n'.join(lines)


def test_images(cfg: Any, count: int) -> List[Path]:
    """Some images of a config's test data, spread over it."""
    init_default_scope(cfg['default_scope'])
    dataset = DATASETS.build(
        {**copy.deepcopy(cfg['test_dataloader']['dataset']), 'pipeline': []}
    )
    step = max(len(dataset) // count, 1)
    rows = range(0, min(step * count, len(dataset)), step)
    return [Path(dataset.get_data_info(i)['img_path']) for i in rows]


def count_rows(images: int, any_size: bool) -> int:
    """How many rows :func:`compare` yields."""
    return images * (2 if any_size else 1) + 2
