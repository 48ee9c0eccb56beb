"""Measure speed: what is compared runs in turn, in one process.

    python tools/benchmark.py backbone --arch tiny --size 512 512
    python tools/benchmark.py segmentor --batch 2   # a UPerNet step
    python tools/benchmark.py mask_rcnn         # a Mask R-CNN step
    python tools/benchmark.py fcmae --batch 8 --size 224 224 --arch atto
    python tools/benchmark.py ops               # paths of one block's ops
    python tools/benchmark.py depthwise         # kernels, on a GPU
    python tools/benchmark.py operators         # stand-in, compiled mmcv
    python tools/benchmark.py detector          # Mask R-CNN with either
    python tools/benchmark.py exported          # files against eager mode
    python tools/benchmark.py curves --version 1 --picture curves.png

Printed are medians over rounds and the medians, lowest and highest of the
ratios of a round. ``backbone`` and the steps first check that all subjects
compute the same. ``operators`` and ``detector`` need an mmcv with compiled
operators. ``curves`` measures no time: it trains the CamVid recipe (atto)
for a few steps from one seed with plain PyTorch, the fused path, and plain
PyTorch from weights that differ in the last bit, and prints each one's first
and last loss, the largest relative difference of a step's losses, and the
mean of the last 20.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

# mode: the function of tools/bench that yields its rows. Named, not
# imported: --help does without torch.
MODES = {
    'backbone': 'backbones.backbone_rows',
    'segmentor': 'steps.segmentor_rows',
    'mask_rcnn': 'steps.mask_rcnn_rows',
    'fcmae': 'fcmae.fcmae_rows',
    'ops': 'kernels.op_rows',
    'depthwise': 'kernels.depthwise_rows',
    'operators': 'operators.operator_rows',
    'detector': 'operators.detector_rows',
    'exported': 'exported.exported_rows',
    'curves': 'curves.curve_rows',
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('mode', choices=list(MODES))
    add('--threads', type=int, default=2)
    add('--repeats', type=int, default=5, help='rounds, after a warm-up')
    add('--out', type=Path, help='CSV file for the rows')
    add('--version', type=int, choices=(1, 2), default=2, help='of ConvNeXt')
    add('--arch', default='tiny')
    add('--batch', type=int, default=1)
    add('--size', type=int, nargs=2, default=(512, 512), metavar=('H', 'W'))
    add('--device', default='cpu')
    add('--passes', nargs='+', default=['inference', 'training'])
    add(
        '--precision',
        default='float32',
        help='or bfloat16: autocast; of curves or float64',
    )
    add(
        '--subjects',
        nargs='+',
        help='default: all in eager mode; +compile after a name compiles it',
    )
    add('--steps', type=int, default=200, help='of curves')
    add('--data-root', help='of curves: the folder of CamVid')
    add('--picture', type=Path, help='of curves: PNG file to draw them in')
    return parser.parse_args()


def main() -> None:
    args = parse()
    import torch
    from bench.timing import environment, write_csv

    from mmconvnext import cli

    cli.prepare_hosts()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    # Products of a GPU in full float32, as those of a CPU.
    torch.backends.cudnn.allow_tf32 = False
    about = environment(args.threads)
    print(' | '.join(about.values()), flush=True)
    rows = []
    with cli.clear_errors():
        module, function = MODES[args.mode].split('.')
        run = getattr(importlib.import_module(f'bench.{module}'), function)
        for row in run(args):
            rows.append(row)
            print(' | '.join(map(str, row.values())), flush=True)
    if args.out:
        write_csv(args.out, rows, about)


if __name__ == '__main__':
    main()
