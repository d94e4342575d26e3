"""What is to be done once a module is imported, if it ever is: for modules too dear to import for that alone."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

__all__ = ["when_imported"]


def when_imported(name: str, act: Callable[[Any], None]) -> None:
    """Call `act(module)` now, if the module is imported, or as soon as it is."""
    module = sys.modules.get(name)
    if module is not None:
        act(module)
    else:
        sys.meta_path.insert(0, _Finder(name, act))


class _Finder:
    """Finds one module as everybody else would, and does something once it is loaded."""

    def __init__(self, name: str, act: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._act = act

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Called by the import system for every module that is not loaded yet."""
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                _act_after_load(spec.loader, self._act)
                return spec
        return None


def _act_after_load(loader: Any, act: Callable[[ModuleType], None]) -> None:
    load = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        load(module)
        act(module)

    loader.exec_module = exec_module
