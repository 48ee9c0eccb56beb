"""The pointwise half of a block with few passes over the 4C-wide hidden map.

GRN and the layer scale are factors on weights (:mod:`.algebra`). Where an
image has fewer positions than channels its map is smaller than weights of
its own, and the factor goes on the map.

Kept for the backward pass are the input and ``h``, 5 of the 24 maps of C
channels that plain PyTorch keeps in a V2 block (6 with the input of the
depthwise convolution). On a CPU rows are worked on in pieces that stay in
its cache, and nothing else as wide as ``h`` is ever allocated.
"""

from __future__ import annotations

from typing import Iterator, List, NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import gemm
from .algebra import (
    Saved,
    Stats,
    Sums,
    Weights,
    branch_gradient,
    first_product_backward,
    normalise,
    out_dtype,
    pull_of,
    scaled,
    stats_of,
    weight_gradients,
)

# Elements of the hidden map in one piece on a CPU: 32 MB in float32.
PIECE = 1 << 23


class Group(NamedTuple):
    """Images that are worked on together, and pieces of their rows."""

    images: slice
    pieces: List[slice]


def _groups(x: Tensor, w: Weights, keep: Optional[Tensor]) -> List[Group]:
    n, c = x.size(0), x.size(-1)
    rows = x.numel() // (n * c)
    if w.gamma is None and keep is None:
        n, rows = 1, n * rows
    size = PIECE // (4 * c) if x.device.type == 'cpu' else n * rows
    if _folds(rows, c) or (w.gamma is None and n == 1):
        return [
            Group(
                slice(i, i + 1),
                [
                    slice(i * rows + j, i * rows + min(j + size, rows))
                    for j in range(0, rows, size)
                ],
            )
            for i in range(n)
        ]
    several = max(1, size // rows)
    starts = range(0, n, several)
    images = [slice(i, min(i + several, n)) for i in starts]
    return [
        Group(part, [slice(part.start * rows, part.stop * rows)])
        for part in images
    ]


def _folds(rows: int, channels: int) -> bool:
    """Whether GRN scales the weights of an image rather than its map."""
    return rows >= channels


@gemm.without_autocast
def infer(
    x: Tensor,
    residual: Tensor,
    w: Weights,
    keep: Optional[Tensor],
    eps: float,
    moments: Optional[Tensor] = None,
) -> Tensor:
    """Compute :func:`reference.convnext_mlp`, keeping nothing.

    Args:
        moments: not used here, since a layer norm computes its own.
    """
    return _forward(x, residual, w, keep, eps, None)[0]


@gemm.without_autocast
def forward(
    x: Tensor,
    residual: Tensor,
    w: Weights,
    keep: Optional[Tensor],
    eps: float,
    moments: Optional[Tensor] = None,
) -> Tuple[Tensor, Saved]:
    """Compute :func:`reference.convnext_mlp` and what backward needs.

    Args:
        moments: not used here, since a layer norm computes its own.
    """
    kept: List[Tensor] = []
    y, norms = _forward(x, residual, w, keep, eps, kept)
    return y, Saved(kept[0], norms)


def _forward(
    x: Tensor,
    residual: Tensor,
    w: Weights,
    keep: Optional[Tensor],
    eps: float,
    kept: Optional[List[Tensor]],
) -> Tuple[Tensor, Optional[Tensor]]:
    """With ``kept`` given, the whole hidden map becomes its one item."""
    c, norms = x.size(-1), []
    rows, base = x.reshape(-1, c), residual.reshape(-1, c)
    weight, bias = scaled(w)
    bias = bias.to(x.dtype)
    y = torch.empty_like(base, dtype=out_dtype(x.dtype, residual, w.scale))
    for images, pieces in _groups(x, w, keep):
        factor, folded = None, weight
        if w.gamma is not None:
            maps, squares = [], 0
            for piece in pieces:
                a = _expand(rows, piece, w, eps, kept)
                squares = squares + _squares(a, images)
                # With h at hand, cheaper to compute again than to keep.
                again = kept is not None and len(pieces) > 1
                maps.append(None if again else a)
            norms.append(squares.sqrt_())
            factor = stats_of(norms[-1], w.gamma).factor
            if _folds(len(rows) // len(x), c):
                folded, factor = weight * factor, None
        folded = folded.to(x.dtype)
        for i, piece in enumerate(pieces):
            if w.gamma is None:
                a = _expand(rows, piece, w, eps, kept)
            elif maps[i] is None:
                a = F.gelu(kept[0][piece])
            else:
                a = maps[i]
            if factor is not None:
                _per_image(a, images).mul_(factor[:, None].to(a.dtype))
            held = None if keep is None else keep[images]
            y[piece] = _project(a, folded, bias, base[piece], held)
    return y.view(x.shape), torch.cat(norms) if norms else None


def _per_image(a: Tensor, images: slice) -> Tensor:
    return a.view(images.stop - images.start, -1, a.size(-1))


def _expand(
    rows: Tensor,
    piece: slice,
    w: Weights,
    eps: float,
    kept: Optional[List[Tensor]],
) -> Tensor:
    """``gelu(h)`` of a piece of rows; its ``h`` goes into ``kept``."""
    normed = normalise(rows[piece], w, eps)[0]
    if kept is None:
        return gemm.linear_gelu(normed, w.weight1, w.bias1)
    h = gemm.linear(normed, w.weight1, w.bias1)
    if len(h) == len(rows):
        kept.append(h)
        return F.gelu(h)
    if not kept:
        kept.append(h.new_empty(len(rows), h.size(1)))
    kept[0][piece] = h
    return gemm.gelu_(h)


def _squares(a: Tensor, images: slice) -> Tensor:
    """Sums of squares of a piece, ``(k, 4C)``."""
    return torch.stack([gemm.square_sums(b) for b in _per_image(a, images)])


def _project(
    a: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor,
    keep: Optional[Tensor],
) -> Tensor:
    if keep is None:
        return gemm.linear_add(a, weight, bias, residual)
    branch = gemm.linear(a, weight, bias).view(len(keep), -1, len(weight))
    return residual + (branch * keep[:, 0]).view_as(residual)


@gemm.without_autocast
def backward(
    grad: Tensor,
    x: Tensor,
    w: Weights,
    keep: Optional[Tensor],
    saved: Saved,
    eps: float,
) -> Tuple[Tensor, Weights]:
    """Gradients with respect to ``x`` and the weights."""
    c, sums = x.size(-1), Sums()
    grad = branch_gradient(grad, x, keep)
    rows, d_x = x.reshape(-1, c), x.new_empty(len(grad), c)
    weight, _ = scaled(w)
    for images, pieces in _groups(x, w, keep):
        xs, grads = [rows[p] for p in pieces], [grad[p] for p in pieces]
        hs = _hidden(xs, w, eps, saved.hidden, pieces)
        if w.gamma is None:
            d_as = _plain_step(grads, hs, weight, sums)
        else:
            folds = _folds(len(rows) // len(x), c)
            step = _folded_step if folds else _unfolded_step
            stats = stats_of(saved.norms[images], w.gamma)
            d_as = step(grads, hs, weight, sums, stats, w.gamma)
        for piece, part, h, d_a in zip(pieces, xs, hs, d_as):
            d_h = _gelu_backward(d_a, h)
            sums.add(bias1=gemm.sums(d_h))
            d_x[piece] = first_product_backward(part, d_h, w, eps, sums)
    sums.add(total=gemm.sums(grad))
    return d_x.view(x.shape), weight_gradients(sums.of, w, weight)


def _gelu_backward(d_a: Tensor, h: Tensor) -> Tensor:
    """In the memory of ``d_a``."""
    return torch.ops.aten.gelu_backward.grad_input(d_a, h, grad_input=d_a)


def _hidden(
    xs: List[Tensor],
    w: Weights,
    eps: float,
    hidden: Optional[Tensor],
    pieces: List[slice],
) -> List[Tensor]:
    if hidden is not None:
        return [hidden[piece] for piece in pieces]
    normed = [normalise(x, w, eps)[0] for x in xs]
    return [gemm.linear(part, w.weight1, w.bias1) for part in normed]


def _plain_step(
    grads: List[Tensor], hs: List[Tensor], weight: Tensor, sums: Sums
) -> Iterator[Tensor]:
    """Gradients of ``a``, piece by piece, without GRN."""
    across = weight.to(hs[0].dtype).t()
    for g, h in zip(grads, hs):
        sums.add(weight=gemm.product(g, F.gelu(h)))
        yield gemm.linear(g, across)


def _folded_step(
    grads: List[Tensor],
    hs: List[Tensor],
    weight: Tensor,
    sums: Sums,
    stats: Stats,
    gamma: Tensor,
) -> Iterator[Tensor]:
    """The same with GRN in the weights, for one image."""
    image, a = Sums(), None
    for g, h in zip(grads, hs):
        a = F.gelu(h)
        image.add(product=gemm.product(g, a))
    product = image.of['product']
    d_factor = (weight * product).sum(0, dtype=stats.norms.dtype)[None]
    sums.add(
        weight=product * stats.factor,
        gamma=(d_factor * (stats.norms / stats.mean))[0],
    )
    pull = pull_of(d_factor, stats, gamma).to(a.dtype)
    across = (weight * stats.factor).to(a.dtype).t()
    for g, h in zip(grads, hs):
        a = a if len(hs) == 1 else F.gelu(h)
        yield gemm.linear_add(g, across, None, a.mul_(pull))


def _unfolded_step(
    grads: List[Tensor],
    hs: List[Tensor],
    weight: Tensor,
    sums: Sums,
    stats: Stats,
    gamma: Tensor,
) -> Iterator[Tensor]:
    """The same with GRN on the maps of some images, one piece of rows."""
    ((g, h),) = zip(grads, hs)
    a, dtype = F.gelu(h).view(len(stats.norms), -1, h.size(1)), h.dtype
    factor = stats.factor[:, None].to(dtype)
    d_z = gemm.linear(g, weight.to(dtype).t()).view_as(a)
    d_factor = (d_z * a).sum(1, dtype=stats.norms.dtype)
    sums.add(
        weight=gemm.product(g, (a * factor).view_as(h)),
        gamma=(d_factor * (stats.norms / stats.mean)).sum(0),
    )
    pull = pull_of(d_factor, stats, gamma).to(dtype)
    yield d_z.mul_(factor).addcmul_(a, pull[:, None]).view_as(h)
