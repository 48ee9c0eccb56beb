"""Modules that own parameters compute what their papers say."""

import pytest
import torch
from torch import nn

from mmconvnext import GRN
from mmconvnext.models.layers import LayerNorm2d, to_nchw, to_nhwc


def test_layer_norm_2d_is_over_the_channels() -> None:
    ours, plain = LayerNorm2d(40), nn.LayerNorm(40, eps=1e-6)
    nn.init.normal_(plain.weight)
    nn.init.normal_(plain.bias)
    ours.load_state_dict(plain.state_dict())
    x = torch.randn(2, 40, 5, 7)
    out = ours(x)
    torch.testing.assert_close(out, plain(x.movedim(1, -1)).movedim(-1, 1))
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_grn_follows_algorithm_1() -> None:
    grn = GRN(40)
    nn.init.normal_(grn.gamma)
    nn.init.normal_(grn.beta)
    x = torch.randn(3, 5, 7, 40, dtype=torch.float64)
    gx = x.square().sum(dim=(1, 2), keepdim=True).sqrt()
    nx = gx / (gx.mean(dim=-1, keepdim=True) + 1e-6)
    expected = grn.gamma * (x * nx) + grn.beta + x
    torch.testing.assert_close(
        grn(x.float()), expected.float(), rtol=1e-5, atol=1e-5
    )


def test_grn_does_not_mix_samples() -> None:
    grn = GRN(8)
    nn.init.ones_(grn.gamma)
    x = torch.randn(4, 3, 3, 8)
    alone = torch.cat([grn(sample[None]) for sample in x])
    torch.testing.assert_close(grn(x), alone)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_grn_does_not_overflow(dtype: torch.dtype) -> None:
    grn = GRN(8)
    nn.init.constant_(grn.gamma, 0.01)
    x = torch.full((1, 200, 336, 8), 6e4)
    x[..., 1:] = 30.0  # one strong channel: a plain x * Nx would overflow
    out = grn(x.to(dtype))
    assert out.isfinite().all()
    torch.testing.assert_close(
        out.float(), grn(x), rtol=2 * torch.finfo(dtype).eps, atol=0
    )


def test_grn_gradient_of_a_dead_channel_is_finite() -> None:
    grn = GRN(4)
    nn.init.ones_(grn.gamma)
    x = torch.randn(1, 3, 3, 4)
    x[..., 2] = 0
    x.requires_grad_()
    grn(x).sum().backward()
    assert x.grad.isfinite().all()


def test_layout_views_are_inverse() -> None:
    x = torch.randn(2, 3, 4, 5)
    assert to_nchw(to_nhwc(x)).data_ptr() == x.data_ptr()
    torch.testing.assert_close(to_nchw(to_nhwc(x)), x, rtol=0, atol=0)
