"""Boxes and regions of interest on tensors of constant length."""

from __future__ import annotations

import math
from typing import Any, List, Sequence, Tuple

import torch
from torch import Tensor, nn

from .operators import roi_align

Size = Tuple[Any, Any]  # height and width, which the tracer may follow


def gather(rows: Tensor, index: Tensor) -> Tensor:
    """Pick rows: ``(N, B, 4)`` by ``(N, D)`` to ``(N, D, 4)``."""
    return rows.gather(1, index[..., None].expand(-1, -1, rows.shape[2]))


def stages_of(part: nn.Module) -> List[nn.Module]:
    """The stages of a cascade, or the only one."""
    return list(part) if isinstance(part, nn.ModuleList) else [part]


def decode(coder: Any, boxes: Tensor, deltas: Tensor, size: Size) -> Tensor:
    """Move boxes by deltas and clip them, ``(..., 4)`` each.

    DeltaXYWHBBoxCoder's arithmetic in its order: width and height are
    multiplied by exponentials, centres move in units of them (arXiv
    1311.2524, appendix C). The host's own clips in place, with a size that
    it takes for a constant.

    Args:
        coder: of the host.
        boxes: x1, y1, x2, y2.
        deltas: x, y, w, h.
        size: of the image.
    """
    deltas = deltas * deltas.new_tensor(coder.stds)
    deltas = deltas + deltas.new_tensor(coder.means)
    limit = abs(math.log(16 / 1000))
    sides = boxes[..., 2:] - boxes[..., :2]
    centre = (boxes[..., :2] + boxes[..., 2:]) * 0.5
    centre = centre + sides * deltas[..., :2]
    half = sides * deltas[..., 2:].clamp(-limit, limit).exp() * 0.5
    moved = torch.cat([centre - half, centre + half], -1)
    if not coder.clip_border:
        return moved
    height, width = (torch.as_tensor(side).to(moved) for side in size)
    edges = torch.stack([width, height, width, height])
    return torch.minimum(moved.clamp(min=0), edges)


def refine(
    head: nn.Module, boxes: Tensor, logits: Tensor, deltas: Tensor, size: Size
) -> Tensor:
    """Boxes for a cascade's next stage: those of the most probable class.

    Args:
        head: of the stage that gave ``logits`` and ``deltas``.
        boxes: that went into it, ``(R, 4)``.
        logits: ``(R, K + 1)``, the background last.
        deltas: ``(R, 4 K)``, or ``(R, 4)`` from a head that does not ask
            for the class.
        size: of the image.
    """
    if not head.reg_class_agnostic:
        label = logits[:, :-1].argmax(1)
        deltas = deltas.reshape(-1, head.num_classes, 4)
        deltas = gather(deltas, label[:, None])[:, 0]
    return decode(head.bbox_coder, boxes, deltas, size)


class RegionPool(nn.Module):
    """SingleRoIExtractor: each region from the level that fits its size.

    Every level pools all regions, those of other levels as boxes of no
    extent, which cost nothing: shapes stay constant.

    Args:
        extractor: of MMDetection.
    """

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, maps: Sequence[Tensor], boxes: Tensor) -> Tensor:
        """Pool ``(N, D, 4)`` boxes of N images to ``(N D, C, h, w)``."""
        n, count = boxes.shape[0], boxes.shape[1]
        image = torch.arange(n, device=boxes.device).to(boxes)
        image = image[:, None].expand(n, count).reshape(-1, 1)
        boxes = boxes.reshape(-1, 4)
        rois = torch.cat([image, boxes], 1)
        layers = self.extractor.roi_layers
        level = self.extractor.map_roi_levels(rois, len(layers))
        # Runtimes do not agree on boxes of no extent; mmcv pools zeros.
        filled = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        pooled = []
        for i, (layer, y) in enumerate(zip(layers, maps)):
            here = ((level == i) & filled)[:, None]
            part = torch.where(here, boxes, torch.zeros_like(boxes))
            part = _pool(layer, y, torch.cat([image, part], 1))
            pooled.append((here[..., None, None], part))
        total = torch.zeros_like(pooled[0][1])
        for here, part in pooled:
            total = torch.where(here, part, total)
        return total


def _pool(layer: nn.Module, x: Tensor, rois: Tensor) -> Tensor:
    height, width = layer.output_size
    scale, ratio = float(layer.spatial_scale), int(layer.sampling_ratio)
    return roi_align(x, rois, height, width, scale, ratio, bool(layer.aligned))
