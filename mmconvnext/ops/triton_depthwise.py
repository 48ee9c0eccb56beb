"""A Triton kernel of the depthwise convolution in NHWC, and its gradients.

A strip of an input row that is loaded once feeds all output rows of a tile
(row reuse after Lu et al., TPDS 2021), and the taps of one column of the
kernel stay in registers meanwhile. The gradient of the input is the same
convolution with the kernel turned round. The gradient of the weight is
cuDNN's, whose kernel is the faster one. Sums are in float32.
"""

from __future__ import annotations

from typing import Optional, Sequence, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .autocast import without_autocast
from .depthwise import native_weight_gradient
from .triton_rows import check_dtype, column_sums, launch

# Output rows and columns of a tile.
ROWS, COLUMNS = 8, 16


@triton.jit
def _depthwise_kernel(
    x, taps, bias, y, H, W, C,
    K: tl.constexpr, TH: tl.constexpr, TW: tl.constexpr, BC: tl.constexpr,
    BIAS: tl.constexpr, TURN: tl.constexpr,
):  # fmt: skip
    """TH output rows of TW positions and BC channels."""
    tiles = tl.cdiv(H, TH)
    n, top = tl.program_id(1) // tiles, tl.program_id(1) % tiles * TH
    w = tl.program_id(0) * TW + tl.arange(0, TW)
    c = tl.program_id(2) * BC + tl.arange(0, BC)
    channels = (c < C)[None, :]
    x += n.to(tl.int64) * H * W * C
    y += n.to(tl.int64) * H * W * C
    sums = ()
    for _ in tl.static_range(TH):
        sums = sums + (tl.zeros([TW, BC], tl.float32),)
    # Not unrolled: the compiler would load all taps first and spill them.
    for kw in range(K):
        column = ()
        for kh in tl.static_range(K):
            tap = kh * K + kw
            if TURN:
                tap = K * K - 1 - tap
            tap = tl.load(taps + tap * C + c, mask=c < C, other=0.0)
            column = column + (tap.to(tl.float32)[None, :],)
        at = w + kw - K // 2
        for r in tl.static_range(TH + K - 1):
            # As wide as w: the interpreter mixes up masks and scalars.
            h = top + r - K // 2 + tl.zeros_like(w)
            inside = (at >= 0) & (at < W) & (h >= 0) & (h < H)
            value = tl.load(
                x + (h * W + at)[:, None] * C + c[None, :],
                mask=inside[:, None] & channels,
                other=0.0,
            ).to(tl.float32)
            # Input row r is tap row r - i of output row i.
            added = ()
            for i in tl.static_range(TH):
                if r - i >= 0 and r - i < K:
                    added = added + (sums[i] + value * column[r - i],)
                else:
                    added = added + (sums[i],)
            sums = added
    for i in tl.static_range(TH):
        out = sums[i]
        if BIAS:
            b = tl.load(bias + c, mask=c < C, other=0.0).to(tl.float32)
            out += b[None, :]
        h = top + i + tl.zeros_like(w)
        inside = ((w < W) & (h < H))[:, None] & channels
        at = y + (h * W + w)[:, None] * C + c[None, :]
        tl.store(at, out.to(y.dtype.element_ty), mask=inside)


def _convolve(
    x: Tensor, weight: Tensor, bias: Optional[Tensor], turn: bool
) -> Tensor:
    check_dtype(x)
    n, height, width, _ = x.shape
    channels, size = len(weight), weight.size(-1)
    y = torch.empty_like(x)
    taps = weight.reshape(channels, -1).t().contiguous()
    block = 64 if channels > 128 and channels % 64 == 0 else 32
    tiles = n * triton.cdiv(height, ROWS)
    grid = triton.cdiv(width, COLUMNS), tiles, triton.cdiv(channels, block)
    launch(
        _depthwise_kernel, grid,
        x, taps, taps if bias is None else bias, y, height, width, channels,
        K=size, TH=ROWS, TW=COLUMNS, BC=block, BIAS=bias is not None,
        TURN=turn,
    )  # fmt: skip
    return y


@without_autocast
def forward(x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
    """Convolve ``(N, H, W, C)``, contiguous, with ``(C, 1, k, k)``."""
    return _convolve(x, weight, bias, False)


@without_autocast
def backward(
    grad: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool]
) -> Tuple[Optional[Tensor], ...]:
    """See :func:`depthwise.backward`."""
    grad = grad.contiguous()
    d_x = d_weight = d_bias = None
    if needed[0]:
        d_x = _convolve(grad, weight, None, True)
    if needed[1]:
        total = native_weight_gradient(grad, x, weight)
        # Laid out as the weight is: DDP warns where they differ.
        d_weight = torch.empty_like(weight).copy_(total)
    if needed[2]:
        d_bias = column_sums(grad.view(-1, grad.size(-1))).to(grad.dtype)
    return d_x, d_weight, d_bias
