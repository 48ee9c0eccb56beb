"""GRN and the layer scale folded into weights, for the paths that fold them.

Neither touches a map. For one image with ``a = gelu(h)`` let

    G = |a|_2 of each channel over all positions   (Gx of the paper's Alg. 1)
    N = G / (mean_c G + eps)
    s = 1 + gamma N

Then GRN is ``grn(a) = a diag(s) + beta``, and the product after it is

    grn(a) W2^T = a (W2 diag(s))^T + W2 beta

exactly: 4C^2 multiplications instead of a pass over a map. Backward, the
gradient of ``s`` needs no pass either: for ``P = g^T a``, the weight gradient
of one image without GRN, it is ``ds_j = sum_c W2_cj P_cj``.
"""

from __future__ import annotations

from typing import Dict, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from . import onednn

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
        norm = self.norm_weight, self.norm_bias
        pwconv1 = self.weight1, self.bias1
        pwconv2 = self.weight2, self.bias2
        return norm, pwconv1, pwconv2, grn, self.scale


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
    """Weight and bias of the norm, in a type that keeps its statistics."""
    # A CPU keeps the statistics in the type of the weights.
    dtype = wide(x.dtype) if x.device.type == 'cpu' else x.dtype
    return w.norm_weight.to(dtype), w.norm_bias.to(dtype)


def scaled(w: Weights) -> Tuple[Tensor, Tensor]:
    """Weight and bias of the second product with layer scale and beta.

    ``scale (z W2^T + W2 beta + b2) = z (diag(scale) W2)^T + scale (W2 beta +
    b2)``: what is left for the map is ``z = a diag(s)``.
    """
    weight, bias = w.weight2, w.bias2
    # beta has no row index: its product is one vector, C values, in the bias.
    if w.beta is not None:
        bias = bias + weight.to(w.beta.dtype) @ w.beta
    if w.scale is None:
        return weight, bias
    return w.scale[:, None] * weight, w.scale * bias


class Stats(NamedTuple):
    """G, ``mean_c G + eps`` and s of k images: ``(k, 4C)``, the mean (k, 1).

    With ``s`` as factor on the columns of ``W2``, GRN is done.
    """

    norms: Tensor
    mean: Tensor
    factor: Tensor


def stats_of(norms: Tensor, gamma: Tensor) -> Stats:
    # GRN is gamma (a N) + beta + a: s = 1 + gamma N has its residual inside.
    mean = norms.mean(-1, keepdim=True) + GRN_EPS
    return Stats(norms, mean, 1 + gamma * (norms / mean))


def pull_of(d_factor: Tensor, stats: Stats, gamma: Tensor) -> Tensor:
    """What to multiply ``a`` with for its gradient through the norms.

    All of ``a`` meets the loss twice: directly, and through G. With ``m =
    mean_c G + eps`` over the K = 4C channels, from ``N_j = G_j / m``

        dN_j = gamma_j ds_j
        dG_j = dN_j / m - sum_i dN_i G_i / (K m^2)

    and with ``dG_j / da_rj = a_rj / G_j`` the second part of the gradient is
    ``a_rj (dG_j / G_j)``: a factor per channel, which is returned.
    """
    norms, mean, _ = stats
    d_n = gamma * d_factor
    # sum_i dN_i G_i / (K m): the mean over channels is the sum over K.
    inner = (d_n * norms).mean(-1, keepdim=True) / mean
    # (dN - inner) / m is dG. A dead channel, G = 0, has gradient zero.
    return torch.where(norms > 0, (d_n - inner) / (mean * norms), 0)


def branch_gradient(grad: Tensor, x: Tensor, keep: Optional[Tensor]) -> Tensor:
    """Gradient of the branch of a block, in rows of the type of ``x``."""
    # y = residual + keep branch: g = keep dy. The residual's part is dy.
    grad = grad.to(x.dtype)
    grad = grad if keep is None else grad * keep
    return grad.reshape(-1, x.size(-1))


class Sums:
    """Gradients of weights, added up over pieces of rows or images."""

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
    """Backward of ``h = norm(x) W1^T + b1``, but for its bias.

    ``dnorm = dh W1`` and ``dW1 = dh^T norm(x)``.
    """
    # The norm is computed again: it is a quarter as wide as h, and keeping
    # it would add a map to those kept for the backward pass.
    normed, mean, rstd = normalise(x, w, eps)
    d_normed = onednn.linear(d_h, w.weight1.t())
    d_x, d_weight, d_bias = torch.ops.aten.native_layer_norm_backward(
        d_normed, x, x.shape[-1:], mean, rstd, *affine(x, w), [True] * 3
    )
    sums.add(
        norm_weight=d_weight,
        norm_bias=d_bias,
        # Transposed, (C, 4C): ``product`` wants the narrower one first.
        weight1=onednn.product(normed, d_h),
    )
    return d_x


def weight_gradients(
    of: Dict[str, Tensor], w: Weights, weight: Tensor
) -> Weights:
    """Undo the folds: from sums over rows to gradients of parameters.

    Args:
        of: with ``g`` the gradient of the branch and ``z = a diag(s)``:
            ``weight`` is ``g^T z``, ``total`` is ``g``, ``gamma`` is ``ds N``,
            ``weight1`` is ``dW1`` transposed; the others are as named.
        w: the parameters.
        weight: of the second product with the layer scale, see
            :func:`scaled`.
    """
    d_weight, total, d_beta, d_scale = of['weight'], of['total'], None, None
    if w.gamma is not None:
        # The product saw z + beta: g^T (z + beta) = g^T z + total beta^T.
        d_weight = d_weight + total[:, None] * w.beta
        d_beta = total @ weight.to(total.dtype)
    if w.scale is not None:
        # y = scale u with u = (z + beta) W2^T + b2: dscale = sum_r g u, the
        # row sums of W2 * g^T (z + beta) plus b2 total. dW2 and db2 follow
        # from du = scale g.
        d_scale = (w.weight2 * d_weight).sum(1) + w.bias2 * total
        d_weight, total = w.scale[:, None] * d_weight, w.scale * total
    # The product of the pieces gave dW1 as (C, 4C); gradients have the types
    # of their parameters, which under autocast differ from the sums'.
    grads = Weights(
        of['norm_weight'],
        of['norm_bias'],
        onednn.transposed(of['weight1']),
        of['bias1'],
        d_weight,
        total,
        of.get('gamma'),
        d_beta,
        d_scale,
    )
    pairs = zip(grads, w)
    return Weights(*(g if g is None else g.to(p.dtype) for g, p in pairs))
