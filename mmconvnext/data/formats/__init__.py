"""Readers of label formats, one file each; ``FORMATS`` lists them."""

from __future__ import annotations

from types import ModuleType
from typing import Tuple

from ..labels import Folder, Labels, Picture, Wishes, split_of
from . import coco, labelme, maps, voc, yolo

# In this order, where several fit. A reader has NAME, find(folder), which
# gives what it found or nothing, and read(folder, found).
FORMATS: Tuple[ModuleType, ...] = (coco, labelme, voc, yolo, maps)


def recognise(folder: Folder, task: str = '') -> Tuple[ModuleType, list]:
    """Find the format of a folder's labels.

    Args:
        folder: of images and labels.
        task: ``'seg'`` prefers label maps where there are both.

    Returns:
        The reader, and what it found.

    Raises:
        ValueError: when there are no images, or no labels that are known.
    """
    if not folder.images:
        raise ValueError(
            f'{folder.root}: no image in it ({len(folder.files)} files); '
            'give the folder that has images and labels below it'
        )
    order = sorted(FORMATS, key=lambda row: task == 'seg' and row is not maps)
    for reader in order:
        found = reader.find(folder)
        if found:
            return reader, found
    raise ValueError(
        f'{folder.root}: {len(folder.images)} images and no labels that are '
        f'known here: {", ".join(row.NAME for row in FORMATS)}'
    )


def read(folder: Folder, task: str, wishes: Wishes) -> Labels:
    """Recognise the format and read all labels.

    Raises:
        ValueError: as :func:`recognise` and the readers say.
    """
    reader, found = recognise(folder, task)
    if reader is maps:
        return maps.read(folder, found, wishes)
    labels = reader.read(folder, found)
    known = {picture.path for picture in labels.pictures}
    others = [
        p for p in folder.images if p not in known | folder.damaged.keys()
    ]
    bare = [path for path in others if not maps.looks_like_map(path)]
    pictures = [
        *labels.pictures,
        *(
            Picture(path, size, split=split_of(path))
            for path, size in folder.sizes(bare).items()
        ),
    ]
    return labels._replace(
        pictures=sorted(pictures, key=lambda each: each.path)
    )
