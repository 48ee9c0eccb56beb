"""Modules that own parameters; their arithmetic is in ``ops``."""

from __future__ import annotations

from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops


def to_nhwc(x: Tensor) -> Tensor:
    """View ``(N, C, H, W)`` as ``(N, H, W, C)``."""
    return x.permute(0, 2, 3, 1)


def to_nchw(x: Tensor) -> Tensor:
    """View ``(N, H, W, C)`` as ``(N, C, H, W)``; its memory stays NHWC."""
    return x.permute(0, 3, 1, 2)


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of ``(N, C, H, W)``.

    The result has the same shape and is channels-last in memory, as the
    convolution after it and the next block need it.
    """

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__(num_channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        affine = (self.weight, self.bias)
        return to_nchw(ops.layer_norm(to_nhwc(x), affine, self.eps))


class SameConv2d(nn.Conv2d):
    """2x2 convolution of stride 1 that keeps the size of ``(N, C, H, W)``.

    What a 2x2 convolution of stride 2 becomes where a stage is dilated
    instead (``output_stride``). An even kernel has no middle: with dilation
    1 the padding is on the right and below, so that the output at (2y, 2x)
    is the one that stride 2 has at (y, x).
    """

    def __init__(self, in_dim: int, out_dim: int, dilation: int) -> None:
        super().__init__(in_dim, out_dim, 2, dilation=dilation)
        before, after = dilation // 2, dilation - dilation // 2
        self.pads = (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.pads))


class DepthwiseConv2d(nn.Conv2d):
    """7x7 depthwise convolution that keeps the size of ``(N, C, H, W)``.

    The weight is laid out as its gradient will be: DDP warns where they
    differ.
    """

    def __init__(
        self, num_channels: int, size: int = 7, dilation: int = 1
    ) -> None:
        super().__init__(
            num_channels,
            num_channels,
            size,
            padding=dilation * (size // 2),
            dilation=dilation,
            groups=num_channels,
        )
        # Documented, but not in torch's own types.
        self.to(memory_format=torch.channels_last)  # type: ignore

    @property
    def affine(self) -> Tuple[Tensor, Optional[Tensor]]:
        return self.weight, self.bias

    def forward(self, x: Tensor) -> Tensor:
        y = ops.depthwise_conv(to_nhwc(x), *self.affine, self.dilation[0])
        return to_nchw(y)


class GRN(nn.Module):
    """Global response normalisation, ``(N, H, W, C) -> (N, H, W, C)``.

    Source: ConvNeXt V2 (arXiv 2301.00808), section 4 and Algorithm 1. Gamma
    and beta are ``(C,)`` and start at zero, where GRN is the identity.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(num_channels))
        self.beta = nn.Parameter(torch.zeros(num_channels))

    @property
    def affine(self) -> Tuple[Tensor, Tensor]:
        return self.gamma, self.beta

    def forward(self, x: Tensor) -> Tensor:
        return ops.grn(x, self.affine)

    def extra_repr(self) -> str:
        return f'{self.gamma.numel()}'
