"""RandAugment and colour jitter; Pillow computes them.

RandAugment is that of the authors' recipes, ``rand-m9-mstd0.5-inc1``: timm's
reading of arXiv 1909.13719, in which a larger magnitude always changes an
image more.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Sequence, Tuple

import numpy as np

from ..registry import TRANSFORMS

LARGEST = 10.0  # magnitude
BLEND = 0.9  # largest change of a factor of colour, contrast and so on
DEGREES, SHEAR, SHIFT = 30.0, 0.3, 0.45  # largest of each
ADDED = 110  # largest that is added to dark pixels
Fill = Tuple[int, int, int]


def signed(value: float) -> float:
    """Turn a value around half of the time."""
    return -value if np.random.rand() > 0.5 else value


def _pillow(name: str, *given: Any) -> Callable:
    """Apply a function of Pillow's ImageOps, whatever the magnitude."""

    def run(image: Any, share: float, fill: Fill) -> Any:
        from PIL import ImageOps

        return getattr(ImageOps, name)(image, *given)

    return run


def _posterize(image: Any, share: float, fill: Fill) -> Any:
    from PIL import ImageOps

    # At the largest magnitude the recipe keeps no bit: a black image, which
    # Pillow refuses to make now. One bit is kept here.
    return ImageOps.posterize(image, max(1, 4 - int(share * 4)))


def _solarize(image: Any, share: float, fill: Fill) -> Any:
    from PIL import ImageOps

    return ImageOps.solarize(image, 256 - min(256, int(share * 256)))


def _solarize_add(image: Any, share: float, fill: Fill) -> Any:
    """Brighten the darker half of the values."""
    added = min(128, int(share * ADDED))
    table = [min(255, i + added) if i < 128 else i for i in range(256)]
    return image.point(table * 3)


def _enhance(name: str) -> Callable:
    """Apply one of Pillow's ImageEnhance, away from 1 in either direction."""

    def run(image: Any, share: float, fill: Fill) -> Any:
        from PIL import ImageEnhance

        factor = max(0.1, 1 + signed(share * BLEND))
        return getattr(ImageEnhance, name)(image).enhance(factor)

    return run


def _rotate(image: Any, share: float, fill: Fill) -> Any:
    from PIL import Image

    return image.rotate(
        signed(share * DEGREES), resample=Image.BICUBIC, fillcolor=fill
    )


def _affine(place: int, largest: float, side: int = -1) -> Callable:
    """Shear or shift: exchange one number of the identity.

    Args:
        place: of the number, in (a, b, c, d, e, f) of x' = ax + by + c and
            y' = dx + ey + f.
        largest: its magnitude at 10.
        side: of ``image.size`` that it is a share of; -1 is none.
    """

    def run(image: Any, share: float, fill: Fill) -> Any:
        from PIL import Image

        matrix = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        matrix[place] = signed(share * largest)
        if side >= 0:
            matrix[place] *= image.size[side]
        return image.transform(
            image.size,
            Image.AFFINE,
            matrix,
            resample=Image.BICUBIC,
            fillcolor=fill,
        )

    return run


# name: of an image, a magnitude as share of the largest, and a colour for
# what comes in from outside
OPERATIONS: Dict[str, Callable[[Any, float, Fill], Any]] = {
    'AutoContrast': _pillow('autocontrast'),
    'Equalize': _pillow('equalize'),
    'Invert': _pillow('invert'),
    'Rotate': _rotate,
    'Posterize': _posterize,
    'Solarize': _solarize,
    'SolarizeAdd': _solarize_add,
    'Color': _enhance('Color'),
    'Contrast': _enhance('Contrast'),
    'Brightness': _enhance('Brightness'),
    'Sharpness': _enhance('Sharpness'),
    'ShearX': _affine(1, SHEAR),
    'ShearY': _affine(3, SHEAR),
    'TranslateX': _affine(2, SHIFT, side=0),
    'TranslateY': _affine(5, SHIFT, side=1),
}


@TRANSFORMS.register_module()
class RandAugment:
    """Change colours and geometry of ``img`` by random operations.

    Args:
        num_ops: operations in a row, drawn with replacement.
        magnitude: mean of the strength, of at most 10.
        magnitude_std: standard deviation of the strength.
        prob: of applying an operation that was drawn.
        fill: RGB of what comes in from outside; ImageNet's mean.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(
        self,
        num_ops: int = 2,
        magnitude: float = 9.0,
        magnitude_std: float = 0.5,
        prob: float = 0.5,
        fill: Sequence[int] = (124, 116, 104),
    ) -> None:
        if not 0 <= magnitude <= LARGEST:
            raise ValueError(f'magnitude must be in [0, 10], got {magnitude}')
        if num_ops < 0 or magnitude_std < 0 or not 0 <= prob <= 1:
            raise ValueError(
                f'num_ops and magnitude_std must be 0 or more and prob in '
                f'[0, 1]: got {num_ops}, {magnitude_std}, {prob}'
            )
        self.num_ops, self.prob = num_ops, prob
        self.magnitude, self.magnitude_std = magnitude, magnitude_std
        red, green, blue = fill
        self.fill = (red, green, blue)

    def __call__(self, results: dict) -> dict:
        """Replace ``img``, RGB uint8."""
        from PIL import Image

        image = Image.fromarray(np.ascontiguousarray(results['img']))
        names = list(OPERATIONS)
        for place in np.random.randint(len(names), size=self.num_ops):
            if np.random.rand() >= self.prob:
                continue
            strength = np.random.normal(self.magnitude, self.magnitude_std)
            share = float(np.clip(strength, 0, LARGEST)) / LARGEST
            image = OPERATIONS[names[place]](image, share, self.fill)
        results['img'] = np.array(image)
        return results


@TRANSFORMS.register_module()
class ColorJitter:
    """Change brightness, contrast and saturation of ``img``, in any order.

    Args:
        brightness, contrast, saturation: a factor is drawn from [max(0, 1 -
            value), 1 + value].

    Raises:
        ValueError: for a negative value.
    """

    def __init__(
        self,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
    ) -> None:
        self.ranges = dict(
            Brightness=brightness, Contrast=contrast, Color=saturation
        )
        if min(self.ranges.values()) < 0:
            raise ValueError(f'must be 0 or more: {self.ranges}')

    def __call__(self, results: dict) -> dict:
        """Replace ``img``, RGB uint8."""
        from PIL import Image, ImageEnhance

        image = Image.fromarray(np.ascontiguousarray(results['img']))
        for name in np.random.permutation(list(self.ranges)):
            low, high = max(0, 1 - self.ranges[name]), 1 + self.ranges[name]
            factor = np.random.uniform(low, high)
            image = getattr(ImageEnhance, name)(image).enhance(factor)
        results['img'] = np.array(image)
        return results
