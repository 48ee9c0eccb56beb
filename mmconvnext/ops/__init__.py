"""Functions that compute; modules own the parameters.

``reference`` is plain PyTorch and defines what every op means; other files
compute the same faster. ``choice`` decides which of them runs: :func:`use`
forces one, :func:`explain` prints the choice.
"""

from .choice import PATHS, absent, explain, use
from .operators import convnext_mlp, depthwise_conv
from .reference import grn, layer_norm

__all__ = [
    'PATHS',
    'absent',
    'convnext_mlp',
    'depthwise_conv',
    'explain',
    'grn',
    'layer_norm',
    'use',
]
