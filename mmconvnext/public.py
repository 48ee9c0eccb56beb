"""The public names; importing this module registers every type."""

from __future__ import annotations

from . import hub  # noqa: F401 (our configs by name)
from .analysis.hook import FeatureCollapseHook
from .analysis.knn_hook import KNNHook
from .models.classifier import ImageClassifier
from .models.convnext import ARCHS, ConvNeXt, ConvNeXtBlock, ConvNeXtV2
from .models.layers import GRN, LayerNorm2d
from .models.losses import WeightedCrossEntropyLoss
from .pretrain.dataset import ImageFolderDataset
from .pretrain.fcmae import FCMAE
from .pretrain.hooks import (
    LossCurveHook,
    NonFiniteLossHook,
    ReconstructionHook,
    SkippedImagesHook,
)
from .training.accuracy import Accuracy
from .training.augmentation import (
    RandomFlip,
    RandomResizedCrop,
    ResizedCenterCrop,
)
from .training.class_folders import ClassFolderDataset
from .training.erasing import ErasingDataPreprocessor
from .training.optim import LayerDecayOptimWrapperConstructor
from .training.rand_augment import ColorJitter, RandAugment
from .training.resume import ExactResumeHook
from .training.standardize import StandardizeHook

__all__ = [
    'ARCHS',
    'Accuracy',
    'ClassFolderDataset',
    'ColorJitter',
    'ConvNeXt',
    'ConvNeXtBlock',
    'ConvNeXtV2',
    'ErasingDataPreprocessor',
    'ExactResumeHook',
    'FCMAE',
    'FeatureCollapseHook',
    'GRN',
    'ImageClassifier',
    'ImageFolderDataset',
    'KNNHook',
    'LayerDecayOptimWrapperConstructor',
    'LayerNorm2d',
    'LossCurveHook',
    'NonFiniteLossHook',
    'RandAugment',
    'RandomFlip',
    'RandomResizedCrop',
    'ReconstructionHook',
    'ResizedCenterCrop',
    'SkippedImagesHook',
    'StandardizeHook',
    'WeightedCrossEntropyLoss',
]
