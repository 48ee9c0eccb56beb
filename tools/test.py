"""Evaluate a checkpoint: mIoU, box and mask AP, or top-1 and top-5 accuracy.

python tools/test.py CONFIG CHECKPOINT [--protocol NAME | --tta]
    [--show-dir DIR] [--out PATH]
"""

from __future__ import annotations

import argparse
from typing import Any

import arguments


def parse_args() -> argparse.Namespace:
    parser = arguments.with_model('Test a model.')
    arguments.of_runner(parser)
    arguments.of_exported(parser, device=True)
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
    args = parser.parse_intermixed_args()
    arguments.set_local_rank(args)
    return args


def refuse_other_protocols(args: argparse.Namespace) -> None:
    """An exported model is tested as it was exported."""
    for name in ('protocol', 'tta'):
        if getattr(args, name):
            raise ValueError(
                f'--{name} needs the checkpoint: {args.checkpoint} is tested '
                f'as it was exported'
            )


def configure(args: argparse.Namespace) -> Any:
    """Turn the command line into a config that is ready to run."""
    from mmconvnext import cli
    from mmconvnext.deploy import hosts
    from mmconvnext.inference import classes, outputs, protocols

    cli.check_checkpoint(args.checkpoint)
    given = hosts.config_for(args.config, args.checkpoint)
    cfg = cli.load_config(args, given)
    if 'test_dataloader' not in cfg:
        raise ValueError(f'{args.config} has no test data: pre-training?')
    if arguments.runs_file(args):
        refuse_other_protocols(args)
        options = {name: getattr(args, name) for name in args.of_exported}
        hosts.use_file(cfg, args.checkpoint, **options)
    else:
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
    classes.settle_names(cfg, cfg.get('load_from'))
    return cfg


def main() -> None:
    args = parse_args()
    from mmconvnext import cli
    from mmconvnext.deploy import hosts
    from mmconvnext.inference.protocols import describe

    cli.prepare_hosts(args.verbose)
    with cli.clear_errors():
        cfg = configure(args)
    exported = arguments.runs_file(args)
    runner = cli.build_runner(cfg, args.verbose)
    if not exported:
        with cli.clear_errors():
            cli.check_whole(runner, args.checkpoint)
    cli.watch(runner, args.verbose)
    metrics = runner.test()
    for name, value in metrics.items():
        print(f'{name}: {round(float(value), 4)}')
    if not metrics:
        print('no metric has a value')
    if exported:
        print(f'exported: {hosts.summary(cfg)}')
    else:
        print(f'protocol: {describe(cfg, args.protocol)}')


if __name__ == '__main__':
    main()
