"""Content-aware upsampling (CARAFE, arXiv 1905.02188)."""

from __future__ import annotations

from typing import Iterator, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .sampling import in_full


def _neighbours(
    features: Tensor, masks: Tensor, kernel: int, groups: int, scale: int
) -> Iterator[Tuple[Tensor, Tensor]]:
    """Pairs of a shifted feature map and the mask that weights it.

    The shapes of both broadcast to (N, groups, C / groups, H, scale, W,
    scale): all pixels of the output that share a source pixel see the same
    neighbours, each with weights of its own. Both are views, so that adding
    to them adds to the padded features and to the masks.
    """
    n, c, h, w = features.shape
    half = (kernel - 1) // 2
    h, w = h - 2 * half, w - 2 * half
    features = features.view(n, groups, c // groups, *features.shape[2:])
    masks = masks.view(n, groups, kernel**2, h, scale, w, scale)
    for tap in range(kernel**2):
        y, x = divmod(tap, kernel)
        shifted = features[..., y : y + h, x : x + w]
        yield shifted[..., None, :, None], masks[:, :, tap, None]


def _padded(features: Tensor, kernel: int) -> Tensor:
    return F.pad(in_full(features), [(kernel - 1) // 2] * 4)


def carafe_naive_forward(
    features: Tensor,
    masks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Upsampling by weighted sums of neighbours (arXiv 1905.02188, eq. 5).

    Args:
        features: (N, C, H, W).
        masks: weights (N, group_size * kernel_size^2, H * s, W * s) with
            s = scale_factor.
        output: (N, C, H * s, W * s), written.
        kernel_size: odd side of the neighbourhood; zeros around the map.
        group_size: groups of channels that have masks of their own.
        scale_factor: s.
    """
    padded = _padded(features, kernel_size)
    pairs = _neighbours(
        padded, in_full(masks), kernel_size, group_size, scale_factor
    )
    total = sum(pixels * weights for pixels, weights in pairs)
    output.copy_(total.view_as(output))


def carafe_naive_backward(
    top_grad: Tensor,
    features: Tensor,
    masks: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Writes the gradients by the features and the masks."""
    walk = (kernel_size, group_size, scale_factor)
    padded, masks = _padded(features, kernel_size), in_full(masks)
    grads = torch.zeros_like(padded), torch.zeros_like(masks)
    n, c, h, w = features.shape
    s = scale_factor
    top = in_full(top_grad).view(n, group_size, -1, h, s, w, s)
    for (pixels, weights), (to_pixels, to_weights) in zip(
        _neighbours(padded, masks, *walk), _neighbours(*grads, *walk)
    ):
        to_pixels += (top * weights).sum((4, 6), keepdim=True)
        to_weights += (top * pixels).sum(2, keepdim=True)
    half = (kernel_size - 1) // 2
    bottom_grad.copy_(grads[0][:, :, half : half + h, half : half + w])
    mask_grad.copy_(grads[1])


def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    **walk: int,
) -> None:
    """As :func:`carafe_naive_forward`; only one of the buffers is used.

    mmcv keeps ``rfeatures``, not the features, for the backward pass.
    """
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, **walk)


def carafe_backward(
    top_grad: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rtop_grad: Tensor,
    rbottom_grad_hs: Tensor,
    rbottom_grad: Tensor,
    rmask_grad: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    **walk: int,
) -> None:
    """As :func:`carafe_naive_backward`; the four buffers are not used."""
    carafe_naive_backward(
        top_grad, rfeatures, masks, bottom_grad, mask_grad, **walk
    )
