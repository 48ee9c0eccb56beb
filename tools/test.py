"""Evaluate a checkpoint: mIoU of a segmentor, box and mask AP of a detector.

python tools/test.py CONFIG CHECKPOINT [--protocol NAME | --tta]
    [--show-dir DIR] [--out PATH]
"""

from __future__ import annotations

import argparse
from typing import Any

import arguments


def parse_args() -> argparse.Namespace:
    parser = arguments.with_config('Test a model.')
    parser.add_argument('checkpoint', help='checkpoint file')
    arguments.of_runner(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        '--protocol',
        metavar='NAME',
        help="one of the config's protocols, such as ms_whole of the ADE20K "
        'recipes (default: as the config says)',
    )
    how.add_argument(
        '--tta',
        action='store_true',
        help="test-time augmentation: the config's tta_pipeline; a detector "
        'then gives boxes, no masks',
    )
    parser.add_argument(
        '--out',
        metavar='FILE.pkl|FOLDER',
        help='write the predictions: a .pkl file, or a folder of label maps '
        '(segmentation)',
    )
    parser.add_argument(
        '--show-dir', help='folder for pictures of every prediction'
    )
    args = parser.parse_args()
    arguments.set_local_rank(args)
    return args


def configure(args: argparse.Namespace) -> Any:
    """Turn the command line into a config that is ready to run."""
    from mmconvnext import cli
    from mmconvnext.inference import outputs, protocols

    cfg = cli.load_config(args)
    cli.check_checkpoint(args.checkpoint)
    if 'test_dataloader' not in cfg:
        raise ValueError(f'{args.config} has no test data: pre-training?')
    cfg.load_from = args.checkpoint
    if args.protocol:
        protocols.use_protocol(cfg, args.protocol)
    if args.tta:
        protocols.use_tta(cfg)
    if args.out:
        outputs.add_predictions(cfg, args.out)
    if args.show_dir:
        outputs.add_pictures(cfg, args.show_dir)
    cli.check_data(cfg, ['test_dataloader'])
    return cfg


def main() -> None:
    args = parse_args()
    from mmconvnext import cli
    from mmconvnext.inference.protocols import describe

    cli.prepare_hosts(args.verbose)
    with cli.clear_errors():
        cfg = configure(args)
    runner = cli.build_runner(cfg, args.verbose)
    with cli.clear_errors():
        cli.check_whole(runner, args.checkpoint)
    cli.watch(runner, args.verbose)
    metrics = runner.test()
    for name, value in metrics.items():
        print(f'{name}: {round(float(value), 4)}')
    print(f'protocol: {describe(cfg, args.protocol)}')


if __name__ == '__main__':
    main()
