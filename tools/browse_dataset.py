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

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from mmconvnext import cli
from mmconvnext.files import write_image
from mmconvnext.inference.pictures import Painter


def parse_args() -> argparse.Namespace:
    parser = cli.common_arguments('Draw augmented training samples.')
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


def plain_truth(data: dict) -> object:
    """Turn boxes and masks into what hosts' visualizers take."""
    sample = data['data_samples']
    if 'gt_instances' in sample:
        truth = sample.gt_instances
        truth.bboxes = getattr(truth.bboxes, 'tensor', truth.bboxes)
        truth.masks = truth.masks.to_ndarray().astype(bool)
    return sample


def describe(data: dict) -> str:
    """Say size and content of a sample in a line."""
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
    with cli.clear_errors():
        cfg = cli.load_config(args)
        cli.check_data(cfg, ['train_dataloader'])
    init_default_scope(cfg.default_scope)
    painter = Painter(cfg, 'train_dataloader')
    for place, (index, image, data) in enumerate(
        samples(cfg, args.number, args.seed)
    ):
        path = Path(args.out, f'{place:03d}_{index}.png')
        line = describe(data)
        picture = painter.draw(image, plain_truth(data), draw_pred=False)
        write_image(picture, path)
        print(f'{path}: {line}')


if __name__ == '__main__':
    main()
