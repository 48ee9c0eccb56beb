"""Losses that the hosts' releases compute differently, or not at all."""

from __future__ import annotations

import math
from typing import Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..registry import MODELS


@MODELS.register_module()
class WeightedCrossEntropyLoss(nn.Module):
    """Cross entropy of a segmentor's pixels, each class with its weight.

    The weighted mean over the pixels that are not ignored, as in PyTorch:
    ``sum(w[y] * -log p[y]) / sum(w[y])``. MMSegmentation's own
    ``CrossEntropyLoss`` with ``class_weight`` computes the same in the
    maintained fork, and in release 1.2.2 stops at the first ignored pixel.

    Args:
        class_weight: one weight for each class, 0 or more.
        loss_weight: multiplies the loss.
        loss_name: its name in the log; must begin with ``loss_`` to count.

    Raises:
        ValueError: for weights that are negative, all zero or not finite.
    """

    class_weight: Tensor

    def __init__(
        self,
        class_weight: Sequence[float],
        loss_weight: float = 1.0,
        loss_name: str = 'loss_ce',
    ) -> None:
        super().__init__()
        if not (
            all(0 <= value < math.inf for value in class_weight)
            and any(class_weight)
        ):
            raise ValueError(
                'class_weight must be numbers of 0 or more, one of them '
                f'above 0: got {list(class_weight)}'
            )
        weights = torch.tensor(class_weight, dtype=torch.float32)
        self.register_buffer('class_weight', weights, persistent=False)
        self.loss_weight, self.loss_name = loss_weight, loss_name

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        weight: Optional[Tensor] = None,
        ignore_index: int = 255,
    ) -> Tensor:
        """Compute the loss; 0 where every pixel is ignored.

        Args:
            logits: ``(N, classes, H, W)``.
            labels: ``(N, H, W)``, numbers of classes or ``ignore_index``.
            weight: ``(N, H, W)``, of a pixel sampler; multiplies the losses
                of pixels, not the weights they are divided by.
            ignore_index: the label of pixels that do not count.

        Raises:
            ValueError: if there is not one weight for each class.
        """
        # Sums over all pixels of a batch leave 16 bits.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        weights = self.class_weight.to(logits.dtype)
        if len(weights) != logits.size(1):
            raise ValueError(
                f'class_weight has {len(weights)} numbers, the head '
                f'{logits.size(1)} classes'
            )
        loss = F.cross_entropy(
            logits,
            labels,
            weights,
            ignore_index=ignore_index,
            reduction='none',
        )
        loss = loss if weight is None else loss * weight
        counted = weights[labels[labels != ignore_index]].sum()
        eps = torch.finfo(loss.dtype).eps
        return self.loss_weight * loss.sum() / (counted + eps)
