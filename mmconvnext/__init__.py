"""ConvNeXt V1 and V2 for dense prediction, as an OpenMMLab plugin.

In a process that has loaded mmengine, importing the package registers
everything under the scope ``mmconvnext``. Elsewhere it loads no library, for
:mod:`mmconvnext.deploy` runs exported files where torch is not installed: a
public name (:mod:`.public`) is imported when it is used, and mmengine learns
the names of our configs (:mod:`.hub`) as soon as it is imported.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, List

from . import late

__version__ = '0.2.0'

if TYPE_CHECKING:
    # ruff: noqa: F403, F405
    from .public import *

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


def __getattr__(name: str) -> Any:
    """Import what is asked for: a public name, or a part of the package."""
    if name in __all__:
        return getattr(import_module('.public', __name__), name)
    if not name.startswith('_') and find_spec(f'{__name__}.{name}'):
        return import_module(f'.{name}', __name__)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> List[str]:
    return sorted({*globals(), *__all__})


if 'mmengine' in sys.modules:
    import_module('.public', __name__)
else:
    # hub alone: a part of the package may be what imports mmengine, and
    # `public` would need that part, which is not loaded yet.
    late.after_import('mmengine', lambda: import_module('.hub', __name__))
