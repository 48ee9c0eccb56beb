"""Functions that compute; modules own the parameters.

``reference`` is plain PyTorch and defines what every op means.
"""

from .reference import convnext_mlp, grn, layer_norm

__all__ = ['convnext_mlp', 'grn', 'layer_norm']
