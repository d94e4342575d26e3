"""`map_async`: a map that goes on in the background, and the future of all its results.

A map is as far as somebody asks for its results, so one thread does that, from the call to the end (`Gathering`). It
runs in the caller's context. Its protocol with the future:

- The future is pending until the end, so that it can be cancelled until then. Whoever cancels it closes the map after
  that, which ends the thread's question for a result.
- The thread, once it has everything or an error, has the future say whether it was cancelled
  (`set_running_or_notify_cancel`, one step with `cancel`), and gives it the outcome if not. So a future never has the
  results of a map that was closed before its end.
- At exit a map that is still under way is cancelled as one is that nobody asks any more, and the thread is waited for
  as a worker thread is: until the item that it runs itself, or its input, lets go of it, or a Ctrl-C does.
- In a fork of the program neither thread nor outcome will ever be: the future stays pending there, as all do.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from . import _default, _lifecycle
from ._future import Future
from ._map import map
from ._result import MapResult

if TYPE_CHECKING:
    from ._failure import Failure
    from ._options import OnError, Options

__all__ = ["gathered", "map_async"]

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


class _Whole(Future[T]):
    """The future of all results of a map."""

    _results: MapResult[Any] | None = None

    def cancel(self) -> bool:
        """Cancel the map: what has not started never runs. False if all results are there, or it has failed."""
        cancelled = super().cancel()
        if cancelled and self._results is not None:
            self._results.close()
        return cancelled

    def running(self) -> bool:
        """Whether the map is under way."""
        return not self.done()


class _Gathering:
    """The thread that asks a map for its results, and its end."""

    def __init__(self, results: MapResult[T], future: _Whole[list[T]]) -> None:
        # Both until the thread has ended: who waits for that is not to keep results.
        self._results: MapResult[Any] | None = results
        self._future: _Whole[list[Any]] | None = future
        run = contextvars.copy_context().run
        self.thread = threading.Thread(target=run, args=(self._run,), name="fanmap map_async", daemon=True)

    def _run(self) -> None:
        # A daemon to `threading` alone, since who waits for it at exit is `finish_at_exit`.
        threading.current_thread()._daemonic = False  # type: ignore[attr-defined]
        try:
            if self._future is not None and self._results is not None:
                _settle(self._future, self._results)
        finally:
            self._future = self._results = None

    def finish_at_exit(self) -> None:
        self.leave_at_exit()
        if self.thread is not threading.current_thread():  # by a callback, or the function itself
            self.thread.join()

    def leave_at_exit(self) -> None:
        future = self._future
        try:
            if future is not None:
                future.cancel()
        except Exception:  # of a function that shows the progress
            logging.getLogger("concurrent.futures").exception("exception cancelling a map")


def _settle(future: _Whole[list[T]], results: MapResult[T]) -> None:
    """Take all results, and give them to the future."""
    values: list[T] = []
    error = None
    try:
        for value in results:
            # Not all in C, which need not let another thread have the interpreter's lock before its end.
            values.append(value)
    except BaseException as raised:
        error = raised
    try:
        if not future.set_running_or_notify_cancel():
            return
        # Nobody can cancel it any more, and it is not to keep what the map held.
        future._results = None
        if error is None:
            future.set_result(values)
        else:
            future.set_exception(error)
    finally:
        # The error's traceback leads to this frame, which must not lead back to it: that would be a cycle.
        del future, error, values


def gathered(results: MapResult[T]) -> Future[list[T]]:
    """All results of a map, gathered by a thread that starts now."""
    if _lifecycle.exiting():
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")
    future = _future_of(results)
    gathering = _Gathering(results, future)
    _default.gather(gathering)
    _lifecycle.at_exit(gathering, gives_work=True)  # which waits for the thread, so not before it has started
    return future


def _future_of(results: MapResult[T]) -> _Whole[list[T]]:
    future: _Whole[list[T]] = _Whole()
    future._results = results
    return future


@overload
def map_async(
    fn: Callable[[A], T],
    iterable: Iterable[A],
    /,
    *,
    on_error: Literal["raise", "skip"] = "raise",
    **options: Unpack[Options],
) -> Future[list[T]]: ...
@overload
def map_async(
    fn: Callable[[A], T],
    iterable: Iterable[A],
    /,
    *,
    on_error: Literal["return"],
    **options: Unpack[Options],
) -> Future[list[T | Failure]]: ...
@overload
def map_async(
    fn: Callable[[A, B], T],
    iterable: Iterable[A],
    second: Iterable[B],
    /,
    *,
    on_error: Literal["raise", "skip"] = "raise",
    **options: Unpack[Options],
) -> Future[list[T]]: ...
@overload
def map_async(
    fn: Callable[[A, B], T],
    iterable: Iterable[A],
    second: Iterable[B],
    /,
    *,
    on_error: Literal["return"],
    **options: Unpack[Options],
) -> Future[list[T | Failure]]: ...
@overload
def map_async(
    fn: Callable[[A, B, C], T],
    iterable: Iterable[A],
    second: Iterable[B],
    third: Iterable[C],
    /,
    *,
    on_error: Literal["raise", "skip"] = "raise",
    **options: Unpack[Options],
) -> Future[list[T]]: ...
@overload
def map_async(
    fn: Callable[[A, B, C], T],
    iterable: Iterable[A],
    second: Iterable[B],
    third: Iterable[C],
    /,
    *,
    on_error: Literal["return"],
    **options: Unpack[Options],
) -> Future[list[T | Failure]]: ...
@overload
def map_async(
    fn: Callable[..., T],
    iterable: Iterable[Any],
    second: Iterable[Any],
    third: Iterable[Any],
    fourth: Iterable[Any],
    /,
    *more: Iterable[Any],
    on_error: Literal["raise", "skip"] = "raise",
    **options: Unpack[Options],
) -> Future[list[T]]: ...
@overload
def map_async(
    fn: Callable[..., T],
    iterable: Iterable[Any],
    second: Iterable[Any],
    third: Iterable[Any],
    fourth: Iterable[Any],
    /,
    *more: Iterable[Any],
    on_error: Literal["return"],
    **options: Unpack[Options],
) -> Future[list[T | Failure]]: ...
def map_async(
    fn: Callable[..., T], /, *iterables: Iterable[Any], on_error: OnError = "raise", **options: Unpack[Options]
) -> Future[list[Any]]:
    """`fanmap.map` now, its results later: it starts at once, and the `Future` is that of the list of all results.

    `future.result(timeout)` waits for the list, or raises the error that ended the map; `add_done_callback`,
    `fanmap.wait` and `asyncio.wrap_future` are told when it is there. `future.cancel()` cancels the map: what has not
    started never runs. Until the end the future is running, and can be cancelled.

    The options are those of `fanmap.map`. A thread in the background, in the context (`contextvars`) of this call,
    reads the input, keeps the results, and calls a `progress` function. With no executor named it is also the thread
    that does the first items, and all of them if that is fastest. An input that never ends gives no list.

    A map that is under way when the program exits is cancelled. Inside a worker of one of these pools the map runs in
    place: it is done when this returns.

    >>> import fanmap
    >>> future = fanmap.map_async(abs, [-1, -2])
    >>> future.result()
    [1, 2]
    >>> fanmap.shutdown()

    Raises what `fanmap.map` raises: a mistake in an option is an error of this call, and not the future's.
    """
    results: MapResult[Any] = map(fn, *iterables, on_error=on_error, **options)
    if isinstance(options.get("executor", "auto"), str) and _default.in_worker():
        future = _future_of(results)
        _settle(future, results)
        return future
    return gathered(results)
