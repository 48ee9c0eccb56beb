"""Draw predictions beside their images, for one image or a folder of them.

python tools/predict.py CONFIG CHECKPOINT IMAGE_OR_FOLDER --out DIR

--labels adds the ground truth as a panel, scores per class and per image
(scores.csv, worst first, and scores.json); --html one page with all of it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import arguments


def parse_args() -> argparse.Namespace:
    parser = arguments.with_config('Predict on images.')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('images', help='image file, or folder (recursive)')
    parser.add_argument('--out', required=True, help='folder for pictures')
    arguments.device(parser)
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='lowest score of a drawn detection (default: %(default)s)',
    )
    parser.add_argument(
        '--labels',
        nargs='?',
        const='',
        metavar='PATH',
        help='ground truth of the images: folder of label maps (segmentation) '
        "or COCO file (detection); without PATH the config's test labels",
    )
    parser.add_argument(
        '--html', action='store_true', help='write DIR/index.html'
    )
    return parser.parse_args()


def build(args: argparse.Namespace) -> Any:
    """Build what draws, after finding all that is asked for.

    Raises:
        FileNotFoundError, ValueError: for what is not there.
    """
    from mmconvnext import cli
    from mmconvnext.files import find_images
    from mmconvnext.inference import Predictor, scorer
    from mmconvnext.inference.folder import root_of
    from mmconvnext.pretrain.reconstruction import Reconstructor

    cfg = cli.load_config(args)
    find_images(args.images)
    cli.check_checkpoint(args.checkpoint)
    where = (cfg, args.checkpoint, cli.device(args.device))
    if 'test_dataloader' not in cfg:  # pre-training
        if args.labels is not None:
            raise ValueError('--labels: FCMAE predicts pixels, has no labels')
        return Reconstructor(*where)
    labels = None
    if args.labels is not None:
        labels = scorer(cfg, args.labels, root_of(args.images))
    return Predictor(*where, args.score_thr, labels)


def main() -> None:
    args = parse_args()
    from mmconvnext import cli
    from mmconvnext.inference.folder import predict_folder, table

    cli.prepare_hosts()
    title = f'{Path(args.config).stem}: {args.images}'
    with cli.clear_errors():
        predictor = build(args)
        done = predict_folder(
            predictor, args.images, args.out, title, args.html
        )
    if done.total:
        print(table(done.total))
    if done.page:
        print(f'page: {done.page}')
    print(f'pictures: {args.out}')
    for line in done.failures:
        print(f'error: {line}', file=sys.stderr)
    sys.exit(bool(done.failures))


if __name__ == '__main__':
    main()
