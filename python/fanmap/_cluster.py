"""`ClusterExecutor`: what the executors of `fanmap.ray` and `fanmap.dask` have in common for their users.

What they do with a call is `_desk`'s; here is also how what fanmap puts around a function travels without fanmap.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any, TypeVar

from . import _check
from ._around import Nothing, Truth
from ._desk import Desk
from ._fixed import Fixed
from ._foreign import lane_over_any
from ._lane import Flow, Lane
from ._result import executor_map
from ._retry import Retry, wanted
from ._source import in_step

if TYPE_CHECKING:
    from ._batches import Cluster
    from ._options import OnError
    from ._progress import Shown

__all__ = ["ClusterExecutor"]

T = TypeVar("T")


class ClusterExecutor(Executor):
    """What the executors over clusters have in common."""

    # For `fanmap.map`: an input of `itertools.repeat` becomes part of the function.
    _sends_copies = True

    def _open(self, cluster: Cluster, max_workers: int | None, batches: bool, retries: int) -> None:
        self._desk = Desk(cluster, max_workers, batches, retries)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have `fn(*args, **kwargs)` called at the cluster; returns the future of its outcome.

        Function and arguments are copied now: what happens to them later is not seen there.
        """
        _check.function(fn)
        self._desk.check_open()
        return self._desk.submit(self._desk.function(_plain(fn), of_map=False), args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
        ordered: bool = True,
        on_error: OnError = "raise",
        strict: bool = False,
        retries: int | Retry | None = None,
        progress: Shown = False,
    ) -> Iterator[T]:
        """`map(fn, *iterables)` at the cluster: the input is read and everything submitted now, results come in order.

        Options and their meaning are those of `fanmap.ProcessPoolExecutor.map`; `chunksize` has no effect, and what
        failed is tried again (`retries`) while results are asked for.
        """
        _check.executor_map(fn, chunksize, buffersize, on_error, progress, ordered=ordered, strict=strict)
        retry = wanted(retries)
        source = in_step(iterables, strict=strict)
        lane = self._fanmap_lane(fn, Flow(len(iterables) != 1, buffersize or 2**31, ordered=ordered, retry=retry))
        return executor_map(lane, source, timeout, buffersize, ordered=ordered, on_error=on_error, progress=progress)

    def _fanmap_lane(self, fn: Callable[..., Any], flow: Flow) -> Lane:
        if flow.time_limit is not None:
            raise ValueError("task_timeout= ends a task with its worker process, which a cluster's executor cannot do")
        self._desk.check_open()
        window = flow.window or max(self._desk.ahead(), flow.together)
        return lane_over_any(_OfMap(self, fn, flow), fn, flow._replace(window=window), self._desk.full)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; with `wait`, return when all that were submitted have ended.

        `cancel_futures` cancels those that no worker has begun.
        """
        self._desk.close(cancel_futures)
        if wait:
            self._desk.thread.join()

    def __del__(self) -> None:
        desk = getattr(self, "_desk", None)
        if desk is not None and desk.is_ours():
            desk.close(False)


class _OfMap(Executor):
    """What a map submits to: its function is packed once."""

    def __init__(self, executor: ClusterExecutor, fn: Callable[..., Any], flow: Flow) -> None:
        # Kept, for one that nobody holds takes no more calls.
        self._executor = executor
        self._desk = executor._desk
        self._function = self._desk.function(_plain(fn), of_map=True)
        # With retries an item is submitted again, and nobody says which one it is.
        self._indices: Iterator[int | None] = itertools.count() if flow.retry is None else itertools.repeat(None)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        return self._desk.submit(self._function, args, kwargs, next(self._indices))


def _plain(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with what fanmap put around it as a closure: that travels by value."""
    if isinstance(fn, Fixed):
        return _fixed(_plain(fn._fn), fn._arguments)
    if isinstance(fn, Truth | Nothing):
        return (_truth if isinstance(fn, Truth) else _nothing)(_plain(fn._fn))
    return fn


def _fixed(fn: Callable[..., Any], arguments: tuple[tuple[int, Any], ...]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        whole = list(args)
        for place, value in arguments:
            whole.insert(place, value)
        return fn(*whole)

    return _called(call, fn)


def _truth(fn: Callable[..., Any]) -> Callable[..., Any]:
    return _called(lambda item: bool(fn(item)), fn)


def _nothing(fn: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> None:
        fn(*args)

    return _called(call, fn)


def _called(call: Any, fn: Callable[..., Any]) -> Callable[..., Any]:
    call.__module__ = "__main__"  # so that nobody looks for it elsewhere
    call.__qualname__ = getattr(fn, "__qualname__", repr(fn))
    made: Callable[..., Any] = call
    return made
