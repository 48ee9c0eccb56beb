"""Triton kernels under Triton's interpreter, and on a GPU where one is.

Tolerances are those of ``test_ops``: twice the error of plain PyTorch in
the same type, against float64.
"""

import os

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

if not torch.cuda.is_available():
    os.environ.setdefault('TRITON_INTERPRET', '1')
pytest.importorskip('triton', reason='triton is an extra: optional.txt')

from mmconvnext import ConvNeXtBlock, ops
from mmconvnext.ops import choice, reference, triton_ops

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# More rows than a tile and not a multiple; C of atto, over one block of
# channels; smaller than the kernel; one position.
SHAPES = [(2, 5, 9, 40), (1, 2, 35, 72), (2, 2, 3, 8), (1, 1, 1, 16)]


def error(value: Tensor, exact: Tensor) -> float:
    return ((value.double() - exact).norm() / exact.norm()).item()


def assert_as_good(
    found: Tensor, plain: Tensor, exact: Tensor, dtype: torch.dtype
) -> None:
    floor = 2 * torch.finfo(dtype).eps
    assert error(found, exact) <= 2 * max(error(plain, exact), floor)


def tensors(shape: tuple, dtype: torch.dtype) -> tuple:
    c = shape[-1]
    return tuple(
        torch.randn(s, device=DEVICE).to(dtype)
        for s in (shape, (c, 1, 7, 7), (c,), shape)
    )


CASES = [(s, torch.float32) for s in SHAPES]
CASES += [(SHAPES[2], dtype) for dtype in DTYPES[1:]]


@pytest.mark.parametrize(('shape', 'dtype'), CASES, ids=str)
def test_depthwise(shape: tuple, dtype: torch.dtype) -> None:
    x, weight, bias, grad = tensors(shape, dtype)
    results = []
    for op, cast in (
        (triton_ops.depthwise_conv, dtype),
        (reference.depthwise_conv, dtype),
        (reference.depthwise_conv, torch.float64),
    ):
        given = [t.to(cast).requires_grad_() for t in (x, weight, bias)]
        y = op(*given)
        results.append([y, *torch.autograd.grad(y, given, grad.to(cast))])
    for found, plain, exact in zip(*results):
        assert found.shape == exact.shape
        assert_as_good(found, plain, exact, dtype)


@pytest.mark.parametrize('mean', [0.0, 100.0])
@pytest.mark.parametrize('shape', SHAPES[:3], ids=str)
def test_statistics_of_the_norm(shape: tuple, mean: float) -> None:
    """A large mean must not eat the variance."""
    x, weight, bias, _ = tensors(shape, torch.float32)
    bias = bias + mean
    y, centre, rstd = triton_ops.depthwise_forward(x, weight, bias, 1e-6)
    exact = reference.depthwise_conv(
        x.double(), weight.double(), bias.double()
    )
    rows = exact.flatten(0, 2)
    torch.testing.assert_close(
        centre.double(), rows.mean(1), rtol=1e-5, atol=1e-5
    )
    spread = (rows.var(1, unbiased=False) + 1e-6).rsqrt()
    torch.testing.assert_close(rstd.double(), spread, rtol=1e-4, atol=0)
    plain = triton_ops.depthwise_forward(x, weight, bias)
    torch.testing.assert_close(y, plain, rtol=0, atol=0)


def test_the_weight_gradient_is_deterministic() -> None:
    x, _, _, grad = tensors((2, 9, 3, 8), torch.float32)
    once = triton_ops.depthwise_wgrad(grad, x, 7)
    for _ in range(3):
        again = triton_ops.depthwise_wgrad(grad, x, 7)
        torch.testing.assert_close(again, once, rtol=0, atol=0)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('images', [1, 3])
def test_gelu_and_its_squares(images: int, dtype: torch.dtype) -> None:
    h = torch.randn(images * 35, 160, device=DEVICE).to(dtype)
    a, squares = triton_ops.gelu_squares(h, images)
    exact = F.gelu(h.double())
    assert_as_good(a, F.gelu(h), exact, dtype)
    rounded = a.double().view(images, -1, 160)
    exact = rounded.square().sum(1)
    torch.testing.assert_close(squares.double(), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('images', [None, 1, 3])
def test_gelu_backward(images: int, dtype: torch.dtype) -> None:
    n = images or 1
    h, d_a = torch.randn(2, n * 35, 160, device=DEVICE).to(dtype)
    pull = None
    if images:
        pull = torch.randn(images, 160, device=DEVICE)

    def plain(h: Tensor, d_a: Tensor) -> Tensor:
        if pull is not None:
            every = pull.to(h.dtype).repeat_interleave(35, 0)
            d_a = d_a + every * F.gelu(h)
        return torch.ops.aten.gelu_backward(d_a, h)

    found, sums = triton_ops.gelu_backward(d_a, h, pull)
    exact = plain(h.double(), d_a.double())
    assert_as_good(found, plain(h, d_a), exact, dtype)
    torch.testing.assert_close(
        sums.double(), found.double().sum(0), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize('version', [1, 2])
def test_a_block_on_the_triton_path(version: int) -> None:
    choice.absent.cache_clear()
    block = ConvNeXtBlock(8, 0.0, 1.0 if version == 1 else None).to(DEVICE)
    x = torch.randn(2, 8, 6, 5, device=DEVICE)
    results = []
    for path in ('triton', 'reference'):
        block.zero_grad()
        with ops.use(path):
            y = block(x)
        y.square().sum().backward()
        results.append([y, *(p.grad.clone() for p in block.parameters())])
    for found, plain in zip(*results):
        assert error(found, plain.double()) < 1e-5
