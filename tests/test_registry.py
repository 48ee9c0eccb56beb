"""Hosts find our types by their scope."""

import pytest
from mmengine.registry import HOOKS, OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import MODELS as ENGINE_MODELS

import mmconvnext
from mmconvnext import registry

MICRO = dict(depths=[1, 1, 1, 1], dims=[8, 8, 8, 8])


@pytest.mark.parametrize('name', ['ConvNeXt', 'ConvNeXtV2'])
def test_resolves_from_the_root_registry(name: str) -> None:
    model = ENGINE_MODELS.build(dict(type=f'mmconvnext.{name}', arch=MICRO))
    assert type(model).__name__ == name


@pytest.mark.parametrize(
    ('root', 'name'),
    [
        (HOOKS, 'ExactResumeHook'),
        (OPTIM_WRAPPER_CONSTRUCTORS, 'LayerDecayOptimWrapperConstructor'),
    ],
)
def test_other_types_resolve_too(root, name: str) -> None:
    assert root.get(f'mmconvnext.{name}').__module__.startswith('mmconvnext.')


def test_children_carry_the_name_of_the_package() -> None:
    """mmengine imports <scope>.registry to find them."""
    assert mmconvnext.__name__ == registry.SCOPE
    for child in (registry.MODELS, registry.HOOKS):
        assert child.scope == registry.SCOPE
        assert child.parent.scope == 'mmengine'
