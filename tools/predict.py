"""Draw predictions beside their images, for one image or a folder of them.

python tools/predict.py CONFIG CHECKPOINT IMAGE_OR_FOLDER --out DIR

--labels adds the ground truth as a panel, scores per class and per image
(scores.csv, worst first, and scores.json); --html one page with all of it.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from rich.progress import track

from mmconvnext import cli
from mmconvnext.files import find_images, read_image, write_image, write_text
from mmconvnext.inference.gallery import Entry, entry, page, worst_first
from mmconvnext.inference.pictures import (
    Drawn,
    Painter,
    captioned,
    side_by_side,
)
from mmconvnext.inference.scores import Score, scorer
from mmconvnext.pretrain import reconstruction


def parse_args() -> argparse.Namespace:
    parser = cli.common_arguments('Predict on images.')
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


def plain_truth(sample: Any) -> Any:
    """Turn boxes and masks into what hosts' visualizers take."""
    if 'gt_instances' in sample:
        truth = sample.gt_instances
        truth.bboxes = getattr(truth.bboxes, 'tensor', truth.bboxes)
        if 'masks' in truth:
            truth.masks = truth.masks.to_ndarray().astype(bool)
    return sample


def load_model(cfg: Config, checkpoint: str, device: str) -> BaseModel:
    """Build the config's model with all its weights from a checkpoint."""
    init_default_scope(cfg.default_scope)
    cfg.model.pop('init_cfg', None)
    cfg.model.backbone.pop('init_cfg', None)
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    load_checkpoint(model, checkpoint, 'cpu', strict=True)
    return model.to(device).eval()


class Reconstructor:
    """A pre-trained FCMAE, filling in what it hides from itself.

    Args:
        cfg, checkpoint, device: as for :class:`Predictor`.
    """

    def __init__(self, cfg: Config, checkpoint: str, device: str) -> None:
        self.model = load_model(cfg, checkpoint, device)

    def draw(self, path: Path) -> Drawn:
        """Draw input, what is visible of it, and what is filled in.

        Raises:
            DamagedImageError: when the file is not a readable image.
        """
        image = reconstruction.read_image(str(path), self.model.patch_size)
        return reconstruction.panels(self.model, image)


class Predictor:
    """A trained model with its test pipeline and visualizer.

    Args:
        cfg: of either host.
        checkpoint: of the whole model.
        device: to run on.
        score_thr: lowest score of a drawn detection.
        labels: ground truth by image, or None.
    """

    def __init__(
        self,
        cfg: Config,
        checkpoint: str,
        device: str,
        score_thr: float,
        labels: Any = None,
    ) -> None:
        self.model = load_model(cfg, checkpoint, device)
        steps = cfg.test_dataloader.dataset.pipeline
        self.pipeline = Compose(
            [s for s in steps if labels or s['type'] != 'LoadAnnotations']
        )
        self.painter = Painter(cfg, 'test_dataloader')
        self.score_thr, self.labels = score_thr, labels

    @torch.no_grad()
    def draw(self, path: Path) -> Drawn:
        """Draw input, ground truth if there are labels, and prediction.

        Raises:
            ValueError: when the file is not a readable image, or its label
                is missing or of another size.
        """
        image = read_image(path)
        info = dict(img_path=str(path), img_id=0)
        if self.labels:
            info = self.labels.info(path)
        data = self.pipeline(info)
        sample = self.model.test_step(pseudo_collate([data]))[0]
        options = {}
        if 'pred_instances' in sample:
            options['pred_score_thr'] = self.score_thr
        if not self.labels:
            paint = self.painter.panel
            result = paint(image, sample, draw_gt=False, **options)
            return Drawn({'input': image, 'prediction': result})
        return self._compare(image, sample, options)

    def _compare(self, image: np.ndarray, sample: Any, options: Dict) -> Drawn:
        score = self.labels.add(sample)
        if 'pred_sem_seg' in sample:
            # Names in the picture hide small objects; the legend has them.
            options['with_labels'] = False
        truth = dict(options, draw_pred=False)
        result = dict(options, draw_gt=False)
        panels = {
            'input': image,
            'ground truth': self.painter.panel(
                image, plain_truth(sample), **truth
            ),
            'prediction': self.painter.panel(image, sample, **result),
        }
        return Drawn(panels, score, self.labels.legend(score))


def is_pretraining(cfg: Config) -> bool:
    """Whether the model is an FCMAE, which has no test data."""
    return 'test_dataloader' not in cfg


def join(drawn: Drawn) -> np.ndarray:
    """Join panels; input and prediction alone need no captions."""
    if len(drawn.panels) > 2:
        return captioned(drawn)
    return side_by_side(list(drawn.panels.values()))


def prepare(args: argparse.Namespace) -> tuple:
    """Find everything that is asked for, before any work.

    Raises:
        FileNotFoundError, ValueError: for what is not there.
    """
    cfg = cli.load_config(args)
    images = find_images(args.images)
    if not Path(args.checkpoint).is_file():
        raise FileNotFoundError(f'checkpoint not found: {args.checkpoint}')
    root = Path(args.images)
    root = root.parent if root.is_file() else root
    labels = None
    if args.labels is not None and is_pretraining(cfg):
        raise ValueError('--labels: FCMAE predicts pixels, it has no labels')
    if args.labels is not None:
        init_default_scope(cfg.default_scope)
        labels = scorer(cfg, args.labels, root)
    return cfg, images, root, labels


def draw_all(
    predictor: Any, images: List[Path], root: Path, args: argparse.Namespace
) -> Iterator[Any]:
    """Write the pictures; yield an entry for each, a line for a failure."""
    for path in track(images, 'predicting', disable=len(images) == 1):
        try:
            drawn = predictor.draw(path)
        except (ValueError, OSError) as error:
            yield f'{path}: {error}'
            continue
        name = str(path.relative_to(root))
        write_image(join(drawn), Path(args.out, f'{name}.png'))
        yield entry(name, drawn, thumbnail=args.html)


def run(args: argparse.Namespace) -> List[str]:
    """Draw all images; return a line for each that could not be drawn."""
    with cli.clear_errors():
        cfg, images, root, labels = prepare(args)
    where = (cfg, args.checkpoint, args.device)
    if is_pretraining(cfg):
        predictor = Reconstructor(*where)
    else:
        predictor = Predictor(*where, args.score_thr, labels)
    results = list(draw_all(predictor, images, root, args))
    failures = [row for row in results if isinstance(row, str)]
    entries = worst_first([row for row in results if isinstance(row, Entry)])
    total = labels.total() if labels and entries else None
    if total:
        write_scores(Path(args.out), entries, total)
        print(table(total))
    if args.html:
        title = f'{Path(args.config).stem}: {args.images}'
        about = dict(failures=failures)
        if total:
            about.update(total=total, colours=labels.colours, rule=labels.rule)
        file = Path(args.out, 'index.html')
        write_text(page(title, entries, **about), file)
        print(f'page: {file}')
    print(f'pictures: {args.out}')
    return failures


def plain(row: Dict[str, float]) -> Dict[str, Optional[float]]:
    """Round to what is printed; NaN is null in JSON and empty in CSV."""
    return {
        key: None if math.isnan(value) else round(value, 2)
        for key, value in row.items()
    }


def write_scores(out: Path, entries: List[Entry], total: Score) -> None:
    """Write ``scores.csv``, images worst first, and ``scores.json``."""
    stream = io.StringIO()
    columns = ['image', *total.means]
    writer = csv.DictWriter(stream, columns, lineterminator='\n')
    writer.writeheader()
    for item in entries:
        writer.writerow({'image': item.name, **plain(item.score.means)})
    write_text(stream.getvalue(), out / 'scores.csv')
    report = dict(
        unit='percent',
        mean=plain(total.means),
        classes={name: plain(row) for name, row in total.classes.items()},
        images={
            item.name: dict(
                mean=plain(item.score.means),
                classes={k: plain(v) for k, v in item.score.classes.items()},
            )
            for item in entries
        },
    )
    write_text(json.dumps(report, indent=1) + '\n', out / 'scores.json')


def table(total: Score) -> str:
    """Lay the scores per class out for the terminal."""
    rows = {**total.classes, 'mean': total.means}
    width = max(map(len, rows))
    head = ''.join(f'{column:>10}' for column in total.means)
    lines = [f'{"class":<{width}}{head}   (percent)']
    for name, row in rows.items():
        numbers = ''.join(f'{value:>10.1f}' for value in row.values())
        lines.append(f'{name:<{width}}{numbers}')
    return '\n'.join(lines)


def main() -> None:
    failures = run(parse_args())
    for line in failures:
        print(f'error: {line}', file=sys.stderr)
    sys.exit(bool(failures))


if __name__ == '__main__':
    main()
