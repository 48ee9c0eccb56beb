"""Triton kernels under Triton's interpreter, and on a GPU where one is.

Tolerances are those of ``op_cases``: twice the error of plain PyTorch in
the same type, against float64.
"""

import copy
import os

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

if not torch.cuda.is_available():
    os.environ.setdefault('TRITON_INTERPRET', '1')
pytest.importorskip(
    'triton', minversion='3.0', reason='triton is an extra: optional.txt'
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
from mmconvnext.ops import triton_depthwise, triton_mlp
from mmconvnext.ops.choice import HAS_CUSTOM_OPS
from mmconvnext.ops.grn_folding import Weights

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


@pytest.mark.parametrize('mean', [0.0, 100.0])
def test_statistics_of_the_norm(mean: float) -> None:
    """A large mean must not drown the variance."""
    rows = torch.randn(70, 40, device=DEVICE) + mean
    centre, rstd = triton_mlp.row_stats(rows, 1e-6)
    exact = rows.double()
    torch.testing.assert_close(
        centre.double(), exact.mean(1), rtol=1e-5, atol=1e-5
    )
    spread = (exact.var(1, unbiased=False) + 1e-6).rsqrt()
    torch.testing.assert_close(rstd.double(), spread, rtol=1e-4, atol=0)


def test_the_weight_gradient_is_deterministic() -> None:
    x, grad = torch.randn(2, 2, 9, 3, 8, device=DEVICE)
    once = triton_depthwise.weight_gradient(grad, x, 7)
    for _ in range(3):
        again = triton_depthwise.weight_gradient(grad, x, 7)
        torch.testing.assert_close(again, once, rtol=0, atol=0)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('activate', [False, True])
@pytest.mark.parametrize('images', [1, 3])
def test_the_first_product(
    images: int, activate: bool, dtype: torch.dtype
) -> None:
    """The map it leaves, and GRN's norms."""
    inputs = on_device(mlp_inputs(2, (images, 35, 1, 40)), DEVICE)
    x, _, *weights = (t if t is None else t.to(dtype) for t in inputs.values())
    w, rows = Weights(*weights), x.flatten(0, 2)
    found = triton_mlp.expand(rows, w, 1e-6, images, activate)

    def plain(x: Tensor, *p: Tensor) -> list:
        h = F.linear(F.layer_norm(x, (40,), *p[:2], eps=1e-6), *p[2:])
        a = F.gelu(h).view(images, 35, -1)
        norms = torch.linalg.vector_norm(a, dim=1)
        return [a.flatten(0, 1) if activate else h, norms]

    exact = plain(rows.double(), *(t.double() for t in weights[:4]))
    wanted = plain(rows, *weights[:4])
    wanted[1] = wanted[1].float()  # ours are float32 whatever the type
    assert_as_good(found, wanted, exact, dtype)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('images', [None, 1, 3])
def test_gelu_backward(images: int, dtype: torch.dtype) -> None:
    n = images or 1
    h, d_z = torch.randn(2, n * 35, 160, device=DEVICE).to(dtype)
    factor, pull = None, None
    if images:
        factor, pull = torch.randn(2, images, 160, device=DEVICE)

    def plain(h: Tensor, d_a: Tensor) -> Tensor:
        if pull is not None:
            s, q = (t.to(h).repeat_interleave(35, 0) for t in (factor, pull))
            d_a = d_a * s + q * F.gelu(h)
        return torch.ops.aten.gelu_backward(d_a, h)

    found, sums = triton_mlp.gelu_backward(d_z, h, factor, pull)
    exact = plain(h.double(), d_z.double())
    assert_as_good([found], [plain(h, d_z)], [exact], dtype)
    torch.testing.assert_close(
        sums.double(), found.double().sum(0), rtol=1e-4, atol=1e-4
    )


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
        torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not HAS_CUSTOM_OPS, reason='operators need torch 2.7')
def test_operators_keep_their_promises() -> None:
    inputs = on_device(depthwise_inputs((2, 5, 3, 8)), DEVICE).values()
    args = ('triton', *(t.float().requires_grad_() for t in inputs))
    torch.library.opcheck(torch.ops.mmconvnext.depthwise_conv, args)
    inputs = on_device(mlp_inputs(2, (2, 5, 3, 8)), DEVICE).values()
    x, residual, *weights = (
        t if t is None else t.float().requires_grad_() for t in inputs
    )
    args = ('triton', True, False, x, residual, None, 1e-6, *weights)
    torch.library.opcheck(torch.ops.mmconvnext.convnext_mlp, args)


def test_float64_is_refused() -> None:
    block = ConvNeXtBlock(8).to(DEVICE).double()
    x = torch.randn(1, 8, 6, 5, device=DEVICE).double()
    with ops.use('triton'), pytest.raises(TypeError, match='float64'):
        block(x)
