"""Child registries with scope ``mmconvnext``.

mmengine imports ``<scope>.registry`` when it meets a type such as
``mmconvnext.ConvNeXtV2``; importing this module runs the package's
``__init__``, which registers everything. That is why any host resolves our
types without ``custom_imports``.
"""

from __future__ import annotations

from typing import Any

from mmengine import registry as engine

SCOPE = 'mmconvnext'


def _child(parent: engine.Registry) -> engine.Registry:
    return engine.Registry(
        parent.name, parent=parent, scope=SCOPE, locations=[SCOPE]
    )


DATASETS = _child(engine.DATASETS)
HOOKS = _child(engine.HOOKS)
MODELS = _child(engine.MODELS)
OPTIM_WRAPPER_CONSTRUCTORS = _child(engine.OPTIM_WRAPPER_CONSTRUCTORS)
TRANSFORMS = _child(engine.TRANSFORMS)


def bare_type(kind: Any) -> str:
    """Return the name of a config's ``type`` without scope or module.

    A type is a name (``'Resize'``), a name with a scope
    (``'mmdet.Resize'``), a class, as in mmengine's pure-Python configs, or
    the string mmengine dumps such a class to (``'mmcv.transforms.Resize'``).

    Args:
        kind: a type, or a config with one; anything else has the name ''.
    """
    if isinstance(kind, dict):
        kind = kind.get('type')
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    return name.rpartition('.')[2]
