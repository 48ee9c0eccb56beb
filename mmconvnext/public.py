"""The public names; importing this module registers every type."""

from __future__ import annotations

from . import hub  # noqa: F401 (our configs by name)
from .analysis.hook import FeatureCollapseHook
from .models.classifier import ImageClassifier
from .models.convnext import ARCHS, ConvNeXt, ConvNeXtBlock, ConvNeXtV2
from .models.layers import GRN, LayerNorm2d
from .pretrain.dataset import ImageFolderDataset
from .pretrain.fcmae import FCMAE
from .pretrain.hooks import (
    LossCurveHook,
    NonFiniteLossHook,
    ReconstructionHook,
    SkippedImagesHook,
)
from .training.augmentation import RandomFlip, RandomResizedCrop
from .training.optim import LayerDecayOptimWrapperConstructor
from .training.resume import ExactResumeHook

__all__ = [
    'ARCHS',
    'ConvNeXt',
    'ConvNeXtBlock',
    'ConvNeXtV2',
    'ExactResumeHook',
    'FCMAE',
    'FeatureCollapseHook',
    'GRN',
    'ImageClassifier',
    'ImageFolderDataset',
    'LayerDecayOptimWrapperConstructor',
    'LayerNorm2d',
    'LossCurveHook',
    'NonFiniteLossHook',
    'RandomFlip',
    'RandomResizedCrop',
    'ReconstructionHook',
    'SkippedImagesHook',
]
