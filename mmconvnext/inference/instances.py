"""Objects drawn so that people can tell them apart.

Of objects that cover each other the surer one is drawn. Names are written
where they hide nothing that is named already, and not at all where there are
too many to read.
"""

from __future__ import annotations

from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np

from .writing import Line, width_of, write

OVERLAP = 0.5  # IoU from which the less sure one is left out
PART = 0.8  # share of its area in a surer object of its own class, likewise
OPACITY = 0.4
MANY = 24  # objects whose names would hide the image
FONT = 12  # pixels

Colour = Sequence[int]
Place = Tuple[int, int, int, int]


class Objects(NamedTuple):
    """Objects of an image, as numpy.

    Attributes:
        boxes: ``(N, 4)`` x1, y1, x2, y2 in pixels.
        labels: ``(N,)`` indices of classes.
        scores: ``(N,)``; None for ground truth.
        masks: ``(N, H, W)`` bool, or None.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: Optional[np.ndarray] = None
    masks: Optional[np.ndarray] = None

    def pick(self, rows: np.ndarray) -> Objects:
        """Return some of the objects."""
        return Objects(*(x if x is None else x[rows] for x in self))


def objects_of(instances: Any) -> Optional[Objects]:
    """Take a host's instances; None for boxes that are not upright."""
    boxes = getattr(instances.bboxes, 'tensor', instances.bboxes)
    boxes = _numpy(boxes)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        return None
    masks = instances.get('masks')
    if hasattr(masks, 'to_ndarray'):
        masks = masks.to_ndarray()
    scores = instances.get('scores')
    return Objects(
        boxes,
        _numpy(instances.labels),
        None if scores is None else _numpy(scores),
        None if masks is None else _numpy(masks).astype(bool),
    )


def _numpy(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if hasattr(value, 'cpu') else value


def legible(objects: Objects, score_thr: float) -> Objects:
    """Leave out what is unsure, and what a surer object covers.

    Objects of all classes compete: two names for one object are one too
    many. Within a class a part of an object is no second one. Where there
    are masks their overlap counts, so that crossing objects stay.
    """
    if objects.scores is None:
        return objects
    objects = objects.pick(np.flatnonzero(objects.scores >= score_thr))
    objects = objects.pick(np.argsort(-objects.scores, kind='stable'))
    kept: List[int] = []
    for i in range(len(objects.boxes)):
        if not any(_covers(objects, k, i) for k in kept):
            kept.append(i)
    return objects.pick(np.array(kept, int))


def _covers(objects: Objects, sure: int, other: int) -> bool:
    """Whether a surer object shows what another would show."""
    pair = [sure, other]
    iou, part = _box_overlap(*objects.boxes[pair])
    same = objects.labels[sure] == objects.labels[other]
    if iou <= OVERLAP and not (same and part > PART):
        return False
    if objects.masks is not None:
        iou, part = _mask_overlap(*objects.masks[pair])
    return iou > OVERLAP or bool(same and part > PART)


def _box_overlap(sure: np.ndarray, other: np.ndarray) -> Tuple[float, float]:
    """IoU of two boxes, and the share of the second in the first."""
    iou = float(box_ious(sure[None], other[None])[0, 0])
    areas = [
        float(np.prod(np.clip(b[2:] - b[:2], 0, None))) for b in (sure, other)
    ]
    both = iou * sum(areas) / (1 + iou)
    return iou, both / max(areas[1], 1e-9)


def _mask_overlap(sure: np.ndarray, other: np.ndarray) -> Tuple[float, float]:
    """The same of masks ``(H, W)``; an empty one is covered."""
    both = np.count_nonzero(sure & other)
    either = np.count_nonzero(sure | other)
    area = np.count_nonzero(other)
    return both / max(either, 1), both / area if area else 1.0


def box_ious(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of boxes ``(N, 4)`` with boxes ``(M, 4)``, as ``(N, M)``."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(np.clip(x[:, 2:] - x[:, :2], 0, None), 1) for x in (a, b)]
    either = areas[0][:, None] + areas[1][None] - both
    return both / np.maximum(either, 1e-9)


def draw_objects(
    image: np.ndarray,
    objects: Objects,
    classes: Sequence[str],
    palette: Sequence[Colour],
) -> np.ndarray:
    """Draw objects, the largest first.

    Args:
        image: RGB, ``(H, W, 3)`` uint8; it is not changed.
        objects: to draw, surest first.
        classes: names by label.
        palette: RGB by label.

    Returns:
        RGB, ``(H, W, 3)`` uint8.
    """
    image = image.copy()
    sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
    thick = max(1, round(max(image.shape[:2]) / 640))
    for i in np.argsort(-np.prod(sides, axis=1), kind='stable'):
        colour = [int(c) for c in palette[objects.labels[i]]]
        _draw_one(image, objects, i, colour, thick)
    if len(objects.boxes) <= MANY:
        return _write_names(image, objects, classes, palette)
    return image


def _draw_one(
    image: np.ndarray, objects: Objects, i: int, colour: Colour, thick: int
) -> None:
    """Fill a mask and draw its outline, or draw a box."""
    if objects.masks is None:
        x1, y1, x2, y2 = np.rint(_inside(objects.boxes[i], image)).astype(int)
        cv2.rectangle(
            image, (int(x1), int(y1)), (int(x2), int(y2)), colour, thick
        )
        return
    mask = objects.masks[i]
    mixed = (1 - OPACITY) * image[mask] + OPACITY * np.array(colour)
    image[mask] = mixed.astype(np.uint8)
    outlines, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(image, outlines, -1, colour, thick)


def _inside(box: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Clip a box to the image, so that all its sides are seen."""
    height, width = image.shape[:2]
    return np.clip(box, 0, [width - 1, height - 1] * 2)


def _write_names(
    image: np.ndarray,
    objects: Objects,
    classes: Sequence[str],
    palette: Sequence[Colour],
) -> np.ndarray:
    """Write name and score of each, surest first, where there is room.

    Of a single class the score alone. Places that hide no other object are
    taken first.
    """
    taken: List[Place] = []
    lines: List[Line] = []
    boxes = [tuple(_inside(box, image)) for box in objects.boxes]
    for i, label in enumerate(objects.labels):
        words = [str(classes[label])] if len(classes) > 1 else []
        if objects.scores is not None:
            words.append(f'{100 * objects.scores[i]:.0f}')
        text, others = ' '.join(words), boxes[:i] + boxes[i + 1 :]
        places = _places(text, boxes[i], image) if text else []
        free = [place for place in places if not _meets(place, taken)]
        free.sort(key=lambda place: _meets(place, others))
        if free:
            taken.append(free[0])
            lines.append(_chip(image, text, free[0], palette[label]))
    return write(image, lines)


def _places(text: str, box: Sequence[float], image: np.ndarray) -> List[Place]:
    """List where a name may be: above the box, in it, below it."""
    width, height = width_of(text, FONT) + 4, FONT + 4
    x = int(np.clip(box[0], 0, max(0, image.shape[1] - width)))
    tops = (box[1] - height, box[1], box[3] - height, box[3])
    return [
        (x, int(top), x + width, int(top) + height)
        for top in tops
        if 0 <= top <= image.shape[0] - height
    ]


def _meets(place: Place, taken: Sequence[Tuple]) -> bool:
    return any(
        place[0] < other[2]
        and other[0] < place[2]
        and place[1] < other[3]
        and other[1] < place[3]
        for other in taken
    )


def _chip(image: np.ndarray, text: str, place: Place, colour: Colour) -> Line:
    """Fill a place with the colour of the class; return the text for it."""
    x1, y1, x2, y2 = place
    image[y1:y2, x1:x2] = colour
    light = np.dot(colour, (0.299, 0.587, 0.114)) > 140
    ink = (0, 0, 0) if light else (255, 255, 255)
    return Line(text, x1 + 2, (y1 + y2) // 2, FONT, x2 - x1, ink)
