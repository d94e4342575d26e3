"""The one namespace that stands for the user's `__main__` in a worker.

Functions of the user's `__main__` arrive one by one, each in its own pickle. Were each given globals of its own (what
cloudpickle does), an initializer could not set what a work function reads. So all of them live in *one* dict: that of
the module `sys.modules["__main__"]` of the process they arrive in.

The functions here are named inside pickles and called by `pickle.loads`; a worker needs nothing else to receive.
Every worker loads this module, so it imports only what `pickle` has loaded anyway: not even `typing`.

Which value wins. A function brings the globals it mentions, each with a *version*, which its sender raises when the
value changed over there since it was last sent:

* version 1 is set only where the name is absent (the worker's own initializer may have set it before);
* a version above the one known here is set: the sender's change is newer than whatever the worker did;
* anything else is left alone: an unchanged `model = None` never undoes an initializer.

Versions are kept by sender (`origin`), since a worker forked from a worker inherits this table. What comes back from a
worker to its parent has the origin `TO_PARENT` and only ever fills names that are absent.
"""

from __future__ import annotations

import builtins
import functools
import sys
from types import CellType, CodeType, FunctionType, ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # What a function brings: name -> (version, value), or (version,) for a name that is unbound over there.
    Names = dict[str, tuple[int] | tuple[int, Any]]

__all__ = ["MAIN", "TO_PARENT", "at_fork", "drop_snapshot", "given", "install", "keep_snapshot", "namespace"]

MAIN = "__main__"
TO_PARENT = ""

# origin -> name -> version last heard of.
_known: dict[str, dict[str, int]] = {}
# Names whose value a parent gave: it has them itself, so they need not go back to it.
_given: set[str] = set()
# key -> what `__main__` held when the process forked; a forked child inherits it.
_snapshots: dict[str, dict[str, Any]] = {}


def namespace() -> dict[str, Any]:
    """The globals of `__main__` in this process."""
    return sys.modules[MAIN].__dict__


def install(package: str | None = None) -> dict[str, Any]:
    """Put an empty `__main__` in place, so that a worker's own start-up script shares no name with the user's.

    `package` is what the user's is relative to (`python -m package.module`).

    Called once by a worker that is to receive `__main__` by value, before it decodes anything.
    """
    module = ModuleType(MAIN)
    # Absent rather than None, so that the user's own docstring is set when a function mentions it.
    del module.__dict__["__doc__"]
    module.__dict__["__builtins__"] = builtins
    if package:
        module.__dict__["__package__"] = package
    sys.modules[MAIN] = module
    return module.__dict__


def given(name: str) -> bool:
    """Whether the value of this global came from the parent, which therefore has it."""
    return name in _given


def keep_snapshot(key: str, values: dict[str, Any]) -> None:
    """Keep what `__main__` holds just before a fork, so that both sides can name it afterwards."""
    _snapshots[key] = values


def drop_snapshot(key: str) -> None:
    """Forget a snapshot whose workers are gone."""
    _snapshots.pop(key, None)


def at_fork(key: str, qualname: str) -> Any:
    """What `__main__` held under this name when the process forked, whatever the name holds now."""
    first, *rest = qualname.split(".")
    return functools.reduce(getattr, rest, _snapshots[key][first])


def make_function(code: CodeType, closure: tuple[CellType, ...] | None) -> FunctionType:
    """A function of `__main__`, bare: `set_function` brings the rest once the pickle can refer to it."""
    return FunctionType(code, namespace(), code.co_name, None, closure)


def set_function(function: FunctionType, state: tuple[str, Names, dict[str, Any], dict[str, Any], Any]) -> None:
    """Finish a function of `__main__`: the globals it brings, its `__dict__`, its attributes.

    The last part of the state is the submodules it uses: to have loaded them is all they are for.
    """
    origin, names, attributes, slots, _ = state
    adopt(origin, names)
    function.__dict__.update(attributes)
    for name, value in slots.items():
        setattr(function, name, value)


def adopt(origin: str, names: Names) -> None:
    """Set the globals that came with a function."""
    here = namespace()
    if origin == TO_PARENT:
        for name, (_, *value) in names.items():
            if value:
                here.setdefault(name, value[0])
        return
    known = _known.setdefault(origin, {})
    for name, (version, *value) in names.items():
        if version <= known.get(name, 1 if name in here else 0):
            known.setdefault(name, version)
            continue
        known[name] = version
        if value:
            here[name] = value[0]
            _given.add(name)
        else:
            here.pop(name, None)
            _given.discard(name)


def make_cell() -> CellType:
    """An empty cell; `set_cell` fills it, so that a function can sit in its own closure."""
    return CellType()


def set_cell(cell: CellType, contents: tuple[Any]) -> None:
    """Fill a cell. A tuple, so that a cell that holds None differs from an empty one."""
    cell.cell_contents = contents[0]


def make_cached_property(function: Any, name: str | None) -> Any:
    """A `functools.cached_property`, which before Python 3.12 holds a lock and cannot be pickled as it is."""
    made = functools.cached_property(function)
    made.attrname = name
    return made


def make_cached(function: Any, maxsize: int | None, typed: bool) -> Any:
    """A `functools.lru_cache` around a function of `__main__`. The cache is the worker's own and starts empty."""
    return functools.lru_cache(maxsize=maxsize, typed=typed)(function)
