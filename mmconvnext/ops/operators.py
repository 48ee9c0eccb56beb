"""The two ops of a block: decide, then call the reference or kernels.

The kernels of a path know no autograd. Here they get gradients for eager
mode, in ``library`` for compiled code. A second derivative goes through the
reference: under ``create_graph`` the backward pass is computed again in
plain PyTorch.
"""

from __future__ import annotations

from typing import Any, List, Optional, Sequence, Tuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from . import reference
from .autocast import without_autocast
from .choice import HAS_CUSTOM_OPS, call_of, decide, kernels
from .grn_folding import PRODUCTS, Saved, Weights
from .reference import Affine

if HAS_CUSTOM_OPS:
    from . import library


def depthwise_conv(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor] = None,
    dilation: int = 1,
) -> Tensor:
    """See :func:`reference.depthwise_conv`."""
    call = call_of('depthwise_conv', x, (weight, bias), dilation=dilation)
    path = decide(call).path
    if path == 'reference':
        return reference.depthwise_conv(x, weight, bias, dilation)
    bias = None if bias is None else bias.to(call.dtype)
    given = x.to(call.dtype), weight.to(call.dtype), bias
    if call.compiling:
        return library.OPERATORS[path].depthwise_conv(*given)
    return DepthwiseConv.apply(path, *given)


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
    grn = grn_affine or (None, None)
    w = Weights(*norm, *pwconv1, *pwconv2, *grn, layer_scale)
    call = call_of('convnext_mlp', x, (residual, *w), keep)
    path = decide(call).path
    if path == 'reference':
        given = x, residual, w, keep, eps
        if recompute and torch.is_grad_enabled():
            return checkpoint(plain_mlp, *given, use_reentrant=False)
        return plain_mlp(*given)
    cast = {key: getattr(w, key).to(call.dtype) for key in PRODUCTS}
    x, w = x.to(call.dtype), w._replace(**cast)
    if call.compiling:
        given = call.training, recompute, x, residual, keep, eps, *w
        return library.OPERATORS[path].convnext_mlp(*given)[0]
    if call.training:
        given = path, recompute, x, residual, keep, eps, *w
        return ConvNeXtMLP.apply(*given)
    infer = kernels(path, 'convnext_mlp').infer
    return infer(x, residual, w, keep, eps)


def plain_mlp(
    x: Tensor,
    residual: Tensor,
    w: Weights,
    keep: Optional[Tensor],
    eps: float,
) -> Tensor:
    """The reference, from :class:`Weights`."""
    return reference.convnext_mlp(x, residual, *w.arguments(), keep, eps)


class DepthwiseConv(torch.autograd.Function):
    """A depthwise convolution of stride 1 that keeps the size of maps."""

    @staticmethod
    def forward(
        ctx: Any,
        path: str,
        x: Tensor,
        weight: Tensor,
        bias: Optional[Tensor],
    ) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, weight, bias)
        ctx.path = path
        return kernels(path, 'depthwise_conv').forward(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple:
        if torch.is_grad_enabled():
            return (None, *_plain_convolution(grad, ctx.saved_tensors))
        x, weight, _ = ctx.saved_tensors
        backward = kernels(ctx.path, 'depthwise_conv').backward
        return (None, *backward(grad, x, weight, ctx.needs_input_grad[1:]))


class ConvNeXtMLP(torch.autograd.Function):
    """The pointwise half of a block."""

    @staticmethod
    def forward(
        ctx: Any,
        path: str,
        recompute: bool,
        x: Tensor,
        residual: Tensor,
        keep: Optional[Tensor],
        eps: float,
        *weights: Optional[Tensor],
    ) -> Tensor:
        forward = kernels(path, 'convnext_mlp').forward
        y, saved = forward(x, residual, Weights(*weights), keep, eps)
        if recompute:
            saved = saved._replace(hidden=None)
        ctx.save_for_backward(x, keep, *saved, *weights)
        ctx.path, ctx.eps = path, eps
        ctx.residual_dtype = residual.dtype
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple:
        x, keep, hidden, norms, *weights = ctx.saved_tensors
        saved, w = Saved(hidden, norms), Weights(*weights)
        if torch.is_grad_enabled():
            d_x, d_w = _plain_mlp_backward(grad, x, w, keep, ctx.eps)
        else:
            backward = kernels(ctx.path, 'convnext_mlp').backward
            d_x, d_w = backward(grad, x, w, keep, saved, ctx.eps)
        # y = residual + branch: the residual's gradient is that of y.
        d_residual = grad.to(ctx.residual_dtype)
        return (None, None, d_x, d_residual, None, None, *d_w)


@without_autocast
def _plain_convolution(grad: Tensor, tensors: Sequence) -> List:
    y = reference.depthwise_conv(*tensors)
    return _gradients(y, tensors, grad)


@without_autocast
def _plain_mlp_backward(
    grad: Tensor, x: Tensor, w: Weights, keep: Optional[Tensor], eps: float
) -> Tuple[Tensor, List[Optional[Tensor]]]:
    branch = plain_mlp(x, torch.zeros_like(x), w, keep, eps)
    grads = _gradients(branch, (x, *w), grad.to(branch.dtype))
    return grads[0], grads[1:]


def _gradients(y: Tensor, tensors: Sequence, grad: Tensor) -> List:
    """Gradients that can be differentiated, None where none is asked."""
    asked = [t for t in tensors if t is not None and t.requires_grad]
    found = iter(torch.autograd.grad(y, asked, grad, create_graph=True))
    return [
        next(found) if t is not None and t.requires_grad else None
        for t in tensors
    ]
