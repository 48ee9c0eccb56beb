"""Augmentations of images alone, without boxes or label maps."""

from __future__ import annotations

from typing import Optional, Sequence, Tuple, Union

import numpy as np

from ..files import resize, resize_middle
from ..registry import TRANSFORMS


def _sides(scale: Union[int, Sequence[int]]) -> Sequence[int]:
    return (scale, scale) if isinstance(scale, int) else scale


@TRANSFORMS.register_module()
class RandomResizedCrop:
    """Crop a random part and resize it (Inception's, arXiv 1409.4842).

    Args:
        scale: side of the result in pixels, or its (height, width).
        area_range: share of the image's area that is cropped.
        aspect_range: width / height of the crop relative to that of the
            result; its logarithm is drawn uniformly.
        tries: draws before the largest crop in the centre is taken.

    Raises:
        ValueError: for a range that is not positive and ascending.
    """

    def __init__(
        self,
        scale: Union[int, Sequence[int]] = 224,
        area_range: Tuple[float, float] = (0.2, 1.0),
        aspect_range: Tuple[float, float] = (3 / 4, 4 / 3),
        tries: int = 10,
    ) -> None:
        self.height, self.width = _sides(scale)
        for name, (low, high) in dict(
            area_range=area_range, aspect_range=aspect_range
        ).items():
            if not 0 < low <= high:
                raise ValueError(
                    f'{name} must be (low, high) with 0 < low <= high, got '
                    f'{(low, high)}'
                )
        self.area_range, self.aspect_range = area_range, aspect_range
        self.tries = tries

    def draw(self, height: int, width: int) -> Tuple[int, int, int, int]:
        """Return top, left, height and width of a random part."""
        shape = self.width / self.height
        for _ in range(self.tries):
            area = height * width * np.random.uniform(*self.area_range)
            logs = np.log(self.aspect_range)
            aspect = shape * np.exp(np.random.uniform(*logs))
            h, w = round((area / aspect) ** 0.5), round((area * aspect) ** 0.5)
            if 0 < h <= height and 0 < w <= width:
                top = np.random.randint(height - h + 1)
                return top, np.random.randint(width - w + 1), h, w
        h, w = min(height, round(width / shape)), min(width, height * shape)
        h, w = max(h, 1), max(round(w), 1)
        return (height - h) // 2, (width - w) // 2, h, w

    def __call__(self, results: dict) -> dict:
        """Replace ``img`` and ``img_shape``."""
        top, left, height, width = self.draw(*results['img'].shape[:2])
        part = results['img'][top : top + height, left : left + width]
        results['img'] = resize(part, self.height, self.width)
        results['img_shape'] = results['img'].shape[:2]
        return results


@TRANSFORMS.register_module()
class RandomFlip:
    """Mirror ``img`` left to right.

    Args:
        prob: probability of mirroring an image.
    """

    def __init__(self, prob: float = 0.5) -> None:
        self.prob = prob

    def __call__(self, results: dict) -> dict:
        """Replace ``img`` or leave it."""
        if np.random.uniform() < self.prob:
            results['img'] = results['img'][:, ::-1]
        return results


@TRANSFORMS.register_module()
class ResizedCenterCrop:
    """Resize ``img`` and crop its middle, as published models are tested.

    Args:
        scale: side of the result in pixels, or its (height, width).
        crop_ratio: share of the shorter side that is seen, 224 / 256 in the
            authors' tests at 224 pixels. None squeezes the whole image, as
            in those at 384 and more.

    Raises:
        ValueError: for a ``crop_ratio`` outside of (0, 1].
    """

    def __init__(
        self,
        scale: Union[int, Sequence[int]] = 224,
        crop_ratio: Optional[float] = 0.875,
    ) -> None:
        self.height, self.width = _sides(scale)
        if crop_ratio is not None and not 0 < crop_ratio <= 1:
            raise ValueError(f'crop_ratio must be in (0, 1], got {crop_ratio}')
        self.crop_ratio = crop_ratio

    def __call__(self, results: dict) -> dict:
        """Replace ``img`` and ``img_shape``."""
        image = resize_middle(
            results['img'], self.height, self.width, self.crop_ratio
        )
        results['img'], results['img_shape'] = image, image.shape[:2]
        return results
