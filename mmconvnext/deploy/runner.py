"""Run an exported file on images: :func:`load`.

Neither torch nor the hosts are imported here.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Optional, Tuple, Union

import numpy as np

from .. import files
from . import geometry
from .description import Description
from .runtimes import Session, open_session

Array = np.ndarray
Image = Union[str, Path, np.ndarray]
SMALLEST = 32  # the backbone's last stride


class Segmentation(NamedTuple):
    """What a segmentor finds in an image: ``labels``, ``(H, W)`` int32."""

    labels: Array


class Detections(NamedTuple):
    """What a detector finds in an image, best first.

    Attributes:
        boxes: ``(D, 4)`` float32, x1, y1, x2, y2 in pixels of the image.
        scores: ``(D,)`` float32.
        labels: ``(D,)`` int64.
        masks: ``(D, H, W)`` bool; None from a detector without masks.
    """

    boxes: Array
    scores: Array
    labels: Array
    masks: Optional[Array] = None


class Classification(NamedTuple):
    """What a classifier finds in an image, best first.

    Attributes:
        classes: names, of all K classes.
        scores: their probabilities, ``(K,)`` float32.
        labels: their numbers, ``(K,)`` int64.
    """

    classes: Tuple[str, ...]
    scores: Array
    labels: Array


class _Model:
    """A loaded file.

    Attributes:
        description: what the file says about itself.
    """

    def __init__(self, session: Session, description: Description) -> None:
        self.session, self.description = session, description

    def predict(self, image: Image) -> NamedTuple:
        """Find what the model finds in an image.

        Args:
            image: file, or ``(H, W, 3)`` uint8, RGB.

        Raises:
            ValueError: for what is no image.
        """
        if not isinstance(image, np.ndarray):
            image = files.read_image(Path(image))
        _check_image(image)
        height, width = image.shape[:2]
        batch = _as_batch(geometry.fit_image(image, self.description.resize))
        self.check_size(*batch.shape[2:])
        return self.after(batch, 0, (height, width), self.run(batch))

    def check_size(self, height: int, width: int) -> None:
        """Refuse an input that the file does not take.

        Raises:
            ValueError: with the size that it takes.
        """
        shape = self.description.shape
        if min(height, width) < SMALLEST:
            raise ValueError(
                f'an image has at least {SMALLEST} pixels on each side, this '
                f'is {height} x {width} after its resize'
            )
        if shape and (height, width) != tuple(shape):
            raise ValueError(
                f'the file takes {shape[0]} x {shape[1]} pixels only '
                f'(exported with --shape), the image is {height} x {width} '
                f'after its resize'
            )

    def run(self, batch: Array) -> dict:
        """Compute the file's outputs of ``(N, 3, H, W)`` uint8, BGR."""
        raise NotImplementedError

    def after(
        self, batch: Array, i: int, size: Tuple[int, int], found: dict
    ) -> NamedTuple:
        """Turn outputs of image i of a batch into a result.

        Args:
            batch: that :meth:`run` took.
            i: place in the batch.
            size: height and width of the image before its resize.
            found: what :meth:`run` returned.
        """
        raise NotImplementedError


class Segmentor(_Model):
    """A segmentor; :meth:`predict` returns a :class:`Segmentation`."""

    def run(self, batch: Array) -> dict:
        if self.description.window is None:
            return self.session.run(batch, ('logits', 'labels'))
        return {'logits': self._slide(batch)}

    def _slide(self, batch: Array) -> Array:
        """Average the logits of overlapping windows, as MMSegmentation."""
        height, width = batch.shape[2:]
        window, stride = self.description.window, self.description.stride
        total: Optional[Array] = None
        count = np.zeros((height, width), np.float32)
        for at in geometry.windows(height, width, window, stride):
            part = np.ascontiguousarray(batch[(..., *at)])
            logits = self.session.run(part, ('logits',))['logits']
            if total is None:
                total = np.zeros((*logits.shape[:2], height, width), 'float32')
            total[(..., *at)] += logits
            count[at] += 1
        return total / count

    def after(
        self, batch: Array, i: int, size: Tuple[int, int], found: dict
    ) -> Segmentation:
        if 'labels' in found and size == batch.shape[2:]:
            return Segmentation(found['labels'][i])
        logits, about = found['logits'][i], self.description
        if len(logits) > 1:
            labels = geometry.largest(logits, *size, about.align_corners)
            return Segmentation(labels)
        logits = geometry.resize_maps(logits, *size, about.align_corners)[0]
        positive = 1 / (1 + np.exp(-logits)) > about.threshold
        return Segmentation(positive.astype(np.int32))


class Detector(_Model):
    """A detector; :meth:`predict` returns :class:`Detections`."""

    @property
    def has_masks(self) -> bool:
        return self.description.mask_threshold is not None

    def run(self, batch: Array) -> dict:
        masks = ('masks',) if self.has_masks else ()
        return self.session.run(batch, ('boxes', 'scores', 'labels', *masks))

    def after(
        self, batch: Array, i: int, size: Tuple[int, int], found: dict
    ) -> Detections:
        real = found['labels'][i] >= 0
        height, width = batch.shape[2:]
        # In float32, as the hosts do.
        scale = np.array([width / size[1], height / size[0]] * 2, np.float32)
        boxes = found['boxes'][i][real] / scale
        masks = None
        if self.has_masks:
            masks = geometry.paste(
                found['masks'][i][real],
                boxes,
                *size,
                self.description.mask_threshold,
            )
        scores, labels = found['scores'][i][real], found['labels'][i][real]
        return Detections(boxes, scores, labels, masks)


class Classifier(_Model):
    """A classifier; :meth:`predict` returns a :class:`Classification`."""

    def run(self, batch: Array) -> dict:
        return self.session.run(batch, ('logits', 'scores'))

    def after(
        self, batch: Array, i: int, size: Tuple[int, int], found: dict
    ) -> Classification:
        scores = found['scores'][i]
        # Of equal scores the first class, as argmax.
        labels = np.argsort(-scores, kind='stable')
        names = tuple(self.description.classes[label] for label in labels)
        return Classification(names, scores[labels], labels)


MODELS = {
    'segmentation': Segmentor,
    'detection': Detector,
    'classification': Classifier,
}
Model = Union[Segmentor, Detector, Classifier]


def load(
    file: Union[str, Path],
    runtime: str = 'onnxruntime',
    device: str = 'cpu',
    precision: Optional[str] = None,
    threads: Optional[int] = None,
) -> Model:
    """Load a file that ``tools/export.py`` or ``tools/quantize.py`` wrote.

        model = mmconvnext.deploy.load('model.onnx')
        labels = model.predict('street.jpg').labels

    Args:
        file: ONNX.
        runtime: onnxruntime or openvino.
        device: cpu; onnxruntime: cuda, tensorrt; openvino: gpu (Intel's).
        precision: openvino: fp32 (the default) or bf16.
        threads: that compute; by default OMP_NUM_THREADS, if that is set.

    Raises:
        FileNotFoundError: without the file.
        ValueError: for a runtime, device or precision that is not there, or
            a file from elsewhere.
    """
    path = Path(file)
    session = open_session(path, runtime, device, precision, threads)
    about = Description.from_metadata(session.metadata, str(file))
    return MODELS[about.task](session, about)


def _check_image(image: Array) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f'an image is (H, W, 3) uint8, RGB, got {image.shape} '
            f'{image.dtype}'
        )


def _as_batch(image: Array) -> Array:
    """RGB ``(H, W, 3)`` to BGR ``(1, 3, H, W)``."""
    return np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)[None])
