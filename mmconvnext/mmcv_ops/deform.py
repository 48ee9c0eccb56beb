"""Deformable convolution and attention, and masked convolution."""

from __future__ import annotations

import math
from typing import Callable, List, NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .sampling import bilinear_taps, gradients_of, in_full, weighted_sum


class _Geometry(NamedTuple):
    """How a kernel walks over the image; pairs are (y, x)."""

    stride: Tuple[int, int]
    padding: Tuple[int, int]
    dilation: Tuple[int, int]
    groups: int
    offset_groups: int


def _points(
    offset: Tensor, kernel: List[int], geometry: _Geometry
) -> List[Tensor]:
    """Rows and columns read, each (N, offset groups, taps, H', W')."""
    n, _, h, w = offset.shape
    offset = offset.view(n, geometry.offset_groups, -1, 2, h, w)
    points = []
    for axis, shape in enumerate(((-1, 1), (1, -1))):
        cell = torch.arange(offset.size(4 + axis), device=offset.device)
        tap = torch.arange(kernel[axis], device=offset.device).view(shape)
        start = tap * geometry.dilation[axis] - geometry.padding[axis]
        start = start.expand(*kernel).reshape(-1, 1, 1)
        points.append(
            start
            + cell.view(shape) * geometry.stride[axis]
            + offset[:, :, :, axis]
        )
    return points


def _deform_conv(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Optional[Tensor],
    geometry: _Geometry,
) -> Tensor:
    """Convolution of bilinear samples, differentiable in all tensors."""
    n, c, h, w = input.shape
    out, _, *kernel = weight.shape
    g, d = geometry.groups, geometry.offset_groups
    cells, taps = bilinear_taps(*_points(offset, kernel, geometry), h, w)
    if mask is not None:
        taps = taps * mask.view(taps.shape[:-1]).unsqueeze(-1)
    image = torch.arange(n * d, device=input.device) * (h * w)
    cells = cells + image.view(n, d, 1, 1, 1, 1)
    table = (
        input.reshape(n * d, c // d, h * w).transpose(1, 2).reshape(-1, c // d)
    )
    columns = weighted_sum(table, cells.view(-1, 4), taps.view(-1, 4))
    columns = columns.view(n, d, math.prod(kernel), -1, c // d)
    columns = columns.permute(0, 1, 4, 2, 3).reshape(
        n, g, c // g * math.prod(kernel), -1
    )
    output = weight.reshape(g, out // g, -1) @ columns
    return output.view(n, out, *offset.shape[2:])


def torchvision_conv(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Optional[Tensor],
    geometry: _Geometry,
) -> Tensor:
    modulated = mask is not None
    mask = mask if modulated else input.new_zeros(len(input), 1)
    return torch.ops.torchvision.deform_conv2d(
        input,
        weight,
        offset,
        mask,
        input.new_zeros(len(weight)),
        *geometry.stride,
        *geometry.padding,
        *geometry.dilation,
        geometry.groups,
        geometry.offset_groups,
        modulated,
    )


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    conv: Callable = _deform_conv,
    im2col_step: int = 1,
    **walk: int,
) -> None:
    """Deformable convolution; the two buffers are not used."""
    inputs = (in_full(x) for x in (input, weight, offset))
    output.copy_(conv(*inputs, None, _geometry_v1(**walk)))


def _geometry_v1(
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
) -> _Geometry:
    return _Geometry(
        (dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group
    )


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    conv: Callable = _deform_conv,
    im2col_step: int = 1,
    **walk: int,
) -> None:
    """Writes the gradients by the input and the offsets."""
    geometry = _geometry_v1(**walk)
    grads = gradients_of(
        lambda i, w, o: conv(i, w, o, None, geometry),
        [in_full(x) for x in (input, weight, offset)],
        [0, 2],
        grad_output,
    )
    grad_input.copy_(grads[0])
    grad_offset.copy_(grads[1])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float,
    conv: Callable = _deform_conv,
    im2col_step: int = 1,
    **walk: int,
) -> None:
    """Adds ``scale`` times the gradient by the weight."""
    geometry = _geometry_v1(**walk)
    inputs = [in_full(x) for x in (input, grad_weight, offset)]
    (grad,) = gradients_of(
        lambda i, w, o: conv(i, w, o, None, geometry), inputs, [1], grad_output
    )
    grad_weight.add_(grad, alpha=scale)


def _geometry_v2(
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
) -> _Geometry:
    return _Geometry(
        (stride_h, stride_w),
        (pad_h, pad_w),
        (dilation_h, dilation_w),
        group,
        deformable_group,
    )


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    with_bias: bool,
    conv: Callable = _deform_conv,
    **walk: int,
) -> None:
    """Deformable convolution whose samples are weighted by ``mask``."""
    inputs = (in_full(x) for x in (input, weight, offset, mask))
    result = conv(*inputs, _geometry_v2(**walk))
    output.copy_(result + bias.view(-1, 1, 1) if with_bias else result)


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    with_bias: bool,
    conv: Callable = _deform_conv,
    **walk: int,
) -> None:
    """Writes all gradients of :func:`modulated_deform_conv_forward`."""
    geometry = _geometry_v2(**walk)
    grads = gradients_of(
        lambda i, w, o, m: conv(i, w, o, m, geometry),
        [in_full(x) for x in (input, weight, offset, mask)],
        [0, 1, 2, 3],
        grad_output,
    )
    targets = (grad_input, grad_weight, grad_offset, grad_mask)
    for target, grad in zip(targets, grads):
        target.copy_(grad)
    if with_bias:
        grad_bias.copy_(in_full(grad_output).sum((0, 2, 3)))


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


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Writes the patches around the chosen pixels as columns."""
    padded = F.pad(im[0], (pad_w, kernel_w, pad_h, kernel_h))
    y = torch.arange(kernel_h, device=im.device).view(-1, 1, 1)
    x = torch.arange(kernel_w, device=im.device).view(-1, 1)
    col.copy_(padded[:, y + mask_h_idx, x + mask_w_idx].view_as(col))


def masked_col2im_forward(
    col: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    im: Tensor,
    height: int,
    width: int,
    channels: int,
) -> None:
    """Writes columns (C, M) to the chosen pixels of an image."""
    im[0, :, mask_h_idx, mask_w_idx] = col
