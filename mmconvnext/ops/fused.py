"""The pointwise half of a block with few passes over the 4C-wide hidden map.

For one image, ``s`` being GRN's factor and ``scale`` the layer scale:

    h = norm(x) W1^T + b1                       rows (R, 4C), R = H W
    a = gelu(h)
    z = a diag(s) + beta                        GRN; without it z = a
    y = residual + keep scale (z W2^T + b2)     rows (R, C)

GRN and the layer scale are factors on weights (:mod:`.grn_folding`). Where an
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

from . import onednn
from .autocast import without_autocast
from .grn_folding import (
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
    """Images that share weights in the second product, cut into pieces.

    Args:
        images: which of the batch.
        pieces: their rows, in the order of the rows of the whole batch.
    """

    images: slice
    pieces: List[slice]


def _groups(x: Tensor, w: Weights, keep: Optional[Tensor]) -> List[Group]:
    """Cut a batch into groups, and their rows into pieces of ``PIECE``."""
    n, c = x.size(0), x.size(-1)
    rows = x.numel() // (n * c)
    if w.gamma is None and keep is None:
        # Nothing differs from image to image: the batch is one large image.
        n, rows = 1, n * rows
    # Rows of a piece. Other devices have no cache of that size: all rows.
    size = PIECE // (4 * c) if x.device.type == 'cpu' else n * rows
    if _folds(rows, c) or (w.gamma is None and n == 1):
        # One image, one group: its weights are its own. The last piece of an
        # image is shorter.
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
    # Small images share their weights: as many as fill one piece.
    several = max(1, size // rows)
    starts = range(0, n, several)
    images = [slice(i, min(i + several, n)) for i in starts]
    return [
        Group(part, [slice(part.start * rows, part.stop * rows)])
        for part in images
    ]


def _folds(rows: int, channels: int) -> bool:
    """Whether GRN scales the weights of an image rather than its map.

    The weights have 4C C elements, the map R 4C.
    """
    return rows >= channels


@without_autocast
def infer(
    x: Tensor,
    residual: Tensor,
    w: Weights,
    keep: Optional[Tensor],
    eps: float,
) -> Tensor:
    """Compute :func:`reference.convnext_mlp`, keeping nothing."""
    return _forward(x, residual, w, keep, eps, None)[0]


@without_autocast
def forward(
    x: Tensor,
    residual: Tensor,
    w: Weights,
    keep: Optional[Tensor],
    eps: float,
) -> Tuple[Tensor, Saved]:
    """Compute :func:`reference.convnext_mlp` and what backward needs."""
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
    # diag(scale) W2 and scale (W2 beta + b2): all that is left per image is s.
    weight, bias = scaled(w)
    bias = bias.to(x.dtype)
    y = torch.empty_like(base, dtype=out_dtype(x.dtype, residual, w.scale))
    for images, pieces in _groups(x, w, keep):
        # ``maps`` holds a of each piece, ``factor`` is s where it goes on the
        # map, ``folded`` is the weight with s where it goes there.
        factor, folded = None, weight
        if w.gamma is None:
            # One piece at a time, when the loop below asks for it.
            maps = (_expand(rows, piece, w, eps, kept) for piece in pieces)
        else:
            maps, total = _expand_all(rows, pieces, images, w, eps, kept)
            norms.append(total)
            factor = stats_of(total, w.gamma).factor
            if _folds(len(rows) // len(x), c):
                # z W2^T = a (W2 diag(s))^T + W2 beta, the last in the bias.
                folded, factor = weight * factor, None
        # Folded in float32, then rounded once to the type of the products.
        folded = folded.to(x.dtype)
        held = None if keep is None else keep[images]
        for piece, a in zip(pieces, maps):
            if factor is not None:
                # z = a s, in place: a is needed no more.
                _per_image(a, images).mul_(factor[:, None].to(a.dtype))
            y[piece] = _project(a, folded, bias, base[piece], held)
    return y.view(x.shape), torch.cat(norms) if norms else None


def _per_image(a: Tensor, images: slice) -> Tensor:
    """View rows of some images as ``(k, R, 4C)``."""
    return a.view(images.stop - images.start, -1, a.size(-1))


def _expand(
    rows: Tensor,
    piece: slice,
    w: Weights,
    eps: float,
    kept: Optional[List[Tensor]],
) -> Tensor:
    """``a = gelu(h)`` of a piece of rows; its ``h`` goes into ``kept``."""
    normed = normalise(rows[piece], w, eps)[0]
    if kept is None:
        # Nothing else needs h: the product applies the GELU as it ends.
        return onednn.linear_gelu(normed, w.weight1, w.bias1)
    h = onednn.linear(normed, w.weight1, w.bias1)
    if len(h) == len(rows):
        # The only piece: h is the whole map already, no copy.
        kept.append(h)
        return F.gelu(h)
    if not kept:
        kept.append(h.new_empty(len(rows), h.size(1)))
    kept[0][piece] = h
    # h was copied, so a may take its memory while it is in the cache.
    return onednn.gelu_(h)


def _expand_all(
    rows: Tensor,
    pieces: List[slice],
    images: slice,
    w: Weights,
    eps: float,
    kept: Optional[List[Tensor]],
) -> Tuple[Iterator[Tensor], Tensor]:
    """``a`` of each piece of a group, and GRN's ``G = |a|_2``.

    GRN needs G of all rows before the first row can go on, so the pieces are
    gone through twice: once for G, once for the second product.
    """
    maps, squares = [], 0
    # In training h is kept anyway. Computing its GELU again is cheaper than
    # to write all of a to memory and read it back: a piece is in the cache.
    again = kept is not None and len(pieces) > 1
    for piece in pieces:
        a = _expand(rows, piece, w, eps, kept)
        # G^2 = sum_r a_r^2 is a sum over pieces.
        squares = squares + _squares(a, images)
        maps.append(None if again else a)
    if again:
        return (F.gelu(kept[0][piece]) for piece in pieces), squares.sqrt_()
    return iter(maps), squares.sqrt_()


def _squares(a: Tensor, images: slice) -> Tensor:
    """``sum_r a^2`` over the rows of a piece, ``(k, 4C)``."""
    return torch.stack([onednn.square_sums(b) for b in _per_image(a, images)])


def _project(
    a: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor,
    keep: Optional[Tensor],
) -> Tensor:
    """``residual + keep (a W^T + b)`` of a piece.

    Without drop path one product adds the residual too.
    """
    if keep is None:
        return onednn.linear_add(a, weight, bias, residual)
    # keep differs from image to image: (k, R, C) times (k, 1, 1).
    branch = onednn.linear(a, weight, bias).view(len(keep), -1, len(weight))
    return residual + (branch * keep[:, 0]).view_as(residual)


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

    With ``g = keep dy``, the gradient of the branch, and everything per row:

        dz = g (diag(scale) W2)
        da = dz s + pull a          pull: through GRN's norms, ``pull_of``
        dh = da gelu'(h)
        dx = norm'(dh W1)

    The sums over rows for the weights are collected as the pieces pass;
    ``weight_gradients`` undoes the folds at the end.
    """
    c, sums = x.size(-1), Sums()
    grad = branch_gradient(grad, x, keep)
    rows, d_x = x.reshape(-1, c), x.new_empty(len(grad), c)
    weight, _ = scaled(w)
    for images, pieces in _groups(x, w, keep):
        xs, grads = [rows[p] for p in pieces], [grad[p] for p in pieces]
        hs = _hidden(xs, w, eps, saved.hidden, pieces)
        # Each step gives da of one piece after the other.
        if w.gamma is None:
            d_as = _plain_step(grads, hs, weight, sums)
        else:
            folds = _folds(len(rows) // len(x), c)
            step = _folded_step if folds else _unfolded_step
            stats = stats_of(saved.norms[images], w.gamma)
            d_as = step(grads, hs, weight, sums, stats, w.gamma)
        # d_as computes a piece when it is asked for: da, dh and dx of one
        # piece are done before the next begins, all in the cache.
        for piece, part, h, d_a in zip(pieces, xs, hs, d_as):
            # dh = da gelu'(h), db1 = sum_r dh, dx = norm'(dh W1).
            d_h = _gelu_backward(d_a, h)
            sums.add(bias1=onednn.sums(d_h))
            d_x[piece] = first_product_backward(part, d_h, w, eps, sums)
    # sum_r g: db2, and what beta and the layer scale need.
    sums.add(total=onednn.sums(grad))
    return d_x.view(x.shape), weight_gradients(sums.of, w, weight)


def _gelu_backward(d_a: Tensor, h: Tensor) -> Tensor:
    """``da gelu'(h)`` in the memory of ``d_a``."""
    return torch.ops.aten.gelu_backward.grad_input(d_a, h, grad_input=d_a)


def _hidden(
    xs: List[Tensor],
    w: Weights,
    eps: float,
    hidden: Optional[Tensor],
    pieces: List[slice],
) -> List[Tensor]:
    """``h`` of each piece, kept or computed again from ``x``."""
    if hidden is not None:
        return [hidden[piece] for piece in pieces]
    normed = [normalise(x, w, eps)[0] for x in xs]
    return [onednn.linear(part, w.weight1, w.bias1) for part in normed]


def _plain_step(
    grads: List[Tensor], hs: List[Tensor], weight: Tensor, sums: Sums
) -> Iterator[Tensor]:
    """Gradients of ``a``, piece by piece, without GRN: ``da = g W2``."""
    across = weight.to(hs[0].dtype).t()
    for g, h in zip(grads, hs):
        # dW2 = g^T a.
        sums.add(weight=onednn.product(g, F.gelu(h)))
        yield onednn.linear(g, across)


def _folded_step(
    grads: List[Tensor],
    hs: List[Tensor],
    weight: Tensor,
    sums: Sums,
    stats: Stats,
    gamma: Tensor,
) -> Iterator[Tensor]:
    """The same with GRN in the weights, for one image.

    ``da = g (W2 diag(s)) + pull a``; pull needs ``ds``, a sum over all rows
    of the image. So the pieces are gone through twice, first for
    ``P = g^T a``, from which ``ds`` follows without another pass.
    """
    image, a = Sums(), None
    for g, h in zip(grads, hs):
        a = F.gelu(h)
        image.add(product=onednn.product(g, a))
    product = image.of['product']
    # ds_j = sum_r dz_rj a_rj = sum_r sum_c g_rc W2_cj a_rj = sum_c W2_cj P_cj.
    d_factor = (weight * product).sum(0, dtype=stats.norms.dtype)[None]
    sums.add(
        # g^T z = P diag(s), and dgamma = ds N.
        weight=product * stats.factor,
        gamma=(d_factor * (stats.norms / stats.mean))[0],
    )
    pull = pull_of(d_factor, stats, gamma).to(a.dtype)
    across = (weight * stats.factor).to(a.dtype).t()
    for g, h in zip(grads, hs):
        # Of several pieces the last a alone is still there; a piece of h is
        # read again for dh at any rate.
        a = a if len(hs) == 1 else F.gelu(h)
        # One product adds pull a.
        yield onednn.linear_add(g, across, None, a.mul_(pull))


def _unfolded_step(
    grads: List[Tensor],
    hs: List[Tensor],
    weight: Tensor,
    sums: Sums,
    stats: Stats,
    gamma: Tensor,
) -> Iterator[Tensor]:
    """The same with GRN on the maps of some images, one piece of rows.

    Weights are shared, so one product serves all images: ``dz = g W2`` first,
    then ``ds = sum_r dz a`` and ``da = dz s + pull a`` per image.
    """
    ((g, h),) = zip(grads, hs)
    a, dtype = F.gelu(h).view(len(stats.norms), -1, h.size(1)), h.dtype
    factor = stats.factor[:, None].to(dtype)
    d_z = onednn.linear(g, weight.to(dtype).t()).view_as(a)
    d_factor = (d_z * a).sum(1, dtype=stats.norms.dtype)
    sums.add(
        # g^T z with z = a diag(s) of each image, and dgamma = ds N.
        weight=onednn.product(g, (a * factor).view_as(h)),
        gamma=(d_factor * (stats.norms / stats.mean)).sum(0),
    )
    pull = pull_of(d_factor, stats, gamma).to(dtype)
    # In the memory of dz: times s, plus a pull.
    yield d_z.mul_(factor).addcmul_(a, pull[:, None]).view_as(h)
