"""Whether a function of `__main__` is still what it was: then its pickle is, too, and is not made again.

Only where that can be seen by looking: the function, and the functions of `__main__` that it calls, hold nothing but
immutable atoms, and the globals that they name are bound to atoms, modules, and functions and classes that go by name.
Of anything else the inside can change unseen, so it is pickled again for each call.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from . import _main

__all__ = ["Look"]

_ATOMS = frozenset({int, float, complex, str, bytes, bool, type(None)})
_UNBOUND = object()
_PARTS = ("__code__", "__name__", "__qualname__", "__module__", "__doc__")
_parts: Callable[[FunctionType], tuple[Any, ...]] = operator.attrgetter(*_PARTS)


class Look:
    """What a function consisted of when one looked."""

    def __init__(self, functions: list[Any], values: list[tuple[str, object]], modules: int | None) -> None:
        self._functions = functions
        self._values = values
        # Which submodules have been imported is sent along with a package: how many modules there are, or None.
        self._modules = modules

    @classmethod
    def at(
        cls, function: FunctionType, names: Callable[[Any], tuple[str, ...]], reference: Callable[[Any], Any]
    ) -> Look | None:
        """A look at a function; None if it could change unseen.

        `names` gives the globals that code names, `reference` how something travels by name, or None.
        """
        namespace = _main.namespace()
        functions: list[Any] = []
        values: dict[str, object] = {}
        modules = None
        waiting = [function]
        for one in waiting:
            if one.__globals__ is not namespace or not _holds_atoms(one):
                return None
            functions.append((one, _parts(one), one.__defaults__, dict(one.__annotations__)))
            for name in names(one.__code__):
                if name in values:
                    continue
                value = values[name] = namespace.get(name, _UNBOUND)
                if value is _UNBOUND or type(value) in _ATOMS:
                    continue
                if isinstance(value, ModuleType):
                    if value.__package__:
                        modules = len(sys.modules)
                elif isinstance(value, FunctionType | type) and reference(value) is not None:
                    pass
                elif isinstance(value, FunctionType):
                    if value not in waiting:
                        waiting.append(value)
                elif not (isinstance(value, BuiltinFunctionType) and isinstance(value.__self__, ModuleType)):
                    return None
        return cls(functions, list(values.items()), modules)

    def still_holds(self) -> bool:
        """Whether all of it is as it was."""
        for function, parts, defaults, notes in self._functions:
            if (
                _parts(function) != parts
                # Not by equality, for which 1 is True and 0.0 is -0.0.
                or function.__defaults__ is not defaults
                or function.__kwdefaults__
                or function.__dict__
                or function.__annotations__ != notes
            ):
                return False
        namespace = _main.namespace()
        for name, value in self._values:
            if namespace.get(name, _UNBOUND) is not value:
                return False
        return self._modules is None or self._modules == len(sys.modules)


def _holds_atoms(function: FunctionType) -> bool:
    """Whether what a function has beside its code is immutable, and small enough to look at."""
    if function.__closure__ or function.__kwdefaults__ or function.__dict__:
        return False
    if getattr(function, "__type_params__", None):  # since Python 3.12
        return False
    kinds = {type(value) for value in function.__defaults__ or ()}
    notes = function.__annotations__.values()
    return kinds <= _ATOMS and all(type(note) in _ATOMS or _is_builtin(note) for note in notes)


def _is_builtin(note: object) -> bool:
    return isinstance(note, type) and note.__module__ == "builtins"
