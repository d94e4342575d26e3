"""`fanmap.map` and the executors' `map`: ordered results, read ahead within a bound.

A `MapResult` reads the input and hands out results; a *lane* is what it sends items into and takes outcomes from:
threads and processes of the engine, any other executor, or, inside a worker, the calling thread itself. No `Future` is
made for the engine's own lanes.

The order of things in `next`: the next result is handed out if it is there. Otherwise an item is read and sent at once,
and so on until the window is full; only then does it wait. So a result is never withheld because the input is slow. An
input that cannot be slow (a list, a range) is topped up before each result as well, so that workers never wait for the
consumer.

What threads share: one thread at a time may ask a `MapResult` for a result (`_turn`), and that thread alone touches
its input, its counts and its lane. Any thread may close it meanwhile: that sets `_closed`, for ever, and then closes
what is kept and the lane, which wakes the thread that waits there. Whatever that thread has in hand when it sees
`_closed` it drops, and it looks after each step that takes time: reading an item, waiting, decoding. A lane that is
closed sends nothing on, so an item that was read too late goes nowhere.
"""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Executor
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from . import _check, _native, _outcome
from ._fixed import fix
from ._lane import HereLane, lane_over_any

if TYPE_CHECKING:
    from types import TracebackType

    from ._lane import Came, Lane

__all__ = ["MapResult", "executor_map", "map"]

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")

# Inputs whose next item is always at hand.
_PROMPT = (list, tuple, range, str, bytes, bytearray, dict, set, frozenset)


class MapResult(_native.Stash, Iterator[T], Generic[T]):
    """The results of a parallel map: a lazy iterator in the order of the input, like the built-in `map`'s.

    It is a context manager, and can be closed before its end: what has not started is then cancelled. The first
    exception that it raises ends it. A result that was handed out is not kept.

    >>> import fanmap, itertools
    >>> with fanmap.map(abs, itertools.count(-5)) as results:
    ...     for result in results:
    ...         if result == 0:
    ...             break
    >>> fanmap.shutdown()
    """

    def __init__(
        self,
        lane: Lane,
        iterables: tuple[Iterable[Any], ...],
        *,
        deadline: float | None = None,
        at_end: Callable[[bool], object] | None = None,
        closes_itself: bool = True,
    ) -> None:
        self._lane = lane
        # Like the built-in `map`: the shortest input ends it.
        single = len(iterables) == 1
        self._input: Iterator[Any] | None = iter(iterables[0]) if single else zip(*iterables, strict=False)
        self._prompt = all(type(iterable) in _PROMPT for iterable in iterables)
        self._hint = _length_hint(iterables)
        self._deadline = deadline
        self._at_end = at_end
        # Whether dropping the iterator cancels the rest, even if nothing was asked of it.
        self._closes_itself = closes_itself
        self._of_executor = not closes_itself
        self._sent = 0
        self._taken = 0
        self._input_error: BaseException | None = None
        self._closed = False
        self._owner = os.getpid()
        # Held by the thread that asks for a result.
        self._turn = threading.Lock()

    # For `__del__`: at the interpreter's end a module's names may be gone before its objects are.
    _getpid = staticmethod(os.getpid)

    def __iter__(self) -> MapResult[T]:
        return self

    if TYPE_CHECKING:

        def __next__(self) -> T: ...

    def _refill(self) -> T:
        """The next result, when none is kept. Those that came with it are kept for the next calls."""
        if self._closed:
            raise StopIteration
        if not self._turn.acquire(blocking=False):
            # As a generator does: two threads could only get in each other's way.
            raise ValueError("a result of this map is already being asked for")
        try:
            # Another thread may have brought some since this one looked.
            kept = self._take_kept()
            return kept[0] if kept else self._next()
        finally:
            self._turn.release()

    def _next(self) -> T:
        self._closes_itself = True
        try:
            outcome = self._outcome()
        except BaseException as error:
            self._end(interrupted=isinstance(error, KeyboardInterrupt))
            raise
        if self._closed:
            # By another thread, meanwhile.
            raise StopIteration
        if outcome is None:
            error_of_input = self._input_error
            self._input_error = None
            self._end()
            if error_of_input is not None:
                raise error_of_input
            raise StopIteration
        index = self._taken
        kind, payload, count = outcome
        self._taken += count
        try:
            if kind == _outcome.VALUE:
                values: list[T] = self._lane.values(payload, index, count)
                first = values.pop(0)
                if values:
                    self._keep(values)
                if self._closed:
                    raise StopIteration
                return first
            failed = CancelledError() if kind == _outcome.CANCELLED else self._lane.failure(kind, payload, index)
        except BaseException:
            self._end()
            raise
        finally:
            del outcome, payload
        self._end()
        try:
            if isinstance(failed, StopIteration) and self._of_executor:
                # An executor's map is a generator in the standard library, where this is no silent end.
                raise RuntimeError("generator raised StopIteration") from failed
            raise failed
        finally:
            # The traceback refers to this frame, which must not refer to the exception: that would be a cycle.
            del failed

    def close(self) -> None:
        """Cancel what has not started, and end the iterator. What runs is not waited for; its results are dropped.

        Any thread may do so: a `next` that waits in another ends with StopIteration. (Over an executor that is not of
        this package it first sees the end of the call that it waits for, if that runs.)
        """
        self._end()

    def __enter__(self) -> MapResult[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end(interrupted=kind is not None and issubclass(kind, KeyboardInterrupt))

    def __del__(self) -> None:
        if getattr(self, "_closes_itself", False):
            self._end()

    def __length_hint__(self) -> int:
        if self._closed:
            return 0
        kept = self._kept()
        return max(self._hint - self._taken, self._lane.outstanding()) + kept

    def _outcome(self) -> Came | None:
        """The next outcome, or None at the end."""
        lane = self._lane
        if self._prompt:
            while self._input is not None and (room := lane.room()):
                self._read(room)
        while not self._closed:
            outcome = lane.poll(self)
            if outcome is not None:
                return outcome
            if self._input is not None and (room := lane.room()):
                self._read(room)
                continue
            return lane.wait(None if self._deadline is None else self._deadline - monotonic())
        return None

    def _read(self, count: int) -> None:
        """Read items and send them: up to `count` of an input that has them at hand, else one."""
        source = self._input
        if source is None:
            return  # closed by another thread
        items: list[Any] = []
        try:
            if self._prompt and count > 1:
                # Those that it gave before an error are in the list then.
                items.extend(islice(source, count))
            else:
                count = 1
                items.append(next(source))
        except StopIteration:
            pass
        except Exception as error:
            # It surfaces in its place: after the results of the items that came before.
            self._input_error = error
        if self._closed:
            return
        if items:
            try:
                self._lane.send(items, self._sent)
            except RuntimeError:
                if self._closed:
                    return  # and a pool that was this map's alone with it
                raise
            self._sent += len(items)
        if len(items) < count:
            self._input = None
            self._lane.sent_all()

    def fill(self, count: int | None) -> None:
        """Read and send now: `count` items, or (None) all."""
        while self._input is not None and (count is None or self._sent < count):
            room = max(self._lane.room(), 1)
            self._read(room if count is None else min(room, count - self._sent))
        if self._input_error is not None:
            error, self._input_error = self._input_error, None
            # What was submitted before it runs on, though nobody will have the results.
            self._closed = True
            raise error

    def _end(self, *, interrupted: bool = False) -> None:
        if self._closed:
            return
        self._closed = True
        if self._getpid() != self._owner:
            return  # in a fork, where locks of the lane's may be held for ever by threads that are not there
        self._close_kept()
        whole = self._input is None and self._lane.outstanding() == 0
        self._input = None
        try:
            self._lane.close(interrupted=interrupted)
        finally:
            if self._at_end is not None:
                # A pool of its own: one that still runs something is not waited for.
                self._at_end(whole or interrupted)


@overload
def map(
    fn: Callable[[A], T],
    iterable: Iterable[A],
    /,
    *,
    executor: str | Executor = "processes",
    workers: int | None = None,
    buffersize: int | None = None,
) -> MapResult[T]: ...
@overload
def map(
    fn: Callable[[A, B], T],
    iterable: Iterable[A],
    second: Iterable[B],
    /,
    *,
    executor: str | Executor = "processes",
    workers: int | None = None,
    buffersize: int | None = None,
) -> MapResult[T]: ...
@overload
def map(
    fn: Callable[..., T],
    /,
    *iterables: Iterable[Any],
    executor: str | Executor = "processes",
    workers: int | None = None,
    buffersize: int | None = None,
) -> MapResult[T]: ...
def map(
    fn: Callable[..., T],
    /,
    *iterables: Iterable[Any],
    executor: str | Executor = "processes",
    workers: int | None = None,
    buffersize: int | None = None,
) -> MapResult[T]:
    """The built-in `map`, in parallel: the same results in the same order, made as they are asked for.

    The input is read in the calling thread and only so far ahead of the results that were taken, so it may be endless.
    How far follows from the measured time of the tasks; `buffersize` (at least 1) sets a number of items.

    `executor` is `"processes"` (for work that computes), `"threads"` (for work that waits), or any
    `concurrent.futures.Executor`. The two names use pools that stay warm for the next call: see `fanmap.shutdown`.
    `workers` asks for a pool of that many for this one map, -1 for as many as `fanmap.cpu_count()`; not with an
    executor of your own.

    Inside a worker of one of these pools it runs in place, item by item.

    An exception raised by `fn` is raised in its item's place and ends the map; the rest is cancelled. So does an error
    of the input, after the results of the items before it. A worker process that dies raises `WorkerCrashed` in its
    item's place.

    >>> import fanmap
    >>> list(fanmap.map(pow, range(5), [2] * 5))
    [0, 1, 4, 9, 16]
    >>> list(fanmap.map(abs, [-1, -2], executor="threads"))
    [1, 2]
    >>> fanmap.shutdown()

    Raises TypeError if `fn` cannot be called, an input cannot be iterated or `executor` is no executor; ValueError for
    an unknown name, or a number below 1.
    """
    _check.function(fn)
    if not iterables:
        raise TypeError("map() must have at least two arguments: a function and something to iterate over")
    workers = _check.map_workers(workers)
    _check.positive("buffersize", buffersize)
    star = len(iterables) != 1
    if isinstance(executor, str):
        from . import _default

        if executor not in _default.NAMES:
            names = " or ".join(repr(name) for name in _default.NAMES)
            raise ValueError(f"unknown executor {executor!r}: use {names}, or a concurrent.futures.Executor")
        if _default.in_worker():
            return MapResult(HereLane(fn, star), iterables)
        pool: Executor
        pool, end = _default.pool(executor, workers)
    elif isinstance(executor, Executor):
        if workers is not None:
            raise ValueError("workers= makes a pool for this map; an executor that is given has its own number")
        pool, end = executor, None
    else:
        raise TypeError(
            f"executor must be 'threads', 'processes' or a concurrent.futures.Executor, not {type(executor).__name__}"
        )
    try:
        if getattr(pool, "_sends_copies", False):
            fn, iterables = fix(fn, iterables)
            star = len(iterables) != 1
        return MapResult(_lane(pool, fn, star, buffersize), iterables, at_end=end)
    except BaseException:
        if end is not None:
            end(False)
        raise


def executor_map(
    lane: Lane, iterables: tuple[Iterable[Any], ...], timeout: float | None, buffersize: int | None
) -> Iterator[Any]:
    """An executor's `map`: everything (or as much as the buffer holds) is submitted at the call."""
    deadline = None if timeout is None else monotonic() + timeout
    result: MapResult[Any] = MapResult(lane, iterables, deadline=deadline, closes_itself=False)
    result.fill(buffersize)
    return result


def _lane(pool: Executor, fn: Callable[..., Any], star: bool, window: int | None) -> Lane:
    # An executor of ours brings its own lane. Asking it, rather than its type, imports neither of them.
    make: Callable[..., Lane] | None = getattr(pool, "_fanmap_lane", None)
    return lane_over_any(pool, fn, star, window) if make is None else make(fn, star, window)


def _length_hint(iterables: tuple[Iterable[Any], ...]) -> int:
    # Without any there is nothing to map: the standard library's executors allow that.
    return min((operator.length_hint(iterable, 0) for iterable in iterables), default=0)
