"""The ops as torch operators, which ``torch.compile`` keeps.

In a compiled graph they take the place of the ``autograd.Function`` classes
of eager mode, one set of four for each path. Those of ``fused`` stay whole.
Those of ``triton`` are opened by the compiler, which launches the kernels
itself; that was traced, and not run on a GPU yet. An operator returns tensors
only: what is absent is empty. Only ``operators`` imports this file, where
torch is new enough.

On a CPU compiled code could take the reference instead, but torch 2.13
cannot compile its training with ``compile_backbone`` (blocks compiled for
any size): V2 with two blocks a stage and the widths of tiny on an image of
128 x 128 raises "InductorError: TypeError: cannot determine truth value of
Relational: 96*s64**2 < 96*s64". These operators compile and train there.

In inference little is lost. V2 tiny with ``compile_backbone``, 512 x 512,
batch 1, float32, one thread, medians of 9 pairs in turn: the reference takes
1.09 times as long (0.72 to 1.46 on a busy machine, 3.28 s and 3.14 s), has a
peak of 60 MiB instead of 79, and compiles in 126 s instead of 42. 2 shared
cores of an Intel Xeon, CPU only, torch 2.13.0, 2026-11-27. Whole models under
``torch.compile`` and base were not measured.
"""

from __future__ import annotations

import functools
import os
import threading
from importlib.util import find_spec
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple

from torch import Tensor
from torch.library import custom_op, register_autograd, triton_op

from .choice import KERNELS, kernels
from .grn_folding import Saved, Weights, out_dtype, wide


class Operators(NamedTuple):
    """The ops of a path; ``convnext_mlp`` returns y first."""

    depthwise_conv: Callable[..., Tensor]
    convnext_mlp: Callable[..., Tuple[Tensor, Tensor, Tensor]]


class _Tracing(threading.local):
    """Whether the compiler reads what a triton operator launches."""

    on = False


tracing = _Tracing()


def _whole(name: str, function: Callable, fake: Callable) -> Callable:
    operator = custom_op(name, function, mutates_args=())
    operator.register_fake(fake)
    return operator


def _opened(name: str, function: Callable, fake: Callable) -> Callable:
    @functools.wraps(function)
    def traced(*args: object) -> object:
        before, tracing.on = tracing.on, True
        try:
            return function(*args)
        finally:
            tracing.on = before

    return triton_op(name, traced, mutates_args=())


def _full(like: Tensor, *tensors: Optional[Tensor]) -> List[Tensor]:
    return [like.new_empty(0) if t is None else t for t in tensors]


def define_conv(path: str, register: Callable) -> Callable:
    """:class:`operators.DepthwiseConv` as an operator."""

    def depthwise_conv(
        x: Tensor, weight: Tensor, bias: Optional[Tensor]
    ) -> Tensor:
        convolve = kernels(path, 'depthwise_conv').forward
        return convolve(x.contiguous(), weight, bias).contiguous()

    def fake(x: Tensor, *others: Optional[Tensor]) -> Tensor:
        return x.new_empty(x.shape)

    def depthwise_conv_backward(
        grad: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool]
    ) -> List[Tensor]:
        backward = kernels(path, 'depthwise_conv').backward
        grads = backward(grad, x.contiguous(), weight, needed)
        return [g.contiguous() for g in _full(x, *grads)]

    def fake_grads(
        grad: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool]
    ) -> List[Tensor]:
        shapes = (x.shape, weight.shape, weight.shape[:1])
        return [x.new_empty(s if n else 0) for s, n in zip(shapes, needed)]

    def save(ctx: Any, inputs: Tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    def backward(ctx: Any, grad: Tensor) -> Tuple:
        needed = list(ctx.needs_input_grad)
        found = gradients(grad, *ctx.saved_tensors, needed)
        return tuple(g if n else None for g, n in zip(found, needed))

    name = f'mmconvnext::{path}_depthwise_conv'
    operator = register(name, depthwise_conv, fake)
    gradients = register(
        f'{name}_backward', depthwise_conv_backward, fake_grads
    )
    register_autograd(operator, backward, setup_context=save)
    return operator


def define_mlp(path: str, register: Callable) -> Callable:
    """:class:`operators.ConvNeXtMLP` as an operator."""

    def convnext_mlp(
        training: bool,
        recompute: bool,
        x: Tensor,
        residual: Tensor,
        keep: Optional[Tensor],
        eps: float,
        norm_weight: Tensor,
        norm_bias: Tensor,
        weight1: Tensor,
        bias1: Tensor,
        weight2: Tensor,
        bias2: Tensor,
        gamma: Optional[Tensor],
        beta: Optional[Tensor],
        scale: Optional[Tensor],
    ) -> Tuple[Tensor, Tensor, Tensor]:
        w = Weights(
            norm_weight, norm_bias, weight1, bias1, weight2, bias2,
            gamma, beta, scale,
        )  # fmt: skip
        mlp = kernels(path, 'convnext_mlp')
        if not training:
            y, saved = mlp.infer(x, residual, w, keep, eps), (None, None)
        else:
            y, saved = mlp.forward(x, residual, w, keep, eps)
        if training and recompute:
            saved = saved._replace(hidden=None)
        hidden, norms = _full(x, *saved)
        return y, hidden, norms

    def fake(
        training: bool,
        recompute: bool,
        x: Tensor,
        residual: Tensor,
        keep: Optional[Tensor],
        eps: float,
        *weights: Optional[Tensor],
    ) -> Tuple[Tensor, Tensor, Tensor]:
        w, k = Weights(*weights), 4 * x.size(-1)
        dtype = out_dtype(x.dtype, residual, w.scale)
        hidden, norms = _full(x, None, None)
        if training and not recompute:
            hidden = x.new_empty(x.numel() // x.size(-1), k)
        if training and w.gamma is not None:
            norms = x.new_empty(x.size(0), k, dtype=wide(x.dtype))
        return x.new_empty(x.shape, dtype=dtype), hidden, norms

    def convnext_mlp_backward(
        grad: Tensor,
        x: Tensor,
        keep: Optional[Tensor],
        hidden: Optional[Tensor],
        norms: Optional[Tensor],
        eps: float,
        norm_weight: Tensor,
        norm_bias: Tensor,
        weight1: Tensor,
        bias1: Tensor,
        weight2: Tensor,
        bias2: Tensor,
        gamma: Optional[Tensor],
        beta: Optional[Tensor],
        scale: Optional[Tensor],
    ) -> List[Tensor]:
        w = Weights(
            norm_weight, norm_bias, weight1, bias1, weight2, bias2,
            gamma, beta, scale,
        )  # fmt: skip
        backward = kernels(path, 'convnext_mlp').backward
        d_x, d_w = backward(grad, x, w, keep, Saved(hidden, norms), eps)
        return _full(x, d_x, *d_w)

    def fake_grads(grad: Tensor, x: Tensor, *others: object) -> List[Tensor]:
        weights = others[-len(Weights._fields) :]
        grads = [None if w is None else w.new_empty(w.shape) for w in weights]
        return _full(x, x.new_empty(x.shape), *grads)

    def save(ctx: Any, inputs: Tuple, output: Tuple) -> None:
        _, recompute, x, residual, keep, ctx.eps, *weights = inputs
        ctx.recompute, ctx.residual_dtype = recompute, residual.dtype
        ctx.save_for_backward(x, keep, *output[1:], *weights)

    def backward(ctx: Any, grad: Tensor, *others: Optional[Tensor]) -> Tuple:
        x, keep, hidden, norms, *weights = ctx.saved_tensors
        hidden = None if ctx.recompute else hidden
        norms = None if Weights(*weights).gamma is None else norms
        given = grad, x, keep, hidden, norms, ctx.eps
        d_x, *d_w = gradients(*given, *weights)
        d_w = [None if w is None else d for d, w in zip(d_w, weights)]
        d_residual = grad.to(ctx.residual_dtype)
        return (None, None, d_x, d_residual, None, None, *d_w)

    name = f'mmconvnext::{path}_convnext_mlp'
    operator = register(name, convnext_mlp, fake)
    gradients = register(f'{name}_backward', convnext_mlp_backward, fake_grads)
    register_autograd(operator, backward, setup_context=save)
    return operator


def _define(path: str) -> Operators:
    # What Triton interprets the compiler cannot launch.
    interpreted = os.environ.get('TRITON_INTERPRET') == '1'
    opened = path == 'triton' and not interpreted
    register = _opened if opened else _whole
    return Operators(define_conv(path, register), define_mlp(path, register))


# Defined here: the compiler does not read definitions. Without Triton torch
# warns of a definition.
OPERATORS = {
    path: _define(path)
    for path in KERNELS
    if path != 'triton' or find_spec('triton')
}
