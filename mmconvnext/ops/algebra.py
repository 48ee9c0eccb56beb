"""GRN and the layer scale as factors: what the paths that fold them share.

Neither touches a map. With ``a = gelu(h)``, ``G`` the norm of a channel of
``a`` over one image, ``N = G / (mean G + eps)`` and ``s = 1 + gamma N``

    grn(a) W2^T = a (W2 diag(s))^T + W2 beta

exactly. Backward, the gradient of ``s`` needs no pass either: for the weight
gradient ``P = g^T a`` of one image it is the sum of ``W2 * P`` over output
channels.
"""

from __future__ import annotations

from typing import Dict, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from . import gemm

GRN_EPS = 1e-6


class Weights(NamedTuple):
    """Parameters of :func:`reference.convnext_mlp`, in its order."""

    norm_weight: Tensor
    norm_bias: Tensor
    weight1: Tensor
    bias1: Tensor
    weight2: Tensor
    bias2: Tensor
    gamma: Optional[Tensor]
    beta: Optional[Tensor]
    scale: Optional[Tensor]

    def arguments(self) -> Tuple:
        """As the reference takes them: pairs, and the layer scale."""
        grn = None if self.gamma is None else (self.gamma, self.beta)
        return self[:2], self[2:4], self[4:6], grn, self.scale


# What takes part in products, and has their type under autocast.
PRODUCTS = ('weight1', 'bias1', 'weight2', 'bias2')


class Saved(NamedTuple):
    """What the backward pass needs beside the input and the weights.

    Args:
        hidden: ``(R, 4C)``, or None to compute it again.
        norms: G of each image, ``(N, 4C)``, or None without GRN.
    """

    hidden: Optional[Tensor]
    norms: Optional[Tensor]


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type of statistics: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def out_dtype(
    dtype: torch.dtype, residual: Tensor, scale: Optional[Tensor]
) -> torch.dtype:
    """Type of the reference's result where it computes in ``dtype``."""
    if scale is not None:
        dtype = torch.promote_types(dtype, scale.dtype)
    return torch.promote_types(dtype, residual.dtype)


def normalise(x: Tensor, w: Weights, eps: float) -> Tuple:
    """The layer norm of rows, their means and reciprocal deviations."""
    return torch.native_layer_norm(x, x.shape[-1:], *affine(x, w), eps)


def affine(x: Tensor, w: Weights) -> Tuple[Tensor, Tensor]:
    # A CPU keeps the statistics in the type of the weights.
    dtype = wide(x.dtype) if x.device.type == 'cpu' else x.dtype
    return w.norm_weight.to(dtype), w.norm_bias.to(dtype)


def scaled(w: Weights) -> Tuple[Tensor, Tensor]:
    """Weight and bias of the second product with layer scale and beta."""
    weight, bias = w.weight2, w.bias2
    if w.beta is not None:
        bias = bias + weight.to(w.beta.dtype) @ w.beta
    if w.scale is None:
        return weight, bias
    return w.scale[:, None] * weight, w.scale * bias


class Stats(NamedTuple):
    """GRN of some images, ``(k, 4C)`` but for the mean."""

    norms: Tensor
    mean: Tensor
    factor: Tensor


def stats_of(norms: Tensor, gamma: Tensor) -> Stats:
    mean = norms.mean(-1, keepdim=True) + GRN_EPS
    return Stats(norms, mean, 1 + gamma * (norms / mean))


def pull_of(d_factor: Tensor, stats: Stats, gamma: Tensor) -> Tensor:
    """What to multiply ``a`` with for its gradient through the norms."""
    norms, mean, _ = stats
    d_n = gamma * d_factor
    inner = (d_n * norms).mean(-1, keepdim=True) / mean
    # The norm of a dead channel has gradient zero.
    return torch.where(norms > 0, (d_n - inner) / (mean * norms), 0)


def branch_gradient(grad: Tensor, x: Tensor, keep: Optional[Tensor]) -> Tensor:
    """Gradient of the branch of a block, in rows of the type of ``x``."""
    grad = grad.to(x.dtype)
    grad = grad if keep is None else grad * keep
    return grad.reshape(-1, x.size(-1))


class Sums:
    """Gradients of weights, added up over pieces."""

    def __init__(self) -> None:
        self.of: Dict[str, Tensor] = {}

    def add(self, **parts: Tensor) -> None:
        for key, part in parts.items():
            if key in self.of:
                self.of[key] += part
            else:
                self.of[key] = part


def first_product_backward(
    x: Tensor, d_h: Tensor, w: Weights, eps: float, sums: Sums
) -> Tensor:
    """Backward of the first product, but for its bias, and of the norm."""
    normed, mean, rstd = normalise(x, w, eps)
    d_normed = gemm.linear(d_h, w.weight1.t())
    d_x, d_weight, d_bias = torch.ops.aten.native_layer_norm_backward(
        d_normed, x, x.shape[-1:], mean, rstd, *affine(x, w), [True] * 3
    )
    sums.add(
        norm_weight=d_weight,
        norm_bias=d_bias,
        weight1=gemm.product(normed, d_h),
    )
    return d_x


def weight_gradients(
    of: Dict[str, Tensor], w: Weights, weight: Tensor
) -> Weights:
    """From sums over pieces, ``weight1`` transposed, to gradients."""
    d_weight, total, d_beta, d_scale = of['weight'], of['total'], None, None
    if w.gamma is not None:
        d_weight = d_weight + total[:, None] * w.beta
        d_beta = total @ weight.to(total.dtype)
    if w.scale is not None:
        d_scale = (w.weight2 * d_weight).sum(1) + w.bias2 * total
        d_weight, total = w.scale[:, None] * d_weight, w.scale * total
    grads = Weights(
        of['norm_weight'],
        of['norm_bias'],
        gemm.transposed(of['weight1']),
        of['bias1'],
        d_weight,
        total,
        of.get('gamma'),
        d_beta,
        d_scale,
    )
    pairs = zip(grads, w)
    return Weights(*(g if g is None else g.to(p.dtype) for g, p in pairs))
