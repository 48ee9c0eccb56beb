"""Count the parameters and FLOPs of configs, as the papers do.

python tools/get_complexity.py CONFIG... [--shape H W] [--parts]

Parameters are those of the training model, auxiliary head included. What
counts as a FLOP is said in mmconvnext/analysis/complexity.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import arguments


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('configs', nargs='+', help='config files')
    parser.add_argument(
        '--shape',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        help='input size (default: 800 1280 for a detector, the crop and four '
        'times its width for a segmentor)',
    )
    parser.add_argument(
        '--parts', action='store_true', help='count each part by itself'
    )
    arguments.options_of_config(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from mmconvnext import cli
    from mmconvnext.analysis import complexity as counts

    cli.prepare_hosts()
    rows = []
    with cli.clear_errors():
        for path in args.configs:
            cfg = cli.read_config(path)
            cfg.merge_from_dict(cli.settings(args.cfg_options))
            shape = tuple(args.shape or counts.default_shape(cfg))
            rows.append((Path(path).stem, counts.complexity(cfg, shape)))
    print(counts.table(rows, args.parts))
    print(
        'FLOPs: multiply-adds of convolutions and matrix products at batch 1; '
        f'{counts.BOXES} boxes and {counts.MASKS} masks in a detector'
    )


if __name__ == '__main__':
    main()
