"""Put a ConvNeXt into a config of MMDetection or MMSegmentation.

python tools/adopt.py mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py \
    --arch tiny --out dino_convnextv2_tiny.py

The new file builds on the host's and says what differs and why. Before it is
written, its model takes one training step and makes one prediction on
synthetic images.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import List


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'config',
        metavar='HOST_CONFIG',
        help='a file, or a name of an installed host: mmdet::dino/NAME.py, '
        'mmseg::mask2former/NAME.py',
    )
    parser.add_argument(
        '--out', required=True, metavar='FILE.py', help='the new config'
    )
    parser.add_argument(
        '--arch', default='tiny', help='size, atto to huge (default: tiny)'
    )
    parser.add_argument(
        '--version',
        type=int,
        choices=[1, 2],
        default=2,
        help='of ConvNeXt (default: 2)',
    )
    parser.add_argument(
        '--weights',
        metavar='NAME|FILE',
        help='fcmae, 1k, 22k, dinov3, none, or a checkpoint (default: as in '
        'the recipes: fcmae for V2 detectors, else 1k)',
    )
    parser.add_argument(
        '--whole',
        action='store_true',
        help='write every setting instead of _base_ and the differences',
    )
    parser.add_argument(
        '--no-check',
        dest='check',
        action='store_false',
        help='write without the training step and the prediction',
    )
    parser.add_argument(
        '--force', action='store_true', help='write over an existing file'
    )
    args = parser.parse_args()
    if not args.out.endswith('.py'):
        parser.error(f'--out must end in .py, got {args.out}')
    return args


def command() -> List[str]:
    """Return this command in parts, less what does not change the file."""
    parts = ['python tools/adopt.py']
    for arg in sys.argv[1:]:
        quoted = shlex.quote(arg)
        # A value stays with its option.
        if parts[-1].startswith('--') and not arg.startswith('--'):
            parts[-1] += f' {quoted}'
        elif arg != '--force':
            parts.append(quoted)
    return parts


def run(args: argparse.Namespace) -> None:
    """Adopt, check and write, as the command line says."""
    from mmconvnext.adopt import adopt, read
    from mmconvnext.adopt.check import CheckError, check
    from mmconvnext.adopt.write import write

    out = Path(args.out)
    if out.exists() and not args.force:
        raise ValueError(f'{out} exists; --force writes over it')
    host = read(args.config)
    cfg, report = adopt(host, args.arch, args.version, args.weights)
    if args.check:
        try:
            report.check = check(cfg, host)
        except CheckError as error:
            raise ValueError(
                f'{error}. Nothing is written; --no-check writes it untried'
            ) from error
    write(cfg, report, host, out, command(), args.whole)
    print(report)
    print(f'\nWritten to {out}. Next:')
    print(f'  python tools/browse_dataset.py {out} --out pictures')
    print(f'  python tools/train.py {out}')


def main() -> None:
    args = parse_args()
    from mmengine.logging import MMLogger

    from mmconvnext import cli

    # The parameter groups and the hosts' notices would bury the report.
    MMLogger.get_instance('adopt', log_level='WARNING')
    cli.prepare_hosts()
    with cli.clear_errors():
        run(args)


if __name__ == '__main__':
    main()
