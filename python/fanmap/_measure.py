"""What `executor="auto"` reads off the clocks, and what sending would cost. The decision is `_choice`'s."""

from __future__ import annotations

import functools
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter, thread_time
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

from . import _codec, _native
from ._around import _Around
from ._choice import Measured
from ._fixed import Fixed

if TYPE_CHECKING:
    from pickle import PickleBuffer

__all__ = ["Clocks", "Computing", "Sending", "Timed", "is_locked", "keep", "recall", "refusal", "said", "sending"]

# Seconds for a byte that is copied into shared memory and out of it.
_BYTE = 0.3e-9

# Seconds of encoding a value from which on it is done once more, to be timed.
_FIRST = 1e-3

# Started before an item is worked on, by the thread that works; tells what passed, and what of processors' time.
Clocks = _native.Clocks


def is_locked() -> bool:
    """Whether one thread at a time runs Python code."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


class Computing:
    """A function that notes the processor time of its last calls, each in its own thread: what other threads of the
    process compute meanwhile is not in it."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn
        self._took: deque[float] = deque(maxlen=32)

    def __call__(self, *args: Any) -> Any:
        began = thread_time()
        try:
            return self._fn(*args)
        finally:
            self._took.append(thread_time() - began)

    def each(self) -> float:
        """Seconds for a call."""
        took = self._took.copy()
        return sum(took) / len(took) if took else 0.0


class Timed:
    """A function that notes what each call took, as wall and processor time, and when it ended."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn
        self.took: list[tuple[float, float, float]] = []

    def __call__(self, *args: Any) -> Any:
        clocks = Clocks()
        try:
            return self._fn(*args)
        finally:
            wall, cpu = clocks.read(alone=False)
            self.took.append((wall, cpu, perf_counter()))

    def at_once(self) -> float:
        """How many calls computed at a time, on average.

        The times of single calls would not tell: threads wait for the interpreter's lock between short ones.
        """
        took = self.took[:]
        began = min(ended - wall for wall, _, ended in took)
        return sum(cpu for _, cpu, _ in took) / (max(ended for _, _, ended in took) - began)


class Sending(NamedTuple):
    """What it costs to send an item to a process, and its result back."""

    seconds: float = 0.0
    bytes: int = 0
    refusal: str = ""


def sending(item: Any, result: Any) -> Sending:
    """Encode them once, as they would be sent."""
    encoder = _codec.Encoder()
    seconds, size = 0.0, 0
    try:
        for value, what in ((item, "an item"), (result, "a result")):
            if value is None:
                continue
            buffers: list[PickleBuffer] = []
            if _native.are_atoms([value]):
                # They travel many together.
                size += 8
                continue
            began = perf_counter()
            data = encoder.encode(value, what, buffers)
            took = perf_counter() - began
            if took > _FIRST:
                # What only the first such value needs may be in it, imports above all.
                buffers = []
                began = perf_counter()
                data = encoder.encode(value, what, buffers)
                took = min(took, perf_counter() - began)
            seconds += took
            large = sum(buffer.raw().nbytes for buffer in buffers)
            seconds += (large + len(data)) * _BYTE
            size += large + len(data)
    except Exception as error:
        return Sending(refusal=said(error))
    return Sending(seconds, size)


def refusal(fn: Callable[..., Any]) -> str:
    """Why a function cannot be sent; nothing if it can. One that travels by value takes some milliseconds at first."""
    try:
        _codec.Encoder().encode_function(fn, [])
    except Exception as error:
        return said(error)
    return ""


def said(error: Exception) -> str:
    """An error in a line."""
    return str(error).partition("\n")[0] or type(error).__name__


# Functions whose measurements are kept. Fewer, and programs that use many in turn measure them again and again; more is
# memory for nothing.
_KEPT = 128

# By what a function is: the identities of its parts, with weak references that say if they still are those.
_kept: dict[tuple[int, ...], tuple[tuple[ref[Any], ...], Measured]] = {}


def keep(fn: Callable[..., Any], seen: Measured) -> None:
    """Remember what was measured of a function, for its life."""
    parts = _parts(fn)
    key = tuple(map(id, parts))

    def forget(_: object) -> None:
        _kept.pop(key, None)

    try:
        known = tuple(ref(part, forget) for part in parts)
    except TypeError:
        return  # there are functions that no weak reference can refer to
    _kept[key] = known, seen
    if len(_kept) > _KEPT:
        with suppress(RuntimeError):  # another thread has changed it between two steps, and sees to this itself
            _kept.pop(next(iter(_kept)), None)


def recall(fn: Callable[..., Any]) -> Measured | None:
    """What was measured of this very function before."""
    if not _kept:
        return None
    parts = _parts(fn)
    found = _kept.get(tuple(map(id, parts)))
    if found is None or any(known() is not part for known, part in zip(found[0], parts, strict=True)):
        return None
    return found[1]


def _parts(fn: Any) -> list[Any]:
    """What makes a function the one that it is: of a partial, its function and those among its arguments that can be
    called; of a bound method, what is behind it."""
    if isinstance(fn, FunctionType):
        return [fn]
    if isinstance(fn, functools.partial):
        inner = [argument for argument in (*fn.args, *fn.keywords.values()) if callable(argument)]
        return [*_parts(fn.func), *(part for argument in inner for part in _parts(argument))]
    if isinstance(fn, MethodType):
        return [fn.__func__, type(fn.__self__)]
    if isinstance(fn, Fixed | _Around):
        return _parts(fn._fn)
    return [fn]
