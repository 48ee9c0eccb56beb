"""A file in the place of a model, for testing and drawing.

The pipelines, metrics and visualizers work on it unchanged.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Union

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.structures import InstanceData, PixelData

from ..registry import MODELS
from .runner import Classification, Detections, Segmentation, load


@MODELS.register_module()
class ExportedModel(BaseModel):
    """Runs a file on what a host's test pipeline gives.

    Args:
        file: written by ``tools/export.py``.
        runtime, device, precision, threads: of :func:`mmconvnext.deploy.load`.

    Attributes:
        words: what is shown of it in the place of the model and weights.
    """

    def __init__(
        self,
        file: str,
        runtime: str = 'onnxruntime',
        device: str = 'cpu',
        precision: Optional[str] = None,
        threads: Optional[int] = None,
    ) -> None:
        super().__init__()
        self.exported = load(file, runtime, device, precision, threads)
        about = self.exported.description
        computes = f' in {precision}' if precision else ''
        self.words = (
            f'{file}, {about.task}, {about.precision}, run by {runtime}'
            f'{computes} on {device}'
        )

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: a file is not trained.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError('an exported file has test_step only')

    def test_step(self, data: Dict[str, Any]) -> List[Any]:
        """Predict on a batch; return its data samples, filled in.

        Args:
            data: ``inputs``, ``(3, H, W)`` uint8 tensors after the
                pipeline's resize, BGR, of a classifier RGB, and
                ``data_samples``.
        """
        pairs = zip(data['inputs'], data['data_samples'])
        return [self._predict(image, sample) for image, sample in pairs]

    val_step = test_step

    def _predict(self, image: torch.Tensor, sample: Any) -> Any:
        batch = image[None].cpu().numpy()
        if self.exported.description.task == 'classification':
            batch = np.ascontiguousarray(batch[:, ::-1])
        self.exported.check_size(*batch.shape[2:])
        size = tuple(sample.metainfo['ori_shape'][:2])
        found = self.exported.run(batch)
        return _fill(sample, self.exported.after(batch, 0, size, found))


Result = Union[Segmentation, Detections, Classification]


def _fill(sample: Any, result: Result) -> Any:
    """Put a result where the model itself would."""
    if isinstance(result, Classification):
        scores = np.empty_like(result.scores)
        scores[result.labels] = result.scores
        sample.set_field(torch.from_numpy(scores), 'pred_scores')
        sample.set_field(torch.tensor(result.labels[0]), 'pred_label')
        return sample
    if isinstance(result, Segmentation):
        labels = torch.from_numpy(result.labels)[None]
        sample.set_data({'pred_sem_seg': PixelData(data=labels.long())})
        return sample
    found = InstanceData(
        bboxes=torch.from_numpy(result.boxes),
        scores=torch.from_numpy(result.scores),
        labels=torch.from_numpy(result.labels),
    )
    if result.masks is not None:
        found.masks = torch.from_numpy(result.masks)
    sample.pred_instances = found
    return sample
