"""The public ops: cast as autocast would, choose a path, call it."""

from __future__ import annotations

from types import ModuleType
from typing import Optional, Tuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from . import autograd, reference
from .algebra import PRODUCTS, Weights
from .choice import HAS_CUSTOM_OPS, compute_dtype, is_compiling, path_of
from .reference import Affine

if HAS_CUSTOM_OPS:
    from . import library


def _backend() -> ModuleType:
    return library if is_compiling() else autograd


def depthwise_conv(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor] = None,
    dilation: int = 1,
) -> Tensor:
    """See :func:`reference.depthwise_conv`."""
    return depthwise_conv_moments(x, weight, bias, dilation=dilation)[0]


def depthwise_conv_moments(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor] = None,
    eps: Optional[float] = None,
    dilation: int = 1,
) -> Tuple[Tensor, Optional[Tensor]]:
    """The same, and what :func:`convnext_mlp` can use of its result.

    Args:
        eps: of the layer norm behind it.

    Returns:
        The map, and from a path that has them at hand the means and
        reciprocal deviations of its rows, ``(2, N H W)`` in float32.
    """
    path = path_of('depthwise_conv', x, (x, weight, bias), dilation)
    if path == 'reference':
        return reference.depthwise_conv(x, weight, bias, dilation), None
    dtype = compute_dtype(x)
    bias = None if bias is None else bias.to(dtype)
    given = x.to(dtype), weight.to(dtype), bias
    return _backend().depthwise_conv(path, *given, eps)


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
    moments: Optional[Tensor] = None,
) -> Tensor:
    """See :func:`reference.convnext_mlp`.

    Args:
        recompute: compute the hidden map again in the backward pass.
        moments: of :func:`depthwise_conv_moments`, with the same ``eps``.
    """
    w = Weights(
        *norm, *pwconv1, *pwconv2, *(grn_affine or (None, None)), layer_scale
    )
    path = path_of('convnext_mlp', x, (x, residual, *w))
    if path == 'reference' or (keep is not None and keep.requires_grad):
        if recompute and torch.is_grad_enabled():
            args = (x, residual, w, keep, eps)
            return checkpoint(autograd.plain, *args, use_reentrant=False)
        return autograd.plain(x, residual, w, keep, eps)
    dtype = compute_dtype(x)
    w = w._replace(**{key: getattr(w, key).to(dtype) for key in PRODUCTS})
    mlp = _backend().convnext_mlp
    x = x.to(dtype)
    return mlp(path, x, residual, w, keep, eps, recompute, moments)
