"""`amap`: the results of a map for `async for`, or the list of them all for `await`.

A map waits as plain code does, so one thread asks it for results, when the event loop wants one and not before: what
came together is brought over together. For the list a thread asks until the end (`_map_async`). The loop never waits
but in `await`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, Unpack, overload

from . import _check, _default
from ._map import map
from ._map_async import gathered
from ._options import Wanted
from ._result import MapResult, MapStats

if TYPE_CHECKING:
    from types import TracebackType

    from ._failure import Failure
    from ._options import OnError, Options

__all__ = ["AsyncMapResult", "amap"]

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


class AsyncMapResult(AsyncIterator[T], Generic[T]):
    """The results of `fanmap.amap`, for `async for`. It is an async context manager, and can be closed before its end.

    `await` gives the list of all results that were not taken yet, and closes it.

    >>> import asyncio, fanmap
    >>> async def first_of(n):
    ...     async with fanmap.amap(abs, range(-n, 0), executor="threads") as results:
    ...         async for result in results:
    ...             return result
    >>> asyncio.run(first_of(5))
    5
    >>> fanmap.shutdown()
    """

    def __init__(self, results: MapResult[T]) -> None:
        self._results = results
        results._kill_at_end()
        # Brought over, and not handed out.
        self._ready: deque[T] = deque()
        # One thread, which starts with the first question.
        self._asker, self._dismiss = _default.pool("threads", Wanted(workers=1))
        self._over = False

    def __aiter__(self) -> AsyncMapResult[T]:
        return self

    async def __anext__(self) -> T:
        if self._ready:
            return self._ready.popleft()
        if self._over:
            raise StopAsyncIteration
        try:
            came = await asyncio.get_running_loop().run_in_executor(self._asker, _ask, self._results)
        except BaseException:
            # A cancelled `await` as well: nobody knows then which result would be lost, so the work ends.
            self.close()
            raise
        if not came:
            self.close()
            raise StopAsyncIteration
        self._ready.extend(came)
        return self._ready.popleft()

    def __await__(self) -> Generator[Any, None, list[T]]:
        return self._rest().__await__()

    async def _rest(self) -> list[T]:
        came = list(self._ready)
        try:
            if not self._over:
                rest: list[T] = await asyncio.wrap_future(gathered(self._results))
                came += rest
            return came
        finally:
            # At once if the `await` is cancelled, as well.
            self.close()

    @property
    def stats(self) -> MapStats:
        """How far it is and what it took: see `MapStats`."""
        return self._results.stats

    def close(self) -> None:
        """Cancel what has not started, and end the iterator.

        What runs in a process is ended, with its worker; what runs in a thread is not waited for.
        """
        if not self._over:
            self._over = True
            self._ready.clear()
            self._results.close()
            assert self._dismiss is not None, "a pool of one thread is nobody else's"
            self._dismiss(False)

    async def aclose(self) -> None:
        """The same, by the name that async generators have for it."""
        self.close()

    async def __aenter__(self) -> AsyncMapResult[T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_over"):
            self.close()


def _ask(results: MapResult[T]) -> list[T]:
    """The next results: one, and those that are kept with it; none at the end."""
    try:
        came = [next(results)]
    except StopIteration:  # which no future can hold
        return []
    while kept := results._take_kept():
        came.append(kept[0])
    return came


@overload
def amap(
    fn: Callable[[A], T],
    iterable: Iterable[A],
    /,
    *,
    on_error: Literal["raise", "skip"] = "raise",
    **options: Unpack[Options],
) -> AsyncMapResult[T]: ...
@overload
def amap(
    fn: Callable[[A], T],
    iterable: Iterable[A],
    /,
    *,
    on_error: Literal["return"],
    **options: Unpack[Options],
) -> AsyncMapResult[T | Failure]: ...
@overload
def amap(
    fn: Callable[[A, B], T],
    iterable: Iterable[A],
    second: Iterable[B],
    /,
    *,
    on_error: Literal["raise", "skip"] = "raise",
    **options: Unpack[Options],
) -> AsyncMapResult[T]: ...
@overload
def amap(
    fn: Callable[[A, B], T],
    iterable: Iterable[A],
    second: Iterable[B],
    /,
    *,
    on_error: Literal["return"],
    **options: Unpack[Options],
) -> AsyncMapResult[T | Failure]: ...
@overload
def amap(
    fn: Callable[[A, B, C], T],
    iterable: Iterable[A],
    second: Iterable[B],
    third: Iterable[C],
    /,
    *,
    on_error: Literal["raise", "skip"] = "raise",
    **options: Unpack[Options],
) -> AsyncMapResult[T]: ...
@overload
def amap(
    fn: Callable[[A, B, C], T],
    iterable: Iterable[A],
    second: Iterable[B],
    third: Iterable[C],
    /,
    *,
    on_error: Literal["return"],
    **options: Unpack[Options],
) -> AsyncMapResult[T | Failure]: ...
@overload
def amap(
    fn: Callable[..., T],
    iterable: Iterable[Any],
    second: Iterable[Any],
    third: Iterable[Any],
    fourth: Iterable[Any],
    /,
    *more: Iterable[Any],
    on_error: Literal["raise", "skip"] = "raise",
    **options: Unpack[Options],
) -> AsyncMapResult[T]: ...
@overload
def amap(
    fn: Callable[..., T],
    iterable: Iterable[Any],
    second: Iterable[Any],
    third: Iterable[Any],
    fourth: Iterable[Any],
    /,
    *more: Iterable[Any],
    on_error: Literal["return"],
    **options: Unpack[Options],
) -> AsyncMapResult[T | Failure]: ...
def amap(
    fn: Callable[..., T], /, *iterables: Iterable[Any], on_error: OnError = "raise", **options: Unpack[Options]
) -> AsyncMapResult[Any]:
    """`fanmap.map` for event loops, which go on while results are made: `async for` gives one after the other, and
    `await` the list of them all.

    `fn` is a plain function, called in the workers. The options are those of `fanmap.map`. One thread reads the input,
    waits for results, and calls a `progress` function.

    A cancelled `await` ends the map, as does leaving it early: what has not started is cancelled, and what runs in a
    process is ended, with its worker. (A thread cannot be ended.)

    >>> import asyncio, fanmap
    >>> async def main():
    ...     async for result in fanmap.amap(abs, [-1, -2]):
    ...         print(result)
    ...     return await fanmap.amap(abs, [-3, -4])
    >>> asyncio.run(main())
    1
    2
    [3, 4]
    >>> fanmap.shutdown()

    Raises what `fanmap.map` raises; TypeError for an input that is async itself, or a coroutine function.
    """
    _check.function(fn)
    if asyncio.iscoroutinefunction(fn):
        raise TypeError(f"amap() calls a plain function in workers, and {fn!r} is a coroutine function")
    for iterable in iterables:
        if hasattr(iterable, "__aiter__") and not hasattr(iterable, "__iter__"):
            raise TypeError("amap() reads a plain input in a thread of its own, and this one is async")
    results: MapResult[Any] = map(fn, *iterables, on_error=on_error, **options)
    return AsyncMapResult(results)
