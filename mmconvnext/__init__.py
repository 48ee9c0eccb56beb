"""ConvNeXt V1 and V2 for dense prediction, as an OpenMMLab plugin.

Importing the package registers everything under the scope ``mmconvnext``.
"""

__version__ = '0.2.0'

from . import hub
from .analysis.hook import FeatureCollapseHook
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

hub.install()

__all__ = [
    'ARCHS',
    'ConvNeXt',
    'ConvNeXtBlock',
    'ConvNeXtV2',
    'ExactResumeHook',
    'FCMAE',
    'FeatureCollapseHook',
    'GRN',
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
