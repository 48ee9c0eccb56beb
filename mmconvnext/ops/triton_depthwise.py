"""Triton kernels of the 7x7 depthwise convolution in NHWC.

Written from the traffic model and checked under Triton's interpreter only:
their speed on a GPU is unmeasured. All sums are in float32 and in a fixed
order: partial sums of programs, added up afterwards, no atomics.

A strip of an input row that is loaded once feeds all output rows of a tile
(row reuse after Lu et al., TPDS 2021); a weight gradient is partial sums
over strips of rows and a second reduction, as in causal convolutions.
"""

from __future__ import annotations

from typing import Optional, Sequence, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import depthwise

TILE_ROWS = 4  # written out in the kernel
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@triton.jit
def _tap(weight, row, column, C, c, cmask, K: tl.constexpr):
    tap = weight + (row * K + column) * C + c
    return tl.load(tap, mask=cmask, other=0.0).to(tl.float32)[None, :]


@triton.jit
def _depthwise_kernel(
    x, weight, bias, y, H, W, C,
    K: tl.constexpr, TW: tl.constexpr, BC: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """Four output rows of TW positions and BC channels."""
    tiles = tl.cdiv(H, 4)
    n, top = tl.program_id(1) // tiles, tl.program_id(1) % tiles * 4
    w = tl.program_id(0) * TW + tl.arange(0, TW)
    c = tl.program_id(2) * BC + tl.arange(0, BC)
    cmask, base = c < C, n * H * W
    acc0 = tl.zeros([TW, BC], tl.float32)
    acc1 = tl.zeros([TW, BC], tl.float32)
    acc2 = tl.zeros([TW, BC], tl.float32)
    acc3 = tl.zeros([TW, BC], tl.float32)
    # Row r of the K + 3 input rows is tap row r - i of output row i.
    for r in tl.static_range(K + 3):
        # As wide as w: the interpreter mixes up masks and scalars.
        h = top + r - K // 2 + tl.zeros_like(w)
        for kw in tl.static_range(K):
            at = w + kw - K // 2
            inside = (at >= 0) & (at < W) & (h >= 0) & (h < H)
            value = tl.load(
                x + (base + h * W + at)[:, None] * C + c[None, :],
                mask=inside[:, None] & cmask[None, :],
                other=0.0,
            ).to(tl.float32)
            if r < K:
                acc0 += value * _tap(weight, r, kw, C, c, cmask, K)
            if r >= 1 and r < K + 1:
                acc1 += value * _tap(weight, r - 1, kw, C, c, cmask, K)
            if r >= 2 and r < K + 2:
                acc2 += value * _tap(weight, r - 2, kw, C, c, cmask, K)
            if r >= 3 and r < K + 3:
                acc3 += value * _tap(weight, r - 3, kw, C, c, cmask, K)
    for i in tl.static_range(4):
        acc = acc0
        if i == 1:
            acc = acc1
        if i == 2:
            acc = acc2
        if i == 3:
            acc = acc3
        if BIAS:
            acc += _tap(bias, 0, 0, C, c, cmask, K)  # one value a channel
        inside = (w < W) & (top + i + tl.zeros_like(w) < H)
        tl.store(
            y + (base + (top + i) * W + w)[:, None] * C + c[None, :],
            acc.to(y.dtype.element_ty),
            mask=inside[:, None] & cmask[None, :],
        )


@triton.jit
def _wgrad_kernel(
    grad, x, part, N, H, W, C, rows,
    K: tl.constexpr, TW: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """One row of taps, summed over a strip of ``rows`` output rows."""
    split, kh = tl.program_id(0), tl.program_id(1)
    c = tl.program_id(2) * BC + tl.arange(0, BC)
    cmask = c < C
    taps = tl.arange(0, 8)
    acc = tl.zeros([8, BC], tl.float32)
    for i in range(rows):
        row = split * rows + i
        h = row % H + kh - K // 2
        start = (row + kh - K // 2) * W
        for left in range(0, W, TW):
            w = left + tl.arange(0, TW)
            hs, last = h + tl.zeros_like(w), row + tl.zeros_like(w)
            valid = (w < W) & (last < N * H) & (hs >= 0) & (hs < H)
            g = tl.load(
                grad + (row * W + w)[:, None] * C + c[None, :],
                mask=valid[:, None] & cmask[None, :],
                other=0.0,
            ).to(tl.float32)
            at = w[None, :] + taps[:, None] - K // 2
            inside = (at >= 0) & (at < W) & valid[None, :]
            value = tl.load(
                x + (start + at)[:, :, None] * C + c[None, None, :],
                mask=inside[:, :, None] & cmask[None, None, :],
                other=0.0,
            ).to(tl.float32)
            acc += tl.sum(g[None, :, :] * value, 1)
    tl.store(
        part + ((split * K + kh) * K + taps)[:, None] * C + c[None, :],
        acc,
        mask=(taps < K)[:, None] & cmask[None, :],
    )


def check_dtype(x: Tensor) -> None:
    """Raise TypeError for a type that float32 sums would harm."""
    if x.dtype not in DTYPES:
        raise TypeError(
            f"ops path 'triton' computes in {DTYPES}, got {x.dtype}; "
            "use 'fused' or 'reference'"
        )


def block_size(count: int, most: int = 64) -> int:
    """A power of two, at most ``most`` or what covers ``count``."""
    return min(most, triton.next_power_of_2(count))


def forward(x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
    """Convolve ``(N, H, W, C)``, contiguous, with ``(C, 1, k, k)``."""
    check_dtype(x)
    n, height, width, channels = x.shape
    size, tile = weight.size(-1), min(32, triton.next_power_of_2(width))
    taps = weight.reshape(channels, -1).t().contiguous()
    y, block = torch.empty_like(x), block_size(channels)
    tiles = n * triton.cdiv(height, TILE_ROWS)
    grid = triton.cdiv(width, tile), tiles, triton.cdiv(channels, block)
    _depthwise_kernel[grid](
        x, taps, taps if bias is None else bias, y, height, width, channels,
        K=size, TW=tile, BC=block, BIAS=bias is not None,
    )  # fmt: skip
    return y


def weight_gradient(grad: Tensor, x: Tensor, size: int) -> Tensor:
    """Gradient of the weight, ``(C, 1, size, size)``, in float32."""
    n, height, width, channels = x.shape
    # All taps of a row at once: eight times as many registers as forward.
    block = block_size(channels, 32)
    tile = min(16, triton.next_power_of_2(width))
    rows = max(1, n * height // 64)
    splits = triton.cdiv(n * height, rows)
    part = x.new_empty(splits, size, size, channels, dtype=torch.float32)
    _wgrad_kernel[(splits, size, triton.cdiv(channels, block))](
        grad, x, part, n, height, width, channels, rows,
        K=size, TW=tile, BC=block,
    )  # fmt: skip
    return part.sum(0).permute(2, 0, 1)[:, None]


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool]
) -> Tuple[Optional[Tensor], ...]:
    """See :func:`depthwise.backward`."""
    kernels = forward, weight_gradient
    return depthwise.backward(grad, x, weight, needed, *kernels)
