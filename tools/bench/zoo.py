"""Import model libraries that were built beside another torch."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

from torch.library import Library

# Kept alive: what a library declares goes with it.
LIBRARY = Library('torchvision', 'FRAGMENT')


def _declare_torchvision_operators() -> None:
    # At import torchvision registers fake implementations of operators
    # whose schemas are in its compiled part. Any schema will do.
    folder = importlib.util.find_spec('torchvision').submodule_search_locations
    source = Path(folder[0], '_meta_registrations.py').read_text(
        encoding='utf-8'
    )
    names = re.findall(r'register_\w+\("(?:torchvision::)?(\w+)"', source)
    for name in dict.fromkeys(names):
        LIBRARY.define(f'{name}(Tensor x) -> Tensor')


def import_zoo(name: str) -> ModuleType:
    """Import a library that may need torchvision.

    Raises:
        ImportError: where it, or what it needs, is not installed.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if 'does not exist' not in str(error):
            raise
        for module in [m for m in sys.modules if m.startswith('torchvision')]:
            del sys.modules[module]
        _declare_torchvision_operators()
    except ImportError:
        pass
    # Only its block is wanted, and multimodal models need another line of
    # transformers.
    multimodal = 'mmpretrain.models.multimodal'
    sys.modules.setdefault(multimodal, ModuleType(multimodal))
    return importlib.import_module(name)
