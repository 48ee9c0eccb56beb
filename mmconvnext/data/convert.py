"""Write labels as the hosts read them: label maps with lists, or COCO JSON."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Dict, List, Sequence

import cv2
import numpy as np

from ..files import write_text
from .formats.maps import values_of
from .formats.meaning import IGNORED
from .images import progress
from .labels import Folder, Item, Labels, Picture
from .splits import Split

BACKGROUND = 'background'


def common_suffix(pictures: Sequence[Picture]) -> str:
    """Return the ending of all images; empty where they differ."""
    found = {PurePosixPath(picture.path).suffix for picture in pictures}
    return found.pop() if len(found) == 1 else ''


def write_maps(
    folder: Folder, labels: Labels, split: Split, out: Path, ignore: bool
) -> None:
    """Write ``maps/**.png`` with indices of classes, and a list a split.

    Args:
        folder: of the images.
        labels: maps, or objects that are painted, smaller over larger ones.
        split: which images to write.
        out: folder to write into.
        ignore: whether pixels without an object are ignored, not background.
    """
    suffix = common_suffix(split.train + split.val)
    for name, pictures in (('train', split.train), ('val', split.val)):
        stems = [p.path[: len(p.path) - len(suffix)] for p in pictures]
        write_text('\n'.join(stems) + '\n', out / f'{name}.txt')
        for picture, stem in zip(
            progress(pictures, f'writing label maps ({name})'), stems
        ):
            path = out / 'maps' / f'{stem}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            image = map_of(folder, labels, picture, ignore)
            path.write_bytes(cv2.imencode('.png', image)[1].tobytes())


def map_of(
    folder: Folder, labels: Labels, picture: Picture, ignore: bool = False
) -> np.ndarray:
    """Return the label map of an image, ``(H, W)`` uint8, 255 ignored."""
    if not labels.maps:
        return painted(labels, picture, ignore)
    values, coloured = values_of(folder, picture.map)
    if labels.maps.coloured and not coloured:
        # A colour map that happens to be grey.
        values = values * 0x010101
    result = np.full(values.shape, IGNORED, np.uint8)
    for value, index in labels.maps.classes.items():
        result[values == value] = index
    return result


def painted(labels: Labels, picture: Picture, ignore: bool) -> np.ndarray:
    """Paint objects: 0 where none is, 1 + the index of the class elsewhere."""
    width, height = picture.size
    result = np.full((height, width), IGNORED if ignore else 0, np.uint8)
    items = sorted(
        picture.items or (), key=lambda item: -item.box[2] * item.box[3]
    )
    for item in items:
        value = labels.classes.index(item.name) + (not ignore)
        inside = mask_of(item, width, height)
        result[inside] = IGNORED if item.crowd else value
    return result


def mask_of(item: Item, width: int, height: int) -> np.ndarray:
    """Return an object's mask, ``(H, W)`` bool; its box where it has none."""
    if isinstance(item.mask, dict):
        from pycocotools import mask

        runs = item.mask
        if isinstance(runs.get('counts'), list):
            runs = mask.frPyObjects(runs, height, width)
        return mask.decode(runs).astype(bool)
    x, y, w, h = item.box
    box = [x, y, x + w, y, x + w, y + h, x, y + h]
    polygons = [
        np.rint(np.reshape(polygon, (-1, 2))).astype(np.int32)
        for polygon in item.mask or [box]
    ]
    result = np.zeros((height, width), np.uint8)
    cv2.fillPoly(result, polygons, 1)
    return result.astype(bool)


def write_objects(
    labels: Labels, split: Split, out: Path, masks: bool
) -> None:
    """Write ``train.json`` and ``val.json`` as COCO has them."""
    for name, pictures in (('train', split.train), ('val', split.val)):
        content = coco_of(labels.classes, pictures, masks)
        text = json.dumps(content, ensure_ascii=False, separators=(',', ':'))
        write_text(text, out / f'{name}.json')


def coco_of(
    classes: Sequence[str], pictures: Sequence[Picture], masks: bool
) -> Dict[str, List]:
    """Turn objects into COCO's lists; categories are in order of classes."""
    number = {name: i for i, name in enumerate(classes, 1)}
    images, rows = [], []
    for i, picture in enumerate(pictures, 1):
        width, height = picture.size
        images.append(
            dict(id=i, file_name=picture.path, width=width, height=height)
        )
        for item in picture.items or ():
            row = dict(
                id=len(rows) + 1,
                image_id=i,
                category_id=number[item.name],
                bbox=[round(float(side), 2) for side in item.box],
                area=round(float(item.box[2] * item.box[3]), 2),
                iscrowd=int(item.crowd),
            )
            if masks:
                row['area'] = int(mask_of(item, width, height).sum())
                row['segmentation'] = item.mask
            rows.append(row)
    categories = [dict(id=i, name=name) for name, i in number.items()]
    return dict(images=images, annotations=rows, categories=categories)
