"""The pointwise half of a block in Triton: two kernels forward.

The first product normalises its rows as it loads them, from means and
deviations computed before, and leaves with ``h`` or ``gelu(h)`` and the sums
of squares that GRN needs. The second applies GELU
and GRN's factor as it loads, and leaves with layer scale (in its weights),
bias, drop path and residual applied: of the 4C-wide map one write and one
read. Backward the products are the library's; one pass over the map does
GELU, GRN and the sums for the bias.

Checked under Triton's interpreter; speed on a GPU is unmeasured. All sums
are in float32 and in a fixed order, without atomics.
"""

from __future__ import annotations

import os
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from . import onednn
from .autocast import without_autocast
from .grn_folding import (
    Saved,
    Sums,
    Weights,
    branch_gradient,
    first_product_backward,
    normalise,
    out_dtype,
    pull_of,
    scaled,
    stats_of,
    weight_gradients,
)
from .triton_depthwise import block_size, check_dtype

SQRT_HALF = tl.constexpr(0.7071067811865476)
SQRT_2_PI_INV = tl.constexpr(0.3989422804014327)
# The interpreter takes the bits of bfloat16 for integers in products.
WIDE = os.environ.get('TRITON_INTERPRET') == '1'


@triton.jit
def _gelu(x):
    return 0.5 * x * (1.0 + tl.math.erf(x * SQRT_HALF))


@triton.jit
def _dot(a, b, acc, WIDE: tl.constexpr):
    if WIDE:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision='ieee')


@triton.jit
def _tile(L, BM: tl.constexpr, BN: tl.constexpr):
    """Rows of one image, their first place, and columns of a program."""
    image, block = tl.program_id(0), tl.program_id(1)
    r = block * BM + tl.arange(0, BM)
    rows = image.to(tl.int64) * L + r
    return rows, r < L, tl.program_id(2) * BN + tl.arange(0, BN)


@triton.jit
def _expand_kernel(
    x, stats, norm_weight, norm_bias, weight, bias, out, part, R, L, C, K,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    ACT: tl.constexpr, SQUARES: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """``norm(x) W1^T + b1``: GELU of it with ACT, squares of GELU."""
    rows, inside, n = _tile(L, BM, BN)
    mean = tl.load(stats + rows, mask=inside, other=0.0)
    rstd = tl.load(stats + R + rows, mask=inside, other=0.0)
    acc = tl.zeros([BM, BN], tl.float32)
    for start in range(0, C, BK):
        k = start + tl.arange(0, BK)
        both = inside[:, None] & (k < C)[None, :]
        value = tl.load(x + rows[:, None] * C + k[None, :], both, other=0.0)
        nw = tl.load(norm_weight + k, mask=k < C, other=0.0).to(tl.float32)
        nb = tl.load(norm_bias + k, mask=k < C, other=0.0).to(tl.float32)
        normed = (value.to(tl.float32) - mean[:, None]) * rstd[:, None]
        normed = (normed * nw[None, :] + nb[None, :]).to(x.dtype.element_ty)
        w = tl.load(
            weight + n[None, :] * C + k[:, None],
            mask=(n < K)[None, :] & (k < C)[:, None],
            other=0.0,
        )
        acc = _dot(normed, w, acc, WIDE)
    b = tl.load(bias + n, mask=n < K, other=0.0).to(tl.float32)
    h = (acc + b[None, :]).to(out.dtype.element_ty)
    a = _gelu(h.to(tl.float32))
    both = inside[:, None] & (n < K)[None, :]
    to = out + rows[:, None] * K + n[None, :]
    if ACT:
        tl.store(to, a.to(out.dtype.element_ty), mask=both)
    else:
        tl.store(to, h, mask=both)
    if SQUARES:
        a = tl.where(both, a, 0.0)
        row = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
        tl.store(part + row * K + n, tl.sum(a * a, 0), mask=n < K)


@triton.jit
def _project_kernel(
    a, factor, weight, bias, keep, residual, y, L, C, K,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    ACT: tl.constexpr, FACTOR: tl.constexpr, KEEP: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """``residual + keep (a diag(factor) W^T + b)``, ``a = gelu(h)`` of ACT."""
    rows, inside, n = _tile(L, BM, BN)
    image = tl.program_id(0)
    acc = tl.zeros([BM, BN], tl.float32)
    for start in range(0, K, BK):
        k = start + tl.arange(0, BK)
        both = inside[:, None] & (k < K)[None, :]
        value = tl.load(a + rows[:, None] * K + k[None, :], both, other=0.0)
        if ACT:
            value = _gelu(value.to(tl.float32)).to(a.dtype.element_ty)
        if FACTOR:
            s = tl.load(factor + image * K + k, mask=k < K, other=0.0)
            value = value.to(tl.float32) * s[None, :]
            value = value.to(a.dtype.element_ty)
        w = tl.load(
            weight + n[None, :] * K + k[:, None],
            mask=(n < C)[None, :] & (k < K)[:, None],
            other=0.0,
        )
        acc = _dot(value, w, acc, WIDE)
    acc += tl.load(bias + n, mask=n < C, other=0.0).to(tl.float32)[None, :]
    if KEEP:
        acc *= tl.load(keep + image).to(tl.float32)
    both = inside[:, None] & (n < C)[None, :]
    at = rows[:, None] * C + n[None, :]
    acc += tl.load(residual + at, mask=both, other=0.0).to(tl.float32)
    tl.store(y + at, acc.to(y.dtype.element_ty), mask=both)


@triton.jit
def _gelu_backward_kernel(
    d, h, factor, pull, out, part, L, K,
    BM: tl.constexpr, BN: tl.constexpr, GRN: tl.constexpr,
):  # fmt: skip
    """``(d factor + pull gelu(h)) gelu'(h)`` and its sums over rows."""
    rows, inside, n = _tile(L, BM, BN)
    image = tl.program_id(0)
    both = inside[:, None] & (n < K)[None, :]
    at = rows[:, None] * K + n[None, :]
    value = tl.load(h + at, mask=both, other=0.0).to(tl.float32)
    grad = tl.load(d + at, mask=both, other=0.0).to(tl.float32)
    cdf = 0.5 * (1.0 + tl.math.erf(value * SQRT_HALF))
    if GRN:
        s = tl.load(factor + image * K + n, mask=n < K, other=0.0)
        q = tl.load(pull + image * K + n, mask=n < K, other=0.0)
        grad = grad * s[None, :] + q[None, :] * value * cdf
    grad *= cdf + value * SQRT_2_PI_INV * tl.exp(-0.5 * value * value)
    grad = grad.to(out.dtype.element_ty)
    tl.store(out + at, grad, mask=both)
    row = image * tl.num_programs(1) + tl.program_id(1)
    tl.store(part + row * K + n, tl.sum(grad.to(tl.float32), 0), mask=n < K)


def _grid(images: int, rows: int, columns: int, bm: int, bn: int) -> Tuple:
    return images, triton.cdiv(rows, bm), triton.cdiv(columns, bn)


def _row_block(rows: int) -> int:
    # Products of Triton are at least 16 wide.
    return max(16, block_size(rows))


def expand(
    x: Tensor,
    w: Weights,
    eps: float,
    images: int,
    activate: bool,
) -> Tuple[Tensor, Optional[Tensor]]:
    """``h`` of rows ``(R, C)``, or ``gelu(h)``, and norms for GRN.

    Args:
        eps: of the layer norm.
        images: how many follow one another in the rows.
        activate: whether to return ``gelu(h)`` instead.

    Returns:
        ``(R, 4C)`` and, of weights with GRN, the norms G ``(N, 4C)``.
    """
    (rows, c), k = x.shape, len(w.weight1)
    bm, bn = _row_block(rows // images), max(16, block_size(k))
    grid = _grid(images, rows // images, k, bm, bn)
    out, squares = x.new_empty(rows, k), w.gamma is not None
    part = x.new_empty(*grid[:2], k, dtype=torch.float32) if squares else x
    _expand_kernel[grid](
        x, row_stats(x, eps), w.norm_weight, w.norm_bias, w.weight1, w.bias1,
        out, part,
        rows, rows // images, c, k,
        BM=bm, BN=bn, BK=32, ACT=activate, SQUARES=squares,
        WIDE=WIDE,
    )  # fmt: skip
    return out, part.sum(1).sqrt_() if squares else None


def project(
    a: Tensor,
    w: Weights,
    factor: Optional[Tensor],
    keep: Optional[Tensor],
    residual: Tensor,
    images: int,
    activate: bool,
) -> Tensor:
    """The second product and all that follows it.

    Args:
        a: ``(R, 4C)``, ``gelu(h)``; or ``h`` with ``activate``.
        factor: of GRN, ``(N, 4C)``.
        keep: drop path factor of each sample, ``(N, 1, 1, 1)``.
        residual: ``(R, C)``.
    """
    (rows, k), c = a.shape, residual.size(1)
    weight, bias = scaled(w)
    y = torch.empty_like(residual, dtype=out_dtype(a.dtype, residual, w.scale))
    bm, bn = _row_block(rows // images), max(16, block_size(c))
    _project_kernel[_grid(images, rows // images, c, bm, bn)](
        a, a if factor is None else factor, weight.to(a.dtype).contiguous(),
        bias, a if keep is None else keep, residual, y,
        rows // images, c, k, BM=bm, BN=bn, BK=32, ACT=activate,
        FACTOR=factor is not None, KEEP=keep is not None, WIDE=WIDE,
    )  # fmt: skip
    return y


def gelu_backward(
    d_z: Tensor,
    h: Tensor,
    factor: Optional[Tensor],
    pull: Optional[Tensor],
) -> Tuple[Tensor, Tensor]:
    """Gradient of ``h`` ``(R, K)``, and its sums over rows.

    Args:
        d_z: gradient of ``gelu(h)`` times ``factor``.
        factor: of GRN, ``(N, K)``; None without.
        pull: what GRN's norms add, in multiples of ``gelu(h)``, ``(N, K)``.
    """
    images = 1 if factor is None else len(factor)
    rows, k = len(h) // images, h.size(1)
    bm, bn = 32, block_size(k, 128)
    grid = _grid(images, rows, k, bm, bn)
    out = torch.empty_like(h)
    part = h.new_empty(*grid[:2], k, dtype=torch.float32)
    _gelu_backward_kernel[grid](
        d_z, h, h if factor is None else factor, h if pull is None else pull,
        out, part, rows, k, BM=bm, BN=bn, GRN=factor is not None,
    )  # fmt: skip
    return out, part.sum((0, 1))


def row_stats(x: Tensor, eps: float) -> Tensor:
    """Mean and reciprocal deviation of rows ``(R, C)``: float32 (2, R)."""
    variance, mean = torch.var_mean(x.float(), 1, correction=0)
    return torch.stack([mean, (variance + eps).rsqrt()])


def _compute(
    x: Tensor,
    residual: Tensor,
    w: Weights,
    keep: Optional[Tensor],
    eps: float,
    activate: bool,
) -> Tuple[Tensor, Tensor, Optional[Tensor]]:
    check_dtype(x)
    c, images = x.size(-1), len(x)
    if w.gamma is None and keep is None:
        images = 1  # nothing is done per image
    rows = x.reshape(-1, c).contiguous()
    hidden, norms = expand(rows, w, eps, images, activate)
    factor = None if norms is None else stats_of(norms, w.gamma).factor
    base = residual.reshape(-1, c).contiguous()
    y = project(hidden, w, factor, keep, base, images, not activate)
    return y.view(x.shape), hidden, norms


@without_autocast
def infer(
    x: Tensor,
    residual: Tensor,
    w: Weights,
    keep: Optional[Tensor],
    eps: float,
) -> Tensor:
    """Compute :func:`reference.convnext_mlp`, keeping nothing."""
    return _compute(x, residual, w, keep, eps, True)[0]


@without_autocast
def forward(
    x: Tensor,
    residual: Tensor,
    w: Weights,
    keep: Optional[Tensor],
    eps: float,
) -> Tuple[Tensor, Saved]:
    """The same, and what the backward pass needs."""
    y, *saved = _compute(x, residual, w, keep, eps, False)
    return y, Saved(*saved)


@without_autocast
def backward(
    grad: Tensor,
    x: Tensor,
    w: Weights,
    keep: Optional[Tensor],
    saved: Saved,
    eps: float,
) -> Tuple[Tensor, Weights]:
    """Gradients with respect to ``x`` and the weights."""
    c, sums = x.size(-1), Sums()
    grad = branch_gradient(grad, x, keep)
    rows, h = x.reshape(-1, c), saved.hidden
    if h is None:
        h = F.linear(normalise(rows, w, eps)[0], w.weight1, w.bias1)
    weight, _ = scaled(w)
    factor, pull = _second_product_backward(grad, h, weight, w, saved, sums)
    d_z = grad @ weight.to(grad.dtype)
    d_h, total = gelu_backward(d_z, h, factor, pull)
    sums.add(bias1=total, total=onednn.sums(grad))
    d_x = first_product_backward(rows, d_h, w, eps, sums)
    return d_x.view(x.shape), weight_gradients(sums.of, w, weight)


def _second_product_backward(
    grad: Tensor,
    h: Tensor,
    weight: Tensor,
    w: Weights,
    saved: Saved,
    sums: Sums,
) -> Tuple[Optional[Tensor], Optional[Tensor]]:
    """Sums for the second weight and GRN; GRN's factor and pull."""
    a = F.gelu(h)
    if w.gamma is None:
        sums.add(weight=grad.t() @ a)
        return None, None
    stats = stats_of(saved.norms, w.gamma)
    n = len(stats.norms)
    product = grad.view(n, -1, grad.size(1)).mT @ a.view(n, -1, a.size(1))
    d_factor = (weight * product).sum(1, dtype=stats.norms.dtype)
    sums.add(
        weight=(product * stats.factor[:, None]).sum(0),
        gamma=(d_factor * (stats.norms / stats.mean)).sum(0),
    )
    return stats.factor, pull_of(d_factor, stats, w.gamma)
