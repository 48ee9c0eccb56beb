"""What pre-training gains with few and with all labels of class folders.

    python tests/campaigns/labels.py --data-root data/signs --out runs \
        --pretrained work_dirs/fcmae_convnextv2_atto_signs/epoch_200.pth

Fine-tunes a config from random weights and from a pre-training, on a share of
the labels of each class, with several seeds; then a linear probe of both
backbones. Each line is the mean and the range of top-1 over the seeds.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List, Optional, Sequence

ROOT = Path(__file__).parents[2]
CONFIG = 'configs/finetune_convnextv2_atto_signs.py'
# A probe learns its last layer alone, on features without drop path, at ten
# times the rate.
PROBE = (
    'model.backbone.frozen_stages=4',
    'model.label_smoothing=0.0',
    'optim_wrapper.optimizer.lr=1e-2',
    'optim_wrapper.optimizer.weight_decay=0.0',
    'default_hooks.standardize.type=mmconvnext.StandardizeHook',
)
EPOCHS = {0.1: 75, 1.0: 15}  # by share of the labels


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data-root', default='data/signs')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--pretrained', type=Path)
    parser.add_argument(
        '--starts', nargs='+', default=STARTS, choices=STARTS, metavar='START'
    )
    parser.add_argument('--config', default=CONFIG)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--shares', type=float, nargs='+', default=[0.1, 1.0])
    parser.add_argument(
        '--epochs', type=int, help=f'of each run (default: {EPOCHS})'
    )
    parser.add_argument(
        '--options', nargs='*', default=[], help='--cfg-options of each run'
    )
    parser.add_argument(
        '--kinds', nargs='+', default=['finetune', 'probe'], choices=KINDS
    )
    return parser.parse_args()


STARTS = ['random', 'pretrained']
KINDS = {'finetune': (), 'probe': PROBE}


def listed(root: Path, share: float, seed: int) -> Iterator[str]:
    """Yield lines of a list with a share of the images of each class."""
    for folder in sorted(p for p in (root / 'train').iterdir() if p.is_dir()):
        images = sorted(folder.iterdir())
        chosen = random.Random(seed).sample(
            images, max(1, round(share * len(images)))
        )
        for path in sorted(chosen):
            yield f'{folder.name}/{path.name} {folder.name}\n'


def run(
    args: argparse.Namespace,
    kind: str,
    share: float,
    seed: int,
    start: Optional[Path],
) -> float:
    """Train once and return the last top-1, in percent."""
    name = f'{kind}_{share}_{seed}_{start.stem if start else "random"}'
    work_dir = args.out / name
    options: List[str] = [f'randomness.seed={seed}', *KINDS[kind]]
    options += args.options
    epochs = args.epochs or EPOCHS.get(share, round(15 / share))
    options += [
        f'train_cfg.max_epochs={epochs}',
        f'train_cfg.val_interval={epochs}',
        f'default_hooks.checkpoint.interval={epochs}',
        f'param_scheduler.1.end={epochs}',
    ]
    if share < 1:
        file = args.out / f'train_{share}_{seed}.txt'
        lines = listed(Path(args.data_root), share, seed)
        file.write_text(''.join(lines), encoding='utf-8')
        options.append(f'train_dataloader.dataset.ann_file={file.resolve()}')
    train(args.config, work_dir, args.data_root, start, options)
    return last_of(work_dir, 'accuracy/top1')


def train(
    config: str,
    work_dir: Path,
    data_root: str,
    start: Optional[Path],
    options: Sequence[str],
) -> None:
    """Train a config, its backbone from a checkpoint where one is given."""
    if start:
        init = 'model.backbone.init_cfg'
        options = [
            *options,
            f'{init}.type=Pretrained',
            f'{init}.checkpoint={start}',
        ]
    command = ['tools/train.py', config, f'--work-dir={work_dir}']
    command += [f'--data-root={data_root}', '--cfg-options', *options]
    subprocess.run(
        [sys.executable, *command], cwd=ROOT, check=True, stdout=sys.stderr
    )


def last_of(work_dir: Path, metric: str) -> float:
    """Return the last value of a metric that a training wrote."""
    rows = [
        json.loads(line)
        for file in sorted(work_dir.glob('*/vis_data/scalars.json'))
        for line in file.read_text(encoding='utf-8').splitlines()
    ]
    return [row[metric] for row in rows if metric in row][-1]


def main() -> None:
    args = parse_args()
    if 'pretrained' in args.starts:
        if args.pretrained is None:
            raise SystemExit('--pretrained FILE is needed, or --starts random')
        args.pretrained = args.pretrained.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    for kind in args.kinds:
        for share in args.shares:
            for name in args.starts:
                start = args.pretrained if name == 'pretrained' else None
                found = [
                    run(args, kind, share, seed, start) for seed in args.seeds
                ]
                mean = sum(found) / len(found)
                print(
                    f'{kind}, {share:.0%} of the labels, '
                    f'{name}: top-1 '
                    f'{mean:.1f} ({min(found):.1f} to {max(found):.1f})',
                    flush=True,
                )


if __name__ == '__main__':
    main()
