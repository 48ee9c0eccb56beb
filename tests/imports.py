"""Import tools, which are not in a package, and optional libraries."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).parents[1] / 'tools'
sys.path.insert(0, str(TOOLS))
from bench import zoo  # noqa: E402


def import_tool(name: str) -> ModuleType:
    """Import ``tools/<name>.py``, which is not in a package."""
    path = TOOLS / f'{name}.py'
    spec = importlib.util.spec_from_file_location(f'tools_{name}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def import_zoo(name: str) -> ModuleType:
    """Import an optional model library or skip the test, saying why."""
    try:
        return zoo.import_zoo(name)
    except ImportError as error:
        pytest.skip(f'{name} is a test extra and not importable: {error}')
