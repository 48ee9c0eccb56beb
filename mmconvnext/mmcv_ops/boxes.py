"""Suppression of boxes: greedy, matched and soft."""

from __future__ import annotations

from typing import Callable, List

import numpy as np
import torch
from torch import Tensor

from .sampling import in_full, one_thread

Array = np.ndarray
# Boxes decided at once, and entries of the IoU matrix computed at once; these
# should stay in the cache.
NMS_BLOCK = 128
NMS_TILE = 1 << 17


def _with_area(boxes: Tensor, offset: int) -> Tensor:
    """Boxes (N, 4) and their areas, as (5, N)."""
    x1, y1, x2, y2 = in_full(boxes).t()
    return torch.stack(
        [x1, y1, x2, y2, (x2 - x1 + offset) * (y2 - y1 + offset)]
    )


def _iou(a: Tensor, b: Tensor, offset: int) -> Tensor:
    """IoU (N, M) of boxes and areas (5, N) with others (5, M)."""
    a, b = a.unsqueeze(2), b.unsqueeze(1)
    width, height = (
        torch.minimum(a[i + 2], b[i + 2])
        .sub_(torch.maximum(a[i], b[i]))
        .add_(offset)
        .clamp_(min=0)
        for i in (0, 1)
    )
    inter = width.mul_(height)
    return inter / (a[4] + b[4]).sub_(inter)


def _settle(hits: Tensor) -> Tensor:
    """Greedy survivors of a block: hits[i, j] says that i removes j > i.

    Box i is kept unless a kept box removes it. Every pass decides at least
    the boxes one step further down the chain of removals; chains are short,
    so a few passes are enough.
    """
    alive = hits.new_ones(len(hits))
    while True:
        survives = ~(hits & alive.unsqueeze(1)).any(0)
        if torch.equal(survives, alive):
            return alive
        alive = survives


def _greedy(boxes: Tensor, removes: Callable, offset: int) -> Tensor:
    """Which of the boxes (5, N), best first, survive."""
    count = boxes.size(1)
    keep = torch.ones(count, dtype=torch.bool, device=boxes.device)
    later = torch.ones(
        NMS_BLOCK, NMS_BLOCK, dtype=torch.bool, device=boxes.device
    ).triu(1)
    for start in range(0, count, NMS_BLOCK):
        stop = start + NMS_BLOCK
        block = start + keep[start:stop].nonzero()[:, 0]
        rows = boxes[:, block]
        hits = removes(_iou(rows, rows, offset))
        alive = _settle(hits & later[: len(block), : len(block)])
        keep[block] = alive
        rows = rows[:, alive]
        rest = stop + keep[stop:].nonzero()[:, 0]
        for part in rest.split(NMS_TILE // max(rows.size(1), 1)):
            hit = removes(_iou(rows, boxes[:, part], offset)).any(0)
            keep[part] = ~hit
    return keep


@one_thread
def nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int
) -> Tensor:
    """Indices of the kept boxes, best first."""
    order = scores.sort(0, descending=True)[1]
    ranked = _with_area(boxes, offset)[:, order]
    return order[_greedy(ranked, lambda iou: iou > iou_threshold, offset)]


@one_thread
def nms_match(dets: Tensor, iou_threshold: float) -> List[List[int]]:
    """Groups of a kept box and the boxes that it removed, best first."""
    order = dets[:, 4].sort(0, descending=True)[1]
    ranked = _with_area(dets[:, :4], 0)[:, order]

    def removes(iou: Tensor) -> Tensor:
        return iou >= iou_threshold

    keep = _greedy(ranked, removes, 0)
    kept, gone = keep.nonzero()[:, 0], (~keep).nonzero()[:, 0]
    owner = torch.full_like(gone, -1)
    for first, block in enumerate(kept.split(NMS_BLOCK)):
        hits = removes(_iou(ranked[:, block], ranked[:, gone], 0))
        # A box removes only boxes of lower score.
        hits &= block[:, None] < gone
        found, row = hits.max(0)
        new = found & (owner < 0)
        owner[new] = row[new] + first * NMS_BLOCK
    groups = [[box] for box in order[kept].tolist()]
    for box, group in zip(order[gone].tolist(), owner.tolist()):
        groups[group].append(box)
    return groups


# Method of soft_nms to the factor of a score: naive, linear, gaussian.
SOFT_WEIGHTS = (
    lambda iou, threshold, sigma: ~(iou >= threshold),
    lambda iou, threshold, sigma: np.where(iou >= threshold, 1 - iou, 1),
    lambda iou, threshold, sigma: np.exp(-(iou * iou) / sigma),
)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Writes re-scored boxes into ``dets`` and returns their indices.

    Equal scores are taken in the order in which the compiled operator finds
    them: it swaps the best box to the front and fills the place of a
    dropped box from the end. Each box depends on the one before and the
    arrays are small, so this runs in numpy: torch takes five times as long.
    """
    state = torch.cat([_with_area(boxes, offset), in_full(scores)[None]])
    state = state.detach().cpu().numpy()
    index = np.arange(len(scores))
    kept = 0
    with np.errstate(divide='ignore', invalid='ignore'):
        while kept < len(index):
            best = kept + int(state[5, kept:].argmax())
            _swap(state, index, kept, best)
            rest = state[:, kept + 1 :]
            iou = _iou_of_one(state[:5, kept], rest, offset)
            rest[5] *= SOFT_WEIGHTS[method](iou, iou_threshold, sigma)
            kept += 1
            size = kept + _drop(rest, index[kept:], rest[5] < min_score)
            state, index = state[:, :size], index[:size]
    found = torch.from_numpy(state[[0, 1, 2, 3, 5]].T.copy())
    dets[: len(index)] = found.to(dets)
    return torch.from_numpy(index).to(boxes.device)


def _iou_of_one(box: Array, others: Array, offset: int) -> Array:
    x1, y1, x2, y2, area = others[:5]
    width = np.minimum(box[2], x2) - np.maximum(box[0], x1) + offset
    height = np.minimum(box[3], y2) - np.maximum(box[1], y1) + offset
    inter = np.maximum(width, 0) * np.maximum(height, 0)
    return inter / (box[4] + area - inter)


def _swap(state: Array, index: Array, i: int, j: int) -> None:
    state[:, [i, j]] = state[:, [j, i]]
    index[[i, j]] = index[[j, i]]


def _drop(state: Array, index: Array, dropped: Array) -> int:
    """Fills dropped places with survivors from the end; returns the size."""
    size = len(index) - int(dropped.sum())
    if size == len(index):
        return size
    holes = dropped[:size].nonzero()[0]
    if len(holes):
        movers = size + (~dropped[size:]).nonzero()[0][::-1]
        state[:, holes] = state[:, movers]
        index[holes] = index[movers]
    return size
