"""Saying what could not be sent, and where it sits.

Run only after a pickle has failed, so it may take its time: it pickles the parts, and their parts, until it finds one
that fails although none of its own parts does.
"""

from __future__ import annotations

import functools
import pickle
from collections import deque
from collections.abc import Callable, Iterator
from types import FunctionType, MethodType
from typing import Any

from . import _main

__all__ = ["explain", "function_name"]

# Fewer and a lock deep in an object is not named; more and the error takes seconds to appear.
_MOST_PROBES = 500
_MOST_PARTS = 100
_DEEPEST = 6

_BETWEEN_PROCESSES = ("through inheritance", "SemLock created in a fork context")


def function_name(function: Any) -> str:
    """How messages name a function: `the function 'work'`."""
    kind = type(function)
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", None)
    if name is None:
        return f"the callable (a {_kind(function)})"
    return f"the function {name!r}" + (" (a functools.partial)" if issubclass(kind, functools.partial) else "")


def explain(what: str, obj: object, error: Exception, dumps: Callable[[Any], object], *, to_parent: bool) -> Exception:
    """The error to raise, from `error`, when `what` could not be pickled."""
    path, offender, reason = _Search(dumps).run(obj, error)
    where = "back to the calling process" if to_parent else "to a worker process"
    place = f"{path} (a {_kind(offender)})" if path else f"a {_kind(offender)}"
    if isinstance(reason, RecursionError) or isinstance(reason.__cause__, RecursionError):
        return pickle.PicklingError(f"cannot send {what} {where}: {place} is nested too deeply to be pickled")
    if _is_between_processes(reason):
        return TypeError(
            f"cannot send {what} {where}: {place} is shared with processes only when they start; pass it in "
            'initargs= of a pool with mp_context=get_context("fork"), or use one of get_context("spawn") in initargs='
        )
    hint = "create it in the worker (initializer=), or pass what it is made from"
    if to_parent:
        hint = "return only what can be pickled"
    return pickle.PicklingError(
        f"cannot send {what} {where}: {place} cannot be pickled ({type(reason).__name__}: {reason}); {hint}"
    )


def _is_between_processes(error: Exception) -> bool:
    """Whether this is how a lock or a queue of multiprocessing refuses to be pickled once its processes run."""
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _BETWEEN_PROCESSES)


def _kind(obj: object) -> str:
    kind = type(obj)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class _Search:
    """A search, nearest parts first, for a part that fails although none of its own parts does."""

    def __init__(self, dumps: Callable[[Any], object]) -> None:
        self._dumps = dumps
        self._probes = 0
        # By address; the objects are kept, so that an address is not used twice.
        self._tried: dict[int, tuple[object, Exception | None]] = {}

    def run(self, obj: object, error: Exception) -> tuple[str, object, Exception]:
        """Where it sits ("" for `obj` itself), what it is, and why it fails."""
        self._tried[id(obj)] = (obj, error)
        waiting: deque[tuple[list[str], object, Exception]] = deque([([], obj, error)])
        queued = {id(obj)}
        furthest = waiting[0]
        while waiting:
            path, value, reason = furthest = waiting.popleft()
            failing = []
            for label, part in _parts(value):
                wrong = self._try(part)
                # A primitive of multiprocessing refuses as a whole; its parts would tell another story.
                if wrong is not None and (_is_between_processes(wrong) or not _is_between_processes(reason)):
                    failing.append(([*path, label], part, wrong))
            if not failing or len(path) >= _DEEPEST:
                break
            fresh = [found for found in failing if id(found[1]) not in queued]
            queued.update(id(found[1]) for found in fresh)
            waiting.extend(fresh)
        path, value, reason = furthest
        return (", ".join(path), value, reason)

    def _try(self, value: object) -> Exception | None:
        if id(value) not in self._tried:
            if self._probes >= _MOST_PROBES:
                return None
            self._probes += 1
            wrong: Exception | None = None
            try:
                self._dumps(value)
            except Exception as error:
                # Without its frames, which refer to this search, which keeps it: that would be a circle.
                wrong = error.with_traceback(None)
            self._tried[id(value)] = (value, wrong)
        return self._tried[id(value)][1]


def _parts(obj: Any) -> Iterator[tuple[str, object]]:
    """What an object is made of, as far as pickling goes, with words for where each part sits."""
    if isinstance(obj, FunctionType):
        yield from _parts_of_function(obj)
    elif isinstance(obj, MethodType):
        yield "its object (self)", obj.__self__
        yield "its function", obj.__func__
    elif isinstance(obj, functools.partial):
        yield "its function", obj.func
        for index, value in enumerate(obj.args):
            yield f"its argument {index}", value
        for name, value in obj.keywords.items():
            yield f"its argument {name!r}", value
    elif isinstance(obj, dict):
        for key, value in _some(obj.items()):
            yield f"its value [{key!r:.60}]", value
            yield f"its key {key!r:.60}", key
    elif isinstance(obj, (list, tuple)):
        for index, value in enumerate(_some(obj)):
            yield f"its element [{index}]", value
    elif isinstance(obj, (set, frozenset)):
        for value in _some(obj):
            yield "an element", value
    elif isinstance(obj, type):
        for name, value in _some(vars(obj).items()):
            if name not in ("__dict__", "__weakref__"):
                yield f"its attribute {name!r}", getattr(value, "__func__", value)
    else:
        attributes = getattr(obj, "__dict__", None)
        if isinstance(attributes, dict):
            for name, value in _some(attributes.items()):
                yield f"its attribute {name!r}", value
        for kind in type(obj).__mro__:
            for name in _slots(kind):
                if hasattr(obj, name):
                    yield f"its attribute {name!r}", getattr(obj, name)
        yield "its class", type(obj)


def _parts_of_function(function: FunctionType) -> Iterator[tuple[str, object]]:
    from ._byvalue import global_names

    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"its closure variable {name!r}", cell.cell_contents
        except ValueError:
            continue  # not bound yet
    for name in global_names(function.__code__):
        if name in function.__globals__ and not (function.__globals__ is _main.namespace() and name == "__name__"):
            yield f"its global {name!r}", function.__globals__[name]
    for index, value in enumerate(function.__defaults__ or ()):
        yield f"its default argument {index}", value
    for name, value in (function.__kwdefaults__ or {}).items():
        yield f"its default argument {name!r}", value
    for name, value in vars(function).items():
        yield f"its attribute {name!r}", value


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def _some(values: Any) -> Iterator[Any]:
    for _, value in zip(range(_MOST_PARTS), list(values), strict=False):
        yield value
