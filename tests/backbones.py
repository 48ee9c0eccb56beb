"""Backbones of tiny width whose every parameter has an effect."""

import pytest
import torch
from torch import nn

from mmconvnext import ConvNeXt, ConvNeXtV2

VERSIONS = {1: ConvNeXt, 2: ConvNeXtV2}
# C = 40 and 8 are not multiples of the usual tiles; depths differ by stage.
MICRO = dict(depths=[1, 2, 2, 1], dims=[8, 40, 24, 32])
both = pytest.mark.parametrize('cls', VERSIONS.values())


def randomize(model: nn.Module) -> nn.Module:
    """Give every parameter a value that shows when it is misplaced."""
    with torch.no_grad():
        for name, param in model.named_parameters():
            norm = 'norm' in name or name.startswith('downsample_layers.0.1')
            start = 1.0 if norm and name.endswith('weight') else 0.0
            param.normal_(start, 0.2 if param.ndim < 2 else 0.1)
    return model


def micro(cls: type, **kwargs) -> nn.Module:
    return randomize(cls(MICRO, **kwargs)).eval()
