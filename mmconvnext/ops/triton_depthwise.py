"""Triton kernels of the 7x7 depthwise convolution in NHWC.

Written from the traffic model and checked under Triton's interpreter only:
their speed on a GPU is unmeasured. All sums are in float32 and in a fixed
order: partial sums of programs, added up afterwards, no atomics.

A strip of an input row that is loaded once feeds all output rows of a tile
(row reuse after Lu et al., TPDS 2021); a weight gradient is partial sums
over strips of rows and a second reduction, as in causal convolutions.
"""

from __future__ import annotations

from typing import Any, Optional, Sequence, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import depthwise

TILE_ROWS = 4  # written out in the kernel
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@triton.jit
def _finish(
    acc, b, y, mean, m2, base, w, h, H, W, C, c, cmask,
    block, blocks, STATS: tl.constexpr,
):  # fmt: skip
    acc += b[None, :]
    inside = (w < W) & (h + tl.zeros_like(w) < H)
    at = base + h * W + w
    tl.store(
        y + at[:, None] * C + c[None, :],
        acc.to(y.dtype.element_ty),
        mask=inside[:, None] & cmask[None, :],
    )
    if STATS:
        count = tl.sum(cmask.to(tl.float32), 0)
        centre = tl.sum(tl.where(cmask[None, :], acc, 0.0), 1) / count
        away = tl.where(cmask[None, :], acc - centre[:, None], 0.0)
        tl.store(mean + at * blocks + block, centre, mask=inside)
        tl.store(m2 + at * blocks + block, tl.sum(away * away, 1), inside)


@triton.jit
def _depthwise_kernel(
    x, weight, bias, y, mean, m2, H, W, C,
    K: tl.constexpr, TW: tl.constexpr, BC: tl.constexpr,
    BIAS: tl.constexpr, STATS: tl.constexpr,
):  # fmt: skip
    """Four output rows of TW positions and BC channels."""
    tiles = tl.cdiv(H, 4)
    n, top = tl.program_id(1) // tiles, tl.program_id(1) % tiles * 4
    w = tl.program_id(0) * TW + tl.arange(0, TW)
    block, blocks = tl.program_id(2), tl.num_programs(2)
    c = block * BC + tl.arange(0, BC)
    cmask = c < C
    base = n * H * W
    acc0 = tl.zeros([TW, BC], tl.float32)
    acc1 = tl.zeros([TW, BC], tl.float32)
    acc2 = tl.zeros([TW, BC], tl.float32)
    acc3 = tl.zeros([TW, BC], tl.float32)
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
                tap = weight + (r * K + kw) * C + c
                w0 = tl.load(tap, mask=cmask, other=0.0).to(tl.float32)
                acc0 += value * w0[None, :]
            if r >= 1 and r < K + 1:
                tap = weight + ((r - 1) * K + kw) * C + c
                w1 = tl.load(tap, mask=cmask, other=0.0).to(tl.float32)
                acc1 += value * w1[None, :]
            if r >= 2 and r < K + 2:
                tap = weight + ((r - 2) * K + kw) * C + c
                w2 = tl.load(tap, mask=cmask, other=0.0).to(tl.float32)
                acc2 += value * w2[None, :]
            if r >= 3 and r < K + 3:
                tap = weight + ((r - 3) * K + kw) * C + c
                w3 = tl.load(tap, mask=cmask, other=0.0).to(tl.float32)
                acc3 += value * w3[None, :]
    b = tl.zeros([BC], tl.float32)
    if BIAS:
        b = tl.load(bias + c, mask=cmask, other=0.0).to(tl.float32)
    for i in tl.static_range(4):
        acc = acc0
        if i == 1:
            acc = acc1
        if i == 2:
            acc = acc2
        if i == 3:
            acc = acc3
        _finish(
            acc, b, y, mean, m2, base, w, top + i, H, W, C, c, cmask,
            block, blocks, STATS,
        )  # fmt: skip


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


def depthwise_forward(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    eps: Optional[float] = None,
) -> Any:
    """Convolve ``(N, H, W, C)``, contiguous, with ``(C, 1, k, k)``.

    Args:
        eps: of a layer norm; with it, the mean and the reciprocal standard
            deviation of each position come along, ``(2, N H W)``.
    """
    check_dtype(x)
    n, height, width, channels = x.shape
    size, tile = weight.size(-1), min(32, triton.next_power_of_2(width))
    taps = weight.reshape(channels, -1).t().contiguous()
    y, block, stats = (
        torch.empty_like(x),
        block_size(channels),
        eps is not None,
    )
    blocks = triton.cdiv(channels, block)
    means = x.new_empty(2, x.numel() // channels, blocks, dtype=torch.float32)
    tiles = n * triton.cdiv(height, TILE_ROWS)
    _depthwise_kernel[(triton.cdiv(width, tile), tiles, blocks)](
        x, taps, taps if bias is None else bias, y, means[0], means[1],
        height, width, channels,
        K=size, TW=tile, BC=block, BIAS=bias is not None, STATS=stats,
    )  # fmt: skip
    return (y, _merge(means, block, channels, eps)) if stats else y


def _merge(means: Tensor, block: int, channels: int, eps: float) -> Tensor:
    """Mean and reciprocal deviation from those of blocks of channels."""
    counts = torch.full((means.size(-1),), block, device=means.device)
    counts[-1] = channels - block * (len(counts) - 1)
    mean = (means[0] * counts).sum(-1) / channels
    away = (means[0] - mean[:, None]).square() * counts
    variance = (means[1] + away).sum(-1) / channels
    return torch.stack([mean, (variance + eps).rsqrt()])


def depthwise_wgrad(grad: Tensor, x: Tensor, size: int) -> Tensor:
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


def convolve(
    x: Tensor, weight: Tensor, bias: Optional[Tensor], eps: Optional[float]
) -> Tuple[Tensor, Optional[Tensor]]:
    """Convolve; with ``eps``, moments of the rows of the result too."""
    if eps is None:
        return depthwise_forward(x, weight, bias), None
    return depthwise_forward(x, weight, bias, eps)


def convolve_backward(
    grad: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool]
) -> Tuple[Optional[Tensor], ...]:
    """See :func:`depthwise.backward`."""
    kernels = depthwise_forward, depthwise_wgrad
    return depthwise.backward(grad, x, weight, needed, *kernels)
