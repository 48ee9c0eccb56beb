"""Training samples of a config as the model sees them."""

from __future__ import annotations

import random
from typing import Any, Dict, Iterator, Tuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS

from ..configs import enter_scope
from .classes import classifies
from .pictures import Painter, plain_truth


def drawn_samples(
    cfg: Config, number: int, seed: int
) -> Iterator[Tuple[int, np.ndarray, str]]:
    """Draw random training samples: image with labels, beside itself.

    Args:
        cfg: config of either host.
        number: of samples.
        seed: of order and augmentation.

    Yields:
        Index in the data set, picture (RGB), and a line about the content.
    """
    enter_scope(cfg)
    painter = Painter(cfg, 'train_dataloader')
    for index, image, data in samples(cfg, number, seed):
        sample = plain_truth(data['data_samples'])
        line = describe(data)
        yield index, painter.draw(image, sample, draw_pred=False), line


def _seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def samples(
    cfg: Config, number: int, seed: int
) -> Iterator[Tuple[int, np.ndarray, Dict]]:
    """Yield index, image (RGB) and annotated sample of random images."""
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    _seed_all(seed)
    order = np.random.permutation(len(dataset))
    for place in range(number):
        index = int(order[place % len(order)])
        data = dataset[index]
        image = data['inputs'].permute(1, 2, 0).numpy()
        # Data sets of hosts give BGR; the model's preprocessor turns it
        # around. Those of classifiers give RGB.
        image = image if classifies(cfg) else image[..., ::-1]
        yield index, np.ascontiguousarray(image), data


def describe(data: Dict[str, Any]) -> str:
    """Say size and content of a sample in a line."""
    sample = data['data_samples']
    size = '{1}x{0}'.format(*data['inputs'].shape[-2:])
    if 'gt_instances' in sample:
        content = f'{len(sample.gt_instances)} objects'
    elif 'gt_label' in sample:
        content = f'class {int(sample.gt_label)}'
    else:
        labels = torch.unique(sample.gt_sem_seg.data).tolist()
        content = f'labels {labels}'
    return f'{size}, {content}'
