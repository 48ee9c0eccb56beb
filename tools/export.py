"""Write a trained model as one ONNX file and compare it with PyTorch.

python tools/export.py CONFIG CHECKPOINT --out model.onnx
    [--precision fp32|fp16] [--shape H W] [--check IMAGES|off]
    [--runtime onnxruntime|openvino]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, List

import arguments

CHECKED = 4  # images of the test set


def parse_args() -> argparse.Namespace:
    parser = arguments.with_config('Write a trained model as an ONNX file.')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', required=True, help='ONNX file to write')
    parser.add_argument(
        '--precision',
        default='fp32',
        choices=['fp32', 'fp16'],
        help='of weights and maps (default: %(default)s); sums stay float32',
    )
    parser.add_argument(
        '--shape',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        help='size of the input (default: any)',
    )
    parser.add_argument(
        '--check',
        default='',
        metavar='IMAGES',
        help='image file or folder to compare with PyTorch on (default: '
        f'{CHECKED} images of the test set); off: do not compare',
    )
    parser.add_argument(
        '--runtime',
        default='onnxruntime',
        choices=['onnxruntime', 'openvino'],
        help='to compare in (default: %(default)s)',
    )
    return parser.parse_args()


def images_to_check(args: argparse.Namespace, cfg: Any) -> List[Path]:
    """Find the images to compare on; none with ``--check off``.

    Raises:
        FileNotFoundError: when there are none.
    """
    from mmconvnext import cli
    from mmconvnext.deploy import parity
    from mmconvnext.files import find_images

    if args.check == 'off':
        return []
    if args.check:
        return find_images(args.check)
    try:
        cli.check_data(cfg, ['test_dataloader'])
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'{error}\nOr compare on other images: --check FOLDER, or not at '
            f'all: --check off'
        ) from None
    return parity.test_images(cfg, CHECKED)


def compare(
    model: Any, cfg: Any, args: argparse.Namespace, images: List[Path]
) -> bool:
    """Compare the file with the model; print a table."""
    from rich.progress import track

    from mmconvnext.deploy import load, parity

    reference = parity.Reference(model, cfg)
    exported = load(args.out, args.runtime)
    rows = parity.compare(reference, exported, images, args.precision)
    total = parity.count_rows(len(images), args.shape is None)
    found = list(track(rows, 'comparing', total=total))
    print(parity.table(found))
    limits = parity.LIMITS[exported.description.task][args.precision]
    words = ', '.join(f'{name} {value:g}' for name, value in limits.items())
    fits = all(row.fits for row in found)
    print(f'limits: {words}: {"kept" if fits else "NOT KEPT"}')
    return fits


def run(args: argparse.Namespace) -> bool:
    """Export and compare; return whether the file is as it should be."""
    from rich.console import Console

    from mmconvnext import cli
    from mmconvnext.deploy import export, runtimes, supported
    from mmconvnext.inference import load_model
    from mmconvnext.inference.classes import settle_names

    cfg = cli.load_config(args)
    export.check(cfg, args.precision, args.shape)
    images = images_to_check(args, cfg)
    if not images and not supported.is_verified(cfg):
        raise ValueError('--check off: this head was never compared before')
    runtimes.check(args.runtime)
    cli.check_checkpoint(args.checkpoint)
    settle_names(cfg, args.checkpoint)
    model = load_model(cfg, args.checkpoint)
    out = Path(args.out)
    with Console().status(f'exporting to {out}'):
        about = export.export(model, cfg, out, args.precision, args.shape)
    size = out.stat().st_size / 1e6
    print(f'{out}: {about.task}, {args.precision}, {size:.1f} MB')
    print(f'licence of the weights: {about.licence}')
    if not images:
        print('not compared with PyTorch (--check off)')
        return True
    return compare(model, cfg, args, images)


def main() -> None:
    args = parse_args()
    from mmconvnext import cli

    cli.prepare_hosts()
    with cli.clear_errors():
        fits = run(args)
    sys.exit(not fits)


if __name__ == '__main__':
    main()
