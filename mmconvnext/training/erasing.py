"""Random erasing: a part of an image becomes noise."""

from __future__ import annotations

from typing import Any, Sequence, Union

import numpy as np
import torch
from mmengine.model import ImgDataPreprocessor
from torch import Tensor

from ..registry import MODELS


@MODELS.register_module()
class ErasingDataPreprocessor(ImgDataPreprocessor):
    """Normalise and stack images; in training, erase parts of some.

    A rectangle is filled with normal noise, pixel by pixel (arXiv
    1708.04896, mode 'pixel' of the authors' recipes), after normalising, so
    that noise and image have one scale.

    Args:
        erase_prob: probability of erasing in an image.
        area_range: share of the image's area.
        aspect_range: height / width; its logarithm is drawn uniformly.
        tries: draws before an image is left as it is.
        kwargs: of mmengine's ImgDataPreprocessor.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(
        self,
        *args: Any,
        erase_prob: float = 0.25,
        area_range: Sequence[float] = (0.02, 1 / 3),
        aspect_range: Sequence[float] = (0.3, 1 / 0.3),
        tries: int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if not 0 <= erase_prob <= 1:
            raise ValueError(f'erase_prob must be in [0, 1]: {erase_prob}')
        self.erase_prob, self.tries = erase_prob, tries
        self.area_range, self.aspect_range = area_range, aspect_range

    def forward(
        self, data: Union[dict, tuple, list], training: bool = False
    ) -> Union[dict, list]:
        """Prepare a batch; erase where ``training``."""
        data = super().forward(data, training)
        if training:
            for image in data['inputs']:
                if np.random.rand() < self.erase_prob:
                    self.erase(image)
        return data

    def erase(self, image: Tensor) -> None:
        """Fill a random rectangle of ``image``, (C, H, W), with noise."""
        height, width = image.shape[-2:]
        for _ in range(self.tries):
            area = height * width * np.random.uniform(*self.area_range)
            logs = np.log(self.aspect_range)
            aspect = np.exp(np.random.uniform(*logs))
            h, w = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
            if 0 < h < height and 0 < w < width:
                top = np.random.randint(height - h + 1)
                left = np.random.randint(width - w + 1)
                part = image[..., top : top + h, left : left + w]
                part.copy_(torch.randn_like(part))
                return
