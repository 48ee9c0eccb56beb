"""Train any config of this repository: segmentation or detection.

python tools/train.py configs/upernet_convnextv2_base_ade20k.py
torchrun --nproc_per_node 8 tools/train.py CONFIG --launcher pytorch
"""

from __future__ import annotations

import argparse
from typing import Any

import arguments

AMP_DTYPES = ('bfloat16', 'float16')


def parse_args() -> argparse.Namespace:
    parser = arguments.with_config('Train a model.')
    arguments.of_runner(parser)
    parser.add_argument(
        '--amp',
        nargs='?',
        const='bfloat16',
        choices=[*AMP_DTYPES, 'off'],
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
    arguments.set_local_rank(args)
    return args


def configure(args: argparse.Namespace) -> Any:
    """Turn the command line into a config that is ready to run."""
    from mmconvnext import cli

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


def main() -> None:
    args = parse_args()
    from mmconvnext import cli
    from mmconvnext.inference.threshold import ThresholdHook

    cli.prepare_hosts(args.verbose)
    with cli.clear_errors():
        cfg = configure(args)
    runner = cli.build_runner(cfg, args.verbose)
    with cli.clear_errors():
        cli.check_start(runner, cfg)
    cli.warn_of_batch_size(cfg)
    cli.scale_with_accumulation(runner, cfg)
    runner.register_hook(ThresholdHook())
    cli.watch(runner, args.verbose)
    runner.train()


if __name__ == '__main__':
    main()
