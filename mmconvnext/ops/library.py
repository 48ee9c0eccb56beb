"""The ops as torch operators, which ``torch.compile`` keeps whole.

In a compiled graph they take the place of the ``autograd.Function`` classes
of eager mode. An operator returns tensors only: what is absent is empty.
Only ``operators`` imports this file, where torch is new enough.

Compiled code could take the reference instead, but torch 2.13 cannot compile
its training with ``compile_backbone`` (blocks compiled for any size): V2 with
two blocks a stage and the widths of tiny on an image of 128 x 128 raises
"InductorError: TypeError: cannot determine truth value of Relational:
96*s64**2 < 96*s64". These operators compile and train there.

In inference little is lost. V2 tiny with ``compile_backbone``, 512 x 512,
batch 1, float32, one thread, medians of 9 pairs in turn: the reference takes
1.09 times as long (0.72 to 1.46 on a busy machine, 3.28 s and 3.14 s), has a
peak of 60 MiB instead of 79, and compiles in 126 s instead of 42. 2 shared
cores of an Intel Xeon, CPU only, torch 2.13.0, 2026-11-27. Whole models under
``torch.compile`` and base were not measured.
"""

from __future__ import annotations

from typing import Any, List, Optional, Sequence, Tuple

from torch import Tensor
from torch.library import custom_op, register_autograd

from .choice import kernels
from .grn_folding import Saved, Weights, out_dtype, wide

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
    'str path, Tensor x, Tensor weight, Tensor? bias',
    'Tensor',
)
def depthwise_conv(
    path: str, x: Tensor, weight: Tensor, bias: Optional[Tensor]
) -> Tensor:
    """:class:`operators.DepthwiseConv` as an operator."""
    convolve = kernels(path, 'depthwise_conv').forward
    return convolve(x.contiguous(), weight, bias).contiguous()


@depthwise_conv.register_fake
def _(path: str, x: Tensor, *others: Optional[Tensor]) -> Tensor:
    return x.new_empty(x.shape)


@_operator(
    'depthwise_conv_backward',
    'str path, Tensor grad, Tensor x, Tensor weight, bool[] needed',
    'Tensor[]',
)
def _depthwise_grads(
    path: str, grad: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool]
) -> List[Tensor]:
    backward = kernels(path, 'depthwise_conv').backward
    grads = backward(grad, x.contiguous(), weight, needed)
    return [g.contiguous() for g in _full(x, *grads)]


@_depthwise_grads.register_fake
def _(
    path: str, grad: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool]
) -> List[Tensor]:
    shapes = (x.shape, weight.shape, weight.shape[:1])
    return [x.new_empty(s if n else 0) for s, n in zip(shapes, needed)]


def _save_depthwise(ctx: Any, inputs: Tuple, output: Tensor) -> None:
    ctx.path, x, weight, _ = inputs
    ctx.save_for_backward(x, weight)


def _depthwise_backward(ctx: Any, grad: Tensor) -> Tuple:
    needed = list(ctx.needs_input_grad[1:])
    grads = _depthwise_grads(ctx.path, grad, *ctx.saved_tensors, needed)
    return (None, *(g if n else None for g, n in zip(grads, needed)))


register_autograd(
    'mmconvnext::depthwise_conv',
    _depthwise_backward,
    setup_context=_save_depthwise,
)


@_operator(
    'convnext_mlp',
    'str path, bool training, bool recompute, Tensor x, Tensor residual, '
    f'Tensor? keep, float eps, {WEIGHTS}',
    '(Tensor, Tensor, Tensor)',
)
def convnext_mlp(
    path: str,
    training: bool,
    recompute: bool,
    x: Tensor,
    residual: Tensor,
    keep: Optional[Tensor],
    eps: float,
    *weights: Optional[Tensor],
) -> Tuple[Tensor, ...]:
    """:class:`operators.ConvNeXtMLP` as an operator; the first is y."""
    mlp, w = kernels(path, 'convnext_mlp'), Weights(*weights)
    if not training:
        return (mlp.infer(x, residual, w, keep, eps), *_full(x, None, None))
    y, saved = mlp.forward(x, residual, w, keep, eps)
    if recompute:
        saved = saved._replace(hidden=None)
    return (y, *_full(x, *saved))


@convnext_mlp.register_fake
def _(
    path: str,
    training: bool,
    recompute: bool,
    x: Tensor,
    residual: Tensor,
    keep: Optional[Tensor],
    eps: float,
    *weights: Optional[Tensor],
) -> Tuple[Tensor, ...]:
    w, rows, k = Weights(*weights), x.numel() // x.size(-1), 4 * x.size(-1)
    dtype = out_dtype(x.dtype, residual, w.scale)
    hidden, norms = _full(x, None, None)
    if training and not recompute:
        hidden = x.new_empty(rows, k)
    if training and w.gamma is not None:
        norms = x.new_empty(x.size(0), k, dtype=wide(x.dtype))
    return x.new_empty(x.shape, dtype=dtype), hidden, norms


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
    backward = kernels(path, 'convnext_mlp').backward
    saved = Saved(hidden, norms)
    d_x, d_w = backward(grad, x, Weights(*weights), keep, saved, eps)
    return _full(x, d_x, *d_w)


@_mlp_grads.register_fake
def _(path: str, grad: Tensor, x: Tensor, *others: object) -> List[Tensor]:
    weights = others[-len(Weights._fields) :]
    grads = [None if w is None else w.new_empty(w.shape) for w in weights]
    return _full(x, x.new_empty(x.shape), *grads)


def _save_mlp(ctx: Any, inputs: Tuple, output: Tuple) -> None:
    ctx.path, _, recompute, x, residual, keep, ctx.eps, *weights = inputs
    ctx.recompute, ctx.residual_dtype = recompute, residual.dtype
    ctx.save_for_backward(x, keep, *output[1:], *weights)


def _mlp_backward(ctx: Any, grad: Tensor, *others: Optional[Tensor]) -> Tuple:
    x, keep, hidden, norms, *weights = ctx.saved_tensors
    hidden = None if ctx.recompute else hidden
    norms = None if Weights(*weights).gamma is None else norms
    given = ctx.path, grad, x, keep, hidden, norms, ctx.eps
    d_x, *d_w = _mlp_grads(*given, *weights)
    d_w = [None if w is None else d for d, w in zip(d_w, weights)]
    d_residual = grad.to(ctx.residual_dtype)
    return (None, None, None, d_x, d_residual, None, None, *d_w)


register_autograd(
    'mmconvnext::convnext_mlp', _mlp_backward, setup_context=_save_mlp
)
