"""Fixtures shared by all tests: fixed seeds, and the operators."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Iterator

import pytest
import torch

from mmconvnext import mmcv_ops
from mmconvnext.cli import prepare_hosts

# Failed asserts in these helpers show their values, as those in tests do.
pytest.register_assert_rewrite('checkpoints')
# Tensors are tiny here; more threads only wait for each other.
torch.set_num_threads(1)
# Before any test imports a host.
prepare_hosts()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first: processes that share them end together."""
    seconds: Counter[Path] = Counter()
    for item in items:
        seconds[item.path] += 20 if item.get_closest_marker('slow') else 0.3
    items.sort(key=lambda item: -seconds[item.path])


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def ops() -> Iterator[ModuleType]:
    """mmcv.ops on our operators, whatever is installed."""
    with mmcv_ops.standing_in():
        import mmcv.ops

        yield mmcv.ops


@pytest.fixture
def compiled() -> ModuleType:
    module = mmcv_ops._compiled()
    if module is None:
        pytest.skip('this mmcv has no compiled operators to compare with')
    return module
