"""Pictures of labels for the report: colours over the image, no words."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Sequence, Tuple

import cv2
import numpy as np

from ..files import read_image
from .convert import map_of, mask_of
from .images import spread
from .labels import Folder, Labels, Picture
from .splits import contents

LONGEST = 480  # side of a sample picture
OPACITY = 0.45
SAMPLES = 12


class Sample(NamedTuple):
    """A picture for the page: WebP, its size, and the classes in it."""

    name: str
    data: bytes
    size: Tuple[int, int]
    classes: List[str]


def samples(
    folder: Folder,
    labels: Labels,
    palette: Sequence[Tuple[int, int, int]],
    limit: int = SAMPLES,
) -> List[Sample]:
    """Draw some labelled images, spread over the folder."""
    labelled = [p for p in labels.pictures if p.items or p.map]
    colours = dict(zip(labels.classes, palette))
    return [
        _sample(folder, labels, picture, colours)
        for picture in spread(labelled, limit)
    ]


def _sample(
    folder: Folder, labels: Labels, picture: Picture, colours: Dict
) -> Sample:
    image = drawn(folder, labels, picture, colours)
    scale = min(1.0, LONGEST / max(image.shape[:2]))
    size = tuple(max(1, round(s * scale)) for s in image.shape[1::-1])
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    data = cv2.imencode('.webp', small[..., ::-1])[1].tobytes()
    names = contents(picture, labels)
    inside = [name for name in labels.classes if name in names]
    return Sample(picture.path, data, size, inside)


def drawn(
    folder: Folder, labels: Labels, picture: Picture, colours: Dict
) -> np.ndarray:
    """Paint an image with its label, RGB."""
    image = read_image(folder.root / picture.path).copy()
    if picture.map:
        return _painted(image, map_of(folder, labels, picture), colours)
    width, height = picture.size
    for item in picture.items or ():
        colour = colours[item.name]
        if item.mask is not None:
            inside = mask_of(item, width, height)
            image[inside] = _mixed(image[inside], colour)
        x, y, w, h = item.box
        corners = [(round(x), round(y)), (round(x + w) - 1, round(y + h) - 1)]
        thick = max(1, round(max(width, height) / LONGEST))
        cv2.rectangle(image, *corners, colour, thick)
    return image


def _painted(
    image: np.ndarray, label: np.ndarray, colours: Dict
) -> np.ndarray:
    for index, colour in enumerate(colours.values()):
        inside = label == index
        image[inside] = _mixed(image[inside], colour)
    return image


def _mixed(pixels: np.ndarray, colour: Sequence[int]) -> np.ndarray:
    mixed = (1 - OPACITY) * pixels + OPACITY * np.array(colour)
    return mixed.astype(np.uint8)
