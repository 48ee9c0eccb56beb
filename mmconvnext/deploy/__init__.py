"""Whole models as ONNX files, and running them.

:func:`load` and what it returns import neither torch nor the hosts. Writing
files (:mod:`.export`, :mod:`.parity`, :mod:`.quantize`) and using them in
place of a checkpoint (:mod:`.hosts`) do.
"""

from .description import Description
from .runner import (
    Classification,
    Classifier,
    Detections,
    Detector,
    Segmentation,
    Segmentor,
    load,
)
from .runtimes import RUNTIMES

__all__ = [
    'Classification',
    'Classifier',
    'RUNTIMES',
    'Description',
    'Detections',
    'Detector',
    'Segmentation',
    'Segmentor',
    'load',
]
