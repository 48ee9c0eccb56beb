"""Draw the training samples of a config as the model sees them.

python tools/browse_dataset.py CONFIG --out DIR [--number N]

Each picture shows one augmented sample: image with boxes, masks and labels, or
image beside its label map. Samples are drawn in the order of the seed.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Iterator, Tuple

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, VISUALIZERS, init_default_scope

from mmconvnext import launch

GAP = 8  # white pixels between a picture and the same with its labels


def parse_args() -> argparse.Namespace:
    parser = launch.common_arguments('Draw augmented training samples.')
    parser.add_argument('--out', required=True, help='folder for pictures')
    parser.add_argument(
        '--number', type=int, default=16, help='of pictures (default: 16)'
    )
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args()


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def samples(cfg: Config, number: int, seed: int) -> Iterator[Tuple]:
    """Yield index, image (RGB) and annotated sample of random images."""
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    seed_all(seed)
    order = np.random.permutation(len(dataset))
    for place in range(number):
        index = int(order[place % len(order)])
        data = dataset[index]
        image = data['inputs'].permute(1, 2, 0).numpy()
        # Data sets give BGR; the model's preprocessor turns it around.
        yield index, np.ascontiguousarray(image[..., ::-1]), data


class Painter:
    """Draws a sample beside itself with its annotations."""

    def __init__(self, cfg: Config) -> None:
        self.visualizer = VISUALIZERS.build(
            {**cfg.visualizer, 'vis_backends': None, 'name': 'browse'}
        )
        dataset = {**cfg.train_dataloader.dataset, 'lazy_init': True}
        self.visualizer.dataset_meta = DATASETS.build(dataset).metainfo

    def draw(self, image: np.ndarray, data: dict) -> np.ndarray:
        """Return plain and annotated image side by side, RGB."""
        sample = data['data_samples']
        if 'gt_instances' in sample:
            truth = sample.gt_instances
            # Hosts' visualizers take plain tensors and arrays.
            truth.bboxes = getattr(truth.bboxes, 'tensor', truth.bboxes)
            truth.masks = truth.masks.to_ndarray().astype(bool)
        self.visualizer.add_datasample(
            'sample', image, sample, draw_pred=False
        )
        gap = np.full((image.shape[0], GAP, 3), 255, np.uint8)
        return np.hstack([image, gap, self.visualizer.get_image()])


def describe(data: dict) -> str:
    """Say size, scale and content of a sample in a line."""
    sample = data['data_samples']
    size = '{1}x{0}'.format(*data['inputs'].shape[-2:])
    if 'gt_instances' in sample:
        content = f'{len(sample.gt_instances)} objects'
    else:
        labels = torch.unique(sample.gt_sem_seg.data).tolist()
        content = f'labels {labels}'
    return f'{size}, {content}'


def main() -> None:
    args = parse_args()
    with launch.clear_errors():
        cfg = launch.load_config(args)
        launch.check_data(cfg, ['train_dataloader'])
    init_default_scope(cfg.default_scope)
    painter = Painter(cfg)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    for place, (index, image, data) in enumerate(
        samples(cfg, args.number, args.seed)
    ):
        path = out / f'{place:03d}_{index}.png'
        line = describe(data)
        cv2.imwrite(str(path), painter.draw(image, data)[..., ::-1])
        print(f'{path}: {line}')


if __name__ == '__main__':
    main()
