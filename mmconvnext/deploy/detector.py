"""Around a two-stage detector: from a uint8 image to boxes and masks.

Backbone, neck, heads, anchors and box coders are MMDetection's. What its
``predict`` does with lists of any length is written again on tensors of
constant length, where what is not there has a negative score.
"""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from .exact import Exact
from .operators import INVALID
from .preprocess import Preprocess
from .regions import RegionPool, Size, decode, gather, refine, stages_of
from .suppression import Suppression


class ExportedDetector(nn.Module):
    """What a detector's file computes.

    Args:
        model: Faster, Mask or Cascade (Mask) R-CNN, in eval mode; changed
            with ``half``.
        preprocess: from the image to what the backbone takes.
        half: compute backbone and neck in float16; the heads, which work on
            coordinates, stay in float32.
    """

    inputs = ('image',)
    maps: Dict[str, Tuple[int, int]] = {}

    def __init__(
        self, model: nn.Module, preprocess: Preprocess, half: bool = False
    ) -> None:
        super().__init__()
        self.backbone = model.backbone.half() if half else model.backbone
        self.neck = model.neck.half() if half else model.neck
        self.half_precision, self.preprocess = half, preprocess
        self.proposals = Proposals(model.rpn_head)
        self.boxes = BoxStages(model.roi_head)
        self.masks: Optional[MaskStages] = None
        if model.roi_head.with_mask:
            self.masks = MaskStages(model.roi_head)

    @property
    def outputs(self) -> Sequence[str]:
        names = ('boxes', 'scores', 'labels')
        return names if self.masks is None else (*names, 'masks')

    def forward(self, image: Tensor) -> Tuple[Tensor, ...]:
        """Compute detections, best first.

        Args:
            image: ``(N, 3, H, W)`` uint8, BGR.

        Returns:
            boxes ``(N, D, 4)`` in pixels of ``image``, scores ``(N, D)``,
            labels ``(N, D)`` int64, -1 where there is no detection, and
            masks ``(N, D, h, w)``, probabilities in the box.
        """
        size = image.shape[2], image.shape[3]
        x = self.preprocess(image)
        with Exact():
            maps = self.neck(
                self.backbone(x.half() if self.half_precision else x)
            )
        maps = tuple(y.float() for y in maps)
        boxes, scores = self.proposals(maps, size)
        boxes, scores, labels = self.boxes(maps, boxes, scores, size)
        real = labels >= 0
        boxes = torch.where(real[..., None], boxes, torch.zeros_like(boxes))
        scores = torch.where(real, scores, torch.zeros_like(scores))
        if self.masks is None:
            return boxes, scores, labels
        masks = self.masks(maps, boxes, labels)
        real = real[..., None, None]
        masks = torch.where(real, masks, torch.zeros_like(masks))
        return boxes, scores, labels, masks


class Proposals(nn.Module):
    """RPNHead's prediction.

    Args:
        head: of MMDetection, with its ``test_cfg``.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head, cfg = head, head.test_cfg
        self.top = int(cfg['nms_pre'])
        self.count = int(cfg['max_per_img'])
        self.min_size = float(cfg.get('min_bbox_size', -1))
        self.suppression = Suppression(cfg['nms'])

    def forward(
        self, maps: Sequence[Tensor], size: Size
    ) -> Tuple[Tensor, Tensor]:
        """Return boxes ``(N, P, 4)`` and scores ``(N, P)``, best first."""
        scores, deltas = self.head(maps)
        priors = self.head.prior_generator.grid_priors(
            [y.shape[2:] for y in scores], device=maps[0].device
        )
        levels = [self._best(*row) for row in zip(scores, deltas, priors)]
        score, delta, prior = (torch.stack(part, 1) for part in zip(*levels))
        n, count = score.shape[0], len(levels)  # (N, L, K) from here on
        boxes = decode(self.head.bbox_coder, prior, delta, size)
        if self.min_size >= 0:
            sides = boxes[..., 2:] - boxes[..., :2]
            large = (sides > self.min_size).all(-1)
            score = torch.where(large, score, torch.full_like(score, INVALID))
        level = torch.arange(count, device=boxes.device)[None, :, None]
        score = self.suppression.hard(boxes, score, level)
        picked = min(self.count, count * self.top)
        score, index = score.reshape(n, count * self.top).topk(picked)
        return gather(boxes.reshape(n, count * self.top, 4), index), score

    def _best(
        self, scores: Tensor, deltas: Tensor, priors: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """The K best of a level, ``(N, K, ...)``, filled up with INVALID."""
        n, channels = scores.shape[0], self.head.cls_out_channels
        scores = scores.permute(0, 2, 3, 1).reshape(n, -1, channels)
        deltas = deltas.permute(0, 2, 3, 1).reshape(n, -1, 4)
        if self.head.use_sigmoid_cls:
            score = scores.sigmoid()[..., 0]
        else:
            score = scores.softmax(-1)[..., 0]
        # A level may have fewer: a constant K keeps all shapes constant.
        filling = score.new_full((1, self.top), INVALID).expand(n, self.top)
        score, index = torch.cat([score, filling], 1).topk(self.top)
        index = index.clamp(max=priors.shape[0] - 1)
        prior = priors[index.flatten()].reshape(n, self.top, 4)
        return score, gather(deltas, index), prior


class BoxStages(nn.Module):
    """The prediction of boxes by a StandardRoIHead or a CascadeRoIHead.

    Args:
        roi_head: of MMDetection, with its ``test_cfg``.
    """

    def __init__(self, roi_head: nn.Module) -> None:
        super().__init__()
        self.heads = nn.ModuleList(stages_of(roi_head.bbox_head))
        self.poolers = nn.ModuleList(
            RegionPool(part) for part in stages_of(roi_head.bbox_roi_extractor)
        )
        cfg = roi_head.test_cfg
        self.limit = float(cfg['score_thr'])
        self.count = int(cfg['max_per_img'])
        self.suppression = Suppression(cfg['nms'])

    def forward(
        self, maps: Sequence[Tensor], boxes: Tensor, found: Tensor, size: Size
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """Classify and refine proposals.

        Args:
            maps: of the neck.
            boxes: proposals, ``(N, P, 4)``.
            found: their scores, ``(N, P)``; negative where there is none.
            size: of the image.

        Returns:
            boxes ``(N, D, 4)``, scores ``(N, D)``, labels ``(N, D)``.
        """
        n, count = boxes.shape[0], boxes.shape[1]
        boxes = boxes.reshape(-1, 4)
        logits: List[Tensor] = []
        deltas = boxes  # of the stage before, once there is one
        for stage, (pool, head) in enumerate(zip(self.poolers, self.heads)):
            if stage > 0:
                before = self.heads[stage - 1]
                boxes = refine(before, boxes, logits[-1], deltas, size)
            found_here, deltas = head(pool(maps, boxes.reshape(n, count, 4)))
            logits.append(found_here)
        # As the host: a mean over stages, of one stage in its own bits.
        score = sum(logits) / float(len(logits))
        score = score.softmax(-1)[..., :-1].reshape(n, count, -1)
        boxes = self._of_classes(boxes, deltas, size)
        boxes = boxes.reshape(n, count, -1, 4)
        valid = (score > self.limit) & (found >= 0)[..., None]
        score = torch.where(valid, score, torch.full_like(score, INVALID))
        boxes = boxes.expand(n, count, score.shape[2], 4)
        return self.suppression.pick(boxes, score, self.count)

    def _of_classes(self, boxes: Tensor, deltas: Tensor, size: Size) -> Tensor:
        """Boxes of every class, ``(N P, K, 4)``."""
        head = self.heads[-1]
        kinds = 1 if head.reg_class_agnostic else head.num_classes
        deltas = deltas.reshape(-1, kinds, 4)
        boxes = boxes[:, None].expand(boxes.shape[0], kinds, 4)
        return decode(head.bbox_coder, boxes, deltas, size)


class MaskStages(nn.Module):
    """The prediction of masks; a cascade's stages are averaged.

    Args:
        roi_head: of MMDetection.
    """

    def __init__(self, roi_head: nn.Module) -> None:
        super().__init__()
        self.heads = nn.ModuleList(stages_of(roi_head.mask_head))
        self.poolers = nn.ModuleList(
            RegionPool(part) for part in stages_of(roi_head.mask_roi_extractor)
        )

    def forward(
        self, maps: Sequence[Tensor], boxes: Tensor, labels: Tensor
    ) -> Tensor:
        """Return probabilities, ``(N, D, h, w)``, of each box's class."""
        n, count = labels.shape
        masks = [
            head(pooler(maps, boxes)).sigmoid()
            for pooler, head in zip(self.poolers, self.heads)
        ]
        mean = masks[0] if len(masks) == 1 else torch.stack(masks).mean(0)
        height, width = mean.shape[2:]
        if self.heads[-1].class_agnostic:
            return mean[:, 0].reshape(n, count, height, width)
        index = labels.clamp(min=0).reshape(-1, 1, 1, 1)
        mean = mean.gather(1, index.expand(-1, 1, height, width))
        return mean.reshape(n, count, height, width)
