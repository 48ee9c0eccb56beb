"""Around a classifier: from a uint8 image to logits and scores."""

from __future__ import annotations

from typing import Dict, Tuple

from torch import Tensor, nn

from .exact import Exact
from .preprocess import Preprocess


class ExportedClassifier(nn.Module):
    """What a classifier's file computes.

    Args:
        model: an ImageClassifier in eval mode; changed.
        preprocess: from the image to what the backbone takes.
        half: compute the backbone in float16. Norm and head are float32 in
            any case: they are small, and the mean over a map must not be
            summed in float16.
    """

    inputs = ('image',)
    outputs = ('logits', 'scores')
    maps: Dict[str, Tuple[int, int]] = {}

    def __init__(
        self, model: nn.Module, preprocess: Preprocess, half: bool = False
    ) -> None:
        super().__init__()
        self.backbone = model.backbone.half() if half else model.backbone
        self.norm, self.head = model.norm, model.head
        self.preprocess, self.half_precision = preprocess, half

    def forward(self, image: Tensor) -> Tuple[Tensor, Tensor]:
        """Compute logits and probabilities.

        Args:
            image: ``(N, 3, H, W)`` uint8, BGR.

        Returns:
            logits and scores, their softmax, ``(N, K)`` float32 each.
        """
        x = self.preprocess(image)
        x = x.half() if self.half_precision else x
        with Exact():
            maps = self.backbone(x)[0].float()
        logits = self.head(self.norm(maps.mean((-2, -1))))
        return logits, logits.softmax(1)
