"""Child registries with scope ``mmconvnext``.

mmengine imports ``<scope>.registry`` when it meets a type such as
``mmconvnext.ConvNeXtV2``; importing this module runs the package's
``__init__``, which registers everything. That is why any host resolves our
types without ``custom_imports``.
"""

from mmengine.registry import (
    HOOKS as ENGINE_HOOKS,
)
from mmengine.registry import (
    MODELS as ENGINE_MODELS,
)
from mmengine.registry import (
    OPTIM_WRAPPER_CONSTRUCTORS as ENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
)
from mmengine.registry import (
    Registry,
)

SCOPE = 'mmconvnext'


def _child(parent: Registry) -> Registry:
    return Registry(parent.name, parent=parent, scope=SCOPE, locations=[SCOPE])


MODELS = _child(ENGINE_MODELS)
HOOKS = _child(ENGINE_HOOKS)
OPTIM_WRAPPER_CONSTRUCTORS = _child(ENGINE_OPTIM_WRAPPER_CONSTRUCTORS)
