"""Damage images and label maps of training data: counted, listed, stopped.

    python tests/campaigns/damaged_data.py --count 200

Drawn images and label maps, five times as many as are damaged, are cut, made
empty, overwritten, or exchanged for text. Pre-training's data set is read
with two workers: right is that ``skipped_images.txt`` lists each damaged
image once and no other, and that more in a row than the limit stop the run.
The check before fine-tuning has to count each pair with a damaged file, and
stop.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import List

import campaign
import cv2
import numpy as np
from mmengine.config import Config
from mmengine.logging import MMLogger
from torch.utils.data import DataLoader

from mmconvnext import ImageFolderDataset
from mmconvnext.data.checker import check
from mmconvnext.pretrain.dataset import read_skipped

SIZE, SHARE, IN_A_ROW = 32, 5, 20
PIPELINE = [
    dict(type='mmconvnext.LoadImage'),
    dict(type='mmconvnext.PackImage'),
]
DAMAGES = {
    'cut': lambda data, rng: data[: rng.randrange(1, len(data) * 3 // 4)],
    'empty': lambda data, rng: b'',
    'overwritten': lambda data, rng: rng.randbytes(len(data)),
    'zeroed': lambda data, rng: data[:20] + bytes(len(data) - 20),
    'text': lambda data, rng: b'<html>404 Not Found</html>',
}


def draw(folder: Path, number: int, rng: np.random.Generator) -> None:
    """Write images (JPEG, so that a cut is not seen) and label maps."""
    for kind in ('images', 'maps'):
        (folder / kind).mkdir(parents=True)
    for n in range(number):
        image = rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f'images/{n:05}.jpg'), image)
        label = rng.integers(0, 3, (SIZE, SIZE), dtype=np.uint8)
        cv2.imwrite(str(folder / f'maps/{n:05}.png'), label)


def damage(files: List[Path], rng: random.Random, figures: Counter) -> None:
    for path in files:
        kind = rng.choice(list(DAMAGES))
        path.write_bytes(DAMAGES[kind](path.read_bytes(), rng))
        figures[f'{path.parent.name} {kind}'] += 1


def judge(found: set, hit: List[Path], where: str, figures: Counter) -> None:
    """Compare the files that were named with those that were damaged."""
    hit_names = {path.name for path in hit}
    figures[f'named by {where}'] += len(found & hit_names)
    for what, names in (
        ('not named', hit_names - found),
        ('named and whole', found - hit_names),
    ):
        if names:
            print(f'{where}: {what}: {sorted(names)[:5]}')
            figures[f'WRONG: {what} by {where}'] += len(names)


def pretraining(folder: Path, hit: List[Path], figures: Counter) -> None:
    """Read every image twice with workers, as two epochs do."""
    skipped = folder / 'skipped.txt'
    data = ImageFolderDataset(
        str(folder / 'images'), skipped_file=str(skipped), pipeline=PIPELINE
    )
    batches = DataLoader(data, batch_size=4, num_workers=2)
    for _ in range(2):
        images = sum(len(batch['inputs']) for batch in batches)
        if images != len(data):
            figures['WRONG: number of images in an epoch'] += 1
    lines = read_skipped(str(skipped))
    judge({Path(line).name for line in lines}, hit, 'pre-training', figures)


def limit(folder: Path, figures: Counter) -> None:
    """Damage more images in a row than the limit allows."""
    files = sorted((folder / 'images').iterdir())[: IN_A_ROW + 1]
    for path in files:
        path.write_bytes(b'')
    data = ImageFolderDataset(
        str(folder / 'images'), max_refetch=IN_A_ROW, pipeline=PIPELINE
    )
    try:
        data[0]
    except RuntimeError as error:
        right = files[-1].name in str(error)
        figures['stopped by the limit'] += right
        figures['WRONG: another file named'] += not right
    else:
        figures['WRONG: the limit did not stop the run'] += 1


def fine_tuning(folder: Path, hit: List[Path], figures: Counter) -> None:
    """Check the data as tools/train.py does, with no limit of maps."""
    data = dict(
        type='mmseg.BaseSegDataset',
        data_root=str(folder),
        data_prefix=dict(img_path='images', seg_map_path='maps'),
        metainfo=dict(classes=('a', 'b', 'c'), palette=[[0] * 3] * 3),
        img_suffix='.jpg',
        seg_map_suffix='.png',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
        ],
    )
    loader = dict(dataset=data)
    cfg = Config(dict(train_dataloader=loader, default_scope='mmseg'))
    findings = check(cfg, ['train_dataloader'], sample=10**6)
    # One finding a kind of fault: its first file, and how many more.
    count, names = 0, {path.name for path in hit}
    for finding in findings:
        name, _, more = Path(finding.file).name.partition(' (and ')
        count += 1 + int(more.partition(' ')[0] or 0)
        figures['WRONG: named and whole by the check'] += name not in names
        figures['WRONG: a warning only'] += finding.severity != 'error'
    # A pair counts once, by its image where that is damaged.
    expected = len({path.stem for path in hit})
    figures['pairs counted by the check'] += count
    figures['WRONG: pairs not counted by the check'] += abs(expected - count)


def run(args: argparse.Namespace, rng: random.Random, folder: Path) -> Counter:
    figures: Counter = Counter()
    draw(folder, SHARE * args.count, np.random.default_rng(args.seed))
    hit = [
        path
        for kind in ('images', 'maps')
        for path in rng.sample(
            sorted((folder / kind).iterdir()), args.count // 2
        )
    ]
    damage(hit, rng, figures)
    images = [path for path in hit if path.suffix == '.jpg']
    pretraining(folder, images, figures)
    fine_tuning(folder, hit, figures)
    limit(folder, figures)
    return +figures


def main() -> None:
    args, rng = campaign.arguments(__doc__, 200)
    from mmconvnext.cli import prepare_hosts

    prepare_hosts()
    MMLogger.get_current_instance().setLevel('ERROR')
    with tempfile.TemporaryDirectory() as name:
        figures = run(args, rng, Path(name) / 'data')
    campaign.finish('damaged data', args, figures)


if __name__ == '__main__':
    main()
