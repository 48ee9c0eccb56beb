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
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Callable, Iterator, List, Optional

__version__ = '0.2.0'

if TYPE_CHECKING:
    # ruff: noqa: F403, F405
    from .public import *

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


def __getattr__(name: str) -> Any:
    """Import what is asked for: a public name, or a part of the package."""
    if name in __all__:
        return getattr(import_module('.public', __name__), name)
    if not name.startswith('_') and find_spec(f'{__name__}.{name}'):
        return import_module(f'.{name}', __name__)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> List[str]:
    return sorted({*globals(), *__all__})


def after_import(name: str, action: Callable[[], Any]) -> None:
    """Call ``action`` after ``name`` is imported for the first time."""
    sys.meta_path.insert(0, _After(name, action))


class _After(MetaPathFinder):
    """Finds the module where the other finders do, and adds the action."""

    def __init__(self, name: str, action: Callable[[], Any]) -> None:
        self.name, self.action = name, action

    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> Optional[ModuleSpec]:
        if name != self.name:
            return None
        spec = next(self._found(name, path, target), None)
        if spec is not None and spec.loader is not None:
            self._extend(spec.loader)
        return spec

    def _found(self, *module: Any) -> Iterator[ModuleSpec]:
        for finder in sys.meta_path:
            find = getattr(finder, 'find_spec', None)
            spec = find(*module) if find and finder is not self else None
            if spec is not None:
                yield spec

    def _extend(self, loader: Any) -> None:
        """Let this loader, which is the module's own, act at its end."""
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            del loader.exec_module  # the class's own is left
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                self.action()

        loader.exec_module = exec_module


if 'mmengine' in sys.modules:
    import_module('.public', __name__)
else:
    # hub alone: a part of the package may be what imports mmengine, and
    # `public` would need that part, which is not loaded yet.
    after_import('mmengine', lambda: import_module('.hub', __name__))
