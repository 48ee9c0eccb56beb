"""The share of images whose class is among the best scores."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

import torch
from mmengine.evaluator import BaseMetric

from ..registry import METRICS


@METRICS.register_module()
class Accuracy(BaseMetric):
    """Top-k accuracy, in percent: ``accuracy/top1``, ``accuracy/top5``.

    Args:
        topk: values of k; one that the classes do not reach is left out.
        collect_device, prefix: of mmengine's BaseMetric.
    """

    default_prefix = 'accuracy'

    def __init__(
        self,
        topk: Sequence[int] = (1, 5),
        collect_device: str = 'cpu',
        prefix: Optional[str] = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.topk = tuple(topk)

    def process(self, data_batch: Any, data_samples: Sequence[Dict]) -> None:
        """Keep the rank of each image's class among its scores.

        Raises:
            ValueError: for an image without a label.
        """
        for sample in data_samples:
            if 'gt_label' not in sample:
                raise ValueError(f'no label: {sample.get("img_path")}')
            scores = sample['pred_scores']
            label = int(sample['gt_label'])
            # Of equal scores the worst place counts: a constant model must
            # not seem to know the first class.
            rank = int((scores >= scores[label]).sum()) - 1
            self.results.append((rank, len(scores)))

    def compute_metrics(self, results: List[tuple]) -> Dict[str, float]:
        """Return percentages by 'top1' and so on."""
        ranks = torch.tensor([rank for rank, _ in results])
        classes = max(count for _, count in results)
        return {
            f'top{k}': 100 * float((ranks < k).float().mean())
            for k in self.topk
            if k == 1 or k < classes
        }
