"""The ops of eager mode: kernels with gradients, differentiable twice.

A second derivative goes through the reference: under ``create_graph`` the
backward pass is computed again in plain PyTorch.
"""

from __future__ import annotations

from typing import Any, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from . import gemm, reference
from .algebra import Saved, Weights
from .kernels import kernels

Moments = Optional[Tensor]


class DepthwiseConv(torch.autograd.Function):
    """A depthwise convolution of stride 1 that keeps the size of maps."""

    @staticmethod
    def forward(
        ctx: Any,
        path: str,
        x: Tensor,
        weight: Tensor,
        bias: Optional[Tensor],
        eps: Optional[float],
    ) -> Tuple[Tensor, Moments]:
        x = x.contiguous()
        ctx.save_for_backward(x, weight, bias)
        ctx.path = path
        y, moments = kernels(path).convolve(x, weight, bias, eps)
        if moments is not None:
            ctx.mark_non_differentiable(moments)
        return y, moments

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Moments) -> Tuple:
        if torch.is_grad_enabled():
            grads = _plain_convolution(grad, ctx.saved_tensors)
        else:
            x, weight, _ = ctx.saved_tensors
            needed = ctx.needs_input_grad[1:4]
            backward = kernels(ctx.path).convolve_backward
            grads = backward(grad, x, weight, needed)
        return (None, *grads, None)


class ConvNeXtMLP(torch.autograd.Function):
    """The pointwise half of a block."""

    @staticmethod
    def forward(
        ctx: Any,
        path: str,
        x: Tensor,
        residual: Tensor,
        keep: Optional[Tensor],
        eps: float,
        recompute: bool,
        moments: Moments,
        *weights: Optional[Tensor],
    ) -> Tensor:
        w = Weights(*weights)
        y, saved = kernels(path).forward(x, residual, w, keep, eps, moments)
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
            d_x, d_w = _plain_mlp(grad, x, w, keep, ctx.eps)
        else:
            backward = kernels(ctx.path).backward
            d_x, d_w = backward(grad, x, w, keep, saved, ctx.eps)
        d_residual = grad.to(ctx.residual_dtype)
        return (None, d_x, d_residual, None, None, None, None, *d_w)


def depthwise_conv(
    path: str,
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    eps: Optional[float] = None,
) -> Tuple[Tensor, Moments]:
    """Convolve; with ``eps``, moments of a layer norm may come along."""
    return DepthwiseConv.apply(path, x, weight, bias, eps)


def convnext_mlp(
    path: str,
    x: Tensor,
    residual: Tensor,
    w: Weights,
    keep: Optional[Tensor],
    eps: float,
    recompute: bool,
    moments: Moments = None,
) -> Tensor:
    if needs_gradient(x, residual, *w):
        return ConvNeXtMLP.apply(
            path, x, residual, keep, eps, recompute, moments, *w
        )
    return kernels(path).infer(x, residual, w, keep, eps, moments)


def needs_gradient(*tensors: Optional[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in tensors
    )


def plain(
    x: Tensor,
    residual: Tensor,
    w: Weights,
    keep: Optional[Tensor],
    eps: float,
) -> Tensor:
    """The reference, from :class:`Weights`."""
    return reference.convnext_mlp(x, residual, *w.arguments(), keep, eps)


@gemm.without_autocast
def _plain_convolution(grad: Tensor, tensors: Sequence) -> List:
    y = reference.depthwise_conv(*tensors)
    return _gradients(y, tensors, grad)


@gemm.without_autocast
def _plain_mlp(
    grad: Tensor, x: Tensor, w: Weights, keep: Optional[Tensor], eps: float
) -> Tuple[Tensor, List[Optional[Tensor]]]:
    branch = plain(x, torch.zeros_like(x), w, keep, eps)
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
