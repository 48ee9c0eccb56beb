"""Convert a ConvNeXt checkpoint to another library's names, or look at it.

    python tools/convert_checkpoint.py IN --inspect
    python tools/convert_checkpoint.py IN OUT --to timm --check
    python tools/convert_checkpoint.py IN OUT --to native --whole

IN is a path, https://, hf-hub:// or timm:// source in any format. OUT ends
in .pth, .pt, .bin or .safetensors and is written whole or not at all.
"""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any, List, Optional

FORMATS = (
    'native',
    'official',
    'official_finetune',
    'timm',
    'transformers',
    'mmpretrain',
)


def parse_args(argv: Optional[List[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('source', metavar='IN')
    parser.add_argument('target', metavar='OUT', nargs='?')
    parser.add_argument(
        '--to',
        choices=FORMATS,
        help='official: for the classes of the authors, with strict=False '
        'where norm0 to norm3 are written; official_finetune: the same with '
        'GRN as (1, 4C), for main_finetune.py --finetune of ConvNeXt-V2',
    )
    parser.add_argument(
        '--inspect', action='store_true', help='say what IN is; write nothing'
    )
    parser.add_argument(
        '--check',
        action='store_true',
        help='build the backbone of IN and the model of OUT (timm and '
        'transformers: the real one) and compare their features',
    )
    parser.add_argument(
        '--whole',
        action='store_true',
        help='keep neck and heads of an mmdet 2 or mmseg 0.x file (native)',
    )
    parser.add_argument('--ema', action='store_true', help='averaged weights')
    parser.add_argument('--prefix', help='of the copy that is meant')
    parser.add_argument('--sha256', help='of IN, 8 digits or more')
    args = parser.parse_args(argv)
    if not args.inspect and not (args.target and args.to):
        parser.error('OUT and --to are needed, or --inspect')
    if args.whole and (args.to != 'native' or args.check or args.prefix):
        parser.error('--whole goes with --to native alone')
    return args


def inspect(args: argparse.Namespace, raw: Any) -> None:
    from mmconvnext import checkpoint

    found = checkpoint.detect(raw, args.ema, args.prefix)
    rows = [
        ('checkpoint', args.source),
        ('is', str(found)),
        ('prefix', found.prefix or '(none)'),
        ('licence', checkpoint.licence_of(args.source, found)),
    ]
    print('\n'.join(f'{name:<11}{text}' for name, text in rows))


def convert(args: argparse.Namespace, raw: Any) -> None:
    from mmconvnext import checkpoint
    from mmconvnext.checkpoint import parity, weights_io
    from mmconvnext.checkpoint.export import dataset_meta, wrapped

    copy = (args.ema, args.prefix)
    if args.whole:
        state, account = checkpoint.export_detector(raw, args.ema)
        out: Any = {'meta': dataset_meta(raw), 'state_dict': state}
    else:
        state, account = checkpoint.export_with_account(raw, args.to, *copy)
        out = wrapped(state, args.to, args.target)
    account.source = args.source
    print(account)
    if args.check:
        source = checkpoint.build(raw, *copy)
        text = parity.check(source, account.found, state, args.to)
        print(f'{"check":<11}{text}')
    weights_io.write(out, args.target)
    print(f'{"file":<11}{args.target}')


def main(argv: Optional[List[str]] = None) -> None:
    args = parse_args(argv)
    from mmconvnext.checkpoint import CheckpointError, weights_io

    try:
        raw = weights_io.read(args.source, args.sha256)
        (inspect if args.inspect else convert)(args, raw)
    except CheckpointError as error:
        sys.exit(f'convert_checkpoint.py: {re.sub(" +", " ", str(error))}')


if __name__ == '__main__':
    main()
