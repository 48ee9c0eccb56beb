"""A backbone with the authors' classifier: pool, normalise, one layer.

It takes weights of pre-training to those that dense models start from
(arXiv 2301.00808, appendix A.2), and any published classifier as it is.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from .. import checkpoint as checkpoints
from ..archs import get_arch
from ..registry import MODELS
from .convnext import InitCfg
from .mixing import Mixing

MODES = ('loss', 'predict', 'tensor')


@MODELS.register_module()
class ImageClassifier(BaseModel):
    """ConvNeXt classifier: ``head(norm(mean(features)))``.

    The norm is the authors': it acts on pooled features, after the mean over
    the map, so that the backbone's own ``norm3`` is left out. ``norm.*`` and
    ``head.*`` are beside ``backbone.*``, as in no dense model: a detector
    that starts from such a file takes the backbone alone.

    Args:
        backbone: config of a ConvNeXt or ConvNeXtV2 of this package, with
            ``out_indices`` of (3,), which is also the default.
        num_classes: length of the logits.
        head_init_scale: what the head's initial weights are multiplied by.
        label_smoothing: part of each target that is spread evenly over all
            classes; for soft targets as well.
        mixing: options of :class:`.mixing.Mixing`, mixup and CutMix in
            training; None for none.
        data_preprocessor: mmengine's; normalises and stacks the images.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` loads any
            classifier whole; with ``head=False`` all but the head, for
            another set of classes. Weights without a classifier go into the
            backbone's own ``init_cfg``.

    Raises:
        ValueError: for an option out of range.
    """

    init_cfg: Any  # of mmengine's BaseModule, which has no types

    def __init__(
        self,
        backbone: dict,
        num_classes: int,
        head_init_scale: float = 0.001,
        label_smoothing: float = 0.0,
        mixing: Optional[dict] = None,
        data_preprocessor: Optional[Union[dict, nn.Module]] = None,
        init_cfg: InitCfg = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        if num_classes < 1:
            raise ValueError(f'num_classes must be 1 or more: {num_classes}')
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                f'label_smoothing must be in [0, 1), got {label_smoothing}'
            )
        self.num_classes, self.label_smoothing = num_classes, label_smoothing
        self.mixing = None if mixing is None else Mixing(**mixing)
        self.backbone = MODELS.build({'out_indices': (3,), **backbone})
        if self.backbone.out_indices != (3,):
            raise ValueError(
                f'out_indices of a classifier are (3,), got '
                f'{self.backbone.out_indices}'
            )
        self.backbone.norm3 = nn.Identity()
        dim = self.backbone.dims[-1]
        eps = get_arch(self.backbone.arch, self.backbone.version).eps
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.head = nn.Linear(dim, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.head.weight.data.mul_(head_init_scale)

    def init_weights(self) -> None:
        """Start from ``init_cfg``, whole or not at all.

        Raises:
            CheckpointError: for a file that is not a classifier like this
                one, with the model as it was.
            ValueError: for an ``init_cfg`` of another type.
        """
        if self.init_cfg is None:
            self.backbone.init_weights()
            return
        cfg = dict(self.init_cfg)
        if cfg.pop('type', None) != 'Pretrained':
            raise ValueError(
                f'init_cfg of ImageClassifier must be of type Pretrained, '
                f'got {self.init_cfg!r}'
            )
        load(self, **cfg)

    def forward(
        self,
        inputs: Tensor,
        data_samples: Optional[Sequence[BaseDataElement]] = None,
        mode: str = 'tensor',
    ) -> Union[Dict[str, Tensor], Tensor, List[BaseDataElement]]:
        """Compute logits, the loss, or predictions.

        Args:
            inputs: ``(N, C, H, W)``, normalised.
            data_samples: one for each image. ``gt_label`` is a class index
                or a ``(num_classes,)`` distribution, as mixup makes.
            mode: 'tensor' for ``(N, num_classes)`` logits; 'loss';
                'predict' adds ``pred_scores`` ``(num_classes,)`` and
                ``pred_label`` to each sample.

        Raises:
            ValueError: for another mode, or labels that are no classes.
        """
        if mode not in MODES:
            raise ValueError(f'mode must be one of {MODES}, got {mode!r}')
        if mode == 'loss':
            return self._loss(inputs, data_samples)
        logits = self.head(self.pooled(inputs))
        if mode == 'tensor':
            return logits
        return self._predict(logits, data_samples)

    def pooled(self, inputs: Tensor) -> Tensor:
        """Compute what the head classifies: pooled, normalised, ``(N, C)``."""
        return self.norm(self.backbone(inputs)[0].mean((-2, -1)))

    def _loss(
        self, inputs: Tensor, samples: Optional[Sequence[BaseDataElement]]
    ) -> Dict[str, Tensor]:
        if samples is None:
            raise ValueError("mode 'loss' needs data_samples with gt_label")
        targets = self._targets(samples, inputs.device)
        if self.mixing is not None:
            if targets.dim() == 1:
                targets = F.one_hot(targets, self.num_classes).float()
            inputs, targets = self.mixing(inputs, targets)
        logits = self.head(self.pooled(inputs))
        # Probabilities lose too much in half precision.
        loss = F.cross_entropy(
            logits.float(), targets, label_smoothing=self.label_smoothing
        )
        return dict(loss=loss)

    def _targets(
        self, samples: Sequence[BaseDataElement], device: torch.device
    ) -> Tensor:
        """Stack labels, ``(N,)``, or soft targets, ``(N, num_classes)``."""
        labels = [torch.as_tensor(sample.gt_label) for sample in samples]
        rows = torch.stack([label.squeeze() for label in labels])
        rows = rows.to(device)
        if rows.dim() == 2 and rows.size(1) == self.num_classes:
            return rows.to(torch.float32)
        if rows.dim() != 1 or rows.is_floating_point():
            raise ValueError(
                f'gt_label must be a class index or {self.num_classes} '
                f'probabilities, got {tuple(labels[0].shape)} of '
                f'{labels[0].dtype}'
            )
        if rows.min() < 0 or rows.max() >= self.num_classes:
            raise ValueError(
                f'gt_label must be in [0, {self.num_classes}), got '
                f'{sorted(set(rows.tolist()))}'
            )
        return rows.long()

    def _predict(
        self,
        logits: Tensor,
        samples: Optional[Sequence[BaseDataElement]],
    ) -> List[BaseDataElement]:
        scores = logits.float().softmax(1)
        samples = samples or [BaseDataElement() for _ in scores]
        for sample, row in zip(samples, scores):
            sample.set_field(row, 'pred_scores')
            sample.set_field(row.argmax(), 'pred_label')
        return list(samples)


def load(
    model: ImageClassifier,
    checkpoint: Union[checkpoints.Source, Mapping[str, Any]],
    head: bool = True,
    sha256: Optional[str] = None,
    map_location: Any = 'cpu',
    **options: Any,
) -> None:
    """Load a classifier of any format, whole or not at all; log it.

    Args:
        model: all of it is loaded.
        checkpoint: a state dict, or what :func:`checkpoint.read` takes.
        head: False leaves the head as it is, for other classes.
        sha256, map_location: as for :func:`checkpoint.read`.
        options: ``ema`` and ``prefix`` of :func:`checkpoint.load`.

    Raises:
        CheckpointError: with the model as it was.
    """
    state, name = checkpoint, 'state dict'
    if not isinstance(checkpoint, Mapping):
        name = str(checkpoint)
        state = checkpoints.read(checkpoint, sha256, map_location)
    goals = {
        key: value
        for key, value in model.named_parameters()
        if not key.startswith('backbone.')
    }
    try:
        plain = checkpoints.is_plain(model.backbone.state_dict())
        found = checkpoints.find_classifier(
            state, goals, plain=plain, head=head, **options
        )
    except checkpoints.CheckpointError as error:
        raise checkpoints.CheckpointError(f'{name}: {error}') from error
    checkpoints.load(model.backbone, state, **options)
    with torch.no_grad():
        for key, value in found.items():
            goals[key].copy_(value)
    what = 'last norm and head' if head else 'last norm alone'
    print_log(f'classifier, {name}: {what} loaded', logger='current')
