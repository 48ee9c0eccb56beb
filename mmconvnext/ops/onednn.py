"""Products of token rows by oneDNN, and sums over rows.

On x86 the products of oneDNN, which torch's own compiler calls too, are
faster than the MKL products of ``F.linear``. They accept transposed views as
weights, and apply a GELU or add another map while the result is still in
registers. Everywhere else the same functions call plain PyTorch.

They know no autograd: call them inside of an ``autograd.Function``.
"""

from __future__ import annotations

import platform
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

# Without a public name. Where it is gone, ``F.linear`` takes its place.
LINEAR = getattr(torch.ops.mkldnn, '_linear_pointwise', None)


def _onednn_dtypes() -> tuple:
    """Types whose products oneDNN computes natively on this processor."""
    x86 = platform.machine().lower() in ('x86_64', 'amd64')
    available = LINEAR is not None and torch.backends.mkldnn.is_available()
    if not (x86 and available):
        return ()
    has_bfloat16 = getattr(torch.ops.mkldnn, '_is_mkldnn_bf16_supported', None)
    if has_bfloat16 is not None and has_bfloat16():
        return torch.float32, torch.bfloat16
    return (torch.float32,)


ONEDNN_DTYPES = _onednn_dtypes()
LONGEST_SUM = 1024


def has_onednn(x: Tensor) -> bool:
    return (
        x.device.type == 'cpu'
        and x.dtype in ONEDNN_DTYPES
        and torch.backends.mkldnn.enabled
    )


def linear(x: Tensor, weight: Tensor, bias: Optional[Tensor] = None) -> Tensor:
    """``x weight^T + bias`` of ``(R, K)`` and ``(M, K)``."""
    if has_onednn(x):
        return LINEAR(x, weight, bias, 'none', [], '')
    return F.linear(x, weight, bias)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``gelu(x weight^T + bias)`` with the exact (erf) GELU."""
    if has_onednn(x):
        return LINEAR(x, weight, bias, 'gelu', [], 'none')
    return F.gelu(F.linear(x, weight, bias))


def linear_add(
    x: Tensor, weight: Tensor, bias: Optional[Tensor], other: Tensor
) -> Tensor:
    """``other + (x weight^T + bias)``."""
    if has_onednn(x) and other.dtype == x.dtype:
        return LINEAR.binary(x, other, weight, bias, 'add')
    return other + F.linear(x, weight, bias)


def transposed(x: Tensor) -> Tensor:
    """Copy the transpose. On a CPU ``cat`` does it with all threads."""
    return torch.cat([x.t()])


def product(p: Tensor, q: Tensor) -> Tensor:
    """``p^T q`` of ``(R, M)`` and ``(R, K)``: a weight gradient.

    Cheapest where ``p`` is the narrower one: it is copied, because oneDNN
    wants it transposed.
    """
    if not has_onednn(p):
        return p.t() @ q
    # sum_r p_r q_r^T over all rows r. oneDNN adds the terms one by one, and
    # the rounding error of such a sum grows with its length: each piece of
    # LONGEST_SUM rows is summed by itself, then the pieces are added.
    out = None
    for i in range(0, len(p), LONGEST_SUM):
        rows = slice(i, i + LONGEST_SUM)
        part = linear(transposed(p[rows]), q[rows].t())
        out = part if out is None else out.add_(part)
    return out


def sums(x: Tensor) -> Tensor:
    """Sums of ``(R, K)`` over rows, in float32 or more."""
    dtype, parts = torch.promote_types(x.dtype, torch.float32), 16
    if x.device.type == 'cpu' and len(x) % parts == 0:
        # Two steps over 16 parts take half the time of one there.
        x = x.view(parts, -1, x.size(1)).sum(1, dtype=dtype)
    return x.sum(0, dtype=dtype)


def square_sums(x: Tensor) -> Tensor:
    """Sums of squares of ``(R, K)`` over rows, in float32 or more."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    if x.device.type == 'cpu' and x.dtype == dtype:
        # A vector norm is slower there, and adds one by one.
        return sums(x * x)
    if x.device.type == 'cpu' and x.dtype == torch.bfloat16:
        # sum x^2 = R (mean^2 + variance): the statistics of a batch norm are
        # what PyTorch computes fast there. It updates running ones, which
        # nobody reads.
        running = x.new_zeros(2, x.size(1), dtype=dtype)
        mean, variance = torch.batch_norm_update_stats(x, *running, 0.1)
        return mean.square_().add_(variance).mul_(len(x))
    return torch.linalg.vector_norm(x, dim=0, dtype=dtype).square_()


def gelu_(x: Tensor) -> Tensor:
    """Apply the exact (erf) GELU in place."""
    return torch.ops.aten.gelu_(x)
