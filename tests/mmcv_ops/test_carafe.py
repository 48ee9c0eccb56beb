"""Content-aware upsampling."""

import pytest
import torch
from operators import DTYPES, close


def naive_carafe(features, masks, kernel, groups, scale):
    """Output pixel by output pixel, from the paper's equation 5."""
    n, c, h, w = features.shape
    half = (kernel - 1) // 2
    out = features.new_zeros(n, c, h * scale, w * scale)
    for channel in range(c):
        group = channel // (c // groups)
        for y in range(h * scale):
            for x in range(w * scale):
                for tap in range(kernel**2):
                    i = y // scale + tap // kernel - half
                    j = x // scale + tap % kernel - half
                    if 0 <= i < h and 0 <= j < w:
                        weight = masks[:, group * kernel**2 + tap, y, x]
                        out[:, channel, y, x] += (
                            weight * features[:, channel, i, j]
                        )
    return out


# Kernel, groups, scale; a kernel of one pixel, one larger than the map.
CASES = ((5, 1, 2), (3, 2, 3), (1, 4, 2), (7, 2, 1))


def inputs(kernel, groups, scale, dtype=torch.double):
    features = torch.randn(2, 4, 3, 5, dtype=torch.double)
    shape = (2, groups * kernel**2, 3 * scale, 5 * scale)
    masks = torch.randn(shape, dtype=torch.double)
    return [x.to(dtype).requires_grad_() for x in (features, masks)]


@pytest.mark.parametrize('case', CASES)
def test_carafe(ops, case):
    features, masks = inputs(*case)
    wanted = naive_carafe(features.detach(), masks.detach(), *case)
    close(ops.carafe(features, masks, *case), wanted)
    close(ops.carafe_naive(features, masks, *case), wanted)


@pytest.mark.parametrize('case', CASES)
def test_carafe_gradients(ops, case):
    assert torch.autograd.gradcheck(
        lambda *x: ops.carafe(*x, *case), inputs(*case)
    )


@pytest.mark.parametrize('dtype', DTYPES)
def test_carafe_rounds_once(ops, dtype):
    features, masks = inputs(5, 2, 2, dtype)
    wanted = naive_carafe(features.double(), masks.double(), 5, 2, 2)
    close(ops.carafe(features, masks, 5, 2, 2), wanted, dtype)
