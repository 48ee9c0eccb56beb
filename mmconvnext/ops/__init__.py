"""Functions that compute; modules own the parameters.

``reference`` is plain PyTorch and defines what every op means; other files
compute the same faster. ``choice`` says which of them runs: :func:`use`
forces one, :func:`explain` prints the choice.
"""

from .choice import PATHS, absent, explain, use
from .dispatch import (
    convnext_mlp,
    depthwise_conv,
    depthwise_conv_moments,
)
from .reference import grn, layer_norm

__all__ = [
    'PATHS',
    'absent',
    'convnext_mlp',
    'depthwise_conv',
    'depthwise_conv_moments',
    'explain',
    'grn',
    'layer_norm',
    'use',
]
