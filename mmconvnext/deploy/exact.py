"""What an export changes without a word, made exact.

Adaptive average pooling becomes the bins of the traced size: at another size
the file would pool other pixels, or stop. As two products with matrices of
averages it is exact at any size. A size that Python has rounded, as in
MMSegmentation's Upsample, becomes a constant. A norm loses its type, and
GroupNorm adds up in float16.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Dict, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Size = Union[int, Sequence[Optional[int]]]


def averages(length: Any, bins: int, device: torch.device) -> Tensor:
    """Rows of weights, ``(bins, length)``: bin i averages what PyTorch's does.

    Bin i reaches from ``floor(i length / bins)`` to
    ``ceil((i + 1) length / bins)``; neighbours may share a pixel.
    """
    i = torch.arange(bins, device=device)[:, None]
    at = torch.arange(length, device=device)[None]
    start = i * length // bins
    end = ((i + 1) * length + bins - 1) // bins
    inside = ((at >= start) & (at < end)).float()
    return inside / (end - start).float()


def average_pool(x: Tensor, output_size: Size) -> Tensor:
    """``F.adaptive_avg_pool2d`` of ``(N, C, H, W)`` as matrix products.

    The sums are float32 whatever the dtype of ``x``: a sum over a whole map
    overflows float16.
    """
    height, width = _pair(output_size)
    y = x.float()
    if width is not None:
        y = y @ averages(x.shape[-1], width, x.device).t()
    if height is not None:
        y = averages(x.shape[-2], height, x.device) @ y
    return y.to(x.dtype)


def _pair(size: Size) -> Tuple[Optional[int], Optional[int]]:
    if isinstance(size, int):
        return size, size
    height, width = size
    return height, width


def vector_norm(x: Tensor, *args: Any, **options: Any) -> Tensor:
    """``torch.linalg.vector_norm``, its ``dtype`` as a cast that is written.

    The tracing exporter drops the argument: the norm of a float16 map would
    be summed in float16, which is the overflow that GRN must not have.
    """
    dtype = options.pop('dtype', None)
    x = x if dtype is None else x.to(dtype)
    return torch.linalg.vector_norm(x, *args, **options)


def in_float32(norm: Callable) -> Callable:
    """A norm over a map whose sums are float32, whatever its dtype."""

    @functools.wraps(norm)
    def run(x: Tensor, *args: Any, **options: Any) -> Tensor:
        args = tuple(_widen(value) for value in args)
        options = {key: _widen(value) for key, value in options.items()}
        return norm(x.float(), *args, **options).to(x.dtype)

    return run


def _widen(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else value


REPLACED: Dict[Callable, Callable] = {
    F.adaptive_avg_pool2d: average_pool,
    F.group_norm: in_float32(F.group_norm),
    F.instance_norm: in_float32(F.instance_norm),
    torch.linalg.vector_norm: vector_norm,
}


class Exact(TorchFunctionMode):
    """While active, functions that an export changes are exact ones.

    A mode and not an exchange of modules: heads that call the function are
    served, too.
    """

    def __torch_function__(
        self,
        func: Callable,
        types: Sequence[type],
        args: Tuple = (),
        kwargs: Optional[dict] = None,
    ) -> Any:
        return REPLACED.get(func, func)(*args, **(kwargs or {}))


class ScaledUpsample(nn.Module):
    """MMSegmentation's Upsample, its size by numbers that a trace follows.

    Args:
        upsample: with a ``scale_factor`` of whole numbers.

    Raises:
        ValueError: for another scale.
    """

    def __init__(self, upsample: nn.Module) -> None:
        super().__init__()
        scale = upsample.scale_factor
        pair = scale if isinstance(scale, tuple) else (scale, scale)
        if any(value != int(value) for value in pair):
            raise ValueError(
                f'Upsample by {scale} cannot be exported, only by whole '
                f'numbers'
            )
        self.scale = tuple(int(value) for value in pair)
        self.options = dict(
            mode=upsample.mode, align_corners=upsample.align_corners
        )

    def forward(self, x: Tensor) -> Tensor:
        size = [side * n for side, n in zip(x.shape[2:], self.scale)]
        return F.interpolate(x, size, **self.options)


def exact_upsampling(model: nn.Module) -> None:
    """Exchange the Upsample modules of MMSegmentation in ``model``."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            kind = type(child)
            host = kind.__module__.startswith('mmseg.')
            if host and kind.__name__ == 'Upsample' and not child.size:
                setattr(parent, name, ScaledUpsample(child))
