"""The public ops: cast as autocast would, choose a path, call it."""

from __future__ import annotations

from typing import Callable, NamedTuple, Optional

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from . import depthwise, fused, reference
from .choice import HAS_CUSTOM_OPS, compute_dtype, is_compiling, path_of
from .fused import Weights
from .reference import Affine


class Backend(NamedTuple):
    """The ops of one path; arguments are those of the fused one."""

    depthwise_conv: Callable[..., Tensor]
    convnext_mlp: Callable[..., Tensor]


EAGER = {'fused': Backend(depthwise.depthwise_conv, fused.convnext_mlp)}
COMPILED = {}
if HAS_CUSTOM_OPS:
    from . import library

    COMPILED['fused'] = Backend(library.depthwise_conv, library.convnext_mlp)


def backend(path: str) -> Backend:
    """Look a path up; Triton is imported when it first runs.

    Raises:
        RuntimeError: for Triton under ``torch.compile``.
    """
    if path == 'triton' and is_compiling():
        raise RuntimeError(
            "ops path 'triton' has no operators for torch.compile; use "
            "'fused', 'reference' or 'auto'"
        )
    if path == 'triton' and path not in EAGER:
        from . import triton_ops

        EAGER[path] = Backend(
            triton_ops.depthwise_conv, triton_ops.convnext_mlp
        )
    return (COMPILED if is_compiling() else EAGER)[path]


def depthwise_conv(
    x: Tensor, weight: Tensor, bias: Optional[Tensor] = None
) -> Tensor:
    """See :func:`reference.depthwise_conv`."""
    path = path_of('depthwise_conv', x, (x, weight, bias))
    if path == 'reference':
        return reference.depthwise_conv(x, weight, bias)
    dtype = compute_dtype(x)
    bias = None if bias is None else bias.to(dtype)
    op = backend(path).depthwise_conv
    return op(x.to(dtype), weight.to(dtype), bias)


def convnext_mlp(
    x: Tensor,
    residual: Tensor,
    norm: Affine,
    pwconv1: Affine,
    pwconv2: Affine,
    grn_affine: Optional[Affine] = None,
    layer_scale: Optional[Tensor] = None,
    keep: Optional[Tensor] = None,
    eps: float = 1e-6,
    recompute: bool = False,
) -> Tensor:
    """See :func:`reference.convnext_mlp`.

    Args:
        recompute: compute the hidden map again in the backward pass.
    """
    w = Weights(
        *norm, *pwconv1, *pwconv2, *(grn_affine or (None, None)), layer_scale
    )
    path = path_of('convnext_mlp', x, (x, residual, *w))
    if path == 'reference' or (keep is not None and keep.requires_grad):
        if recompute and torch.is_grad_enabled():
            args = (x, residual, w, keep, eps)
            return checkpoint(fused.plain, *args, use_reentrant=False)
        return fused.plain(x, residual, w, keep, eps)
    dtype = compute_dtype(x)
    w = w._replace(
        **{key: getattr(w, key).to(dtype) for key in fused.PRODUCTS}
    )
    op = backend(path).convnext_mlp
    return op(x.to(dtype), residual, w, keep, eps, recompute)
