"""The fused ops as torch operators, which ``torch.compile`` keeps whole.

In a compiled graph they take the place of the ``autograd.Function`` classes
of eager mode. An operator returns tensors only: what is absent is empty.
Only ``dispatch`` imports this file, where torch is new enough.
"""

from __future__ import annotations

from typing import Any, List, Optional, Sequence, Tuple

import torch
from torch import Tensor
from torch.library import custom_op, register_autograd

from . import depthwise, fused
from .fused import Saved, Weights, requires_grad

OPTIONAL = ('gamma', 'beta', 'scale')
WEIGHTS = ', '.join(
    f'Tensor{"?" if name in OPTIONAL else ""} {name}'
    for name in Weights._fields
)


def _operator(name: str, arguments: str, result: str) -> Any:
    schema = f'({arguments}) -> {result}'
    return custom_op(f'mmconvnext::{name}', mutates_args=(), schema=schema)


def _full(like: Tensor, *tensors: Optional[Tensor]) -> List[Tensor]:
    return [like.new_empty(0) if t is None else t for t in tensors]


@_operator('depthwise_conv', 'Tensor x, Tensor weight, Tensor? bias', 'Tensor')
def _depthwise(x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
    return depthwise.forward(x.contiguous(), weight, bias).contiguous()


@_depthwise.register_fake
def _(x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
    return x.new_empty(x.shape)


@_operator(
    'depthwise_conv_backward',
    'Tensor grad, Tensor x, Tensor weight, bool[] needed',
    'Tensor[]',
)
def _depthwise_grads(
    grad: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool]
) -> List[Tensor]:
    grads = depthwise.backward(grad, x.contiguous(), weight, needed)
    return [g.contiguous() for g in _full(x, *grads)]


@_depthwise_grads.register_fake
def _(
    grad: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool]
) -> List[Tensor]:
    shapes = (x.shape, weight.shape, weight.shape[:1])
    return [x.new_empty(s if n else 0) for s, n in zip(shapes, needed)]


def _save_depthwise(ctx: Any, inputs: Tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _depthwise_backward(ctx: Any, grad: Tensor) -> Tuple:
    needed = list(ctx.needs_input_grad)
    grads = _depthwise_grads(grad, *ctx.saved_tensors, needed)
    return tuple(g if n else None for g, n in zip(grads, needed))


register_autograd(
    'mmconvnext::depthwise_conv',
    _depthwise_backward,
    setup_context=_save_depthwise,
)


@_operator(
    'convnext_mlp_inference',
    f'Tensor x, Tensor residual, Tensor? keep, float eps, {WEIGHTS}',
    'Tensor',
)
def _mlp_inference(
    x: Tensor,
    residual: Tensor,
    keep: Optional[Tensor],
    eps: float,
    *weights: Optional[Tensor],
) -> Tensor:
    return fused.infer(x, residual, Weights(*weights), keep, eps)


@_mlp_inference.register_fake
def _(
    x: Tensor,
    residual: Tensor,
    keep: Optional[Tensor],
    eps: float,
    *weights: Optional[Tensor],
) -> Tensor:
    dtype = fused.out_dtype(x.dtype, residual, weights[-1])
    return x.new_empty(x.shape, dtype=dtype)


@_operator(
    'convnext_mlp',
    'Tensor x, Tensor residual, Tensor? keep, float eps, bool recompute, '
    f'{WEIGHTS}',
    '(Tensor, Tensor, Tensor)',
)
def _mlp(
    x: Tensor,
    residual: Tensor,
    keep: Optional[Tensor],
    eps: float,
    recompute: bool,
    *weights: Optional[Tensor],
) -> Tuple[Tensor, ...]:
    y, saved = fused.forward(x, residual, Weights(*weights), keep, eps)
    if recompute:
        saved = saved._replace(hidden=None)
    return (y, *_full(x, *saved))


@_mlp.register_fake
def _(
    x: Tensor,
    residual: Tensor,
    keep: Optional[Tensor],
    eps: float,
    recompute: bool,
    *weights: Optional[Tensor],
) -> Tuple[Tensor, ...]:
    w = Weights(*weights)
    n, c, rows = x.size(0), x.size(-1), x.numel() // x.size(-1)
    dtype = fused.wide(x.dtype)
    return (
        x.new_empty(
            x.shape, dtype=fused.out_dtype(x.dtype, residual, w.scale)
        ),
        x.new_empty(0 if recompute else (rows, 4 * c)),
        x.new_empty((n, 4 * c), dtype=dtype)
        if w.gamma is not None
        else x.new_empty(0),
    )


@_operator(
    'convnext_mlp_backward',
    'Tensor grad, Tensor x, Tensor? keep, '
    f'Tensor? hidden, Tensor? norms, float eps, {WEIGHTS}',
    'Tensor[]',
)
def _mlp_grads(
    grad: Tensor,
    x: Tensor,
    keep: Optional[Tensor],
    hidden: Optional[Tensor],
    norms: Optional[Tensor],
    eps: float,
    *weights: Optional[Tensor],
) -> List[Tensor]:
    saved = Saved(hidden, norms)
    d_x, d_w = fused.backward(grad, x, Weights(*weights), keep, saved, eps)
    return _full(x, d_x, *d_w)


@_mlp_grads.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    keep: Optional[Tensor],
    hidden: Optional[Tensor],
    norms: Optional[Tensor],
    eps: float,
    *weights: Optional[Tensor],
) -> List[Tensor]:
    grads = [None if w is None else w.new_empty(w.shape) for w in weights]
    return _full(x, x.new_empty(x.shape), *grads)


def _save_mlp(ctx: Any, inputs: Tuple, output: Tuple) -> None:
    x, residual, keep, ctx.eps, ctx.recompute, *weights = inputs
    ctx.residual_dtype = residual.dtype
    ctx.save_for_backward(x, keep, *output[1:], *weights)


def _mlp_backward(ctx: Any, grad: Tensor, *others: Optional[Tensor]) -> Tuple:
    x, keep, hidden, norms, *weights = ctx.saved_tensors
    hidden = None if ctx.recompute else hidden
    norms = None if weights[OPTIONAL_AT] is None else norms
    d_x, *d_w = _mlp_grads(grad, x, keep, hidden, norms, ctx.eps, *weights)
    d_w = [None if w is None else d for d, w in zip(d_w, weights)]
    return (d_x, grad.to(ctx.residual_dtype), None, None, None, *d_w)


OPTIONAL_AT = Weights._fields.index('gamma')
register_autograd(
    'mmconvnext::convnext_mlp', _mlp_backward, setup_context=_save_mlp
)


def convnext_mlp(
    x: Tensor,
    residual: Tensor,
    w: Weights,
    keep: Optional[Tensor],
    eps: float,
    recompute: bool,
) -> Tensor:
    """:func:`fused.convnext_mlp` as an operator."""
    if torch.is_grad_enabled() and requires_grad(x, residual, *w):
        return _mlp(x, residual, keep, eps, recompute, *w)[0]
    return _mlp_inference(x, residual, keep, eps, *w)


def depthwise_conv(
    x: Tensor, weight: Tensor, bias: Optional[Tensor]
) -> Tensor:
    """:func:`depthwise.depthwise_conv` as an operator."""
    return _depthwise(x, weight, bias)
