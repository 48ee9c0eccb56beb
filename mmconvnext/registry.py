"""Child registries with scope ``mmconvnext``.

mmengine imports ``<scope>.registry`` when it meets a type such as
``mmconvnext.ConvNeXtV2``, and asks the registry of that scope for the type.
Before it answers, a registry imports the modules of :data:`LOCATIONS`. That
is why any host resolves our types without ``custom_imports``.
"""

from __future__ import annotations

from mmengine import registry as engine

SCOPE = 'mmconvnext'
# Modules that register types, in themselves or in what they import.
LOCATIONS = (
    'mmconvnext.public',
    'mmconvnext.inference.outputs',
    'mmconvnext.deploy.exported_model',
)


def _child(parent: engine.Registry) -> engine.Registry:
    return engine.Registry(
        parent.name, parent=parent, scope=SCOPE, locations=list(LOCATIONS)
    )


DATASETS = _child(engine.DATASETS)
HOOKS = _child(engine.HOOKS)
METRICS = _child(engine.METRICS)
MODELS = _child(engine.MODELS)
OPTIM_WRAPPER_CONSTRUCTORS = _child(engine.OPTIM_WRAPPER_CONSTRUCTORS)
TRANSFORMS = _child(engine.TRANSFORMS)
