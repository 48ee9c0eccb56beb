"""What tools/test.py writes of every image: label maps, pictures, results.

Files are named after their images with the folders they lie in, so that
``a/0.jpg`` and ``b/0.jpg`` do not meet.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..configs import as_list, host_of, leaves
from ..files import read_image, write_image
from ..registry import HOOKS, METRICS
from .classes import classifies
from .pictures import Painter, PictureNames
from .threshold import DEFAULT, threshold_of


def add_predictions(cfg: Config, out: str) -> None:
    """Let a test write its predictions: a .pkl file, or label maps.

    Raises:
        ValueError: for a folder, where the model gives no label maps.
    """
    if out.endswith('.pkl'):
        writer = dict(type='DumpResults', out_file_path=out)
    elif host_of(cfg) == 'mmseg':
        writer = dict(
            type='mmconvnext.LabelMapWriter', folder=out, roots=roots(cfg)
        )
    else:
        kind = 'classifier' if classifies(cfg) else 'detector'
        raise ValueError(f'--out of a {kind} must end in .pkl, got {out}')
    cfg.test_evaluator = [*as_list(cfg.test_evaluator), writer]


def add_pictures(cfg: Config, folder: str) -> None:
    """Let a test draw every image."""
    hook = dict(type='mmconvnext.PictureHook', folder=folder, roots=roots(cfg))
    score = threshold_of(cfg.get('load_from') or '')
    if score is not None:
        hook['score_thr'] = score
    cfg.custom_hooks = [*as_list(cfg.get('custom_hooks')), hook]


def roots(cfg: Config) -> List[str]:
    """List the folders that the test images lie in."""
    found = []
    for leaf in leaves(cfg.test_dataloader.dataset):
        prefix = leaf.get('data_prefix') or {}
        if not isinstance(prefix, str):
            prefix = prefix.get('img_path') or prefix.get('img') or ''
        folder = os.path.join(leaf.get('data_root') or '', prefix)
        found.append(os.path.abspath(folder))
    return found


def name_below(path: str, folders: Sequence[str]) -> Path:
    """Name a file by its path below the folder all of ``folders`` are in.

    >>> name_below('/data/a/x/0.jpg', ['/data/a', '/data/b'])
    PosixPath('a/x/0.jpg')
    """
    path = os.path.abspath(path)
    root = os.path.commonpath([os.path.abspath(f) for f in folders] or [path])
    if os.path.commonpath([root, path]) != root or root == path:
        return Path(path).relative_to(Path(path).anchor)
    return Path(path).relative_to(root)


def label_map(sample: Dict) -> np.ndarray:
    """Return a predicted label map ``(H, W)`` with the numbers on disk."""
    labels = sample['pred_sem_seg']['data'].squeeze(0).cpu().numpy()
    labels = labels + bool(sample.get('reduce_zero_label'))
    return labels.astype(np.uint8 if labels.max() < 256 else np.uint16)


@METRICS.register_module()
class LabelMapWriter(BaseMetric):
    """Write predicted label maps as grey PNG files; it measures nothing.

    Numbers are those of the labels on disk: where the data set counts from
    1 (``reduce_zero_label``), maps do as well.

    Args:
        folder: for the maps.
        roots: folders of the images.
    """

    def __init__(self, folder: str, roots: Sequence[str]) -> None:
        super().__init__()
        self.folder, self.roots = Path(folder), list(roots)

    def process(self, data_batch: Any, data_samples: Sequence[Dict]) -> None:
        """Write the maps of a batch."""
        for sample in data_samples:
            name = name_below(sample['img_path'], self.roots)
            path = self.folder / name.with_suffix('.png')
            write_image(label_map(sample), path)
            self.results.append(None)

    def compute_metrics(self, results: list) -> Dict[str, float]:
        """Return nothing."""
        return {}


@HOOKS.register_module()
class PictureHook(Hook):
    """Draw every tested image, input beside prediction.

    Args:
        folder: for the pictures.
        roots: folders of the images.
        score_thr: lowest score of a drawn detection.
    """

    def __init__(
        self, folder: str, roots: Sequence[str], score_thr: float = DEFAULT
    ) -> None:
        self.folder, self.roots = Path(folder), list(roots)
        self.score_thr, self.names = score_thr, PictureNames()
        self.painter: Optional[Painter] = None

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Optional[Any] = None,
        outputs: Optional[Sequence[Any]] = None,
    ) -> None:
        """Draw the images of a batch."""
        if self.painter is None:
            self.painter = Painter(runner.cfg, 'test_dataloader')
        for sample in outputs or ():
            image = read_image(sample.img_path)
            picture = self.painter.draw(
                image, sample, draw_gt=False, pred_score_thr=self.score_thr
            )
            name = self.names.of(name_below(sample.img_path, self.roots))
            write_image(picture, self.folder / name)
