"""Draw the training samples of a config as the model sees them.

python tools/browse_dataset.py CONFIG --out DIR [--number N]

Each picture shows one augmented sample: image with boxes, masks and labels, or
image beside its label map. Samples are drawn in the order of the seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import arguments


def parse_args() -> argparse.Namespace:
    parser = arguments.with_config('Draw augmented training samples.')
    parser.add_argument('--out', required=True, help='folder for pictures')
    parser.add_argument(
        '--number', type=int, default=16, help='of pictures (default: 16)'
    )
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from mmconvnext import cli
    from mmconvnext.files import write_image
    from mmconvnext.inference.samples import drawn_samples

    cli.prepare_hosts()
    with cli.clear_errors():
        cfg = cli.load_config(args)
        cli.check_data(cfg, ['train_dataloader'], model=False)
    drawn = drawn_samples(cfg, args.number, args.seed)
    for place, (index, picture, line) in enumerate(drawn):
        path = Path(args.out, f'{place:03d}_{index}.png')
        write_image(picture, path)
        print(f'{path}: {line}')


if __name__ == '__main__':
    main()
