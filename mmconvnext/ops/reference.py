"""Plain PyTorch: the meaning of every op, and what tests compare against.

All functions work channels last: ``(N, H, W, C)``. ``H`` and ``W`` may be any
sizes that multiply to the number of positions, so a list of L visible tokens
is ``(N, L, 1, C)``.
"""

from __future__ import annotations

from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

Affine = Tuple[Tensor, Tensor]


def layer_norm(x: Tensor, affine: Affine, eps: float = 1e-6) -> Tensor:
    """Normalise each position of ``(..., C)`` over its channels.

    Args:
        x: ``(..., C)``.
        affine: weight and bias, ``(C,)`` each.
        eps: added to the variance.
    """
    weight, bias = affine
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def grn(x: Tensor, affine: Affine, eps: float = 1e-6) -> Tensor:
    """Global response normalisation (ConvNeXt V2, arXiv 2301.00808, Alg. 1).

    ``y = gamma * (x * Nx) + beta + x`` with ``Gx`` the L2 norm of a channel
    over all positions of one image and ``Nx = Gx / (mean_c Gx + eps)``.

    The statistics are at least float32 whatever the dtype of ``x``, and the
    small factor ``gamma * Nx`` is formed before it meets ``x``: neither the
    sum of squares nor ``x * Nx`` can overflow float16.

    Args:
        x: ``(N, H, W, C)``.
        affine: gamma and beta, ``(C,)`` each.
        eps: added to the mean norm.
    """
    gamma, beta = affine
    # Not promote_types, which torch 2.1 cannot compile.
    double = x.dtype == torch.float64
    dtype = torch.float64 if double else torch.float32
    gx = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=dtype)
    nx = gx / (gx.mean(dim=-1, keepdim=True) + eps)
    return x + x * (gamma * nx).to(x.dtype) + beta.to(x.dtype)


def depthwise_conv(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor] = None,
    dilation: int = 1,
) -> Tensor:
    """Convolve each channel by itself; the map keeps its size.

    Args:
        x: ``(N, H, W, C)``.
        weight: ``(C, 1, k, k)``, k odd.
        bias: ``(C,)``.
        dilation: distance of the positions that the kernel reads.
    """
    pad = dilation * (weight.size(-1) // 2)
    y = F.conv2d(
        x.permute(0, 3, 1, 2),
        weight,
        bias,
        # In torch.jit.trace sizes are tensors, and torch 2.1 takes them in
        # pairs only.
        padding=(pad, pad),
        dilation=dilation,
        groups=weight.size(0),
    )
    return y.permute(0, 2, 3, 1)


def convnext_mlp(
    x: Tensor,
    residual: Tensor,
    norm: Affine,
    pwconv1: Affine,
    pwconv2: Affine,
    grn_affine: Optional[Affine] = None,
    layer_scale: Optional[Tensor] = None,
    keep: Optional[Tensor] = None,
    eps: float = 1e-6,
) -> Tensor:
    """Everything in a ConvNeXt block that follows the depthwise convolution.

    ``residual + keep * layer_scale * fc2(grn(gelu(fc1(norm(x)))))``, exact
    (erf) GELU; parts given as None are left out. V1 has the layer scale
    (arXiv 2201.03545, fig. 4), V2 has GRN (arXiv 2301.00808, fig. 5).

    Args:
        x: output of the depthwise convolution, ``(N, H, W, C)``.
        residual: input of the block, ``(N, H, W, C)``.
        norm: layer norm weight and bias, ``(C,)`` each.
        pwconv1: weight ``(4C, C)`` and bias ``(4C,)``.
        pwconv2: weight ``(C, 4C)`` and bias ``(C,)``.
        grn_affine: gamma and beta, ``(4C,)`` each.
        layer_scale: ``(C,)``.
        keep: drop path factor of each sample, ``(N, 1, 1, 1)``.
        eps: of the layer norm.
    """
    x = F.gelu(F.linear(layer_norm(x, norm, eps), *pwconv1))
    if grn_affine is not None:
        x = grn(x, grn_affine)
    x = F.linear(x, *pwconv2)
    if layer_scale is not None:
        x = x * layer_scale
    if keep is not None:
        x = x * keep
    return residual + x
