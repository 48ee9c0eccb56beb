"""Mixup and CutMix: two images and their targets become one."""

from __future__ import annotations

from typing import Tuple

import numpy as np
from torch import Tensor


class Mixing:
    """Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899) of a batch.

    The whole batch is mixed with itself in reverse order, by one weight, as
    in the authors' recipes (timm's mode 'batch'). Where both are on, each
    batch takes one of them.

    Args:
        mixup: both parameters of the Beta distribution that the weight is
            drawn from; 0 is off.
        cutmix: the same for the area that is kept.
        prob: of mixing a batch.
        cutmix_share: of the batches, where both are on.

    Raises:
        ValueError: for a value out of range, or with both off.
    """

    def __init__(
        self,
        mixup: float = 0.8,
        cutmix: float = 1.0,
        prob: float = 1.0,
        cutmix_share: float = 0.5,
    ) -> None:
        if mixup < 0 or cutmix < 0 or not mixup + cutmix:
            raise ValueError(
                f'mixup and cutmix must be 0 or more, and one above 0: got '
                f'{mixup} and {cutmix}'
            )
        for name, value in dict(prob=prob, cutmix_share=cutmix_share).items():
            if not 0 <= value <= 1:
                raise ValueError(f'{name} must be in [0, 1], got {value}')
        self.mixup, self.cutmix, self.prob = mixup, cutmix, prob
        self.cutmix_share = cutmix_share

    def __call__(
        self, images: Tensor, targets: Tensor
    ) -> Tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            images: ``(N, C, H, W)``, normalised; left as they are.
            targets: ``(N, classes)``, each row a distribution.
        """
        if np.random.rand() >= self.prob:
            return images, targets
        cuts = bool(self.cutmix)
        if self.mixup and self.cutmix:
            cuts = np.random.rand() < self.cutmix_share
        alpha = self.cutmix if cuts else self.mixup
        weight = float(np.random.beta(alpha, alpha))
        others = images.flip(0)
        if cuts:
            height, width = images.shape[-2:]
            rows, columns = window(height, width, 1 - weight)
            mixed = images.clone()
            mixed[..., rows, columns] = others[..., rows, columns]
            area = (rows.stop - rows.start) * (columns.stop - columns.start)
            weight = 1 - area / (height * width)
        else:
            mixed = images * weight + others * (1 - weight)
        return mixed, targets * weight + targets.flip(0) * (1 - weight)


def window(height: int, width: int, share: float) -> Tuple[slice, slice]:
    """Draw a window of a share of an image's area, cut off at its borders.

    The centre is uniform over the pixels (arXiv 1905.04899, equation 2).
    """
    places = []
    for side in (height, width):
        length = int(side * share**0.5)
        middle = np.random.randint(side)
        start, stop = middle - length // 2, middle + (length + 1) // 2
        places.append(slice(max(start, 0), min(stop, side)))
    return places[0], places[1]
