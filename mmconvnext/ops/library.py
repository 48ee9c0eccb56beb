"""The fused ops as torch operators, which ``torch.compile`` keeps whole.

In a compiled graph they take the place of the ``autograd.Function`` classes
of eager mode. An operator returns tensors only: what is absent is empty.
Only ``dispatch`` imports this file, where torch is new enough.
"""

from __future__ import annotations

from typing import Any, List, Optional, Sequence, Tuple

from torch import Tensor
from torch.library import custom_op, register_autograd

from .algebra import Saved, Weights, out_dtype, wide
from .autograd import needs_gradient
from .kernels import gives_moments, kernels

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


@_operator(
    'depthwise_conv',
    'str path, Tensor x, Tensor weight, Tensor? bias, float? eps',
    '(Tensor, Tensor)',
)
def _depthwise(
    path: str,
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    eps: Optional[float],
) -> Tuple[Tensor, Tensor]:
    convolve = kernels(path).convolve
    y, moments = convolve(x.contiguous(), weight, bias, eps)
    return y.contiguous(), *_full(x.new_empty(0, dtype=wide(x.dtype)), moments)


@_depthwise.register_fake
def _(
    path: str,
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    eps: Optional[float],
) -> Tuple[Tensor, Tensor]:
    rows = x.numel() // x.size(-1)
    shape = (2, rows) if gives_moments(path, eps) else 0
    moments = x.new_empty(shape, dtype=wide(x.dtype))
    return x.new_empty(x.shape), moments


@_operator(
    'depthwise_conv_backward',
    'str path, Tensor grad, Tensor x, Tensor weight, bool[] needed',
    'Tensor[]',
)
def _depthwise_grads(
    path: str,
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    needed: Sequence[bool],
) -> List[Tensor]:
    backward = kernels(path).convolve_backward
    grads = backward(grad, x.contiguous(), weight, needed)
    return [g.contiguous() for g in _full(x, *grads)]


@_depthwise_grads.register_fake
def _(
    path: str,
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    needed: Sequence[bool],
) -> List[Tensor]:
    shapes = (x.shape, weight.shape, weight.shape[:1])
    return [x.new_empty(s if n else 0) for s, n in zip(shapes, needed)]


def _save_depthwise(ctx: Any, inputs: Tuple, output: Tuple) -> None:
    ctx.path, x, weight, *_ = inputs
    ctx.save_for_backward(x, weight)
    ctx.mark_non_differentiable(output[1])


def _depthwise_backward(ctx: Any, grad: Tensor, _: Optional[Tensor]) -> Tuple:
    needed = list(ctx.needs_input_grad[1:4])
    grads = _depthwise_grads(ctx.path, grad, *ctx.saved_tensors, needed)
    return (None, *(g if n else None for g, n in zip(grads, needed)), None)


register_autograd(
    'mmconvnext::depthwise_conv',
    _depthwise_backward,
    setup_context=_save_depthwise,
)


@_operator(
    'convnext_mlp_inference',
    'str path, Tensor x, Tensor residual, Tensor? keep, float eps, '
    f'Tensor? moments, {WEIGHTS}',
    'Tensor',
)
def _mlp_inference(
    path: str,
    x: Tensor,
    residual: Tensor,
    keep: Optional[Tensor],
    eps: float,
    moments: Optional[Tensor],
    *weights: Optional[Tensor],
) -> Tensor:
    w = Weights(*weights)
    return kernels(path).infer(x, residual, w, keep, eps, moments)


@_mlp_inference.register_fake
def _(
    path: str,
    x: Tensor,
    residual: Tensor,
    keep: Optional[Tensor],
    eps: float,
    moments: Optional[Tensor],
    *weights: Optional[Tensor],
) -> Tensor:
    dtype = out_dtype(x.dtype, residual, weights[-1])
    return x.new_empty(x.shape, dtype=dtype)


@_operator(
    'convnext_mlp',
    'str path, Tensor x, Tensor residual, Tensor? keep, float eps, '
    f'bool recompute, Tensor? moments, {WEIGHTS}',
    '(Tensor, Tensor, Tensor)',
)
def _mlp(
    path: str,
    x: Tensor,
    residual: Tensor,
    keep: Optional[Tensor],
    eps: float,
    recompute: bool,
    moments: Optional[Tensor],
    *weights: Optional[Tensor],
) -> Tuple[Tensor, ...]:
    w = Weights(*weights)
    y, saved = kernels(path).forward(x, residual, w, keep, eps, moments)
    if recompute:
        saved = saved._replace(hidden=None)
    return (y, *_full(x, *saved))


@_mlp.register_fake
def _(
    path: str,
    x: Tensor,
    residual: Tensor,
    keep: Optional[Tensor],
    eps: float,
    recompute: bool,
    moments: Optional[Tensor],
    *weights: Optional[Tensor],
) -> Tuple[Tensor, ...]:
    w = Weights(*weights)
    n, c, rows = x.size(0), x.size(-1), x.numel() // x.size(-1)
    dtype = wide(x.dtype)
    return (
        x.new_empty(x.shape, dtype=out_dtype(x.dtype, residual, w.scale)),
        x.new_empty(0 if recompute else (rows, 4 * c)),
        x.new_empty((n, 4 * c), dtype=dtype)
        if w.gamma is not None
        else x.new_empty(0),
    )


@_operator(
    'convnext_mlp_backward',
    'str path, Tensor grad, Tensor x, Tensor? keep, '
    f'Tensor? hidden, Tensor? norms, float eps, {WEIGHTS}',
    'Tensor[]',
)
def _mlp_grads(
    path: str,
    grad: Tensor,
    x: Tensor,
    keep: Optional[Tensor],
    hidden: Optional[Tensor],
    norms: Optional[Tensor],
    eps: float,
    *weights: Optional[Tensor],
) -> List[Tensor]:
    saved, w = Saved(hidden, norms), Weights(*weights)
    d_x, d_w = kernels(path).backward(grad, x, w, keep, saved, eps)
    return _full(x, d_x, *d_w)


@_mlp_grads.register_fake
def _(
    path: str,
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
    ctx.path, x, residual, keep, ctx.eps, ctx.recompute, *weights = inputs
    ctx.residual_dtype = residual.dtype
    ctx.save_for_backward(x, keep, *output[1:], *weights[1:])


def _mlp_backward(ctx: Any, grad: Tensor, *others: Optional[Tensor]) -> Tuple:
    x, keep, hidden, norms, *weights = ctx.saved_tensors
    hidden = None if ctx.recompute else hidden
    norms = None if weights[OPTIONAL_AT] is None else norms
    d_x, *d_w = _mlp_grads(
        ctx.path, grad, x, keep, hidden, norms, ctx.eps, *weights
    )
    d_w = [None if w is None else d for d, w in zip(d_w, weights)]
    d_residual = grad.to(ctx.residual_dtype)
    return (None, d_x, d_residual, None, None, None, None, *d_w)


OPTIONAL_AT = Weights._fields.index('gamma')
register_autograd(
    'mmconvnext::convnext_mlp', _mlp_backward, setup_context=_save_mlp
)


def convnext_mlp(
    path: str,
    x: Tensor,
    residual: Tensor,
    w: Weights,
    keep: Optional[Tensor],
    eps: float,
    recompute: bool,
    moments: Optional[Tensor] = None,
) -> Tensor:
    """:func:`autograd.convnext_mlp` as an operator."""
    if needs_gradient(x, residual, *w):
        return _mlp(path, x, residual, keep, eps, recompute, moments, *w)[0]
    return _mlp_inference(path, x, residual, keep, eps, moments, *w)


def depthwise_conv(
    path: str,
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    eps: Optional[float] = None,
) -> Tuple[Tensor, Optional[Tensor]]:
    """:func:`autograd.depthwise_conv` as an operator."""
    y, moments = _depthwise(path, x, weight, bias, eps)
    return y, moments if gives_moments(path, eps) else None
