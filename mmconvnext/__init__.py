"""ConvNeXt V1 and V2 for dense prediction, as an OpenMMLab plugin.

Importing the package registers everything under the scope ``mmconvnext``.
"""

__version__ = '0.1.0'

from .collapse import FeatureCollapseHook
from .convnext import ARCHS, ConvNeXt, ConvNeXtBlock, ConvNeXtV2
from .data import ImageFolderDataset
from .fcmae import FCMAE
from .layers import GRN, LayerNorm2d
from .optim import LayerDecayOptimWrapperConstructor
from .pretrain_hooks import (
    LossCurveHook,
    NonFiniteLossHook,
    ReconstructionHook,
    SkippedImagesHook,
)
from .resume import ExactResumeHook

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
    'ReconstructionHook',
    'SkippedImagesHook',
]
