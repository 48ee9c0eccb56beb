"""Standardise what a linear probe classifies, before it learns."""

from __future__ import annotations

from typing import List

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor

from ..registry import HOOKS


@HOOKS.register_module()
class StandardizeHook(Hook):
    """Let the last norm give each channel mean 0 and variance 1.

    Pooled features of a pre-training differ little between images, and a
    layer on top learns such differences slowly. MAE's probe has a batch norm
    without parameters in front of it for that (arXiv 2111.06377, appendix
    A.1). Here the last norm's weight and bias take its part, from the
    training images and before the first step, so that the model stays a
    published classifier. A resumed training has them already.

    Args:
        images: training images to measure, at least, where there are as many.

    Raises:
        ValueError: for ``images`` below 2; before training for a model that
            is no ``ImageClassifier``, or is sharded.
    """

    def __init__(self, images: int = 4096) -> None:
        if images < 2:
            raise ValueError(f'images must be at least 2, got {images}')
        self.images = images

    def before_train(self, runner: Runner) -> None:
        model = runner.model
        if 'FullyShard' in type(model).__name__:
            raise ValueError(
                'StandardizeHook needs whole parameters, this model is '
                'sharded; train a probe with DistributedDataParallel'
            )
        model = model.module if is_model_wrapper(model) else model
        if not hasattr(model, 'pooled'):
            raise ValueError(
                f'StandardizeHook needs an ImageClassifier, not '
                f'{type(model).__name__}'
            )
        if runner.iter == 0:
            standardize(model, self._features(model, runner))

    @torch.no_grad()
    def _features(self, model: BaseModel, runner: Runner) -> Tensor:
        """Compute what the head classifies of some images, ``(N, C)``."""
        rows: List[Tensor] = []
        training, count = model.training, 0
        model.eval()
        for batch in runner.train_dataloader:
            inputs = model.data_preprocessor(batch, False)['inputs']
            rows.append(model.pooled(inputs).double())
            count += len(inputs) * runner.world_size
            if count >= self.images:
                break
        model.train(training)
        return torch.cat(rows)


@torch.no_grad()
def standardize(model: BaseModel, features: Tensor) -> None:
    """Change the last norm by the statistics of its output.

    Args:
        model: an ``ImageClassifier``, the same in each process.
        features: ``(N, C)``, of this process's images.
    """
    ones = torch.ones_like(features[:, :1])
    sums = torch.cat([ones, features, features.square()], 1).sum(0)
    all_reduce(sums)
    channels = features.size(1)
    mean, square = (sums[1:] / sums[0]).split(channels)
    # A channel that never varies stays at 0: nothing is learnt from it.
    scale = (square - mean.square()).clamp(min=1e-12).rsqrt()
    norm = model.norm
    norm.weight.copy_(norm.weight.double() * scale)
    norm.bias.copy_((norm.bias.double() - mean) * scale)
