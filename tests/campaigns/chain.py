"""What the middle step between FCMAE and a segmentor gains on small data.

    python tests/campaigns/chain.py --out runs \
        --pretrained work_dirs/fcmae_convnextv2_atto_camvid/epoch_130.pth

Cuts the images of CamVid into tiles, each with the class that covers most of
it, fine-tunes the pre-training on these class folders, and trains UPerNet
from random weights, from the pre-training and from the fine-tuned one. Each
line is the mean and the range of the last mIoU over the seeds.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import cv2
import numpy as np
from labels import ROOT, last_of, train
from mmengine.config import Config

CLASSIFIER = 'configs/finetune_convnextv2_atto_signs.py'
SEGMENTOR = 'configs/upernet_convnextv2_atto_camvid.py'
SPLITS = {'train': 'training', 'val': 'validation'}
TILE = 72  # pixels, of images of 480 x 360
SHARE = 0.4  # of a tile that its class covers at least
MOST, FEWEST = 250, 40  # training tiles of a class
STARTS = ('random', 'pretrained', 'finetuned')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data-root', type=Path, default=Path('data/camvid'))
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--pretrained', type=Path, required=True)
    parser.add_argument('--epochs', type=int, default=10)
    parser.add_argument('--iters', type=int, default=2000)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument(
        '--options',
        nargs='+',
        default=[],
        help='other settings of the segmentor, as --cfg-options takes them',
    )
    return parser.parse_args()


def tiles(root: Path, split: str) -> Dict[int, List[Tuple[Path, int, int]]]:
    """Find the tiles of each class: an image, a row and a column of it."""
    found = defaultdict(list)
    for path in sorted((root / 'annotations' / split).glob('*.png')):
        label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        for row in range(0, label.shape[0] - TILE + 1, TILE):
            for col in range(0, label.shape[1] - TILE + 1, TILE):
                tile = label[row : row + TILE, col : col + TILE]
                counts = np.bincount(tile.ravel())
                value = int(counts.argmax())
                if value and counts[value] >= SHARE * tile.size:
                    image = root / 'images' / split / f'{path.stem}.jpg'
                    found[value].append((image, row, col))
    return found


def write_tiles(root: Path, out: Path) -> int:
    """Write class folders and return the number of classes."""
    names = Config.fromfile(ROOT / SEGMENTOR).metainfo['classes']
    found = {split: tiles(root, folder) for split, folder in SPLITS.items()}
    kept = [v for v, rows in found['train'].items() if len(rows) >= FEWEST]
    for split, by_class in found.items():
        for value in kept:
            folder = out / split / names[value - 1]
            folder.mkdir(parents=True, exist_ok=True)
            rows = by_class.get(value, [])
            random.Random(0).shuffle(rows)
            for image, row, col in rows[:MOST]:
                tile = cv2.imread(str(image))[row : row + TILE]
                name = f'{image.stem}_{row}_{col}.png'
                cv2.imwrite(str(folder / name), tile[:, col : col + TILE])
    return len(kept)


def fine_tune(args: argparse.Namespace) -> Path:
    """Teach the pre-training the classes of the tiles."""
    folder, work_dir = args.out / 'tiles', args.out / 'classifier'
    classes = write_tiles(args.data_root, folder)
    options = [
        f'model.num_classes={classes}',
        f'train_cfg.max_epochs={args.epochs}',
        f'param_scheduler.1.end={args.epochs}',
        'randomness.seed=0',
    ]
    train(CLASSIFIER, work_dir, folder, args.pretrained, options)
    top1 = last_of(work_dir, 'accuracy/top1')
    print(f'classifier of {classes} classes: top-1 {top1:.1f}', flush=True)
    return Path((work_dir / 'last_checkpoint').read_text(encoding='utf-8'))


def segment(
    args: argparse.Namespace, name: str, start: Optional[Path], seed: int
) -> float:
    """Train UPerNet once and return its last mIoU."""
    work_dir = args.out / f'segmentor_{name}_{seed}'
    options = [
        f'train_cfg.max_iters={args.iters}',
        f'train_cfg.val_interval={args.iters}',
        f'default_hooks.checkpoint.interval={args.iters}',
        f'param_scheduler.1.end={args.iters}',
        f'randomness.seed={seed}',
        *args.options,
    ]
    train(SEGMENTOR, work_dir, args.data_root, start, options)
    return last_of(work_dir, 'mIoU')


def main() -> None:
    args = parse_args()
    args.pretrained = args.pretrained.resolve()
    args.out = args.out.resolve()
    args.data_root = args.data_root.resolve()
    starts = dict(zip(STARTS, (None, args.pretrained, fine_tune(args))))
    for name, start in starts.items():
        found = [segment(args, name, start, seed) for seed in args.seeds]
        print(
            f'{name}: mIoU {sum(found) / len(found):.1f} '
            f'({min(found):.1f} to {max(found):.1f})',
            flush=True,
        )


if __name__ == '__main__':
    main()
