"""Judge features by k nearest neighbours, without training anything.

    python tools/knn.py CHECKPOINT FOLDER
    python tools/knn.py FOLDER --random atto    # what chance features reach

The images of FOLDER/train vote on those of FOLDER/val. A checkpoint has any
format that the backbones load: of a pre-training, a classifier, a segmentor,
another library. Version and size follow from it; its backbone is taken.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Dict, Iterable, List, Tuple

import arguments


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n')[0],
        epilog='a part is a folder of class folders, PART/CLASS/image.jpg, '
        'or a list below FOLDER whose lines are PATH CLASS',
    )
    add = parser.add_argument
    add('checkpoint', nargs='?', help='file of any format, or a URL')
    add('folder', help='with train/ and val/')
    add('--train', default='train', help='images that vote (%(default)s)')
    add('--val', default='val', help='images to classify (%(default)s)')
    add(
        '--k',
        type=int,
        nargs='+',
        default=[10, 20, 100, 200],
        metavar='K',
        help='numbers of neighbours (default: %(default)s)',
    )
    add(
        '--temperature',
        type=float,
        default=0.07,
        help='a neighbour votes with exp(cosine / T) (%(default)s)',
    )
    add('--size', type=int, default=224, help='in pixels (%(default)s)')
    add(
        '--crop-ratio',
        type=float,
        default=0.875,
        help='of the shorter side that is seen; 1: all of it (%(default)s)',
    )
    add('--number', type=int, metavar='N', help='N of each part, evenly')
    add('--batch-size', type=int, default=64, help='(%(default)s)')
    add('--num-workers', type=int, default=2, help='(%(default)s)')
    add('--ema', action='store_true', help='averaged weights')
    add('--prefix', help='which copy in the checkpoint')
    add('--random', metavar='ARCH', help='random weights of this size instead')
    add('--version', type=int, choices=(1, 2), default=2, help='of --random')
    add('--seed', type=int, default=0, help='of --random')
    add('--out', type=Path, help='JSON file for the scores')
    arguments.device(parser)
    args = parser.parse_intermixed_args()
    if (args.checkpoint is None) == (args.random is None):
        parser.error('give CHECKPOINT FOLDER, or FOLDER --random ARCH')
    return args


def backbone_of(args: argparse.Namespace) -> Tuple[str, Any]:
    """Build the backbone; say what it is."""
    import torch

    from mmconvnext import ConvNeXt, ConvNeXtV2, checkpoint, cli

    if args.random is not None:
        torch.manual_seed(args.seed)
        kind = {1: ConvNeXt, 2: ConvNeXtV2}[args.version]
        about = f'ConvNeXt V{args.version} {args.random}, random weights'
        return f'{about}, seed {args.seed}', kind(args.random)
    cli.check_checkpoint(args.checkpoint)
    state, copy = checkpoint.read(args.checkpoint), (args.ema, args.prefix)
    try:
        found = checkpoint.detect(state, *copy)
        model = checkpoint.build(state, *copy)
    except checkpoint.CheckpointError as error:
        raise ValueError(f'{args.checkpoint}: {error}') from error
    if len(found.depths) < 4:
        raise ValueError(
            f'{args.checkpoint}: {found} has no last stage to judge'
        )
    if model.in_channels != 3:
        raise ValueError(
            f'{args.checkpoint} takes {model.in_channels} input channels; '
            f'RGB images have 3'
        )
    return f'{args.checkpoint}: {found}', model


def settings_of(args: argparse.Namespace) -> Any:
    from mmconvnext.analysis.class_images import Settings

    own = {
        name: getattr(args, name)
        for name in Settings._fields
        if hasattr(args, name)
    }
    own['k'] = tuple(sorted(set(args.k)))
    return Settings(data_root=args.folder, **own)


def progress(batches: Iterable, words: str, total: int) -> Iterable:
    from rich.progress import track

    return track(batches, words, total)


def table(result: Any) -> List[str]:
    """Write a line for each k, and the best."""
    rows = [
        '   '.join([f'k = {k:<4}', *(f'{n} {v:6.2f}' for n, v in row.items())])
        for k, row in result.accuracy.items()
    ]
    best = result.accuracy[result.best]['top1']
    return [*rows, f'best: top1 {best:.2f} with k = {result.best}']


def record(about: str, settings: Any, result: Any) -> Dict[str, Any]:
    """List all that the scores depend on, for ``--out``."""
    return dict(
        model=about,
        settings=settings._asdict(),
        images=dict(zip(('train', 'val'), result.images)),
        classes=result.classes,
        accuracy=result.accuracy,
        best_k=result.best,
        unreadable=result.broken,
    )


def main() -> None:
    args = parse_args()
    import json

    from mmconvnext import cli
    from mmconvnext.analysis import class_images, knn
    from mmconvnext.files import write_text

    cli.prepare_hosts()
    with cli.clear_errors():
        settings = settings_of(args)
        parts = class_images.open_data(settings)
        about, backbone = backbone_of(args)
        backbone.to(cli.device(args.device))
        print(f'model     {about}')
        print(
            f'data      {len(parts[0])} images vote on {len(parts[1])}, '
            f'{len(parts[0].classes)} classes',
            flush=True,
        )
        result = knn.measure(backbone, parts, settings, progress)
    print(*table(result), sep='\n')
    if args.out:
        text = json.dumps(record(about, settings, result), indent=2)
        write_text(text + '\n', args.out)
        print(f'scores    {args.out}')
    for path, reason in result.broken.items():
        print(f'error: {path}: {reason}', file=sys.stderr)
    sys.exit(bool(result.broken))


if __name__ == '__main__':
    main()
