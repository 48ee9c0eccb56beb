"""Run pre-training's data loader for long and watch its memory.

    python tests/campaigns/soak.py --minutes 30

Images of mixed sizes and kinds, one in twenty damaged, are read, cropped and
packed by two workers, epoch after epoch. The memory of this process and its
workers (proportional set size, so that shared pages count once) is read every
few seconds. Right is that the median of the last quarter is at most 2 % and
4 MiB above that of the second; the first quarter fills caches.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Iterator, List

import campaign
import cv2
import numpy as np
from torch.utils.data import DataLoader

from mmconvnext import ImageFolderDataset

IMAGES, WORKERS, LOOKS = 200, 2, 300
PIPELINE = [
    dict(type='mmconvnext.LoadImage'),
    dict(type='mmconvnext.RandomResizedCrop', scale=64),
    dict(type='mmconvnext.PackImage'),
]


def draw(folder: Path, rng: random.Random) -> None:
    folder.mkdir()
    for n in range(IMAGES):
        size = (rng.randint(40, 300), rng.randint(40, 300), rng.choice((1, 3)))
        image = np.frombuffer(rng.randbytes(size[0] * size[1] * size[2]), 'u1')
        path = folder / f'{n}.{rng.choice(("jpg", "png", "tif", "bmp"))}'
        cv2.imwrite(str(path), image.reshape(size))
        if n % 20 == 0:
            path.write_bytes(path.read_bytes()[:100])


def family() -> Iterator[int]:
    """Yield this process and its children."""
    yield os.getpid()
    for task in Path(f'/proc/{os.getpid()}/task').iterdir():
        for pid in (task / 'children').read_text('utf-8').split():
            yield int(pid)


def memory() -> int:
    """Sum the proportional set sizes of the family, in KiB."""
    total = 0
    for pid in family():
        try:
            lines = Path(f'/proc/{pid}/smaps_rollup').read_text('utf-8')
        except OSError:  # a worker that has just ended
            continue
        line = next(x for x in lines.splitlines() if x.startswith('Pss:'))
        total += int(line.split()[1])
    return total


def soak(folder: Path, seconds: float) -> tuple:
    """Read images for a time; return the memory seen and the count."""
    data = ImageFolderDataset(
        str(folder),
        skipped_file=str(folder.parent / 'skipped.txt'),
        pipeline=PIPELINE,
    )
    loader = DataLoader(data, 8, num_workers=WORKERS, persistent_workers=True)
    seen: List[int] = []
    images, start = 0, time.monotonic()
    last, every = start, seconds / LOOKS
    while time.monotonic() - start < seconds:
        for batch in loader:
            images += len(batch['inputs'])
            if time.monotonic() - last > every:
                last = time.monotonic()
                seen.append(memory())
    return seen, images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--minutes', type=float, default=30)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / 'images'
        draw(folder, random.Random(args.seed))
        seen, args.count = soak(folder, 60 * args.minutes)
    quarter = len(seen) // 4
    if quarter < 3:
        raise SystemExit('too short: fewer than twelve looks at the memory')
    early = statistics.median(seen[quarter : 2 * quarter])
    late = statistics.median(seen[-quarter:])
    print(f'MiB: {early / 1024:.1f} early, {late / 1024:.1f} late')
    grown = late > early * 1.02 + 4096
    figures = Counter({'looks at the memory': len(seen)})
    figures['WRONG: memory grows'] += grown
    campaign.finish('soak of the data loader', args, +figures)


if __name__ == '__main__':
    main()
