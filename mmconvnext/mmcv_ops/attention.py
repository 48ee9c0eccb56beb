"""Attention over places: deformable (DETR) and point-wise (PSANet)."""

from __future__ import annotations

from typing import Tuple

import torch
from torch import Tensor

from .sampling import bilinear_taps, gradients_of, in_full, weighted_sum


def _attend(
    value: Tensor,
    locations: Tensor,
    attention: Tensor,
    shapes: Tensor,
    starts: Tensor,
) -> Tensor:
    """Multi-scale deformable attention, differentiable in the first three."""
    n, pixels, heads, _ = value.shape
    height, width = (x.view(-1, 1) for x in shapes.unbind(1))
    cells, taps = bilinear_taps(
        locations[..., 1] * height - 0.5,
        locations[..., 0] * width - 0.5,
        height,
        width,
    )
    image = torch.arange(n, device=value.device).view(-1, 1, 1, 1, 1, 1)
    head = torch.arange(heads, device=value.device).view(-1, 1, 1, 1)
    cells = cells + starts.view(-1, 1, 1) + image * pixels
    weights = taps * attention.unsqueeze(-1)
    rows = n * locations.size(1) * heads
    output = weighted_sum(
        value.reshape(-1, value.size(3)),
        (cells * heads + head).view(rows, -1),
        weights.reshape(rows, -1),
    )
    return output.view(n, locations.size(1), -1)


def ms_deform_attn_forward(
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    locations: Tensor,
    attention: Tensor,
    im2col_step: int,
) -> Tensor:
    """Attention output (N, queries, heads * channels)."""
    inputs = (in_full(x) for x in (value, locations, attention))
    return _attend(*inputs, shapes, starts).to(value)


def ms_deform_attn_backward(
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    locations: Tensor,
    attention: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_locations: Tensor,
    grad_attention: Tensor,
    im2col_step: int,
) -> None:
    """Writes the gradients of :func:`ms_deform_attn_forward`."""
    grads = gradients_of(
        lambda *x: _attend(*x, shapes, starts),
        [in_full(x) for x in (value, locations, attention)],
        [0, 1, 2],
        grad_output,
    )
    targets = (grad_value, grad_locations, grad_attention)
    for target, grad in zip(targets, grads):
        target.copy_(grad)


def _along(
    length: int, mask: int, half: int, device: torch.device
) -> Tuple[Tensor, Tensor]:
    """Where a pixel's mask overlaps the map, along one axis.

    Returns (length, length) tensors over (centre h, place h'): the mask's
    entry h' - h + half, clamped, and whether it was inside the mask.
    """
    place = torch.arange(length, device=device)
    entry = place - place.view(-1, 1) + half
    return entry.clamp(0, mask - 1), (entry >= 0) & (entry < mask)


def _psa_index(
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    halves: Tuple[int, int],
    device: torch.device,
) -> Tuple[Tuple[Tensor, ...], Tensor]:
    """Index into (h_mask, w_mask, H, W) of the full (H, W, H', W') map."""
    rows, rows_inside = _along(h_feature, h_mask, halves[0], device)
    columns, columns_inside = _along(w_feature, w_mask, halves[1], device)
    index = (
        rows[:, None, :, None],
        columns[None, :, None, :],
        torch.arange(h_feature, device=device).view(-1, 1, 1, 1),
        torch.arange(w_feature, device=device).view(-1, 1, 1),
    )
    inside = rows_inside[:, None, :, None] & columns_inside[None, :, None, :]
    return index, inside


def psamask_forward(
    input: Tensor,
    output: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Spreads each pixel's attention mask over the whole map (PSANet).

    Args:
        input: (N, h_mask * w_mask, H, W): the mask around each pixel.
        output: (N, H * W, H, W), written. Channels are places and pixels
            are centres of masks for ``psa_type`` 0 (collect), the other way
            round for 1 (distribute).
    """
    index, inside = _psa_index(
        h_feature,
        w_feature,
        h_mask,
        w_mask,
        (half_h_mask, half_w_mask),
        input.device,
    )
    masks = input.view(num_, h_mask, w_mask, h_feature, w_feature)
    full = masks[(slice(None), *index)] * inside
    full = full.flatten(3).flatten(1, 2)  # (N, centres, places)
    output.copy_((full if psa_type else full.mT).reshape_as(output))


def psamask_backward(
    grad_output: Tensor,
    grad_input: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Writes the gradient by the masks."""
    index, inside = _psa_index(
        h_feature,
        w_feature,
        h_mask,
        w_mask,
        (half_h_mask, half_w_mask),
        grad_output.device,
    )
    size = h_feature * w_feature
    full = grad_output.reshape(num_, size, size)
    full = (full if psa_type else full.mT).reshape(
        num_, h_feature, w_feature, h_feature, w_feature
    )
    grad = grad_input.new_zeros(num_, h_mask, w_mask, h_feature, w_feature)
    # Clamped entries add zeros to an entry that has a gradient of its own.
    grad.index_put_(
        (torch.arange(num_, device=grad.device).view(-1, 1, 1, 1, 1), *index),
        (full * inside).to(grad),
        accumulate=True,
    )
    grad_input.copy_(grad.view_as(grad_input))
