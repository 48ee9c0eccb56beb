"""Fixtures shared by all tests: fixed seeds, and the zoo's import helpers."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Iterator

import pytest
import torch

from mmconvnext import mmcv_ops
from mmconvnext.launch import prepare_hosts

sys.path.insert(0, str(Path(__file__).parents[1] / 'tools'))
from bench import zoo  # noqa: E402

# Helpers whose asserts should explain themselves as those of tests do.
pytest.register_assert_rewrite('checkpoints')
# Tensors are tiny here: more threads only wait for each other.
torch.set_num_threads(1)
# Before any test imports a host.
prepare_hosts()


def import_tool(name: str) -> ModuleType:
    """Import ``tools/<name>.py``, which is no package."""
    path = Path(__file__).parents[1] / 'tools' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(f'tools_{name}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def ops() -> Iterator[ModuleType]:
    """mmcv.ops served by the stand-in, whatever is installed."""
    with mmcv_ops.standing_in():
        import mmcv.ops

        yield mmcv.ops


@pytest.fixture
def compiled() -> ModuleType:
    module = mmcv_ops._compiled()
    if module is None:
        pytest.skip('this mmcv has no compiled operators to compare with')
    return module


def import_zoo(name: str) -> ModuleType:
    """Import an optional model library or skip the test, saying why."""
    try:
        return zoo.import_zoo(name)
    except ImportError as error:
        pytest.skip(f'{name} is a test extra and not importable: {error}')
