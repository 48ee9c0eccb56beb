"""The pointwise half of a block on a GPU.

The products are the library's. All between them is one pass each, in
:mod:`.triton_rows`: the norm, GELU with GRN's norms, GELU with GRN applied,
the residual. With ``a = gelu(h)`` and the notation of :mod:`.fused`:

    h = norm(x) W1^T + b1
    z = a s + beta                  without GRN z = a
    y = residual + keep (z W2^T + b2)

Kept for the backward pass are the input and ``h``; z is computed again.
"""

from __future__ import annotations

from typing import Dict, Optional, Tuple

import torch.nn.functional as F
from torch import Tensor

from . import triton_rows as rows_of
from .autocast import without_autocast
from .grn_folding import Saved, Weights, out_dtype, pull_of, stats_of


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.size(-1)).contiguous()


def _second(w: Weights) -> Tuple[Tensor, Tensor]:
    """Weight and bias of the second product with the layer scale."""
    if w.scale is None:
        return w.weight2, w.bias2
    weight, bias = w.scale[:, None] * w.weight2, w.scale * w.bias2
    return weight.to(w.weight2.dtype), bias.to(w.bias2.dtype)


def _hidden(rows: Tensor, w: Weights, eps: float) -> Tensor:
    normed = rows_of.norm(rows, w.norm_weight, w.norm_bias, eps)
    return F.linear(normed, w.weight1, w.bias1)


def _compute(
    x: Tensor,
    residual: Tensor,
    w: Weights,
    keep: Optional[Tensor],
    eps: float,
    in_place: bool,
) -> Tuple[Tensor, Saved]:
    rows_of.check_dtype(x)
    rows = _rows(x)
    h, norms, factor = _hidden(rows, w, eps), None, None
    if w.gamma is not None:
        norms = rows_of.gelu_norms(h, len(x))
        factor = stats_of(norms, w.gamma).factor
    out = h if in_place else None
    z, *_ = rows_of.activate(h, factor, w.beta, out=out)
    branch = F.linear(z, *_second(w))
    dtype = out_dtype(x.dtype, residual, w.scale)
    y = rows_of.add(branch, keep, _rows(residual), dtype)
    return y.view(x.shape), Saved(h, norms)


@without_autocast
def infer(
    x: Tensor,
    residual: Tensor,
    w: Weights,
    keep: Optional[Tensor],
    eps: float,
) -> Tensor:
    """Compute :func:`reference.convnext_mlp`, keeping nothing."""
    return _compute(x, residual, w, keep, eps, True)[0]


@without_autocast
def forward(
    x: Tensor,
    residual: Tensor,
    w: Weights,
    keep: Optional[Tensor],
    eps: float,
) -> Tuple[Tensor, Saved]:
    """The same, and what the backward pass needs."""
    return _compute(x, residual, w, keep, eps, False)


@without_autocast
def backward(
    grad: Tensor,
    x: Tensor,
    w: Weights,
    keep: Optional[Tensor],
    saved: Saved,
    eps: float,
) -> Tuple[Tensor, Weights]:
    """Gradients with respect to ``x`` and the weights.

    With ``g = keep dy`` the gradient of the branch, per row:

        dz = g (diag(scale) W2)
        dh = (dz s + pull a) gelu'(h)        pull: see ``pull_of``
        dx = norm'(dh W1)
    """
    rows = _rows(x)
    # y = residual + keep branch: the residual's part is dy itself.
    g, total = rows_of.branch_gradient(_rows(grad), keep, x.dtype)
    h = _hidden(rows, w, eps) if saved.hidden is None else saved.hidden
    found: Dict[str, Tensor] = {}
    d_h = g @ _second(w)[0]
    if w.gamma is None:
        z, *_ = rows_of.activate(h)
        found['bias1'] = rows_of.gelu_backward_(d_h, h)
    else:
        z, found = _grn_backward(d_h, h, w, saved.norms)
    found.update(_second_gradients(g.t() @ z, total, w))
    d_x = d_h @ w.weight1
    norm = w.norm_weight, w.norm_bias
    normed, d_weight, d_bias = rows_of.norm_backward_(d_x, rows, *norm, eps)
    found.update(
        norm_weight=d_weight, norm_bias=d_bias, weight1=d_h.t() @ normed
    )
    grads = (found.get(name) for name in Weights._fields)
    pairs = zip(grads, w)
    return d_x.view(x.shape), Weights(
        *(d if d is None else d.to(p.dtype) for d, p in pairs)
    )


def _grn_backward(
    d: Tensor, h: Tensor, w: Weights, norms: Tensor
) -> Tuple[Tensor, Dict[str, Tensor]]:
    """z, and gradients; that of z becomes that of h.

    ``ds`` and ``dbeta`` are the sums over rows of ``dz a`` and of ``dz``.
    """
    stats = stats_of(norms, w.gamma)
    z, d_factor, d_beta = rows_of.activate(h, stats.factor, w.beta, d)
    pull = pull_of(d_factor, stats, w.gamma)
    bias1 = rows_of.gelu_backward_(d, h, stats.factor, pull)
    gamma = (d_factor * (stats.norms / stats.mean)).sum(0)
    return z, dict(bias1=bias1, gamma=gamma, beta=d_beta.sum(0))


def _second_gradients(
    product: Tensor, total: Tensor, w: Weights
) -> Dict[str, Tensor]:
    """Gradients of ``y = scale (z W2^T + b2)`` from ``g^T z`` and ``g``."""
    if w.scale is None:
        return dict(weight2=product, bias2=total)
    wide = product.to(total.dtype)
    scale = (w.weight2 * wide).sum(1) + w.bias2 * total
    return dict(
        weight2=w.scale[:, None] * wide, bias2=w.scale * total, scale=scale
    )
