"""Child registries with scope ``mmconvnext``.

mmengine imports ``<scope>.registry`` when it meets a type such as
``mmconvnext.ConvNeXtV2``; importing this module runs the package's
``__init__``, which registers everything. That is why any host resolves our
types without ``custom_imports``.
"""

from __future__ import annotations

from mmengine import registry as engine

SCOPE = 'mmconvnext'
# Modules that register types which importing the package leaves out; a
# registry imports them when it is asked for a type.
LATE = ('mmconvnext.inference.outputs',)


def _child(parent: engine.Registry) -> engine.Registry:
    return engine.Registry(
        parent.name, parent=parent, scope=SCOPE, locations=[SCOPE, *LATE]
    )


DATASETS = _child(engine.DATASETS)
HOOKS = _child(engine.HOOKS)
METRICS = _child(engine.METRICS)
MODELS = _child(engine.MODELS)
OPTIM_WRAPPER_CONSTRUCTORS = _child(engine.OPTIM_WRAPPER_CONSTRUCTORS)
TRANSFORMS = _child(engine.TRANSFORMS)
