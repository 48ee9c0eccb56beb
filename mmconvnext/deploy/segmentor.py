"""Around a segmentor: from a uint8 image to logits and labels."""

from __future__ import annotations

from typing import Optional, Tuple

import torch
from torch import Tensor, nn

from .exact import Exact, exact_upsampling
from .preprocess import Preprocess


class ExportedSegmentor(nn.Module):
    """What a segmentor's file computes.

    Args:
        model: an EncoderDecoder of MMSegmentation, in eval mode; changed.
        preprocess: from the image to what the backbone takes.
        half: compute the network in float16.
    """

    inputs = ('image',)
    outputs = ('logits', 'labels')
    maps = {'logits': (2, 3), 'labels': (1, 2)}

    def __init__(
        self, model: nn.Module, preprocess: Preprocess, half: bool = False
    ) -> None:
        super().__init__()
        exact_upsampling(model)
        self.model = model.half() if half else model
        self.preprocess, self.half_precision = preprocess, half
        # Of one class, MMSegmentation thresholds the probability.
        self.threshold: Optional[float] = None
        if model.out_channels == 1:
            self.threshold = float(model.decode_head.threshold)

    def forward(self, image: Tensor) -> Tuple[Tensor, Tensor]:
        """Compute logits and labels.

        Args:
            image: ``(N, 3, H, W)`` uint8, BGR.

        Returns:
            logits, ``(N, K, H, W)`` float32; labels, ``(N, H, W)`` int32.
        """
        x = self.preprocess(image)
        x = x.half() if self.half_precision else x
        with Exact():
            # A torch.Size is what the hosts' windows come with: the size to
            # which logits are resized.
            size = torch.Size(x.shape[2:])
            logits = self.model.encode_decode(x, [dict(img_shape=size)])
        # Without the padding.
        logits = logits[:, :, : image.shape[2], : image.shape[3]].float()
        if self.threshold is None:
            return logits, logits.argmax(1).int()
        return logits, (logits[:, 0].sigmoid() > self.threshold).int()
