"""Pooling of regions: RoIAlign (average and max) and RoIPool."""

from __future__ import annotations

import math
from typing import Iterator, List, Tuple

import torch
from torch import Tensor

from .sampling import (
    bilinear_taps,
    in_full,
    one_thread,
    rows_of,
    scatter_sum,
    weighted_sum,
    write_rows,
)

# Entries (index and weight) gathered at once: bounds memory at about 100 MB.
BUDGET = 1 << 23


def _roi_frame(
    rois: Tensor,
    scale: float,
    size: Tuple[int, int],
    ratio: int,
    aligned: bool,
) -> Tuple[Tensor, Tensor, Tensor]:
    """Start, extent and samples per bin of each RoI, each (2, R), y first.

    Follows the compiled operator step by step in single precision, since
    one ulp may move a sample across the image border.
    """
    x1, y1, x2, y2 = (in_full(rois)[:, 1:] * scale - 0.5 * aligned).t()
    start = torch.stack([y1, x1])
    extent = torch.stack([y2, x2]) - start
    if not (extent >= 0).all() and aligned:
        raise RuntimeError(
            'roi_align with aligned=True got a box with negative or NaN '
            'width or height; clip or drop such boxes before pooling'
        )
    extent = extent if aligned else extent.clamp(min=1)
    bins = extent.new_tensor(size)[:, None]
    grid = (
        torch.full_like(extent, ratio) if ratio > 0 else (extent / bins).ceil()
    )
    return start, extent / bins, grid


def _samples(
    start: Tensor, step: Tensor, grid: Tensor, bins: int, steps: int
) -> Tensor:
    """Sample coordinates (R, bins, steps) along one axis.

    The last sample of a bin repeats where it has fewer than ``steps``.
    """
    start, step, grid = (x[:, None, None] for x in (start, step, grid))
    k = torch.arange(steps, device=start.device).to(start)
    k = torch.minimum(k, (grid - 1).clamp(min=0))
    p = torch.arange(bins, device=start.device).to(start)[:, None]
    return start + p * step + (k + 0.5) * step / grid.clamp(min=1)


def _axis_taps(
    start: Tensor, step: Tensor, grid: Tensor, bins: int, length: int
) -> Tuple[Tensor, Tensor, Tensor]:
    """Merged bilinear taps of every bin along one axis.

    The sum over a bin's grid of bilinear samples separates into the axes,
    and neighbouring samples share pixels. Returns pixels and weights, each
    (R, bins, T), and how many taps each RoI uses.
    """
    steps = max(int(grid.max()), 1)
    at = _samples(start, step, grid, bins, steps)
    counted = torch.arange(steps, device=at.device) < grid[:, None, None]
    share = (counted & (at >= -1) & (at <= length)).to(at)
    at = at.clamp(0, length - 1)
    low = at.floor()
    high_part = share * (at - low)
    low = low.long()
    # Pixels of one sample take two slots; the next sample shares both, one
    # or none of them.
    jump = low.diff(dim=2, prepend=low[:, :, :1]).clamp_(max=2)
    slot = jump.cumsum(2)
    pixels = low.new_zeros(*low.shape[:2], 2 * steps)
    weights = at.new_zeros(pixels.shape)
    pixels.scatter_(2, slot, low)
    pixels.scatter_(2, slot + 1, (low + 1).clamp_(max=length - 1))
    weights.scatter_add_(2, slot, share - high_part)
    weights.scatter_add_(2, slot + 1, high_part)
    return pixels, weights, slot[:, :, -1].amax(1) + 2


def same_size(*sizes: Tensor, cost: int) -> Iterator[Tensor]:
    """Splits RoIs into groups of equal sizes that fit the memory budget."""
    table, member = torch.stack(sizes, 1).unique(dim=0, return_inverse=True)
    for group, row in enumerate(table.tolist()):
        ids = (member == group).nonzero()[:, 0]
        entries = cost * math.prod(max(int(size), 1) for size in row)
        yield from ids.split(max(BUDGET // entries, 1))


def _align_bags(
    rois: Tensor,
    shape: torch.Size,
    size: Tuple[int, int],
    scale: float,
    ratio: int,
    aligned: bool,
) -> Iterator[Tuple[Tensor, Tensor, Tensor]]:
    """Sums over the samples of each bin, some RoIs at a time.

    Yields the output rows (RoI, bin), and the table rows and weights that
    each of them sums.
    """
    frame = _roi_frame(rois, scale, size, ratio, aligned)
    (ys, wy, ny), (xs, wx, nx) = (
        _axis_taps(*(x[i] for x in frame), size[i], shape[2 + i])
        for i in (0, 1)
    )
    bins = size[0] * size[1]
    image = rois[:, 0].long() * (shape[2] * shape[3])
    for ids in same_size(ny, nx, cost=bins):
        ky, kx = int(ny[ids[0]]), int(nx[ids[0]])
        y, x = ys[ids, :, None, :ky, None], xs[ids, None, :, None, :kx]
        index = y * shape[3] + x + image[ids].view(-1, 1, 1, 1, 1)
        weight = wy[ids, :, None, :ky, None] * wx[ids, None, :, None, :kx]
        out = ids[:, None] * bins + torch.arange(bins, device=ids.device)
        yield out.flatten(), index.view(-1, ky * kx), weight.view(-1, ky * kx)


def _sample_counts(rois: Tensor, size: Tuple[int, int], *rest) -> Tensor:
    """Samples in each bin, one row per RoI and bin.

    The compiled operator divides by it last, and so do we: hosts compare
    pooled masks with 0.5, and thirds rounded earlier would flip ties.
    """
    grid = _roi_frame(rois, rest[0], size, *rest[1:])[2]
    count = grid.prod(0).clamp(min=1)
    return count.repeat_interleave(size[0] * size[1]).unsqueeze(1)


@one_thread
def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Pools every RoI; ``pool_mode`` is 0 for max and 1 for average."""
    if not output.numel():
        return
    spec = (
        rois,
        input.shape,
        (aligned_height, aligned_width),
        spatial_scale,
        sampling_ratio,
        aligned,
    )
    table = rows_of(input)
    pooled = table.new_zeros(output.numel() // input.size(1), input.size(1))
    if pool_mode == 0:
        peaks = table.new_full((2,) + pooled.shape, -1.0)
        _max_align(table, spec, pooled, peaks)
        write_rows(argmax_y, peaks[0])
        write_rows(argmax_x, peaks[1])
    else:
        for out, index, weight in _align_bags(*spec):
            pooled[out] = weighted_sum(table, index, weight.to(table))
        pooled /= _sample_counts(rois, *spec[2:])
    write_rows(output, pooled)


def _max_align(
    table: Tensor, spec: tuple, pooled: Tensor, peaks: Tensor
) -> None:
    """Writes the largest sample of each bin and where it was taken."""
    rois, shape, size, scale, ratio, aligned = spec
    start, step, grid = _roi_frame(rois, scale, size, ratio, aligned)
    bins, height, width = size[0] * size[1], *shape[2:]
    image = rois[:, 0].long() * (height * width)
    for ids in same_size(*grid.long(), cost=bins * 4):
        ky, kx = (int(k) for k in grid[:, ids[0]])
        out = ids[:, None] * bins + torch.arange(bins, device=ids.device)
        if ky * kx == 0:  # no sample: the compiled operator's start value
            pooled[out] = -10000.0
            continue
        y, x = (
            _samples(start[i, ids], step[i, ids], grid[i, ids], size[i], k)
            for i, k in ((0, ky), (1, kx))
        )
        y, x = torch.broadcast_tensors(
            y[:, :, None, :, None], x[:, None, :, None, :]
        )
        cells, weights = _clamped_taps(y, x, height, width)
        cells += image[ids].view(-1, 1, 1, 1, 1, 1)
        value = weighted_sum(table, cells.view(-1, 4), weights.view(-1, 4))
        best, where = value.view(out.numel(), ky * kx, -1).max(1)
        pooled[out.flatten()] = best
        for peak, at in zip(peaks, (y, x)):
            peak[out.flatten()] = at.reshape(out.numel(), -1).gather(1, where)


def _clamped_taps(
    y: Tensor, x: Tensor, height: int, width: int
) -> Tuple[Tensor, Tensor]:
    """Repeat the border up to one pixel outside, where ``bilinear_taps``
    fades to zero.
    """
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    cells, weights = bilinear_taps(
        y.clamp(0, height - 1), x.clamp(0, width - 1), height, width
    )
    return cells, weights * inside.unsqueeze(-1)


@one_thread
def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Writes the gradient of :func:`roi_align_forward`."""
    if not grad_output.numel():
        return
    if pool_mode == 0:
        _max_align_backward(grad_output, rois, argmax_y, argmax_x, grad_input)
        return
    n, c, h, w = grad_input.shape
    spec = (
        (aligned_height, aligned_width),
        spatial_scale,
        sampling_ratio,
        aligned,
    )
    source = rows_of(grad_output) / _sample_counts(rois, *spec)
    total, parts, entries = 0, [], 0
    for out, index, weight in _align_bags(rois, grad_input.shape, *spec):
        parts.append(
            (
                out[:, None].expand_as(index).flatten(),
                index.flatten(),
                weight.flatten().to(source),
            )
        )
        entries += index.numel()
        if entries > BUDGET:
            total = total + scatter_sum(source, *_join(parts), n * h * w)
            parts, entries = [], 0
    if parts:
        total = total + scatter_sum(source, *_join(parts), n * h * w)
    write_rows(grad_input, total)


def _join(parts: List[Tuple[Tensor, ...]]) -> List[Tensor]:
    return [torch.cat(column) for column in zip(*parts)]


def _max_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
) -> None:
    height, width = grad_input.shape[2:]
    y, x = in_full(argmax_y), in_full(argmax_x)
    cells, weights = _clamped_taps(y, x, height, width)
    weights = weights * (y != -1).unsqueeze(-1)
    values = weights * in_full(grad_output).unsqueeze(-1)
    _scatter_planes(grad_input, rois, cells, values)


def _scatter_planes(
    grad_input: Tensor, rois: Tensor, cells: Tensor, values: Tensor
) -> None:
    """Adds values (R, C, ...) to the cells of each RoI's image planes."""
    n, c, h, w = grad_input.shape
    plane = rois[:, 0].long()[:, None] * c + torch.arange(
        c, device=rois.device
    )
    index = cells.flatten(2) + (plane * (h * w)).unsqueeze(-1)
    total = values.new_zeros(n * c * h * w)
    total.index_add_(0, index.flatten(), values.flatten())
    grad_input.copy_(total.view(n, c, h, w))


def _pool_axis(
    rois: Tensor, axis: int, scale: float, bins: int, length: int
) -> Tuple[Tensor, Tensor, Tensor]:
    """First and past-the-end pixel of each bin (R, bins), and if any."""
    rois = in_full(rois)
    low = rois[:, 1 + axis] * scale
    extent = (rois[:, 3 + axis] + 1) * scale - low
    step, low = (extent / bins)[:, None], low[:, None]
    p = torch.arange(bins, device=rois.device).to(low)
    begin = (p * step + low).floor().clamp(0, length).long()
    end = ((p + 1) * step + low).ceil().clamp(0, length).long()
    return begin, end, (end > begin) & (extent > 0)[:, None]


def _bin_pixels(begin: Tensor, end: Tensor, size: int) -> Tensor:
    """Pixels (R, bins, size) of every bin along one axis.

    A shorter bin repeats its last pixel, which changes no maximum.
    """
    steps = torch.arange(max(size, 1), device=begin.device)
    return torch.minimum(begin[..., None] + steps, end[..., None] - 1).clamp(
        min=0
    )


def _largest(table: Tensor, index: Tensor) -> Tuple[Tensor, Tensor]:
    """Largest of the rows in each row of ``index``, and which row it is."""
    offsets = torch.arange(len(index), device=index.device) * index.size(1)
    best, _, _, where = torch.embedding_bag(
        table, index.flatten(), offsets, False, 2
    )
    return best, where


@one_thread
def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Largest pixel of every bin, and its place in the plane, or -1."""
    n, c, h, w = input.shape
    if not output.numel():
        return
    *rows, tall = _pool_axis(rois, 1, spatial_scale, pooled_height, h)
    *columns, wide = _pool_axis(rois, 0, spatial_scale, pooled_width, w)
    filled = (tall[:, :, None] & wide[:, None, :]).view(-1, 1)
    table, image = rows_of(input), rois[:, 0].long() * (h * w)
    bins = pooled_height * pooled_width
    pooled = table.new_zeros(len(rois), bins, c)
    places = torch.zeros_like(pooled, dtype=torch.long)
    sizes = [(end - begin).amax(1) for begin, end in (rows, columns)]
    for ids in same_size(*sizes, cost=bins):
        y, x = (
            _bin_pixels(begin[ids], end[ids], int(size[ids[0]]))
            for (begin, end), size in zip((rows, columns), sizes)
        )
        pixels = y[:, :, None, :, None] * w + x[:, None, :, None, :]
        pixels = pixels + image[ids].view(-1, 1, 1, 1, 1)
        best, where = _largest(table, pixels.flatten(3).flatten(0, 2))
        pooled[ids] = best.view(len(ids), bins, c)
        places[ids] = where.view(len(ids), bins, c)
    places = places.flatten(0, 1) - image.repeat_interleave(bins)[:, None]
    write_rows(output, pooled.flatten(0, 1) * filled)
    write_rows(argmax, torch.where(filled, places, -1))


@one_thread
def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Writes the gradient of :func:`roi_pool_forward`."""
    if grad_output.numel():
        _scatter_planes(
            grad_input,
            rois,
            argmax.long().clamp(min=0),
            in_full(grad_output) * (argmax >= 0),
        )
