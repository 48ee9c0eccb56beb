"""Three operators that ONNX has and PyTorch lacks, or that need a loop.

Each has three forms: eager PyTorch (mmcv's operators compute it), its name
in the exported graph, and its meaning there (:mod:`.meanings`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.onnx import symbolic_helper

DOMAIN = 'mmconvnext_deploy'
OPSET = 20

_library = torch.library.Library(DOMAIN, 'DEF')
_library.define('nms_keep(Tensor boxes, Tensor scores, float iou) -> Tensor')
_library.define(
    'soft_nms(Tensor boxes, Tensor scores, int count, int method, '
    'float iou, float sigma, float min_score) -> Tensor'
)
_library.define(
    'roi_align(Tensor x, Tensor rois, int height, int width, float scale, '
    'int ratio, bool aligned) -> Tensor'
)

# Scores of what does not take part; a valid score is never negative.
INVALID = -1.0
# Of soft suppression.
METHODS = ('naive', 'linear', 'gaussian')


def nms_keep(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """Which boxes survive greedy suppression, each group by itself.

    Args:
        boxes: ``(G, B, 4)``, x1, y1, x2, y2.
        scores: ``(G, B)``; negative ones take no part.
        iou: a box with more overlap with a better one is removed.

    Returns:
        ``(G, B)`` float32, 1 for a survivor, 0 else.
    """
    return getattr(torch.ops, DOMAIN).nms_keep(boxes, scores, iou)


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    count: int,
    method: str,
    iou: float,
    sigma: float,
    min_score: float,
) -> Tensor:
    """Pick the best box ``count`` times; others lose score by their overlap.

    Soft-NMS (arXiv 1704.04503). A score never grows, so the picks come in
    the order of their scores, and the first ``count`` are those of a run to
    the end.

    Args:
        boxes: ``(N, B, 4)``.
        scores: ``(N, B)``; negative ones take no part.
        count: picks, D.
        method: one of :data:`METHODS`.
        iou: from which overlap the naive and the linear kind act.
        sigma: width of the gaussian kind.
        min_score: a box below is not picked; the first pick is not asked.

    Returns:
        ``(N, D, 2)`` float32: index of the box and its score, which is
        negative where nothing was left.
    """
    return getattr(torch.ops, DOMAIN).soft_nms(
        boxes,
        scores,
        count,
        METHODS.index(method),
        iou,
        sigma,
        min_score,
    )


def roi_align(
    x: Tensor,
    rois: Tensor,
    height: int,
    width: int,
    scale: float,
    ratio: int,
    aligned: bool,
) -> Tensor:
    """Average-pool regions as mmcv's RoIAlign does.

    Args:
        x: ``(N, C, H, W)``.
        rois: ``(R, 5)``: image, x1, y1, x2, y2 in pixels of the input.
        height, width: bins.
        scale: pixels of ``x`` per pixel of the input.
        ratio: samples per bin and side; 0 for as many as there are pixels.
        aligned: shift by half a pixel.

    Returns:
        ``(R, C, height, width)``.
    """
    return getattr(torch.ops, DOMAIN).roi_align(
        x, rois, height, width, scale, ratio, aligned
    )


def _nms_keep(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    from mmcv.ops import nms

    keep = torch.zeros_like(scores)
    for row, box, score in zip(keep, boxes, scores):
        places = (score >= 0).nonzero()[:, 0]
        if len(places):
            found = nms(box[places], score[places], iou)[1]
            row[places[found]] = 1
    return keep


def _soft_nms(
    boxes: Tensor,
    scores: Tensor,
    count: int,
    method: int,
    iou: float,
    sigma: float,
    min_score: float,
) -> Tensor:
    from mmcv.ops import soft_nms as compiled

    name = METHODS[method]
    picks = boxes.new_zeros(len(boxes), count, 2)
    picks[..., 1] = INVALID
    for row, box, score in zip(picks, boxes, scores):
        places = (score >= 0).nonzero()[:, 0]
        if len(places):
            dets, found = compiled(
                box[places], score[places], iou, sigma, min_score, name
            )
            found = places[found[:count]]
            row[: len(found), 0] = found.to(row)
            row[: len(found), 1] = dets[:count, 4]
    return picks


def _roi_align(
    x: Tensor,
    rois: Tensor,
    height: int,
    width: int,
    scale: float,
    ratio: int,
    aligned: bool,
) -> Tensor:
    from mmcv.ops import roi_align as compiled

    size = (height, width)
    return compiled(x, rois, size, scale, ratio, 'avg', aligned)


for _function in (_nms_keep, _soft_nms, _roi_align):
    _library.impl(
        _function.__name__[1:], _function, 'CompositeExplicitAutograd'
    )


@symbolic_helper.parse_args('v', 'v', 'f')
def _write_nms_keep(g: Any, boxes: Any, scores: Any, iou: float) -> Any:
    node = g.op(f'{DOMAIN}::NmsKeep', boxes, scores, iou_f=iou)
    return node.setType(scores.type())


@symbolic_helper.parse_args('v', 'v', 'i', 'i', 'f', 'f', 'f')
def _write_soft_nms(
    g: Any,
    boxes: Any,
    scores: Any,
    count: int,
    method: int,
    iou: float,
    sigma: float,
    min_score: float,
) -> Any:
    name = f'SoftNms{METHODS[method].capitalize()}'
    options = dict(count_i=count, iou_f=iou, sigma_f=sigma)
    node = g.op(
        f'{DOMAIN}::{name}', boxes, scores, min_score_f=min_score, **options
    )
    return node.setType(boxes.type().with_sizes([None, count, 2]))


@symbolic_helper.parse_args('v', 'v', 'i', 'i', 'f', 'i', 'b')
def _write_roi_align(
    g: Any,
    x: Any,
    rois: Any,
    height: int,
    width: int,
    scale: float,
    ratio: int,
    aligned: bool,
) -> Any:
    mode = 'half_pixel' if aligned else 'output_half_pixel'
    options = dict(height_i=height, width_i=width, scale_f=scale)
    node = g.op(
        f'{DOMAIN}::RoiAlign', x, rois, ratio_i=ratio, mode_s=mode, **options
    )
    return node.setType(x.type().with_sizes([None, None, height, width]))


def register() -> None:
    """Tell torch's exporter the names of the operators."""
    for write in (_write_nms_keep, _write_soft_nms, _write_roi_align):
        name = f'{DOMAIN}::{write.__name__.replace("_write_", "")}'
        torch.onnx.register_custom_op_symbolic(name, write, OPSET)
