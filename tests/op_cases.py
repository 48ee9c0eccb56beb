"""Inputs and tolerances for the tests of ops.

Errors are relative, in the 2-norm, against the reference in float64. A path
may have twice the error of the reference in the same type. Below two
roundings of the result (2 eps) both are at the limit of the type and differ
only in the order of sums, so this is the smallest tolerance.
"""

import pytest
import torch
from older import cpu_computes_half
from torch import Tensor

from mmconvnext import ops
from mmconvnext.ops.grn_folding import Weights

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def mlp_inputs(version: int, shape: tuple) -> dict:
    c = shape[-1]

    def new(*size: int, scale: float = 0.3, start: float = 0.0) -> Tensor:
        return start + scale * torch.randn(*size, dtype=torch.float64)

    grn = version == 2
    return dict(
        x=new(*shape, scale=2.0),
        residual=new(*shape, scale=1.0),
        norm_weight=new(c, start=1.0),
        norm_bias=new(c),
        weight1=new(4 * c, c),
        bias1=new(4 * c),
        weight2=new(c, 4 * c),
        bias2=new(c),
        gamma=new(4 * c) if grn else None,
        beta=new(4 * c) if grn else None,
        scale=None if grn else new(c),
    )


def depthwise_inputs(shape: tuple) -> dict:
    c = shape[-1]
    sizes = dict(x=shape, weight=(c, 1, 7, 7), bias=(c,))
    return {k: torch.randn(s, dtype=torch.float64) for k, s in sizes.items()}


def on_device(inputs: dict, device: str) -> dict:
    return {k: t if t is None else t.to(device) for k, t in inputs.items()}


def skip_without(dtype: torch.dtype, device: str) -> None:
    """Skip where PyTorch itself does not compute in a type."""
    if dtype is torch.float16 and device == 'cpu' and not cpu_computes_half():
        pytest.skip(f'torch {torch.__version__} has no float16 on a CPU')


def cast(inputs: dict, dtype: torch.dtype) -> dict:
    skip_without(dtype, next(iter(inputs.values())).device.type)
    return {
        key: None if t is None else t.to(dtype).requires_grad_()
        for key, t in inputs.items()
    }


def run_mlp(inputs: dict, grad: Tensor, keep=None, **kwargs) -> list:
    """The result and the gradient of every input."""
    x, residual, *weights = inputs.values()
    w = Weights(*weights)
    y = ops.convnext_mlp(x, residual, *w.arguments(), keep, **kwargs)
    given = [t for t in inputs.values() if t is not None]
    return [y.detach(), *torch.autograd.grad(y, given, grad.to(y.dtype))]


def run_depthwise(inputs: dict, grad: Tensor) -> list:
    y = ops.depthwise_conv(*inputs.values())
    given = list(inputs.values())
    return [y.detach(), *torch.autograd.grad(y, given, grad.to(y.dtype))]


def error(value: Tensor, exact: Tensor) -> float:
    return ((value.double() - exact).norm() / exact.norm()).item()


def assert_as_good(
    found: list, plain: list, exact: list, dtype: torch.dtype
) -> None:
    floor = 2 * torch.finfo(dtype).eps
    assert len(found) == len(plain) == len(exact)
    for i, (a, b, z) in enumerate(zip(found, plain, exact)):
        assert a.shape == z.shape
        assert a.dtype == b.dtype
        if not z.any():  # GRN on a map of one position has no gradient
            assert not a.any()
            continue
        assert error(a, z) <= 2 * max(error(b, z), floor), i


def compare(
    run, inputs: dict, dtype: torch.dtype, *more, path: str = 'fused'
) -> None:
    """Run in float64, and in ``dtype`` with the reference and a path.

    Args:
        more: further arguments of ``run``, each for float64 and for the
            others, or None.
    """
    x = inputs['x']
    grad = torch.randn(x.shape, dtype=torch.float64, device=x.device)
    rounded = cast(cast(inputs, dtype), torch.float64)
    with ops.use('reference'):
        exact = run(rounded, grad, *[t and t[0] for t in more])
        plain = run(cast(inputs, dtype), grad, *[t and t[1] for t in more])
    with ops.use(path):
        found = run(cast(inputs, dtype), grad, *[t and t[1] for t in more])
    assert_as_good(found, plain, exact, dtype)
