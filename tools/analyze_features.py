"""Measure and draw what the features of ConvNeXts do on a folder of images.

python tools/analyze_features.py IMAGES --out DIR NAME=CHECKPOINT...

Cosine distance, dead and saturated channels of every block, after ConvNeXt V2
(arXiv 2301.00808, section 4). A checkpoint has any format that the backbones
load; version and size follow from it. --config NAME=CONFIG adds a config's
random weights.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import arguments

PLACES = ('gelu', 'grn', 'block')  # of measure.WHERE


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n')[0],
        epilog='--where: gelu is the 4C expansion after GELU, before GRN; grn '
        'the same after GRN (in V1: gelu); block the output of the block',
    )
    parser.add_argument('images', help='folder of images, looked through')
    parser.add_argument(
        'checkpoints', nargs='*', metavar='[NAME=]CHECKPOINT', default=[]
    )
    parser.add_argument('--out', required=True, help='folder for the results')
    parser.add_argument(
        '--config',
        action='append',
        default=[],
        metavar='[NAME=]CONFIG',
        help="also measure a config's backbone with random weights; may be "
        'given several times',
    )
    parser.add_argument('--where', choices=PLACES, default='grn')
    parser.add_argument(
        '--size',
        type=int,
        default=224,
        help='shorter side, then a square from the centre; 0: images as they '
        'are (default: %(default)s)',
    )
    parser.add_argument(
        '--number', type=int, help='measure this many, evenly spread'
    )
    parser.add_argument(
        '--layers',
        nargs='+',
        metavar='PATTERN',
        help='blocks for mosaics and selectivity, as in "stages.2.*" '
        '(default: the last of each stage)',
    )
    parser.add_argument(
        '--class-folders',
        action='store_true',
        help='IMAGES/CLASS/...: also measure class selectivity',
    )
    parser.add_argument('--ema', action='store_true', help='averaged weights')
    parser.add_argument('--prefix', help='which copy in the checkpoint')
    parser.add_argument('--seed', type=int, default=0, help='of --config')
    arguments.device(parser)
    # Checkpoints may follow options.
    return parser.parse_intermixed_args()


def settings_of(args: argparse.Namespace) -> Any:
    from mmconvnext import cli
    from mmconvnext.analysis.features import Settings

    args.device = cli.device(args.device)
    return Settings(**{key: getattr(args, key) for key in Settings._fields})


def main() -> None:
    args = parse_args()
    from mmconvnext import cli
    from mmconvnext.analysis.measure import DEFINITIONS, WHERE
    from mmconvnext.analysis.report import analyze, table

    cli.prepare_hosts()
    settings, out = settings_of(args), Path(args.out)
    with cli.clear_errors():
        found = analyze(args.checkpoints, args.config, out, settings)
    print(table(found.rows))
    print(f'measured: {WHERE[args.where]}, {found.images} images')
    for name, text in DEFINITIONS.items():
        print(f'{name}: {text}')
    for path, reason in found.broken.items():
        print(f'error: {path}: {reason}', file=sys.stderr)
    print(f'results: {out}')
    sys.exit(bool(found.broken))


if __name__ == '__main__':
    main()
