"""Deformable pooling of regions (arXiv 1703.06211, section 2.2)."""

from __future__ import annotations

import math
from typing import List, Optional, Tuple

import torch
from torch import Tensor

from .roi import same_size
from .sampling import gradients_of, in_full, weighted_sum


def _edge_taps(at: Tensor, length: int) -> Tuple[Tensor, Tensor]:
    """Two pixels and weights of linear reading along one axis.

    Points up to one pixel outside read the border pixel, points beyond it
    zero, as in RoIAlign. Both results have one more axis, of 2.
    """
    inside = ((at >= -1) & (at <= length)).to(at)
    at = at.clamp(0, length - 1)
    low = at.detach().floor()
    high_part = at - low
    pixels = torch.stack([low, (low + 1).clamp(max=length - 1)], -1).long()
    weights = torch.stack([1 - high_part, high_part], -1)
    return pixels, weights * inside.unsqueeze(-1)


def _samples(
    start: Tensor, step: Tensor, shift: Tensor, axis: int, count: int
) -> Tensor:
    """Coordinates (R, PH, PW, count) of a bin's samples along one axis."""
    shape = (-1, 1) if axis == 0 else (1, -1)
    bins = torch.arange(shift.size(1 + axis)).to(start).view(shape)
    k = (torch.arange(count).to(start) + 0.5) / max(count, 1)
    start, step = (x.view(-1, 1, 1) for x in (start, step))
    at = start + shift + bins * step
    return at.unsqueeze(-1) + k * step.unsqueeze(-1)


def _bags(
    rois: Tensor,
    shift: Tensor,
    frame: Tuple[Tensor, Tensor],
    counts: List[int],
    shape: torch.Size,
) -> Tuple[Tensor, Tensor]:
    """Table rows and weights, (R, PH, PW, samples * 4), of some regions."""
    pixels, weights = zip(
        *(
            _edge_taps(
                _samples(start, step, shift[:, axis], axis, counts[axis]),
                shape[axis - 2],
            )
            for axis, (start, step) in enumerate(zip(*frame))
        )
    )
    (ys, xs), (wy, wx) = ([x.flatten(3) for x in p] for p in (pixels, weights))
    image = rois[:, 0].long().view(-1, 1, 1, 1, 1) * shape[2]
    rows = (image + ys.unsqueeze(-1)) * shape[3] + xs.unsqueeze(-2)
    taps = wy.unsqueeze(-1) * wx.unsqueeze(-2) / math.prod(counts)
    return rows.flatten(3), taps.flatten(3)


def _deform_pool(
    input: Tensor,
    offset: Optional[Tensor],
    rois: Tensor,
    size: Tuple[int, int],
    scale: float,
    ratio: int,
    gamma: float,
) -> Tensor:
    """Mean of bilinear samples in shifted bins; differentiable by both.

    Bin (i, j) of a region of size (h, w) is shifted by gamma * (h dy_ij,
    w dx_ij). ``offset`` is (R, 2, PH, PW), dx first.
    """
    x1, y1, x2, y2 = (rois[:, 1:] * scale - 0.5).t()
    start, extent = torch.stack([y1, x1]), torch.stack([y2 - y1, x2 - x1])
    step = extent / extent.new_tensor(size)[:, None]
    grid = torch.full_like(step, ratio) if ratio > 0 else step.ceil()
    if offset is None:
        offset = input.new_zeros(len(rois), 2, *size)
    shift = gamma * offset.flip(1) * extent.t()[:, :, None, None]
    table = input.permute(0, 2, 3, 1).flatten(0, 2)
    output = input.new_zeros(len(rois), *size, input.size(1))
    for ids in same_size(*grid.clamp(min=0).long(), cost=4 * math.prod(size)):
        counts = grid[:, ids[0]].long().tolist()
        if min(counts) < 1:  # no samples: the mean is zero
            continue
        frame = start[:, ids], step[:, ids]
        bags = _bags(rois[ids], shift[ids], frame, counts, input.shape)
        sums = weighted_sum(table, *(x.flatten(0, 2) for x in bags))
        sums = sums.view(len(ids), *size, -1)
        output = output.index_copy(0, ids, sums)
    return output.permute(0, 3, 1, 2)


def deform_roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Writes (R, C, pooled_height, pooled_width).

    Args:
        input: (N, C, H, W).
        rois: (R, 5): image, x1, y1, x2, y2 in pixels of the image.
        offset: (R, 2, pooled_height, pooled_width), x first, or empty for
            no shifts.
    """
    output.copy_(
        _deform_pool(
            in_full(input),
            in_full(offset) if offset.numel() else None,
            in_full(rois),
            (pooled_height, pooled_width),
            spatial_scale,
            sampling_ratio,
            gamma,
        )
    )


def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Writes the gradients by the input and the offsets.

    They are the derivatives of what the forward pass computes. mmcv's CUDA
    kernel differs for samples up to one pixel outside the map, where it
    extrapolates the gradient by the offset.
    """
    walk = (
        in_full(rois),
        (pooled_height, pooled_width),
        spatial_scale,
        sampling_ratio,
        gamma,
    )
    shifted = bool(offset.numel())
    grads = gradients_of(
        lambda x, *shift: _deform_pool(x, *(shift or [None]), *walk),
        [in_full(x) for x in (input, offset)[: 1 + shifted]],
        [0, 1][: 1 + shifted],
        grad_output,
    )
    for target, grad in zip((grad_input, grad_offset), grads):
        target.copy_(grad)
