"""Matrix products of token rows by the fastest call there is.

On x86 the products of oneDNN, which torch's own compiler calls too, beat the
MKL behind ``F.linear``; they take transposed views as weights as they are,
and add a GELU or another map while the result is in registers. They know no
autograd: these functions are for inside of an ``autograd.Function``.
"""

from __future__ import annotations

import functools
import platform
from typing import Callable, Optional

import torch
import torch.nn.functional as F
from torch import Tensor


def _onednn_dtypes() -> tuple:
    """Types whose products oneDNN computes natively on this processor."""
    x86 = platform.machine().lower() in ('x86_64', 'amd64')
    has_op = hasattr(torch.ops.mkldnn, '_linear_pointwise')
    if not (x86 and has_op and torch.backends.mkldnn.is_available()):
        return ()
    fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return (torch.float32, torch.bfloat16) if fast else (torch.float32,)


ONEDNN_DTYPES = _onednn_dtypes()
LONGEST_SUM = 1024
NEW_AUTOCAST = hasattr(torch, 'get_autocast_dtype')  # torch 2.4


def has_onednn(x: Tensor) -> bool:
    return (
        x.device.type == 'cpu'
        and x.dtype in ONEDNN_DTYPES
        and torch.backends.mkldnn.enabled
    )


def autocasts(device: str) -> bool:
    """Whether autocast is on for a type of device; some never have it."""
    if NEW_AUTOCAST:
        available = torch.amp.is_autocast_available(device)
        return available and torch.is_autocast_enabled(device)
    cpu, gpu = torch.is_autocast_cpu_enabled, torch.is_autocast_enabled
    return cpu() if device == 'cpu' else gpu()


def without_autocast(function: Callable) -> Callable:
    """Keep autocast from what works out types by itself."""

    @functools.wraps(function)
    def run(x: Tensor, *args: object) -> object:
        if not autocasts(x.device.type):
            return function(x, *args)
        with torch.autocast(x.device.type, enabled=False):
            return function(x, *args)

    return run


def linear(x: Tensor, weight: Tensor, bias: Optional[Tensor] = None) -> Tensor:
    """``x weight^T + bias`` of ``(R, K)`` and ``(M, K)``."""
    if has_onednn(x):
        return torch.ops.mkldnn._linear_pointwise(
            x, weight, bias, 'none', [], ''
        )
    return F.linear(x, weight, bias)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``gelu(x weight^T + bias)`` with the exact (erf) GELU."""
    if has_onednn(x):
        return torch.ops.mkldnn._linear_pointwise(
            x, weight, bias, 'gelu', [], 'none'
        )
    return F.gelu(F.linear(x, weight, bias))


def linear_add(x: Tensor, weight: Tensor, bias: Tensor, other: Tensor):
    """``other + (x weight^T + bias)``."""
    if has_onednn(x) and other.dtype == x.dtype:
        return torch.ops.mkldnn._linear_pointwise.binary(
            x, other, weight, bias, 'add'
        )
    return other + F.linear(x, weight, bias)


def transposed(x: Tensor) -> Tensor:
    """A transposed copy. On a CPU ``cat`` copies it with all threads."""
    return torch.cat([x.t()])


def product(p: Tensor, q: Tensor) -> Tensor:
    """``p^T q`` of ``(R, M)`` and ``(R, K)``: a weight gradient.

    Cheapest where ``p`` is the narrower: oneDNN wants it transposed. It adds
    up one by one, so longer sums are cut for their error's sake.
    """
    if not has_onednn(p):
        return p.t() @ q
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
        # Twice as fast there as in one go.
        x = x.view(parts, -1, x.size(1)).sum(1, dtype=dtype)
    return x.sum(0, dtype=dtype)


def square_sums(x: Tensor) -> Tensor:
    """Sums of squares of ``(R, K)`` over rows, in float32 or more."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    if x.device.type == 'cpu' and x.dtype == dtype:
        # A vector norm is slower there, and sums up one by one.
        return sums(x * x)
    if x.device.type == 'cpu' and x.dtype == torch.bfloat16:
        # The statistics of a batch norm are what is fast there.
        moments = x.new_zeros(2, x.size(1), dtype=dtype)
        mean, variance = torch.batch_norm_update_stats(x, *moments, 0.1)
        return mean.square_().add_(variance).mul_(len(x))
    return torch.linalg.vector_norm(x, dim=0, dtype=dtype).square_()


def gelu_(x: Tensor) -> Tensor:
    """The exact (erf) GELU in place."""
    return torch._C._nn.gelu_(x)
