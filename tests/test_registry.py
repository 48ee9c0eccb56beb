"""Hosts find our types by their scope."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Iterator, Tuple

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


def registered_types() -> Iterator[Tuple[str, str]]:
    """Yield (registry, class) of every ``@X.register_module()``."""
    for path in sorted(Path(mmconvnext.__file__).parent.rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            for call in getattr(node, 'decorator_list', ()):
                text = ast.unparse(call)
                if '.register_module(' in text:
                    yield text.split('.')[0], node.name


def test_importing_the_package_is_enough_for_every_type() -> None:
    """A config that names a type must not depend on what a tool imports."""
    types = sorted(registered_types())
    assert len(types) > 10
    code = (
        'import mmconvnext; from mmconvnext import registry\n'
        f'for group, name in {types!r}:\n'
        '    found = getattr(registry, group).get(f"mmconvnext.{name}")\n'
        '    assert found.__name__ == name, name\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
