"""labelme: a JSON file with shapes for each image."""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any, Callable, Dict, List, Optional, Tuple

import cv2
import numpy as np

from ..findings import Finding
from ..labels import (
    Folder,
    Item,
    Labels,
    Picture,
    corner_box,
    passed_over,
    split_of,
)

NAME = 'labelme'
CORNERS = 32  # of the polygon that replaces a circle


def find(folder: Folder) -> List[str]:
    """List the JSON files that hold shapes of one image."""
    return [p for p in folder.ending('.json') if _content(folder, p)]


def _content(folder: Folder, path: str) -> Optional[Dict]:
    try:
        content = json.loads(folder.read(path))
    except ValueError:
        return None
    fits = isinstance(content, dict) and isinstance(
        content.get('shapes'), list
    )
    return content if fits and 'imagePath' in content else None


def read(folder: Folder, files: List[str]) -> Labels:
    """Read all files; classes are the labels of the shapes, by name."""
    odd: List[Finding] = []
    found: Dict[str, Tuple[str, List[Item]]] = {}
    for file in files:
        content = _content(folder, file) or {}
        name = str(content['imagePath'])
        path = folder.find_image(name, file) or folder.find_image(file, file)
        if path is None:
            odd.append(
                passed_over(
                    file,
                    f'image {name!r}, which is not there',
                    'an image of that name in the folder',
                    'add the image; imageData inside the file is not read',
                )
            )
            continue
        found[path] = file, _items(file, content['shapes'], odd)
    sizes = folder.sizes(list(found))
    pictures = [
        Picture(
            path,
            sizes[path],
            items,
            split=split_of(file) or split_of(path),
        )
        for path, (file, items) in sorted(found.items())
        if path in sizes
    ]
    names = sorted({i.name for p in pictures for i in p.items})
    return Labels(NAME, pictures, names, oddities=tuple(odd))


def _items(file: str, shapes: List[Dict], odd: List[Finding]) -> List[Item]:
    items = []
    for shape in shapes:
        kind = shape.get('shape_type') or 'polygon'
        try:
            polygons = SHAPES[kind](shape)
            joined = [value for polygon in polygons for value in polygon]
            name = str(shape['label'])
            items.append(Item(name, corner_box(joined), polygons))
        except (KeyError, TypeError, ValueError, IndexError):
            odd.append(
                passed_over(
                    file,
                    f'a {kind} {shape.get("label")!r}',
                    f'whole shapes of {", ".join(SHAPES)}',
                )
            )
    return items


def _polygon(shape: Dict) -> List[List[float]]:
    points = [float(value) for point in shape['points'] for value in point]
    if len(points) < 6:
        raise ValueError('fewer than three points')
    return [points]


def _rectangle(shape: Dict) -> List[List[float]]:
    (x1, y1), (x2, y2) = shape['points']
    return [[float(v) for v in (x1, y1, x2, y1, x2, y2, x1, y2)]]


def _circle(shape: Dict) -> List[List[float]]:
    (x, y), (on_x, on_y) = shape['points']
    radius = math.hypot(on_x - x, on_y - y)
    angles = [2 * math.pi * i / CORNERS for i in range(CORNERS)]
    return [
        [
            value
            for angle in angles
            for value in (
                x + radius * math.cos(angle),
                y + radius * math.sin(angle),
            )
        ]
    ]


def _mask(shape: Dict) -> List[List[float]]:
    """Trace a mask, a PNG inside the file whose corner the points give."""
    try:
        data = base64.b64decode(shape['mask'])
    except binascii.Error:
        raise ValueError('no base64') from None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    (x, y), _ = shape['points']
    contours: Any = cv2.findContours(
        (image > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )[-2]
    polygons = [(c.reshape(-1, 2) + [x, y]).ravel() for c in contours]
    whole = [p.astype(float).tolist() for p in polygons if len(p) >= 6]
    if not whole:
        raise ValueError('an empty mask')
    return whole


SHAPES: Dict[str, Callable[[Dict], List[List[float]]]] = {
    'polygon': _polygon,
    'rectangle': _rectangle,
    'circle': _circle,
    'mask': _mask,
}
