"""Draw predictions beside their images, for one image or a folder of them.

python tools/predict.py CONFIG CHECKPOINT IMAGE_OR_FOLDER --out DIR
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Iterator, List

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from rich.progress import track

from mmconvnext import launch
from mmconvnext.pictures import Painter, write_image

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


def parse_args() -> argparse.Namespace:
    parser = launch.common_arguments('Predict on images.')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('images', help='image file, or folder (recursive)')
    parser.add_argument('--out', required=True, help='folder for pictures')
    parser.add_argument(
        '--device', default='cuda' if torch.cuda.is_available() else 'cpu'
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='lowest score of a drawn detection (default: %(default)s)',
    )
    return parser.parse_args()


def find_images(path: str) -> List[Path]:
    """List the image files at or below ``path``.

    Raises:
        FileNotFoundError: when there is none.
    """
    if Path(path).is_file():
        return [Path(path)]
    found = sorted(
        file
        for file in Path(path).rglob('*')
        if file.suffix.lower() in EXTENSIONS
    )
    if not found:
        raise FileNotFoundError(
            f'no image at {path} (looked for {", ".join(EXTENSIONS)})'
        )
    return found


class Predictor:
    """A trained model with its test pipeline and visualizer."""

    def __init__(
        self, cfg: Config, checkpoint: str, device: str, score_thr: float
    ) -> None:
        init_default_scope(cfg.default_scope)
        cfg.model.pop('init_cfg', None)
        cfg.model.backbone.pop('init_cfg', None)
        self.model = revert_sync_batchnorm(MODELS.build(cfg.model))
        load_checkpoint(self.model, checkpoint, 'cpu', strict=True)
        self.model.to(device).eval()
        steps = cfg.test_dataloader.dataset.pipeline
        self.pipeline = Compose(
            [step for step in steps if step['type'] != 'LoadAnnotations']
        )
        self.painter = Painter(cfg, 'test_dataloader')
        self.score_thr = score_thr

    @torch.no_grad()
    def draw(self, path: Path) -> np.ndarray:
        """Return input and prediction side by side, RGB ``(H, 2W, 3)``.

        Raises:
            ValueError: when the file is not a readable image.
        """
        image = cv2.imread(str(path))
        if image is None:
            raise ValueError('not a readable image')
        image = image[..., ::-1]  # RGB, as the visualizer wants it
        data = self.pipeline(dict(img_path=str(path), img_id=0))
        sample = self.model.test_step(pseudo_collate([data]))[0]
        options = {}
        if 'pred_instances' in sample:
            options['pred_score_thr'] = self.score_thr
        return self.painter.draw(image, sample, draw_gt=False, **options)


def run(args: argparse.Namespace) -> Iterator[str]:
    """Draw all images; yield a line for each that could not be drawn."""
    with launch.clear_errors():
        cfg = launch.load_config(args)
        images = find_images(args.images)
        if not Path(args.checkpoint).is_file():
            raise FileNotFoundError(f'checkpoint not found: {args.checkpoint}')
    predictor = Predictor(cfg, args.checkpoint, args.device, args.score_thr)
    root = Path(args.images)
    root = root.parent if root.is_file() else root
    for path in track(images, 'predicting', disable=len(images) == 1):
        try:
            picture = predictor.draw(path)
        except ValueError as error:
            yield f'{path}: {error}'
            continue
        relative = path.relative_to(root)
        write_image(picture, Path(args.out, f'{relative}.png'))
    print(f'pictures: {args.out}')


def main() -> None:
    failures = list(run(parse_args()))
    for line in failures:
        print(f'error: {line}', file=sys.stderr)
    sys.exit(bool(failures))


if __name__ == '__main__':
    main()
