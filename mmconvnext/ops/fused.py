"""The pointwise half of a block with few passes over the 4C-wide hidden map.

GRN and the layer scale never touch a map: both are factors on the weights of
the second product. With ``a = gelu(h)``, ``G`` the norm of a channel of
``a`` over one image, ``N = G / (mean G + eps)`` and ``s = 1 + gamma N``

    grn(a) W2^T = a (W2 diag(s))^T + W2 beta

exactly. Backward, the gradient of ``s`` needs no pass either: for the weight
gradient ``P = g^T a`` of one image it is the sum of ``W2 * P`` over output
channels. Where an image has fewer positions than channels its map is smaller
than weights of its own, and the factor goes on the map.

Kept for the backward pass are the input and ``h``, 5 of the 24 maps of C
channels that plain PyTorch keeps in a V2 block (6 with the input of the
depthwise convolution). On a CPU rows are worked on in pieces that stay in
its cache, and nothing else as wide as ``h`` is ever allocated.
"""

from __future__ import annotations

from typing import (
    Any,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Tuple,
)

import torch
import torch.nn.functional as F
from torch import Tensor

from . import gemm, reference

GRN_EPS = 1e-6
# Elements of the hidden map in one piece on a CPU: 32 MB in float32.
PIECE = 1 << 23


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


class Group(NamedTuple):
    """Images that are worked on together, and pieces of their rows."""

    images: slice
    pieces: List[slice]


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


def _normalise(x: Tensor, w: Weights, eps: float) -> Tuple:
    return torch.native_layer_norm(x, x.shape[-1:], *_affine(x, w), eps)


def _affine(x: Tensor, w: Weights) -> Tuple[Tensor, Tensor]:
    # A CPU keeps the statistics in the type of the weights.
    dtype = wide(x.dtype) if x.device.type == 'cpu' else x.dtype
    return w.norm_weight.to(dtype), w.norm_bias.to(dtype)


def _scaled(w: Weights) -> Tuple[Tensor, Tensor]:
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


def _stats(norms: Tensor, gamma: Tensor) -> Stats:
    mean = norms.mean(-1, keepdim=True) + GRN_EPS
    return Stats(norms, mean, 1 + gamma * (norms / mean))


def _pull(d_factor: Tensor, stats: Stats, gamma: Tensor) -> Tensor:
    """What to multiply ``a`` with for its gradient through the norms."""
    norms, mean, _ = stats
    d_n = gamma * d_factor
    inner = (d_n * norms).mean(-1, keepdim=True) / mean
    # The norm of a dead channel has gradient zero.
    return torch.where(norms > 0, (d_n - inner) / (mean * norms), 0)


@gemm.without_autocast
def infer(
    x: Tensor,
    residual: Tensor,
    w: Weights,
    keep: Optional[Tensor],
    eps: float,
) -> Tensor:
    """Compute :func:`reference.convnext_mlp`, keeping nothing."""
    return _forward(x, residual, w, keep, eps, None)[0]


@gemm.without_autocast
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
    weight, bias = _scaled(w)
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
            factor = _stats(norms[-1], w.gamma).factor
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
    normed = _normalise(rows[piece], w, eps)[0]
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
    grad = grad.to(x.dtype)
    grad = (grad if keep is None else grad * keep).reshape(-1, c)
    rows, d_x = x.reshape(-1, c), x.new_empty(len(grad), c)
    weight, _ = _scaled(w)
    for images, pieces in _groups(x, w, keep):
        xs, grads = [rows[p] for p in pieces], [grad[p] for p in pieces]
        hs = _hidden(xs, w, eps, saved.hidden, pieces)
        if w.gamma is None:
            d_as = _plain_step(grads, hs, weight, sums)
        else:
            folds = _folds(len(rows) // len(x), c)
            step = _folded_step if folds else _unfolded_step
            stats = _stats(saved.norms[images], w.gamma)
            d_as = step(grads, hs, weight, sums, stats, w.gamma)
        for piece, part, h, d_a in zip(pieces, xs, hs, d_as):
            d_x[piece] = _first_step(part, h, d_a, w, eps, sums)
    sums.add(total=gemm.sums(grad))
    return d_x.view(x.shape), _weight_gradients(sums.of, w, weight)


def _hidden(
    xs: List[Tensor],
    w: Weights,
    eps: float,
    hidden: Optional[Tensor],
    pieces: List[slice],
) -> List[Tensor]:
    if hidden is not None:
        return [hidden[piece] for piece in pieces]
    normed = [_normalise(x, w, eps)[0] for x in xs]
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
    pull = _pull(d_factor, stats, gamma).to(a.dtype)
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
    pull = _pull(d_factor, stats, gamma).to(dtype)
    yield d_z.mul_(factor).addcmul_(a, pull[:, None]).view_as(h)


def _first_step(
    x: Tensor, h: Tensor, d_a: Tensor, w: Weights, eps: float, sums: Sums
) -> Tensor:
    """Backward of GELU, the first product and the norm; uses up ``d_a``."""
    d_h = torch.ops.aten.gelu_backward.grad_input(d_a, h, grad_input=d_a)
    normed, mean, rstd = _normalise(x, w, eps)
    d_normed = gemm.linear(d_h, w.weight1.t())
    d_x, d_weight, d_bias = torch.ops.aten.native_layer_norm_backward(
        d_normed, x, x.shape[-1:], mean, rstd, *_affine(x, w), [True] * 3
    )
    sums.add(
        norm_weight=d_weight,
        norm_bias=d_bias,
        weight1=gemm.product(normed, d_h),
        bias1=gemm.sums(d_h),
    )
    return d_x


def _weight_gradients(
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


class ConvNeXtMLP(torch.autograd.Function):
    """:func:`forward` and :func:`backward`, differentiable twice.

    A second derivative goes through the reference: under ``create_graph``
    the backward pass is computed again in plain PyTorch.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor,
        keep: Optional[Tensor],
        eps: float,
        recompute: bool,
        *weights: Optional[Tensor],
    ) -> Tensor:
        y, saved = forward(x, residual, Weights(*weights), keep, eps)
        if recompute:
            saved = saved._replace(hidden=None)
        ctx.save_for_backward(x, keep, *saved, *weights)
        ctx.eps, ctx.residual_dtype = eps, residual.dtype
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple:
        x, keep, hidden, norms, *weights = ctx.saved_tensors
        saved, w = Saved(hidden, norms), Weights(*weights)
        if torch.is_grad_enabled():
            d_x, d_w = _plain_backward(grad, x, w, keep, ctx.eps)
        else:
            d_x, d_w = backward(grad, x, w, keep, saved, ctx.eps)
        d_residual = grad.to(ctx.residual_dtype)
        return (d_x, d_residual, None, None, None, *d_w)


def convnext_mlp(
    x: Tensor,
    residual: Tensor,
    w: Weights,
    keep: Optional[Tensor],
    eps: float,
    recompute: bool,
) -> Tensor:
    if torch.is_grad_enabled() and requires_grad(x, residual, *w):
        return ConvNeXtMLP.apply(x, residual, keep, eps, recompute, *w)
    return infer(x, residual, w, keep, eps)


def requires_grad(*tensors: Optional[Tensor]) -> bool:
    return any(t is not None and t.requires_grad for t in tensors)


def plain(
    x: Tensor,
    residual: Tensor,
    w: Weights,
    keep: Optional[Tensor],
    eps: float,
) -> Tensor:
    """The reference, from :class:`Weights`."""
    return reference.convnext_mlp(
        x,
        residual,
        (w.norm_weight, w.norm_bias),
        (w.weight1, w.bias1),
        (w.weight2, w.bias2),
        None if w.gamma is None else (w.gamma, w.beta),
        w.scale,
        keep,
        eps,
    )


@gemm.without_autocast
def _plain_backward(
    grad: Tensor, x: Tensor, w: Weights, keep: Optional[Tensor], eps: float
) -> Tuple[Tensor, List[Optional[Tensor]]]:
    tensors = (x, *w)
    asked = [t for t in tensors if t is not None and t.requires_grad]
    branch = plain(x, torch.zeros_like(x), w, keep, eps)
    found = iter(
        torch.autograd.grad(
            branch, asked, grad.to(branch.dtype), create_graph=True
        )
    )
    grads = [
        next(found) if t is not None and t.requires_grad else None
        for t in tensors
    ]
    return grads[0], grads[1:]
