"""Triton kernels that pass over rows of maps, for :mod:`.triton_mlp`.

Each reads and writes its maps once. Rows are ``(R, K)``, R being all
positions of all images. What is summed over rows is summed in float32 and in
a fixed order: a program adds up its rows, and the sums of all programs are
added afterwards, without atomics.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .library import tracing

SQRT_HALF = tl.constexpr(0.7071067811865476)
SQRT_2_PI_INV = tl.constexpr(0.3989422804014327)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Rows and columns that a program holds at a time, and about how many
# programs share a map.
BLOCK_ROWS, BLOCK_COLUMNS, PROGRAMS = 16, 128, 2048


def check_dtype(x: Tensor) -> None:
    """Raise TypeError for a type that float32 sums would harm."""
    if x.dtype not in DTYPES:
        raise TypeError(
            f"ops path 'triton' computes in {DTYPES}, got {x.dtype}; "
            "use 'fused' or 'reference'"
        )


@triton.jit
def _normal(x, EXACT: tl.constexpr):
    """Distribution function of the normal distribution, and its density.

    Where the result is rounded to half precision, by formula 7.1.26 of
    Abramowitz and Stegun, whose error is below 1e-7: it shares its one
    exponential with the density.
    """
    e = tl.exp(-0.5 * x * x)
    if EXACT:
        cdf = 0.5 * (1.0 + tl.math.erf(x * SQRT_HALF))
    else:
        t = 1.0 / (1.0 + 0.3275911 * SQRT_HALF * tl.abs(x))
        p = 1.061405429 * t - 1.453152027
        p = (p * t + 1.421413741) * t - 0.284496736
        tail = 0.5 * e * t * (p * t + 0.254829592)
        cdf = tl.where(x >= 0, 1.0 - tail, tail)
    return cdf, e * SQRT_2_PI_INV


@triton.jit
def _columns(K, BN: tl.constexpr):
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    return n, n < K


@triton.jit
def _places(i, n, inside, L, K, ROWS, BM: tl.constexpr):
    """Where BM rows of a program are, and which of them exist."""
    r = tl.program_id(1) * ROWS + i + tl.arange(0, BM)
    both = (r < L)[:, None] & inside[None, :]
    first = tl.program_id(2).to(tl.int64) * L
    return (first + r)[:, None] * K + n[None, :], both


@triton.jit
def _channel(p, image, K, n, inside):
    """Values of an image's channels as a row."""
    at = p + image * K + n
    return tl.load(at, mask=inside, other=0.0).to(tl.float32)[None, :]


@triton.jit
def _put(part, sums, K, n, inside):
    """Store the sums over rows of a program, ``(images, programs, K)``."""
    row = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    tl.store(part + row * K + n, tl.sum(sums, 0), mask=inside)


@triton.jit
def _squares_kernel(
    h, part, L, K, ROWS,
    BM: tl.constexpr, BN: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Sums of ``gelu(h)^2``."""
    n, inside = _columns(K, BN)
    sums = tl.zeros([BM, BN], tl.float32)
    for i in range(0, ROWS, BM):
        at, both = _places(i, n, inside, L, K, ROWS, BM)
        value = tl.load(h + at, mask=both, other=0.0).to(tl.float32)
        cdf, _ = _normal(value, EXACT)
        a = value * cdf
        sums += a * a
    _put(part, sums, K, n, inside)


@triton.jit
def _activate_kernel(
    h, factor, beta, z, d, part, part_d, L, K, ROWS,
    BM: tl.constexpr, BN: tl.constexpr, EXACT: tl.constexpr,
    GRN: tl.constexpr, SUMS: tl.constexpr,
):  # fmt: skip
    """``z = gelu(h) factor + beta``; SUMS of ``d gelu(h)`` and ``d``."""
    n, inside = _columns(K, BN)
    image = tl.program_id(2)
    if GRN:
        s = _channel(factor, image, K, n, inside)
        b = _channel(beta, 0, K, n, inside)
    sums = tl.zeros([BM, BN], tl.float32)
    sums_d = tl.zeros([BM, BN], tl.float32)
    for i in range(0, ROWS, BM):
        at, both = _places(i, n, inside, L, K, ROWS, BM)
        value = tl.load(h + at, mask=both, other=0.0).to(tl.float32)
        cdf, _ = _normal(value, EXACT)
        a = value * cdf
        if SUMS:
            grad = tl.load(d + at, mask=both, other=0.0).to(tl.float32)
            sums += grad * a
            sums_d += grad
        if GRN:
            a = a * s + b
        tl.store(z + at, a.to(z.dtype.element_ty), mask=both)
    if SUMS:
        _put(part, sums, K, n, inside)
        _put(part_d, sums_d, K, n, inside)


@triton.jit
def _gelu_backward_kernel(
    d, h, factor, pull, part, L, K, ROWS,
    BM: tl.constexpr, BN: tl.constexpr, EXACT: tl.constexpr,
    GRN: tl.constexpr,
):  # fmt: skip
    """``(d factor + pull gelu(h)) gelu'(h)`` in place of d, and its sums."""
    n, inside = _columns(K, BN)
    image = tl.program_id(2)
    if GRN:
        s = _channel(factor, image, K, n, inside)
        q = _channel(pull, image, K, n, inside)
    sums = tl.zeros([BM, BN], tl.float32)
    for i in range(0, ROWS, BM):
        at, both = _places(i, n, inside, L, K, ROWS, BM)
        value = tl.load(h + at, mask=both, other=0.0).to(tl.float32)
        grad = tl.load(d + at, mask=both, other=0.0).to(tl.float32)
        cdf, density = _normal(value, EXACT)
        if GRN:
            grad = grad * s + q * value * cdf
        grad = (grad * (cdf + value * density)).to(d.dtype.element_ty)
        tl.store(d + at, grad, mask=both)
        sums += grad.to(tl.float32)
    _put(part, sums, K, n, inside)


@triton.jit
def _branch_kernel(
    grad, keep, g, part, L, K, ROWS,
    BM: tl.constexpr, BN: tl.constexpr, KEEP: tl.constexpr,
    STORE: tl.constexpr,
):  # fmt: skip
    """``g = keep grad`` and its sums."""
    n, inside = _columns(K, BN)
    image = tl.program_id(2)
    sums = tl.zeros([BM, BN], tl.float32)
    for i in range(0, ROWS, BM):
        at, both = _places(i, n, inside, L, K, ROWS, BM)
        value = tl.load(grad + at, mask=both, other=0.0).to(tl.float32)
        if KEEP:
            value *= tl.load(keep + image).to(tl.float32)
        value = value.to(g.dtype.element_ty)
        if STORE:
            tl.store(g + at, value, mask=both)
        sums += value.to(tl.float32)
    _put(part, sums, K, n, inside)


@triton.jit
def _add_kernel(
    x, keep, residual, y, L, K, ROWS,
    BM: tl.constexpr, BN: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """``y = residual + keep x``."""
    n, inside = _columns(K, BN)
    image = tl.program_id(2)
    for i in range(0, ROWS, BM):
        at, both = _places(i, n, inside, L, K, ROWS, BM)
        value = tl.load(x + at, mask=both, other=0.0).to(tl.float32)
        if KEEP:
            value *= tl.load(keep + image).to(tl.float32)
        base = tl.load(residual + at, mask=both, other=0.0)
        value += base.to(tl.float32)
        tl.store(y + at, value.to(y.dtype.element_ty), mask=both)


@triton.jit
def _norm_kernel(
    x, weight, bias, y, R, C, eps, BM: tl.constexpr, BC: tl.constexpr
):  # fmt: skip
    """The layer norm of whole rows."""
    c = tl.arange(0, BC)
    r = tl.program_id(0) * BM + tl.arange(0, BM)
    both = (r < R)[:, None] & (c < C)[None, :]
    at = r.to(tl.int64)[:, None] * C + c[None, :]
    value = tl.load(x + at, mask=both, other=0.0).to(tl.float32)
    centred = value - (tl.sum(value, 1) / C)[:, None]
    centred = tl.where(both, centred, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / C + eps)
    w, b = _channel(weight, 0, C, c, c < C), _channel(bias, 0, C, c, c < C)
    value = centred * rstd[:, None] * w + b
    tl.store(y + at, value.to(y.dtype.element_ty), mask=both)


@triton.jit
def _norm_backward_kernel(
    d, x, weight, bias, y, part_w, part_b, R, C, eps,
    BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Gradient of a layer norm in place of d, the norm again, and sums."""
    c = tl.arange(0, BC)
    w, b = _channel(weight, 0, C, c, c < C), _channel(bias, 0, C, c, c < C)
    sums_w = tl.zeros([BM, BC], tl.float32)
    sums_b = tl.zeros([BM, BC], tl.float32)
    step = tl.num_programs(0) * BM
    for start in range(tl.program_id(0) * BM, R, step):
        r = start + tl.arange(0, BM)
        both = (r < R)[:, None] & (c < C)[None, :]
        at = r.to(tl.int64)[:, None] * C + c[None, :]
        value = tl.load(x + at, mask=both, other=0.0).to(tl.float32)
        grad = tl.load(d + at, mask=both, other=0.0).to(tl.float32)
        centred = value - (tl.sum(value, 1) / C)[:, None]
        centred = tl.where(both, centred, 0.0)
        rstd = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / C + eps)
        unit = centred * rstd[:, None]
        tl.store(y + at, (unit * w + b).to(y.dtype.element_ty), mask=both)
        sums_w += grad * unit
        sums_b += grad
        grad *= w
        # d_x = (g - mean(g) - unit mean(g unit)) / deviation.
        along = (tl.sum(grad * unit, 1) / C)[:, None]
        grad = grad - (tl.sum(grad, 1) / C)[:, None] - unit * along
        grad = (grad * rstd[:, None]).to(d.dtype.element_ty)
        tl.store(d + at, grad, mask=both)
    row = tl.program_id(0) * C + c
    tl.store(part_w + row, tl.sum(sums_w, 0), mask=c < C)
    tl.store(part_b + row, tl.sum(sums_b, 0), mask=c < C)


def launch(kernel: Any, grid: Tuple, *args: object, **constants: Any) -> None:
    """Launch on the GPU of the first tensor, which need not be the current."""
    if tracing.on:
        torch.library.wrap_triton(kernel)[grid](*args, **constants)
        return
    with torch.cuda.device_of(args[0]):
        kernel[grid](*args, **constants)


class _Pass(NamedTuple):
    """How programs share the rows of images."""

    grid: Tuple[int, int, int]
    shape: Tuple[int, int, int]
    blocks: dict

    def sums(self, x: Tensor) -> Tensor:
        """Room for the sums of each program, ``(images, programs, K)``."""
        images, programs = self.grid[2], self.grid[1]
        return x.new_empty(
            images, programs, self.shape[1], dtype=torch.float32
        )


def _share(x: Tensor, images: int, **flags: bool) -> _Pass:
    length, k = len(x) // images, x.size(1)
    columns = triton.cdiv(k, BLOCK_COLUMNS)
    most = max(1, PROGRAMS // (columns * images))
    rows = BLOCK_ROWS * triton.cdiv(length, BLOCK_ROWS * most)
    return _Pass(
        (columns, triton.cdiv(length, rows), images),
        (length, k, rows),
        dict(BM=BLOCK_ROWS, BN=BLOCK_COLUMNS, **flags),
    )


def _is_exact(x: Tensor) -> bool:
    return x.dtype == torch.float32


def gelu_norms(h: Tensor, images: int) -> Tensor:
    """GRN's ``G = |gelu(h)|_2`` of each image, ``(N, K)`` in float32."""
    share = _share(h, images, EXACT=_is_exact(h))
    part = share.sums(h)
    launch(_squares_kernel, share.grid, h, part, *share.shape, **share.blocks)
    return part.sum(1).sqrt_()


def activate(
    h: Tensor,
    factor: Optional[Tensor] = None,
    beta: Optional[Tensor] = None,
    grad: Optional[Tensor] = None,
    out: Optional[Tensor] = None,
) -> Tuple[Tensor, Optional[Tensor], Optional[Tensor]]:
    """``z = gelu(h) factor + beta``, what the second product takes.

    Args:
        factor: of GRN, ``(N, K)``; without, z is ``gelu(h)``.
        grad: gradient of z, ``(R, K)``, where sums are wanted.
        out: where to write z; it may be h.

    Returns:
        z, and of each image the sums of ``grad gelu(h)`` and of ``grad``,
        ``(N, K)``.
    """
    grn, sums = factor is not None, grad is not None
    images = len(factor) if grn else 1
    share = _share(h, images, EXACT=_is_exact(h), GRN=grn, SUMS=sums)
    z = torch.empty_like(h) if out is None else out
    parts = [share.sums(h) if sums else h for _ in range(2)]
    launch(
        _activate_kernel, share.grid,
        h, factor if grn else h, beta if grn else h, z, grad if sums else h,
        *parts, *share.shape, **share.blocks,
    )  # fmt: skip
    if not sums:
        return z, None, None
    return (z, *(part.sum(1) for part in parts))


def gelu_backward_(
    d_z: Tensor,
    h: Tensor,
    factor: Optional[Tensor] = None,
    pull: Optional[Tensor] = None,
) -> Tensor:
    """Turn the gradient of z into that of h; return its sums ``(K,)``.

    Args:
        d_z: gradient of :func:`activate`'s result; overwritten.
        pull: what GRN's norms add, in multiples of ``gelu(h)``, ``(N, K)``.
    """
    grn = factor is not None
    share = _share(h, len(factor) if grn else 1, EXACT=_is_exact(h), GRN=grn)
    part = share.sums(h)
    launch(
        _gelu_backward_kernel, share.grid,
        d_z, h, factor if grn else h, pull if grn else h, part,
        *share.shape, **share.blocks,
    )  # fmt: skip
    return part.sum((0, 1))


def column_sums(x: Tensor) -> Tensor:
    """Sums of ``(R, K)`` over rows, in float32."""
    share = _share(x, 1, KEEP=False, STORE=False)
    part = share.sums(x)
    launch(
        _branch_kernel, share.grid, x, x, x, part, *share.shape, **share.blocks
    )
    return part.sum((0, 1))


def branch_gradient(
    grad: Tensor, keep: Optional[Tensor], dtype: torch.dtype
) -> Tuple[Tensor, Tensor]:
    """``keep grad`` in a type, and its sums ``(K,)`` in float32.

    Args:
        keep: drop path factor of each image, ``(N, 1, 1, 1)``, or None.
    """
    if keep is None and grad.dtype == dtype:
        return grad, column_sums(grad)
    images = 1 if keep is None else len(keep)
    share = _share(grad, images, KEEP=keep is not None, STORE=True)
    part, g = share.sums(grad), torch.empty_like(grad, dtype=dtype)
    launch(
        _branch_kernel, share.grid,
        grad, grad if keep is None else keep, g, part,
        *share.shape, **share.blocks,
    )  # fmt: skip
    return g, part.sum((0, 1))


def add(
    x: Tensor, keep: Optional[Tensor], residual: Tensor, dtype: torch.dtype
) -> Tensor:
    """``residual + keep x`` of rows, in a type."""
    images = 1 if keep is None else len(keep)
    share = _share(x, images, KEEP=keep is not None)
    y = torch.empty_like(residual, dtype=dtype)
    launch(
        _add_kernel, share.grid,
        x, x if keep is None else keep, residual, y,
        *share.shape, **share.blocks,
    )  # fmt: skip
    return y


def _whole_rows(weight: Tensor, elements: int) -> dict:
    """Blocks of whole rows that hold about so many elements."""
    width = triton.next_power_of_2(len(weight))
    return dict(BM=max(1, elements // width), BC=width)


def norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The layer norm of rows."""
    y, blocks = torch.empty_like(x), _whole_rows(weight, 2048)
    grid = (triton.cdiv(len(x), blocks['BM']),)
    launch(_norm_kernel, grid, x, weight, bias, y, *x.shape, eps, **blocks)
    return y


def norm_backward_(
    d_y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> Tuple[Tensor, Tensor, Tensor]:
    """Turn the gradient of :func:`norm` into that of x.

    Returns:
        The norm of x once more, and the gradients of weight and bias in
        float32.
    """
    y, blocks = torch.empty_like(x), _whole_rows(weight, 2048)
    programs = min(triton.cdiv(len(x), blocks['BM']), PROGRAMS // 2)
    parts = [
        x.new_empty(programs, x.size(1), dtype=torch.float32) for _ in range(2)
    ]
    launch(
        _norm_backward_kernel,
        (programs,),
        d_y,
        x,
        weight,
        bias,
        y,
        *parts,
        *x.shape,
        eps,
        **blocks,
    )
    return (y, *(part.sum(0) for part in parts))
