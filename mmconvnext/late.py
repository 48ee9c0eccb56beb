"""Act when somebody imports a module that is not imported yet."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Callable, Iterator, Optional


def after_import(name: str, action: Callable[[], Any]) -> None:
    """Call ``action`` after ``name`` is imported for the first time."""
    sys.meta_path.insert(0, _After(name, action))


class _After(MetaPathFinder):
    """Finds the module where the other finders do, and adds the action."""

    def __init__(self, name: str, action: Callable[[], Any]) -> None:
        self.name, self.action = name, action

    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> Optional[ModuleSpec]:
        if name != self.name:
            return None
        spec = next(self._found(name, path, target), None)
        if spec is not None and spec.loader is not None:
            self._extend(spec.loader)
        return spec

    def _found(self, *module: Any) -> Iterator[ModuleSpec]:
        for finder in sys.meta_path:
            find = getattr(finder, 'find_spec', None)
            spec = find(*module) if find and finder is not self else None
            if spec is not None:
                yield spec

    def _extend(self, loader: Any) -> None:
        """Let this loader, which is the module's own, act at its end."""
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            del loader.exec_module  # the class's own is left
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                self.action()

        loader.exec_module = exec_module
