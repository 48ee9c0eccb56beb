"""Train any config of this repository: segmentation or detection.

python tools/train.py configs/upernet_convnextv2_base_ade20k.py
torchrun --nproc_per_node 8 tools/train.py CONFIG --launcher pytorch
"""

from __future__ import annotations

import argparse
import os

from mmengine.config import Config
from mmengine.dist import get_world_size

from mmconvnext import cli


def parse_args() -> argparse.Namespace:
    parser = cli.common_arguments('Train a model.')
    cli.runner_arguments(parser)
    parser.add_argument(
        '--amp',
        nargs='?',
        const='bfloat16',
        choices=[*cli.AMP_DTYPES, 'off'],
        help='mixed precision (bfloat16 when no value is given), or off; '
        'by default as the config says',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from a checkpoint, or from the latest in the work dir',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate with batch size / the recipe's",
    )
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def configure(args: argparse.Namespace) -> Config:
    """Turn the command line into a config that is ready to run."""
    cfg = cli.load_config(args)
    cli.set_amp(cfg, args.amp)
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if args.auto_scale_lr:
        if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
            raise ValueError(
                f'--auto-scale-lr: {args.config} has no '
                f'auto_scale_lr.base_batch_size to scale from'
            )
        cfg.auto_scale_lr.enable = True
    cli.check_data(cfg, ['train_dataloader', 'val_dataloader'])
    return cfg


def warn_of_batch_size(cfg: Config) -> None:
    """Say so when the batch is not the one the learning rate is meant for."""
    batch, recipe = cli.batch_size(cfg, get_world_size())
    if recipe and batch != recipe:
        scaled = cfg.auto_scale_lr.get('enable', False)
        todo = 'is scaled' if scaled else 'stays: see --auto-scale-lr'
        print(
            f'warning: batch size {batch}, the recipe has {recipe}; '
            f'the learning rate {todo}',
            flush=True,
        )


def main() -> None:
    args = parse_args()
    with cli.clear_errors():
        cfg = configure(args)
    runner = cli.build_runner(cfg)
    warn_of_batch_size(cfg)
    runner.train()


if __name__ == '__main__':
    main()
