"""Quantise an exported file to int8, calibrated on images of a folder.

python tools/quantize.py model.onnx IMAGES --out model_int8.onnx
    [--runtime openvino] [--config CONFIG] [--metric]

--metric tests both files on the test data and prints the metric before and
after.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Dict, List

import arguments


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Quantise an exported file to int8.'
    )
    parser.add_argument('model', help='ONNX file from tools/export.py, fp32')
    parser.add_argument(
        'images', help='images to calibrate on: file, or folder (recursive)'
    )
    parser.add_argument('--out', required=True, help='ONNX file to write')
    parser.add_argument(
        '--count',
        type=int,
        default=64,
        help='images to calibrate on, spread over the folder '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--runtime',
        default='onnxruntime',
        choices=['onnxruntime', 'openvino'],
        help='for which the file is to be fast, and that --metric runs '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--metric',
        action='store_true',
        help='test both files on the labelled test data',
    )
    parser.add_argument(
        '--config', help="of the test data, instead of the file's own"
    )
    arguments.data_root(parser)
    arguments.options_of_config(parser)
    return parser.parse_args()


def spread(paths: List[Path], count: int) -> List[Path]:
    """Pick ``count`` images at equal distances."""
    if count < 1:
        raise ValueError(f'--count must be at least 1, got {count}')
    step = max(len(paths) / count, 1)
    return [paths[int(i * step)] for i in range(min(count, len(paths)))]


def metrics(file: str, args: argparse.Namespace) -> Dict[str, Any]:
    """Test a file on the labelled test data."""
    from mmconvnext import cli
    from mmconvnext.deploy import hosts

    given = hosts.config_for(args.config, file)
    words = {**vars(args), 'checkpoint': file}
    words.update(work_dir=None, launcher='none')
    cfg = cli.load_config(argparse.Namespace(**words), given)
    hosts.use_file(cfg, file, runtime=args.runtime)
    cli.check_data(cfg, ['test_dataloader'])
    return cli.build_runner(cfg).test()


def main() -> None:
    args = parse_args()
    from rich.progress import track

    from mmconvnext import cli
    from mmconvnext.deploy import quantize
    from mmconvnext.files import find_images

    cli.prepare_hosts()
    with cli.clear_errors():
        images = spread(find_images(args.images), args.count)
        quantize.check(Path(args.model))
        before = metrics(args.model, args) if args.metric else {}
        rows = track(images, 'calibrating')
        quantize.quantize(Path(args.model), rows, Path(args.out), args.runtime)
    for path in (args.model, args.out):
        print(f'{path}: {Path(path).stat().st_size / 1e6:.1f} MB')
    after = metrics(args.out, args) if args.metric else {}
    for name, value in after.items():
        print(f'{name}: {float(before[name]):.4f} -> {float(value):.4f}')


if __name__ == '__main__':
    main()
