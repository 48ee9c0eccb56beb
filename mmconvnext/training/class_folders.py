"""Images with one class each: class folders, or a file that lists them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.structures import BaseDataElement

from ..files import find_images
from ..registry import DATASETS, TRANSFORMS


class Row(NamedTuple):
    """An image and the name of its class."""

    path: str
    label: str


def read_list(path: str) -> List[Row]:
    """Read a list of images: each line a path, white space, and a class.

    Raises:
        FileNotFoundError: when it is missing.
        ValueError: for a line without a class, naming file and line.
    """
    rows = []
    lines = Path(path).read_text(encoding='utf-8').splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        image, *label = line.strip().rsplit(maxsplit=1)
        if not label:
            raise ValueError(
                f'{path}, line {number}: {line.strip()!r} has no class; each '
                f'line is PATH CLASS'
            )
        rows.append(Row(image, label[0]))
    return rows


def read_folders(folder: str) -> List[Row]:
    """List the images of class folders, ``CLASS/.../image.jpg``.

    Raises:
        FileNotFoundError: for a folder without class folders, or a class
            without images.
    """
    names = class_names(folder)
    if not names:
        raise FileNotFoundError(
            f'{folder}: no class folders; the layout is CLASS/image.jpg'
        )
    return [
        Row(os.path.relpath(path, folder), name)
        for name in names
        for path in find_images(os.path.join(folder, name))
    ]


def class_names(folder: str) -> List[str]:
    """Return the names of the class folders, sorted; hidden ones are none."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.is_dir() and not entry.name.startswith('.')
        )


def in_order(labels: set) -> List[str]:
    """Sort classes: numbers by value, names by letters.

    Numbers are classes themselves, so that 0 to the largest are all there.
    """
    if all(label.isdecimal() for label in labels):
        return [str(i) for i in range(max(map(int, labels)) + 1)]
    return sorted(labels)


@DATASETS.register_module()
class ClassFolderDataset(BaseDataset):
    """Images with one class each, in class folders or in a list.

    Class folders are ImageNet's layout, ``CLASS/.../image.jpg``; classes are
    numbered in the order of their sorted names. A list has a line ``PATH
    CLASS`` for each image, with the name or the number of its class.

    Args:
        ann_file: list of images, below ``data_root``; '' means class folders.
        data_root, data_prefix: the folder of the images is
            ``data_prefix['img_path']`` below ``data_root``.
        metainfo: ``classes`` gives names and order; without it they are
            those of the folders, or of the list.
        kwargs: of mmengine's BaseDataset.

    Raises:
        FileNotFoundError: for a folder without class folders or images.
        ValueError: for a class that ``metainfo`` does not have.
    """

    def __init__(
        self,
        ann_file: str = '',
        data_root: str = '',
        data_prefix: Optional[dict] = None,
        metainfo: Optional[dict] = None,
        lazy_init: bool = False,
        **kwargs: Any,
    ) -> None:
        # The data is built when its classes are known, which are in it.
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix or dict(img_path=''),
            metainfo=metainfo,
            lazy_init=True,
            **kwargs,
        )
        if not self._metainfo.get('classes'):
            self._metainfo['classes'] = tuple(self._find_classes())
        if not lazy_init:
            self.full_init()

    @property
    def folder(self) -> str:
        """Of the images."""
        return self.data_prefix['img_path'] or self.data_root

    def _find_classes(self) -> List[str]:
        if not self.ann_file:
            return class_names(self.folder)
        return in_order({row.label for row in read_list(self.ann_file)})

    def load_data_list(self) -> List[dict]:
        """List images and class numbers; no image is opened."""
        rows = self.rows()
        classes = self._metainfo['classes']
        numbers = {name: i for i, name in enumerate(classes)}
        # In a list, a class may be called by its number.
        for i in range(len(classes) if self.ann_file else 0):
            numbers.setdefault(str(i), i)
        unknown = [row for row in rows if row.label not in numbers]
        if unknown:
            raise ValueError(
                f'{self.ann_file or self.folder}: {unknown[0].path} is of '
                f'class {unknown[0].label!r}; classes are {list(classes)}'
            )
        return [
            dict(
                img_path=os.path.join(self.folder, row.path),
                gt_label=numbers[row.label],
            )
            for row in rows
        ]

    def rows(self) -> List[Row]:
        """List the images with the names of their classes."""
        if self.ann_file:
            return read_list(self.ann_file)
        return read_folders(self.folder)


@TRANSFORMS.register_module()
class PackClass:
    """Turn ``img`` and ``gt_label`` into what a classifier takes.

    Gives ``inputs``, (C, H, W) uint8, and ``data_samples`` with
    ``gt_label`` where there is one.
    """

    KEYS: Tuple[str, ...] = ('img_path', 'ori_shape', 'img_shape')

    def __call__(self, results: Dict[str, Any]) -> Dict[str, Any]:
        """Return a dict of both."""
        image = np.ascontiguousarray(results['img'].transpose(2, 0, 1))
        known = {key: results[key] for key in self.KEYS if key in results}
        sample = BaseDataElement(metainfo=known)
        if 'gt_label' in results:
            sample.set_field(torch.tensor(results['gt_label']), 'gt_label')
        return dict(inputs=torch.from_numpy(image), data_samples=sample)
