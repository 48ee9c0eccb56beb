"""Resizing, windows and pasting around a file, in numpy.

Each function equals what the hosts do in PyTorch or OpenCV, which the tests
compare: a program that runs a file has neither.
"""

from __future__ import annotations

from typing import Any, Iterator, Mapping, Optional, Tuple

import numpy as np

from .. import files

Array = np.ndarray
# Entries of a map of logits that are resized at once: 64 MB.
BUDGET = 1 << 24


def input_size(
    height: int, width: int, rule: Optional[Mapping[str, Any]]
) -> Tuple[int, int]:
    """Height and width to which an image is resized before it goes in.

    As ``mmcv.imrescale`` and ``mmcv.imresize``: with ``keep_ratio`` the image
    fills the scale, long side to long side, as far as both sides fit.

    Args:
        height, width: of the image.
        rule: ``resize`` of a file's description.
    """
    if not rule:
        return height, width
    scale = rule.get('scale')
    if scale is None:
        x, y = rule['scale_factor']
        # The hosts round here, and again below where the ratio is kept.
        scale = int(width * x + 0.5), int(height * y + 0.5)
    if not rule.get('keep_ratio', False):
        return int(scale[1]), int(scale[0])
    factor = min(
        max(scale) / max(height, width), min(scale) / min(height, width)
    )
    return int(height * factor + 0.5), int(width * factor + 0.5)


def resize_image(image: Array, height: int, width: int) -> Array:
    """Resize ``(H, W, 3)`` uint8 bilinearly, as OpenCV does."""
    if image.shape[:2] == (height, width):
        return image
    import cv2

    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def fit_image(image: Array, rule: Optional[Mapping[str, Any]]) -> Array:
    """Bring ``(H, W, 3)`` uint8 to what a file takes.

    Args:
        image: as it was read.
        rule: ``resize`` of the file's description. With a ``size`` it is a
            classifier's, which is resized by Pillow, and cropped.
    """
    if rule and 'size' in rule:
        return files.resize_middle(image, *rule['size'], rule['crop_ratio'])
    return resize_image(image, *input_size(*image.shape[:2], rule))


def windows(
    height: int, width: int, window: Tuple[int, int], stride: Tuple[int, int]
) -> Iterator[Tuple[slice, slice]]:
    """Yield rows and columns of the windows that cover an image.

    The last one of each row and column is moved back inside; an image
    smaller than the window is one window of its own size.
    """
    for top in _starts(height, window[0], stride[0]):
        for left in _starts(width, window[1], stride[1]):
            yield (
                slice(top, min(top + window[0], height)),
                slice(left, min(left + window[1], width)),
            )


def _starts(length: int, window: int, stride: int) -> Iterator[int]:
    count = max(length - window + stride - 1, 0) // stride + 1
    for i in range(count):
        yield max(min(i * stride, length - window), 0)


def _taps(
    size: int, new: int, align_corners: bool
) -> Tuple[Array, Array, Array]:
    """Lower and upper neighbour of each new pixel, weight of the upper."""
    at = np.arange(new, dtype=np.float32)
    if align_corners:
        at *= np.float32((size - 1) / (new - 1) if new > 1 else 0)
    else:
        at = (at + np.float32(0.5)) * np.float32(size / new) - np.float32(0.5)
        at = np.maximum(at, np.float32(0))
    low = np.minimum(at.astype(np.int64), size - 1)
    high = np.minimum(low + 1, size - 1)
    return low, high, (at - low).astype(np.float32)


def resize_maps(
    maps: Array, height: int, width: int, align_corners: bool = False
) -> Array:
    """Resize ``(C, H, W)`` float32 as ``F.interpolate(mode='bilinear')``."""
    if maps.shape[1:] == (height, width):
        return maps
    low, high, part = _taps(maps.shape[2], width, align_corners)
    maps = maps[:, :, low] * (1 - part) + maps[:, :, high] * part
    low, high, part = _taps(maps.shape[1], height, align_corners)
    part = part[:, None]
    return maps[:, low] * (1 - part) + maps[:, high] * part


def largest(
    maps: Array, height: int, width: int, align_corners: bool
) -> Array:
    """The largest of ``(C, H, W)`` at each pixel after :func:`resize_maps`.

    A few classes at a time: 150 maps of a large photograph are gigabytes.
    """
    best = np.full((height, width), -np.inf, np.float32)
    labels = np.zeros((height, width), np.int32)
    step = max(BUDGET // (height * width), 1)
    for start in range(0, len(maps), step):
        part = resize_maps(
            maps[start : start + step], height, width, align_corners
        )
        index = part.argmax(0)
        value = np.take_along_axis(part, index[None], 0)[0]
        better = value > best
        best = np.where(better, value, best)
        labels[better] = start + index[better]
    return labels


def paste(
    masks: Array, boxes: Array, height: int, width: int, threshold: float
) -> Array:
    """Put masks of boxes into an image, ``(D, height, width)`` bool.

    The mask is sampled bilinearly at the centre of each pixel, zero outside
    (``grid_sample`` with ``align_corners=False``).

    Args:
        masks: probabilities, ``(D, h, w)``.
        boxes: ``(D, 4)``, x1, y1, x2, y2 in pixels of the image.
        height, width: of the image.
        threshold: a pixel belongs to the object from here on.
    """
    found = np.zeros((len(masks), height, width), bool)
    for row, mask, box in zip(found, masks, boxes.astype(np.float32)):
        rows, down = _samples(box[1], box[3], mask.shape[0], height)
        columns, across = _samples(box[0], box[2], mask.shape[1], width)
        row[rows, columns] = down @ mask @ across.T >= threshold
    return found


def _samples(
    low: np.float32, high: np.float32, size: int, length: int
) -> Tuple[slice, Array]:
    """Pixels that a side of a box touches, and their weights of a mask.

    Returns:
        the pixels, and ``(pixels, size)`` weights of the mask's cells.
    """
    start = max(int(np.floor(low)) - 1, 0)
    stop = max(min(int(np.ceil(high)) + 1, length), start)
    centre = np.arange(start, stop, dtype=np.float32) + np.float32(0.5)
    with np.errstate(divide='ignore', invalid='ignore'):
        at = (centre - low) / (high - low) * 2 - 1
    # The hosts put the pixels of a box without extent at its centre.
    at = np.where(np.isinf(at), np.float32(0), at)
    at = ((at + 1) * size - 1) / 2
    cell = np.floor(at)
    cells = np.arange(size, dtype=np.float32)
    upper = at - cell
    weights = np.where(cells == cell[:, None], (1 - upper)[:, None], 0)
    weights += np.where(cells == cell[:, None] + 1, upper[:, None], 0)
    return slice(start, stop), weights.astype(np.float32)
