"""Triton kernels under Triton's interpreter, and on a GPU where one is.

Tolerances are those of ``op_cases``: twice the error of plain PyTorch in
the same type, against float64.
"""

import copy
import functools
import os
from typing import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

if not torch.cuda.is_available():
    os.environ.setdefault('TRITON_INTERPRET', '1')
pytest.importorskip(
    'triton', minversion='3.6', reason='triton is an extra: optional.txt'
)

from op_cases import (
    DTYPES,
    assert_as_good,
    compare,
    depthwise_inputs,
    mlp_inputs,
    on_device,
    run_depthwise,
    run_mlp,
)

from mmconvnext import ConvNeXtBlock, ops
from mmconvnext.ops import triton_rows
from mmconvnext.ops.choice import HAS_CUSTOM_OPS

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
# More rows than a tile and not a multiple; C of atto, over one block of
# channels; smaller than the kernel; one position.
SHAPES = [(2, 5, 9, 40), (1, 2, 35, 72), (2, 2, 3, 8), (1, 1, 1, 16)]
CASES = [(s, torch.float32) for s in SHAPES]
CASES += [(SHAPES[2], dtype) for dtype in DTYPES[1:]]
both = pytest.mark.parametrize('version', [1, 2])


@pytest.mark.parametrize(('shape', 'dtype'), CASES, ids=str)
def test_depthwise(shape: tuple, dtype: torch.dtype) -> None:
    inputs = on_device(depthwise_inputs(shape), DEVICE)
    compare(run_depthwise, inputs, dtype, path='triton')


@both
@pytest.mark.parametrize(('shape', 'dtype'), CASES, ids=str)
@pytest.mark.parametrize('dropped', [False, True])
def test_mlp(
    version: int, shape: tuple, dtype: torch.dtype, dropped: bool
) -> None:
    keep = None
    if dropped:
        keep = torch.tensor([1.25, 0.0], device=DEVICE)[: shape[0]]
        keep = keep.view(-1, 1, 1, 1)
        keep = (keep.double(), keep.to(dtype))
    inputs = on_device(mlp_inputs(version, shape), DEVICE)
    compare(run_mlp, inputs, dtype, keep, path='triton')


# Images of 35 rows, more than a block and not a multiple of one; 160 and 40
# columns, over one block and not a multiple.
IMAGES, LENGTH = 3, 35
dtypes = pytest.mark.parametrize('dtype', DTYPES, ids=str)


def maps(count: int, columns: int, dtype: torch.dtype) -> list:
    shape = (count, IMAGES * LENGTH, columns)
    return list(torch.randn(shape, device=DEVICE).to(dtype))


def each(values: Tensor, rows: Tensor) -> Tensor:
    """Values of images as values of their rows, in the type of the rows."""
    return values.to(rows.dtype).repeat_interleave(LENGTH, 0)


def summed(x: Tensor) -> Tensor:
    """Sums over the rows of each image."""
    return x.unflatten(0, (IMAGES, LENGTH)).sum(1)


def check(run: Callable, plain: Callable, dtype: torch.dtype, *given) -> None:
    """Kernels against the same in plain PyTorch, also in float64."""
    exact = plain(*(t.double() for t in given))
    wanted = plain(*given)
    found = [t.to(w.dtype) for t, w in zip(run(*given), wanted)]
    assert_as_good(found, wanted, exact, dtype)


@dtypes
@pytest.mark.parametrize('mean', [0.0, 100.0])
def test_norm(mean: float, dtype: torch.dtype) -> None:
    """A large mean must not drown the variance."""
    rows, grad = maps(2, 40, torch.float32)
    w, b = torch.randn(2, 40, device=DEVICE).to(dtype)
    given = (rows + mean).to(dtype), grad.to(dtype), w, b

    def run(x: Tensor, d: Tensor, *affine: Tensor) -> list:
        d = d.clone()
        y = triton_rows.norm(x, *affine, 1e-6)
        again, *sums = triton_rows.norm_backward_(d, x, *affine, 1e-6)
        torch.testing.assert_close(again, y, rtol=0, atol=0)
        return [y, d, *sums]

    def plain(x: Tensor, d: Tensor, *affine: Tensor) -> list:
        leaves = [t.detach().requires_grad_() for t in (x, *affine)]
        y = F.layer_norm(leaves[0], (40,), *leaves[1:], 1e-6)
        return [y.detach(), *torch.autograd.grad(y, leaves, d)]

    check(run, plain, dtype, *given)


@dtypes
def test_activate_with_grn(dtype: torch.dtype) -> None:
    """The map it leaves, GRN's norms, and the sums for gradients."""
    h, grad = maps(2, 160, dtype)
    factor = torch.randn(IMAGES, 160, device=DEVICE)
    beta = torch.randn(160, device=DEVICE)

    def run(h: Tensor, d: Tensor, factor: Tensor, beta: Tensor) -> list:
        norms = triton_rows.gelu_norms(h, IMAGES)
        z, *sums = triton_rows.activate(h, factor, beta, d)
        place = h.clone()
        triton_rows.activate(place, factor, beta, out=place)
        torch.testing.assert_close(place, z, rtol=0, atol=0)
        return [norms, z, *sums]

    def plain(h: Tensor, d: Tensor, factor: Tensor, beta: Tensor) -> list:
        a = F.gelu(h)
        norms = torch.linalg.vector_norm(
            a.unflatten(0, (IMAGES, LENGTH)), dim=1
        )
        z = a * each(factor, h) + beta.to(h.dtype)
        return [norms, z, summed(d * a), summed(d)]

    check(run, plain, dtype, h, grad, factor, beta)


@dtypes
@pytest.mark.parametrize('grn', [False, True])
def test_gelu_backward(grn: bool, dtype: torch.dtype) -> None:
    given = maps(2, 160, dtype)
    if grn:
        given += list(torch.randn(2, IMAGES, 160, device=DEVICE))

    def run(d: Tensor, h: Tensor, *values: Tensor) -> list:
        d = d.clone()
        sums = triton_rows.gelu_backward_(d, h, *values)
        return [d, sums]

    def plain(d: Tensor, h: Tensor, *values: Tensor) -> list:
        if values:
            s, q = (each(t, h) for t in values)
            d = d * s + q * F.gelu(h)
        d = torch.ops.aten.gelu_backward(d, h)
        return [d, d.sum(0)]

    check(run, plain, dtype, *given)


@dtypes
@pytest.mark.parametrize('dropped', [False, True])
def test_residual(dropped: bool, dtype: torch.dtype) -> None:
    """What is added to it, and the gradient that returns."""
    (branch,), (base,) = maps(1, 40, dtype), maps(1, 40, torch.float32)
    keep = torch.tensor([1.25, 0.0, 0.5], device=DEVICE)[:, None]
    keep = keep if dropped else None

    def run(branch: Tensor, base: Tensor) -> list:
        y = triton_rows.add(branch, keep, base, torch.float32)
        return [y, *triton_rows.branch_gradient(base, keep, dtype)]

    def plain(branch: Tensor, base: Tensor) -> list:
        k = 1 if keep is None else each(keep, base)
        g = k * base
        g = g if g.dtype == torch.float64 else g.to(dtype)
        return [base + k * branch, g, g.sum(0)]

    check(run, plain, dtype, branch, base)


@dtypes
def test_sums_are_deterministic(dtype: torch.dtype) -> None:
    (rows,) = maps(1, 160, dtype)
    once = triton_rows.column_sums(rows)
    exact = rows.double().sum(0)
    torch.testing.assert_close(once.double(), exact, rtol=1e-5, atol=1e-4)
    for _ in range(3):
        again = triton_rows.column_sums(rows)
        torch.testing.assert_close(again, once, rtol=0, atol=0)


@both
@pytest.mark.parametrize('autocast', [False, True])
def test_a_block(version: int, autocast: bool) -> None:
    block = ConvNeXtBlock(8, 0.0, 1.0 if version == 1 else None).to(DEVICE)
    for param in block.parameters():
        torch.nn.init.normal_(param, std=0.3)
    x = torch.randn(2, 8, 6, 5, device=DEVICE)
    grad, results = torch.randn_like(x), []
    for path, dtype in (
        ('triton', torch.float32),
        ('reference', torch.float32),
        ('reference', torch.float64),
    ):
        given = copy.deepcopy(block).to(dtype)
        low = autocast and dtype == torch.float32
        with ops.use(path), torch.autocast(DEVICE, enabled=low):
            y = given(x.to(dtype))
            with torch.no_grad():
                inferred = given(x.to(dtype))
        y.backward(grad.to(dtype))
        grads = (p.grad for p in given.parameters())
        results.append([y.detach(), inferred, *grads])
    assert_as_good(*results, torch.bfloat16 if autocast else torch.float32)


@both
def test_compiled(version: int) -> None:
    block = ConvNeXtBlock(8, 0.0, 1.0 if version == 1 else None).to(DEVICE)
    for param in block.parameters():
        torch.nn.init.normal_(param, std=0.3)
    x = torch.randn(2, 8, 6, 5, device=DEVICE)
    torch.compiler.reset()
    compiled = torch.compile(block, fullgraph=True, backend='aot_eager')
    results = []
    with ops.use('triton'):
        for run in (block, compiled):
            block.zero_grad()
            y = run(x)
            y.square().sum().backward()
            with torch.no_grad():
                inferred = run(x)
            grads = (p.grad.clone() for p in block.parameters())
            results.append([y, inferred, *grads])
    for found, plain in zip(*results):
        torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not HAS_CUSTOM_OPS, reason='operators need torch 2.7')
def test_operators_keep_their_promises() -> None:
    from mmconvnext.ops import library

    check = functools.partial(torch.library.opcheck, atol=1e-4, rtol=1e-4)
    operators = library.OPERATORS['triton']
    inputs = on_device(depthwise_inputs((2, 5, 3, 8)), DEVICE).values()
    args = tuple(t.float().requires_grad_() for t in inputs)
    check(operators.depthwise_conv, args)
    inputs = on_device(mlp_inputs(2, (2, 5, 3, 8)), DEVICE).values()
    x, residual, *weights = (
        t if t is None else t.float().requires_grad_() for t in inputs
    )
    args = (True, False, x, residual, None, 1e-6, *weights)
    check(operators.convnext_mlp, args)


def test_float64_is_refused() -> None:
    block = ConvNeXtBlock(8).to(DEVICE).double()
    x = torch.randn(1, 8, 6, 5, device=DEVICE).double()
    with ops.use('triton'), pytest.raises(TypeError, match='float64'):
        block(x)
