"""Draw predictions beside their images, or on the frames of a video.

python tools/predict.py CONFIG CHECKPOINT IMAGE_OR_FOLDER --out DIR
python tools/predict.py CONFIG CHECKPOINT VIDEO_OR_CAMERA --out DIR

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
    parser = arguments.with_model('Predict on images.')
    parser.add_argument(
        'images',
        help='image file, folder (recursive), video file, number of a camera '
        'such as 0, or address of a stream such as rtsp://...',
    )
    parser.add_argument('--out', required=True, help='folder for pictures')
    arguments.device(parser)
    arguments.of_exported(parser)
    parser.add_argument(
        '--score-thr',
        type=float,
        help='lowest score of a drawn detection (default: the one with the '
        'best F1 on validation, which training leaves beside the checkpoint, '
        'or 0.3)',
    )
    parser.add_argument(
        '--labels',
        nargs='?',
        const='',
        metavar='PATH',
        help='ground truth of the images: folder of label maps '
        '(segmentation), COCO file (detection), class folders or list '
        "(classification); without PATH the config's test labels",
    )
    parser.add_argument(
        '--html', action='store_true', help='write DIR/index.html'
    )
    parser.add_argument(
        '--save-labels',
        action='store_true',
        help='write the predictions as labels too: DIR/labels/NAME.png '
        '(segmentation), DIR/labels.json as COCO has them (detection) or '
        'DIR/labels.txt, PATH CLASS (classification)',
    )
    parser.add_argument(
        '--frames', type=int, metavar='N', help='of a video: stop after N'
    )
    return parser.parse_intermixed_args()


def build(args: argparse.Namespace) -> Any:
    """Build what draws, after finding all that is asked for.

    Raises:
        FileNotFoundError, ValueError: for what is not there.
    """
    from mmconvnext import cli
    from mmconvnext.deploy import hosts
    from mmconvnext.inference import Predictor, scorer
    from mmconvnext.inference.classes import settle_names
    from mmconvnext.inference.folder import root_of
    from mmconvnext.pretrain.reconstruction import Reconstructor

    check_source(args)
    cli.check_checkpoint(args.checkpoint)
    given = hosts.config_for(args.config, args.checkpoint)
    cfg = cli.load_config(args, given)
    where = (cfg, args.checkpoint, cli.device(args.device))
    if arguments.runs_file(args):
        options = dict(runtime=args.runtime, precision=args.precision)
        hosts.use_file(cfg, args.checkpoint, device=args.device, **options)
        where = (cfg, None, 'cpu')
    if 'test_dataloader' not in cfg:  # pre-training
        if args.labels is not None:
            raise ValueError('--labels: FCMAE predicts pixels, has no labels')
        for option in ('save_labels', 'frames'):
            if getattr(args, option):
                name = option.replace('_', '-')
                raise ValueError(f'--{name}: FCMAE predicts pixels')
        return Reconstructor(*where)
    labels = None
    settle_names(cfg, where[1])
    if args.labels is not None:
        labels = scorer(cfg, args.labels, root_of(args.images))
    return Predictor(*where, args.score_thr, labels)


def check_source(args: argparse.Namespace) -> None:
    """Raise an error where there is nothing to predict on.

    Raises:
        FileNotFoundError, ValueError: for what is not there, and for options
            that do not go together.
    """
    from mmconvnext.files import find_images
    from mmconvnext.inference.video import is_video, open_video

    if not is_video(args.images):
        if args.frames is not None:
            raise ValueError(f'--frames: {args.images} is no video')
        find_images(args.images)
        return
    wrong = [
        name
        for name in ('labels', 'html', 'save_labels')
        if getattr(args, name) not in (None, False)
    ]
    if wrong:
        name = wrong[0].replace('_', '-')
        raise ValueError(f'--{name}: not of a video, {args.images}')
    if args.frames is not None and args.frames < 1:
        raise ValueError(f'--frames must be 1 or more, got {args.frames}')
    open_video(args.images).release()


def draw_video(predictor: Any, args: argparse.Namespace) -> None:
    from mmconvnext.inference.video import predict_video

    done = predict_video(predictor, args.images, Path(args.out), args.frames)
    print(f'video: {done.path} ({done.frames} frames)')


def label_saver(predictor: Any, args: argparse.Namespace) -> Any:
    """Build what keeps the predictions as labels."""
    from mmconvnext.inference.classes import classifies
    from mmconvnext.inference.saving import LabelSaver, ListSaver

    if classifies(predictor.cfg):
        return ListSaver(predictor.painter.classes, args.images, args.out)
    return LabelSaver(predictor.painter, predictor.score_thr, args.out)


def draw_folder(predictor: Any, args: argparse.Namespace) -> bool:
    """Draw images; return whether all could be drawn."""
    from mmconvnext.inference.folder import predict_folder, table

    title = f'{Path(args.config or args.checkpoint).stem}: {args.images}'
    saver = None
    if args.save_labels:
        saver = label_saver(predictor, args)
    done = predict_folder(
        predictor, args.images, args.out, title, args.html, saver
    )
    if done.total:
        print(table(done.total))
    if done.page:
        print(f'page: {done.page}')
    if saver:
        print(f'labels: {saver.finish()}')
    print(f'pictures: {args.out}')
    for line in done.failures:
        print(f'error: {line}', file=sys.stderr)
    return not done.failures


def main() -> None:
    args = parse_args()
    from mmconvnext import cli
    from mmconvnext.inference.video import is_video

    cli.prepare_hosts()
    with cli.clear_errors():
        predictor = build(args)
        if is_video(args.images):
            draw_video(predictor, args)
        elif not draw_folder(predictor, args):
            sys.exit(1)


if __name__ == '__main__':
    main()
