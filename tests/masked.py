"""FCMAE's encoder as the paper defines it: dense maps times a mask.

arXiv 2301.00808, section 3.1, and the dense form its authors give for other
frameworks: hidden positions are zero before every convolution, and GRN sums
over visible ones. It is slow and plain, written for the tests, and shares the
parameters of the backbone that it is given but none of its code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TINY = dict(depths=[1, 1, 2, 1], dims=[8, 16, 24, 32])


def randomise(model: nn.Module, std: float = 0.2) -> nn.Module:
    """Give every parameter, including GRN's, a value that has an effect."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for param in model.parameters():
            noise = torch.randn(param.shape, generator=generator)
            scale = std if param.ndim == 1 else param[0].numel() ** -0.5
            param.copy_(noise * scale + (param if param.ndim == 1 else 0))
    return model


def channel_norm(x: Tensor, norm: nn.Module) -> Tensor:
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).pow(2).mean(1, keepdim=True)
    x = (x - mean) / (variance + norm.eps).sqrt()
    return x * norm.weight[:, None, None] + norm.bias[:, None, None]


def pointwise(x: Tensor, linear: nn.Module) -> Tensor:
    return F.conv2d(x, linear.weight[:, :, None, None], linear.bias)


def masked_grn(x: Tensor, grn: nn.Module, seen: Tensor, scope: str) -> Tensor:
    dims = (0, 2, 3) if scope == 'batch' else (2, 3)
    gx = (x * seen).pow(2).sum(dims, keepdim=True)
    gx = torch.where(gx > 0, gx, 1).sqrt() * (gx > 0)
    nx = gx / (gx.mean(1, keepdim=True) + 1e-6)
    gamma, beta = grn.gamma[:, None, None], grn.beta[:, None, None]
    return gamma * (x * nx) + beta + x


def encode(
    backbone: nn.Module, images: Tensor, mask: Tensor, scope: str = 'sample'
) -> Tensor:
    """Last stage's normalised map, zero at hidden patches."""
    seen = (~mask)[:, None].to(images.dtype)
    x = images
    for i, (down, stage) in enumerate(
        zip(backbone.downsample_layers, backbone.stages)
    ):
        conv, norm = (down[0], down[1]) if i == 0 else (down[1], down[0])
        if i == 0:
            x = F.conv2d(x, conv.weight, conv.bias, stride=4)
            x = channel_norm(x, norm)
        else:
            x = channel_norm(x, norm)
            x = F.conv2d(x, conv.weight, conv.bias, stride=2)
        times = x.shape[2] // mask.shape[1]
        at = seen.repeat_interleave(times, 2).repeat_interleave(times, 3)
        x = x * at
        for block in stage:
            y = F.conv2d(
                x,
                block.dwconv.weight,
                block.dwconv.bias,
                padding=3,
                groups=x.shape[1],
            )
            y = pointwise(channel_norm(y, block.norm), block.pwconv1)
            y = F.gelu(y)
            if block.grn is not None:
                y = masked_grn(y, block.grn, at, scope)
            y = pointwise(y, block.pwconv2)
            if block.gamma is not None:
                y = y * block.gamma[:, None, None]
            x = (x + y) * at
    return channel_norm(x, backbone.norm3) * at
