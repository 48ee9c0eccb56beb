"""Read a label map as it is in its file, and judge its shape and range."""

from __future__ import annotations

from typing import Optional, Tuple

import numpy as np

from .findings import Finding, some


def read_raw(path: str) -> np.ndarray:
    """Read a map as it is in its file: indices of a palette, not colours.

    Returns:
        ``(H, W)``, or ``(H, W, channels)`` of a colour image.

    Raises:
        ValueError: when the file is damaged.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f'damaged: {error}') from None


def judge_map(
    path: str, raw: np.ndarray, size: Tuple[int, int]
) -> Optional[Finding]:
    """Say what is wrong with the shape or the range of one map."""
    if raw.ndim != 2:
        colours = np.unique(raw.reshape(-1, raw.shape[-1])[:100_000], axis=0)
        return Finding(
            'error',
            path,
            f'a colour image with {len(colours)} colours, '
            f'{some([tuple(map(int, colour)) for colour in colours])}',
            'one number a pixel, the index of its class',
            'python tools/new_project.py FOLDER turns colours into indices',
        )
    if raw.shape != size[::-1]:
        return Finding(
            'error',
            path,
            f'{raw.shape[1]} x {raw.shape[0]}',
            f'{size[0]} x {size[1]}, the size of its image',
            'make the map again, or scale it without interpolation',
        )
    if raw.dtype.kind == 'f' and not (raw == np.floor(raw)).all():
        return Finding(
            'error',
            path,
            f'values between whole numbers, {some(np.unique(raw).tolist())}',
            'the index of a class: hosts cut off what is after the point',
            'write the index of each class as 8 bits',
        )
    if raw.dtype.kind != 'b' and (raw.max() > 255 or raw.min() < 0):
        return Finding(
            'error',
            path,
            f'values from {raw.min()} to {raw.max()}',
            '0 to 255: hosts keep the lowest 8 bits of a value',
            'write the index of each class as 8 bits',
        )
    return None
