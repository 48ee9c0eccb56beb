"""A trained model of either host with everything prediction needs."""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import Any, Dict, Optional, Union

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.logging import print_log
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import MODELS

from ..checkpoint import fit, weights_io
from ..configs import bare_type, enter_scope, leaves
from ..files import read_image
from .classes import settle_names
from .pictures import Drawn, Painter, plain_truth
from .threshold import DEFAULT, threshold_of

ConfigLike = Union[str, 'os.PathLike[str]', Config]


def load_model(
    cfg: ConfigLike, checkpoint: Optional[str], device: str = 'cpu'
) -> BaseModel:
    """Build the config's model with all its weights from a checkpoint.

    Args:
        cfg: config of either host, or the path of one; it is not changed.
        checkpoint: of the whole model; None for one that brings its weights
            (an exported file).
        device: to put it on.

    Returns:
        The model in evaluation mode.

    Raises:
        CheckpointError: for a file that does not fill the model; says what
            would help.
    """
    cfg = as_config(cfg)
    enter_scope(cfg)
    settings = cfg.model
    settings.pop('init_cfg', None)
    settings.get('backbone', {}).pop('init_cfg', None)
    model = revert_sync_batchnorm(MODELS.build(settings))
    if checkpoint is not None:
        _fill(model, checkpoint)
    return model.to(device).eval()


def _fill(model: BaseModel, checkpoint: str) -> None:
    """Load a checkpoint that accounts for the whole model."""
    raw = fit.native(model, weights_io.read(checkpoint), str(checkpoint))
    for line in fit.require_whole(model, raw, str(checkpoint)):
        print_log(line, 'current')
    model.load_state_dict(fit.state_of(raw), strict=False)


def as_config(cfg: ConfigLike) -> Config:
    """Read a config file, or copy a config."""
    if isinstance(cfg, Config):
        return copy.deepcopy(cfg)
    return Config.fromfile(os.fspath(cfg))


class Predictor:
    """A trained model with its test pipeline and visualizer.

    Args:
        cfg: config of either host or a classifier, or the path of one.
        checkpoint: of the whole model; None as for :func:`load_model`.
        device: to run on.
        score_thr: lowest score of a drawn detection; None takes the one
            with the best F1 on validation, where the checkpoint's folder
            has it.
        labels: ground truth by image, from :func:`.scores.scorer`, or None.
    """

    def __init__(
        self,
        cfg: ConfigLike,
        checkpoint: Optional[str],
        device: str = 'cpu',
        score_thr: Optional[float] = None,
        labels: Any = None,
    ) -> None:
        cfg = as_config(cfg)
        settle_names(cfg, checkpoint)
        self.cfg = cfg
        self.model = load_model(cfg, checkpoint, device)
        (first, *_) = leaves(cfg.test_dataloader.dataset)
        steps = first.get('pipeline') or []
        self.pipeline = Compose(
            [s for s in steps if labels or not _reads_labels(s)]
        )
        self.painter = Painter(cfg, 'test_dataloader')
        if score_thr is None:
            score_thr = threshold_of(str(checkpoint))
        self.score_thr = DEFAULT if score_thr is None else score_thr
        self.labels = labels

    @torch.no_grad()
    def predict(self, path: Union[str, Path]) -> Any:
        """Return the host's data sample of an image file.

        Raises:
            ValueError: when its label is missing.
        """
        info = dict(img_path=str(path), img_id=0)
        if self.labels:
            info = self.labels.info(Path(path))
        data = self.pipeline(info)
        return self.model.test_step(pseudo_collate([data]))[0]

    def draw(self, path: Union[str, Path]) -> Drawn:
        """Draw input, ground truth if there are labels, and prediction.

        Raises:
            ValueError: when the file is not a readable image, or its label
                is missing or of another size.
        """
        return self.drawn(read_image(path), self.predict(path))

    def drawn(self, image: np.ndarray, sample: Any) -> Drawn:
        """Draw what was predicted for an image, RGB: :meth:`draw`."""
        options: Dict = dict(pred_score_thr=self.score_thr)
        if 'pred_scores' in sample:
            score = self.labels.add(sample) if self.labels else None
            panels = self.painter.ranked(image, sample)
            return Drawn(panels, score, sample=sample)
        if self.labels:
            return self._compare(image, sample, options)
        paint = self.painter.panel
        result = paint(image, sample, draw_gt=False, **options)
        panels = {'input': image, 'prediction': result}
        return Drawn(panels, sample=sample)

    @torch.no_grad()
    def predict_array(self, image: np.ndarray) -> Any:
        """Return the host's data sample of an image, RGB ``(H, W, 3)``.

        The step of the pipeline that reads a file is left out.
        """
        first, rest = self.pipeline.transforms[0], self.pipeline.transforms[1:]
        bgr = np.ascontiguousarray(image[..., ::-1])
        if getattr(first, 'to_float32', False):
            bgr = bgr.astype(np.float32)
        data = dict(
            img=bgr,
            img_path='',
            img_id=0,
            img_shape=image.shape[:2],
            ori_shape=image.shape[:2],
        )
        for step in rest:
            data = step(data)
        return self.model.test_step(pseudo_collate([data]))[0]

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
        return Drawn(panels, score, self.labels.legend(score), sample)


def _reads_labels(step: Dict) -> bool:
    # LoadPanopticAnnotations, LoadDepthAnnotation, a user's own
    return bool(re.fullmatch(r'Load\w*Annotations?', bare_type(step)))
