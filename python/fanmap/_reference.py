"""What may travel as a name, and what must travel by value.

Three policies, one for each way in which a worker comes by the user's `__main__`:

* `ByValue`: it does not have it. What is in `__main__` travels by value.
* `Imported`: it imported it again (the explicit spawn and forkserver contexts). What is found there by name is a name.
* `Forked`: it was forked, and has what `__main__` held then. What is still that same object is named as such.

`reference(obj)` answers for functions, classes and cached functions: NotImplemented means "the ordinary pickle by
name", a tuple is a reduction to use instead, None means "by value".
"""

from __future__ import annotations

import copyreg
import functools
import os
import sys
from types import FunctionType, MethodType

from . import _main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Policy(Protocol):
        """How a worker comes by `__main__`."""

        def reference(self, obj: Any) -> Any:
            """NotImplemented: by name. A tuple: this reduction. None: by value."""

        def inherited(self, name: str, value: object) -> bool:
            """Whether the worker started with this very value under this global name of `__main__`."""

        def preset(self, name: str) -> bool:
            """Whether the worker started with some value under this global name of `__main__`."""


__all__ = ["BY_VALUE", "IMPORTED", "ByValue", "Forked", "Imported", "dispatch_table", "found_by_name"]

# The names under which the user's main module goes: here, and in a worker that imported it again.
_MAINS = frozenset({"__main__", "__mp_main__"})
# What torch registers hands a tensor's memory over, once and while its sender lives: not what is sent ahead, twice, or
# decoded when its worker has ended, and not a copy of the function's own. Its ordinary pickle is whole.
_HANDED_OVER = "torch.multiprocessing.reductions"
# multiprocessing registers these for Python 2's sake. Python's own way needs no import in the worker.
_NATIVE = (MethodType, functools.partial, type(list.append), type(int.__add__))

CachedFunction = type(functools.cache(lambda: None))


def found_by_name(obj: Any) -> bool:
    """Whether `obj.__module__` and `obj.__qualname__` lead to this very object."""
    module = getattr(obj, "__module__", None)
    found = sys.modules.get(module) if isinstance(module, str) else None
    if found is None:
        return False
    for part in obj.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is obj


def _by_value_module(module: str) -> bool:
    """Whether the user asked cloudpickle to send this module's contents by value."""
    cloudpickle = sys.modules.get("cloudpickle")
    if cloudpickle is None:
        return False
    names = cloudpickle.list_registry_pickle_by_value()
    return any(module == name or module.startswith(name + ".") for name in names)


class ByValue:
    """For workers that do not have the user's `__main__`: the default."""

    def reference(self, obj: Any) -> Any:
        if obj.__module__ in _MAINS or not found_by_name(obj) or _by_value_module(obj.__module__):
            return None
        return NotImplemented

    def inherited(self, name: str, value: object) -> bool:
        return False

    def preset(self, name: str) -> bool:
        return False


class Imported(ByValue):
    """For workers that imported the user's `__main__` again, as the standard library's spawned workers do."""

    def reference(self, obj: Any) -> Any:
        return NotImplemented if found_by_name(obj) and not _by_value_module(obj.__module__) else None


class Forked(ByValue):
    """For workers forked from this process. To be made *before* the fork: the child inherits the snapshot.

    `snapshot` is a copy of `__main__`'s namespace. A name that was bound again since is sent, and wins over what the
    worker inherited; what was not is never sent. A value changed in place is not noticed, as with any fork.
    """

    def __init__(self, snapshot: dict[str, Any] | None = None) -> None:
        self._key = os.urandom(16).hex()
        self._snapshot = dict(_main.namespace()) if snapshot is None else snapshot
        _main.keep_snapshot(self._key, self._snapshot)

    def reference(self, obj: Any) -> Any:
        if obj.__module__ not in _MAINS:
            return super().reference(obj)
        found: Any = None
        for step, part in enumerate(obj.__qualname__.split(".")):
            found = getattr(found, part, None) if step else self._snapshot.get(part)
        return (_main.at_fork, (self._key, obj.__qualname__)) if found is obj else None

    def inherited(self, name: str, value: object) -> bool:
        return name in self._snapshot and self._snapshot[name] is value

    def preset(self, name: str) -> bool:
        return name in self._snapshot

    def close(self) -> None:
        """Forget the snapshot; to be called when the workers are gone."""
        _main.drop_snapshot(self._key)


BY_VALUE = ByValue()
IMPORTED = Imported()


def dispatch_table(*below: dict[Any, Any]) -> dict[Any, Any]:
    """The reducers by type: copyreg's, then `below`, then those registered with multiprocessing, if it is loaded.

    One flat dict, made for each pickle: a ChainMap costs a microsecond for each object, and users register at any time.
    """
    table = dict(copyreg.dispatch_table)
    for reducers in below:
        table.update(reducers)
    reduction = sys.modules.get("multiprocessing.reduction")
    if reduction is not None:
        for kind, reducer in list(reduction.ForkingPickler._extra_reducers.items()):
            module = getattr(reducer, "__module__", None)
            if module != _HANDED_OVER and (kind not in _NATIVE or module != "multiprocessing.reduction"):
                table[kind] = reducer
    return table


def named_kind(kind: type) -> bool:
    """Whether objects of this type are pickled by name, so that a policy has to decide about them."""
    return kind is FunctionType or kind is CachedFunction or kind is type or issubclass(kind, type)
