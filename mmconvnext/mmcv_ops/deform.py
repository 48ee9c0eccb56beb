"""Deformable convolution and masked convolution."""

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


def _output_size(
    input: Tensor, weight: Tensor, geometry: _Geometry
) -> List[int]:
    """Height and width of the convolution's output."""
    return [
        (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, pad, dilation in zip(
            input.shape[2:], weight.shape[2:], *geometry[:3]
        )
    ]


def _first(x: Tensor, name: str, channels: int, size: List[int]) -> Tensor:
    """The first values of each image of ``x``, as (N, channels, *size).

    DyHead computes offsets and masks once and uses them at strides and on
    levels where the output is smaller. mmcv's modulated kernels read the
    flat memory of an image as that of an output-sized map, and a checkpoint
    that was trained this way needs the same values. Values after the last
    one that is read get gradient zero.
    """
    wanted = channels * size[0] * size[1]
    flat = x.flatten(1)
    if flat.size(1) < wanted:
        raise RuntimeError(
            f'modulated_deform_conv2d: {name} of shape {tuple(x.shape)} is '
            f'smaller than the output needs: ({len(x)}, {channels}, '
            f'{size[0]}, {size[1]})'
        )
    return flat[:, :wanted].view(-1, channels, *size)


def _modulated(
    conv: Callable,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    geometry: _Geometry,
) -> Tensor:
    """``conv`` with offsets and masks of the output's size."""
    size = _output_size(input, weight, geometry)
    taps = geometry.offset_groups * weight.size(2) * weight.size(3)
    offset = _first(offset, 'offset', 2 * taps, size)
    return conv(
        input, weight, offset, _first(mask, 'mask', taps, size), geometry
    )


def _checked(
    offset: Tensor, input: Tensor, weight: Tensor, geometry: _Geometry
) -> None:
    """Raises an error for offsets not of the output's size, as mmcv does."""
    size = _output_size(input, weight, geometry)
    taps = geometry.offset_groups * weight.size(2) * weight.size(3)
    wanted = (len(input), 2 * taps, *size)
    if tuple(offset.shape) != wanted:
        raise RuntimeError(
            f'deform_conv2d: offset must have shape {wanted}, got '
            f'{tuple(offset.shape)}'
        )


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
    geometry = _geometry_v1(**walk)
    _checked(offset, input, weight, geometry)
    inputs = (in_full(x) for x in (input, weight, offset))
    output.copy_(conv(*inputs, None, geometry))


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
    result = _modulated(conv, *inputs, _geometry_v2(**walk))
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
        lambda i, w, o, m: _modulated(conv, i, w, o, m, geometry),
        [in_full(x) for x in (input, weight, offset, mask)],
        [0, 1, 2, 3],
        grad_output,
    )
    targets = (grad_input, grad_weight, grad_offset, grad_mask)
    for target, grad in zip(targets, grads):
        target.copy_(grad)
    if with_bias:
        grad_bias.copy_(in_full(grad_output).sum((0, 2, 3)))


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
