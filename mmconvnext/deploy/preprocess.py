"""The hosts' data preprocessors as a module that can be exported."""

from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Preprocess(nn.Module):
    """Channel order, normalisation and padding of ``(N, 3, H, W)`` uint8.

    Args:
        swap: exchange blue and red.
        mean, std: of each channel, after the swap; empty: not at all.
        divisor: pad right and bottom to a multiple of it.
        size: pad to at least this height and width.
        pad_value: of the padding, after the normalisation.
    """

    def __init__(
        self,
        swap: bool,
        mean: Sequence[float],
        std: Sequence[float],
        divisor: int = 1,
        size: Optional[Tuple[int, int]] = None,
        pad_value: float = 0.0,
    ) -> None:
        super().__init__()
        self.swap, self.divisor, self.size = swap, divisor, size
        self.pad_value = pad_value
        self.mean: Optional[Tensor]
        self.std: Optional[Tensor]
        shape = (1, -1, 1, 1)
        for name, values in (('mean', mean), ('std', std)):
            given = torch.tensor(list(values)).view(shape) if values else None
            self.register_buffer(name, given, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        x = image.flip(1) if self.swap else image
        x = x.float()
        if self.mean is not None:
            x = (x - self.mean) / self.std
        if self.divisor == 1 and self.size is None:
            return x
        height, width = x.shape[2:]
        return F.pad(
            x,
            (0, self._missing(width, 1), 0, self._missing(height, 0)),
            value=self.pad_value,
        )

    def _missing(self, length: Any, side: int) -> Any:
        """Pixels to add; ``length`` is a number that the tracer follows."""
        if self.size is None:
            # Of a positive number, for remainders differ below zero.
            return (self.divisor - length % self.divisor) % self.divisor
        length = torch.as_tensor(length)
        return (self.size[side] - length).clamp(min=0)


def of_segmentor(config: Mapping[str, Any]) -> Preprocess:
    """Build what MMSegmentation's SegDataPreProcessor does in a test."""
    padding = config.get('test_cfg') or {}
    size = padding.get('size')
    return Preprocess(
        **_normalisation(config),
        divisor=padding.get('size_divisor') or 1,
        size=None if size is None else (int(size[0]), int(size[1])),
        pad_value=config.get('pad_val', 0),
    )


def of_detector(config: Mapping[str, Any]) -> Preprocess:
    """Build what MMDetection's DetDataPreprocessor does in a test."""
    return Preprocess(
        **_normalisation(config),
        divisor=config.get('pad_size_divisor', 1),
        pad_value=config.get('pad_value', 0),
    )


def of_classifier(config: Mapping[str, Any]) -> Preprocess:
    """Build what mmengine's ImgDataPreprocessor does in a test.

    Our pipeline of classifiers gives RGB where the hosts' give BGR, which is
    what every file takes: there is one swap more.
    """
    options = _normalisation(config)
    options['swap'] = not options['swap']
    return Preprocess(
        **options,
        divisor=config.get('pad_size_divisor', 1),
        pad_value=config.get('pad_value', 0),
    )


def _normalisation(config: Mapping[str, Any]) -> dict:
    swap = config.get('bgr_to_rgb', False) or config.get('rgb_to_bgr', False)
    return dict(
        swap=bool(swap),
        mean=config.get('mean') or (),
        std=config.get('std') or (),
    )
