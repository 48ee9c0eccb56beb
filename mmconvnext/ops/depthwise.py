"""The depthwise convolution with gradients that are convolutions forward.

On a CPU oneDNN computes it forward in channels-last order at the speed of
memory, but its weight gradient takes ten times as long. A weight gradient
is a convolution too, of the input with the output's gradient as one kernel
of the size of the map, and in that form oneDNN is fast. cuDNN is not: its
own weight gradient takes 2.5 ms where such convolutions take 372 (V2 base, 2
images of 800 x 1344, bfloat16, H200).
"""

from __future__ import annotations

from typing import Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .autocast import without_autocast


@without_autocast
def forward(x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
    """Convolve ``(N, H, W, C)``, contiguous, with ``(C, 1, k, k)``."""
    channels, _, size, _ = weight.shape
    y = F.conv2d(
        x.permute(0, 3, 1, 2),
        weight.reshape(channels, 1, size, size),
        bias,
        padding=size // 2,
        groups=channels,
    )
    return y.permute(0, 2, 3, 1)


def native_weight_gradient(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """What PyTorch computes, from contiguous NHWC maps."""
    channels, half = len(weight), weight.size(-1) // 2
    return torch.ops.aten.convolution_backward(
        grad.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2), weight, None,
        [1, 1], [half, half], [1, 1], False, [0, 0], channels,
        [False, True, False],
    )[1]  # fmt: skip


def weight_gradient(grad: Tensor, x: Tensor, size: int) -> Tensor:
    """Sum over positions of ``grad`` times ``x`` moved by each offset.

    ``dw[c, i, j] = sum_{n,h,w} g[n, h, w, c] x[n, h + i - k/2, w + j - k/2,
    c]``: for one image a convolution of ``x`` with ``g`` as kernel, whose
    k x k results are the offsets.

    Returns:
        ``(C, 1, size, size)`` in float32 or more.
    """
    n, height, width, channels = x.shape
    half = size // 2
    out = x.new_zeros(
        channels, size, size, dtype=torch.promote_types(x.dtype, torch.float32)
    )
    # Rows are taken in strips whose results add up: oneDNN adds one by one,
    # and the error of such a sum grows with its length. A strip has about
    # 8 sqrt(H W) positions, so both the sum in a strip and the sum of strips
    # stay short.
    strip = max(1, round(8 * (height * width) ** 0.5) // width)
    image, kernel = x.permute(0, 3, 1, 2), grad.permute(3, 0, 1, 2)
    for i in range(n):
        for top in range(0, height, strip):
            end = min(top + strip, height)
            # The strip needs k/2 rows of x on either side. Where the image
            # ends first, padding adds k/2 rows of zeros on both sides: then
            # result r is the offset i = r - (top - low).
            low, high = max(top - half, 0), min(end + half, height)
            inside = (low, high) == (top - half, end + half)
            part = F.conv2d(
                image[i : i + 1, :, low:high],
                kernel[:, i : i + 1, top:end],
                padding=(0 if inside else half, half),
                groups=channels,
            )[0]
            first = 0 if inside else top - low
            out += part[:, first : first + size]
    return out[:, None]


@without_autocast
def backward(
    grad: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool]
) -> Tuple[Optional[Tensor], ...]:
    """Gradients of the input, the weight and the bias that are needed."""
    grad = grad.contiguous()
    d_x = d_weight = d_bias = None
    if needed[0]:
        d_x = forward(grad, weight.flip(2, 3), None)
    if needed[1]:
        if x.device.type == 'cpu':
            total = weight_gradient(grad, x, weight.size(-1))
        else:
            total = native_weight_gradient(grad, x, weight)
        # Laid out as the weight is: DDP warns where they differ.
        d_weight = torch.empty_like(weight).copy_(total)
    if needed[2]:
        d_bias = grad.sum((0, 1, 2))
    return d_x, d_weight, d_bias
