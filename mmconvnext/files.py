"""Find and read images, write files whole: the one place for each."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Iterator, List

import cv2
import numpy as np

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


def find_images(path: str) -> List[Path]:
    """List the image files at or below ``path``, sorted; links are followed.

    Raises:
        FileNotFoundError: when there is none.
    """
    if Path(path).is_file():
        return [Path(path)]
    found = sorted(
        Path(folder, name)
        for folder, _, names in os.walk(path, followlinks=True)
        for name in names
        if name.lower().endswith(EXTENSIONS)
    )
    if not found:
        raise FileNotFoundError(
            f'no image at {path} (looked for {", ".join(EXTENSIONS)})'
        )
    return found


def read_image(path: Path) -> np.ndarray:
    """Read a file as RGB, ``(H, W, 3)``.

    Raises:
        ValueError: when it is no readable image.
    """
    image = cv2.imread(str(path))
    if image is None:
        raise ValueError('not a readable image')
    return np.ascontiguousarray(image[..., ::-1])


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize ``(H, W, 3)`` uint8, bicubic and antialiased."""
    from PIL import Image

    resized = Image.fromarray(image).resize((width, height), Image.BICUBIC)
    return np.array(resized)


def write_image(image: np.ndarray, path: Path) -> None:
    """Write an RGB picture whole or not at all.

    Raises:
        OSError: when it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}')
    if not cv2.imwrite(str(partial), image[..., ::-1]):
        raise OSError(f'cannot write {path}')
    os.replace(partial, path)


def write_text(text: str, path: Path) -> None:
    """Write a text file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}')
    partial.write_text(text)
    os.replace(partial, path)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary name; it becomes ``path`` when the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(name)
        os.replace(name, path)
    finally:
        if os.path.exists(name):
            os.remove(name)
