"""Suppression of boxes: hard and soft, by class or over all of them."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Tuple

import torch
from torch import Tensor

from .operators import INVALID, nms_keep, soft_nms
from .regions import gather

# Options of the hosts' suppression that can be exported, with the values
# that hold where a config is silent.
OPTIONS: Dict[str, Dict[str, Any]] = {
    'nms': dict(iou_threshold=None, class_agnostic=False),
    'soft_nms': dict(
        iou_threshold=0.3,
        class_agnostic=False,
        sigma=0.5,
        min_score=1e-3,
        method='linear',
    ),
}
# The same option by an older name; what only bounds memory.
OLDER = {'iou_thr': 'iou_threshold'}
IGNORED = ('split_thr',)


def options_of(cfg: Mapping[str, Any]) -> Tuple[str, Dict[str, Any]]:
    """Read a config's ``nms``: the kind, and every option of it.

    Raises:
        ValueError: for a kind or an option that cannot be exported.
    """
    given = {
        OLDER.get(key, key): value
        for key, value in cfg.items()
        if key not in IGNORED
    }
    kind = given.pop('type', 'nms')
    if kind not in OPTIONS:
        raise ValueError(
            f'nms type {kind!r} cannot be exported, only {list(OPTIONS)}'
        )
    unknown = sorted(set(given) - set(OPTIONS[kind]))
    if unknown:
        raise ValueError(
            f'nms option {", ".join(unknown)} of {kind} cannot be exported, '
            f'only {", ".join(OPTIONS[kind])}'
        )
    options = {**OPTIONS[kind], **given}
    missing = [key for key, value in options.items() if value is None]
    if missing:
        raise ValueError(f'nms of type {kind} needs {", ".join(missing)}')
    return kind, options


class Suppression:
    """What mmcv's ``batched_nms`` does with a config's ``nms``.

    Groups (classes, levels) are moved apart by an offset, as the host does:
    its float32 coordinates far from zero are coarser, which decides ties.

    Args:
        cfg: ``type`` and options.
    """

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        self.kind, self.options = options_of(cfg)

    def hard(self, boxes: Tensor, scores: Tensor, group: Tensor) -> Tensor:
        """Return the scores with INVALID where a better box overlaps.

        Args:
            boxes: ``(N, G, B, 4)``, G groups.
            scores: ``(N, G, B)``; negative ones take no part.
            group: number of each group, ``(1, G, 1)``.
        """
        boxes = self._apart(boxes, scores, group)
        count = boxes.shape[2]
        keep = nms_keep(
            boxes.reshape(-1, count, 4),
            scores.reshape(-1, count),
            float(self.options['iou_threshold']),
        )
        kept = keep.reshape(scores.shape) > 0
        return torch.where(kept, scores, torch.full_like(scores, INVALID))

    def pick(
        self, boxes: Tensor, scores: Tensor, count: int
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """Pick the best boxes of all classes.

        Args:
            boxes: ``(N, P, K, 4)``, K classes.
            scores: ``(N, P, K)``; negative ones take no part.
            count: D.

        Returns:
            boxes ``(N, D, 4)``, scores ``(N, D)``, labels ``(N, D)``, -1
            where there are fewer.
        """
        n, rows, classes = scores.shape
        count = min(count, rows * classes)
        if self.kind == 'soft_nms':
            score, index = self._soft(boxes, scores, count)
        else:
            kept = self._by_class(boxes, scores)
            score, index = kept.reshape(n, rows * classes).topk(count)
        picked = gather(boxes.reshape(n, rows * classes, 4), index)
        label = index % classes
        return picked, score, torch.where(score >= 0, label, -1)

    def _by_class(self, boxes: Tensor, scores: Tensor) -> Tensor:
        n, rows, classes = scores.shape
        if self.options['class_agnostic']:
            group = torch.zeros(1, 1, 1, device=boxes.device)
            kept = self.hard(
                boxes.reshape(n, 1, rows * classes, 4),
                scores.reshape(n, 1, rows * classes),
                group,
            )
            return kept.reshape(n, rows, classes)
        group = torch.arange(classes, device=boxes.device)[None, :, None]
        boxes, scores = boxes.permute(0, 2, 1, 3), scores.permute(0, 2, 1)
        return self.hard(boxes, scores, group).permute(0, 2, 1)

    def _soft(
        self, boxes: Tensor, scores: Tensor, count: int
    ) -> Tuple[Tensor, Tensor]:
        n, rows, classes = scores.shape
        group = torch.zeros(1, 1, 1, device=boxes.device)
        if not self.options['class_agnostic']:
            group = torch.arange(classes, device=boxes.device)[None, None]
        boxes = self._apart(boxes, scores, group)
        picks = soft_nms(
            boxes.reshape(n, rows * classes, 4),
            scores.reshape(n, rows * classes),
            count,
            self.options['method'],
            float(self.options['iou_threshold']),
            float(self.options['sigma']),
            float(self.options['min_score']),
        )
        return picks[..., 1], picks[..., 0].long()

    def _apart(self, boxes: Tensor, scores: Tensor, group: Tensor) -> Tensor:
        valid = (scores >= 0)[..., None]
        far = torch.where(valid, boxes, torch.zeros_like(boxes))
        far = far.flatten(1).amax(1).reshape(-1, 1, 1)
        offset = group.to(boxes) * (far + 1)
        return boxes + offset[..., None]
