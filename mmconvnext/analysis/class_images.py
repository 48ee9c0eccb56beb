"""Labelled images for k nearest neighbours: settings, listing, batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from mmengine.dataset import BaseDataset
from torch import Tensor
from torch.utils.data import Dataset

from ..archs import STRIDES
from ..files import DamagedImageError
from ..registry import DATASETS

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class Settings(NamedTuple):
    """What is measured, and how.

    Attributes:
        data_root: folder of the images.
        train, val: below it: class folders, or a list whose lines are
            ``PATH CLASS``. The images of ``train`` vote on those of ``val``.
        k: numbers of neighbours.
        temperature: T; the smaller, the more the nearest ones count.
        size: side of the square that the backbone sees, in pixels.
        crop_ratio: as of ``ResizedCenterCrop``; None squeezes the image.
        number: of images of each part, evenly spread; None takes all.
        batch_size, num_workers: of the data loader.
        mean, std: of the images, for each channel of RGB in [0, 255].
    """

    data_root: str
    train: str = 'train'
    val: str = 'val'
    k: Tuple[int, ...] = (10, 20, 100, 200)
    temperature: float = 0.07
    size: int = 224
    crop_ratio: Optional[float] = 0.875
    number: Optional[int] = None
    batch_size: int = 64
    num_workers: int = 2
    mean: Tuple[float, ...] = MEAN
    std: Tuple[float, ...] = STD


class Batch(NamedTuple):
    """Images that could be read, ``(n, 3, H, W)``, and those that not."""

    images: Optional[Tensor]
    labels: List[int]
    broken: Dict[str, str]


def collate(rows: Sequence[Tuple[str, Any, int]]) -> Batch:
    """Stack rows of :class:`Images`, in the worker: few, large tensors."""
    good = [row for row in rows if isinstance(row[1], Tensor)]
    broken = {row[0]: row[1] for row in rows if isinstance(row[1], str)}
    images = torch.stack([row[1] for row in good]) if good else None
    return Batch(images, [row[2] for row in good], broken)


class Images(Dataset):
    """A labelled part: ``(path, image or reason, label)`` for each image."""

    def __init__(self, dataset: BaseDataset, number: Optional[int]) -> None:
        self.dataset, total = dataset, len(dataset)
        count = total if number is None else min(number, total)
        places = torch.linspace(0, total - 1, count, dtype=torch.float64)
        self.places = places.round().long().tolist()

    @property
    def classes(self) -> Tuple[str, ...]:
        return self.dataset.metainfo['classes']

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Tuple[str, Any, int]:
        place = self.places[index]
        info = self.dataset.get_data_info(place)
        try:
            image = self.dataset[place]['inputs']
        except DamagedImageError as error:
            return info['img_path'], str(error), info['gt_label']
        return info['img_path'], image, info['gt_label']


def open_data(settings: Settings) -> Tuple[Images, Images]:
    """List training and validation images; check all that can be checked.

    Raises:
        FileNotFoundError: for a part that is missing or has no images.
        ValueError: for classes that training lacks, fewer than two, or a
            setting out of range.
    """
    check(settings)
    train = _part(settings, settings.train)
    classes = train.metainfo['classes']
    if len(classes) < 2:
        raise ValueError(
            f'{_where(settings, settings.train)}: two classes are needed, '
            f'there is {list(classes)}'
        )
    _check_classes(settings, classes)
    val = _part(settings, settings.val, metainfo=dict(classes=classes))
    parts = [Images(part, settings.number) for part in (train, val)]
    largest = max(settings.k)
    if largest > len(parts[0]):
        raise ValueError(
            f'k must be at most the number of training images, '
            f'{len(parts[0])}, got {largest}'
        )
    return parts[0], parts[1]


def check(settings: Settings) -> None:
    """Refuse settings out of range.

    Raises:
        ValueError: names the setting, its value and what is allowed.
    """
    lowest = dict(size=STRIDES[-1], batch_size=1, num_workers=0)
    if settings.number is not None:
        lowest['number'] = 1
    for name, low in lowest.items():
        if getattr(settings, name) < low:
            raise ValueError(
                f'{name} must be at least {low}, got {getattr(settings, name)}'
            )
    if not settings.k or min(settings.k) < 1:
        raise ValueError(f'k must be 1 or more, got {list(settings.k)}')
    if not settings.temperature > 0:
        raise ValueError(
            f'temperature must be above 0, got {settings.temperature}'
        )


def _where(settings: Settings, name: str) -> Path:
    return Path(settings.data_root, name)


def _part(settings: Settings, name: str, **options: Any) -> BaseDataset:
    """Build the data set of a part, which is a list or a folder."""
    path = _where(settings, name)
    if not path.exists():
        raise FileNotFoundError(
            f'{path} not found: it must be a folder of class folders '
            f'({name}/CLASS/image.jpg), or a list whose lines are PATH CLASS'
        )
    listed = path.is_file()
    crop = dict(scale=settings.size, crop_ratio=settings.crop_ratio)
    return DATASETS.build(
        dict(
            type='mmconvnext.ClassFolderDataset',
            data_root=str(settings.data_root),
            ann_file=name if listed else '',
            data_prefix=dict(img_path='' if listed else name),
            pipeline=[
                dict(type='mmconvnext.LoadImage'),
                dict(type='mmconvnext.ResizedCenterCrop', **crop),
                dict(type='mmconvnext.PackClass'),
            ],
            test_mode=True,
            **options,
        )
    )


def _check_classes(settings: Settings, classes: Sequence[str]) -> None:
    found = _part(settings, settings.val, lazy_init=True)
    known = set(classes)
    if found.ann_file:  # a list may call a class by its number
        known.update(str(i) for i in range(len(classes)))
    lacking = sorted(set(found.metainfo['classes']) - known)
    if lacking:
        raise ValueError(
            f'{_where(settings, settings.val)} has classes that '
            f'{_where(settings, settings.train)} lacks: {", ".join(lacking)}'
        )
