"""`fanmap.map`, and how it begins: what was asked for becomes a lane and a `MapResult`."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from functools import partial
from itertools import starmap
from time import monotonic
from typing import Any, Literal, TypeVar, Unpack, overload

from . import _check, _default
from ._auto import AutoLane
from ._budget import Quiet
from ._failure import Failure
from ._fixed import Fixed, fix
from ._foreign import lane_over_any
from ._lane import Flow, HereLane, Lane, Plain
from ._options import USUAL, OnError, Options, Wanted, asks_nothing, sends_copies
from ._progress import Shown
from ._result import Manner, MapResult
from ._retry import Retry
from ._source import Source, in_step

__all__ = ["begin", "map"]

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


@overload
def map(
    fn: Callable[[A], T],
    iterable: Iterable[A],
    /,
    *,
    on_error: Literal["raise", "skip"] = "raise",
    **options: Unpack[Options],
) -> MapResult[T]: ...
@overload
def map(
    fn: Callable[[A], T],
    iterable: Iterable[A],
    /,
    *,
    on_error: Literal["return"],
    **options: Unpack[Options],
) -> MapResult[T | Failure]: ...
@overload
def map(
    fn: Callable[[A, B], T],
    iterable: Iterable[A],
    second: Iterable[B],
    /,
    *,
    on_error: Literal["raise", "skip"] = "raise",
    **options: Unpack[Options],
) -> MapResult[T]: ...
@overload
def map(
    fn: Callable[[A, B], T],
    iterable: Iterable[A],
    second: Iterable[B],
    /,
    *,
    on_error: Literal["return"],
    **options: Unpack[Options],
) -> MapResult[T | Failure]: ...
@overload
def map(
    fn: Callable[[A, B, C], T],
    iterable: Iterable[A],
    second: Iterable[B],
    third: Iterable[C],
    /,
    *,
    on_error: Literal["raise", "skip"] = "raise",
    **options: Unpack[Options],
) -> MapResult[T]: ...
@overload
def map(
    fn: Callable[[A, B, C], T],
    iterable: Iterable[A],
    second: Iterable[B],
    third: Iterable[C],
    /,
    *,
    on_error: Literal["return"],
    **options: Unpack[Options],
) -> MapResult[T | Failure]: ...
@overload
def map(
    fn: Callable[..., T],
    iterable: Iterable[Any],
    second: Iterable[Any],
    third: Iterable[Any],
    fourth: Iterable[Any],
    /,
    *more: Iterable[Any],
    on_error: Literal["raise", "skip"] = "raise",
    **options: Unpack[Options],
) -> MapResult[T]: ...
@overload
def map(
    fn: Callable[..., T],
    iterable: Iterable[Any],
    second: Iterable[Any],
    third: Iterable[Any],
    fourth: Iterable[Any],
    /,
    *more: Iterable[Any],
    on_error: Literal["return"],
    **options: Unpack[Options],
) -> MapResult[T | Failure]: ...
def map(
    fn: Callable[..., T],
    /,
    *iterables: Iterable[Any],
    executor: str | Executor = "auto",
    workers: int | None = None,
    buffersize: int | None = None,
    ordered: bool = True,
    chunksize: int = 1,
    timeout: float | None = None,
    on_error: OnError = "raise",
    initializer: Callable[..., object] | None = None,
    initargs: tuple[Any, ...] = (),
    strict: bool = False,
    progress: Shown = False,
    task_timeout: float | None = None,
    max_memory_per_worker: int | None = None,
    worker_memory_limit: int | None = None,
    retries: int | Retry | None = None,
    tag_output: bool = False,
    forward_logging: bool = False,
) -> MapResult[Any]:
    """The built-in `map`, in parallel: the same results in the same order, made as they are asked for.

    The input is read in the calling thread and only so far ahead of the results that were taken, so it may be endless.
    How far follows from the measured time of the tasks; `buffersize` (at least 1) sets a number of items.

    `executor="auto"`, the default, does the first items in the calling thread, measures them, and goes on there, over
    threads or over processes, whichever is fastest; so `fn` must be one that may run in any thread or process.
    `fanmap.explain` says what it would choose, and why. `"processes"` (for work that computes), `"threads"` (for work
    that waits) and `"serial"` (the calling thread alone, for debugging) leave no choice, nor does any
    `concurrent.futures.Executor`. Pools stay warm for the next call: see `fanmap.shutdown`.
    `workers` asks for a pool of that many for this one map, -1 for as many as `fanmap.cpu_count()`; so does
    `initializer`, which each worker of that pool calls first, with `initargs`. Neither goes with an executor of yours,
    and with an `initializer` auto means processes.

    `ordered=False` gives results as they come. `strict=True` is the built-in map's: inputs that are not
    of one length are a ValueError. A result that is not there `timeout` seconds after this call is a TimeoutError.
    `chunksize` is never needed for speed: at least so many items are read together, and over processes at least so
    many go to a worker at a time. In the calling thread it does nothing. Over threads and other executors, workers take
    items one by one all the same.

    `task_timeout` is for processes, and means them: a task that runs for more seconds fails with `TaskTimeout`, and
    its worker is replaced. Waiting for a worker, and loading `fn` in a new one, does not count.

    `max_memory_per_worker` and `worker_memory_limit` (bytes, at least a MiB) are for processes, too, and make a pool
    for this one map. A worker that has more memory of its own than the first after a task is replaced by a fresh one.
    What goes past the second is refused at any time: the task's MemoryError becomes a `MemoryLimitExceeded` that names
    the item, and its worker is replaced. `ProcessPoolExecutor` says what counts.

    `retries=3` tries a task that failed again, up to three times: if `fn` raised an Exception, its worker died or its
    time was up. `fanmap.Retry` says how long to wait in between, and for which exceptions. The error of the last try
    has those of the others as notes. What cannot be pickled is not tried again. Until an outcome is final its item
    counts as under way; over processes one that waits for its next try takes nobody's place, and each try finds the
    arrays of its item as they were sent; over threads it keeps its thread; over an executor that is not of this
    package it is submitted again while results are asked for.

    What worker processes print goes to `sys.stdout` and `sys.stderr` in whole lines, and is there before its item's
    result. With `tag_output=True` each line begins with its worker, `[worker 0]`. With `forward_logging=True` the log
    records of workers are handled by the program's own loggers, if their levels pass them, and by no handler of the
    worker's. Both are for processes, and mean them; where maps share a pool, the newest decides about the tags.

    `progress=True` shows a bar by tqdm (`pip install 'fanmap[progress]'`), with the input's length if it has one; a
    text is the bar's label; a function is called, a few times a second and at the end, with the number of items done
    and their total or None.

    What fails (`fn` raises, a worker process dies, an item cannot be pickled) is, by `on_error`:

    - `"raise"`: raised in its item's place, which ends the map; the rest is cancelled;
    - `"return"`: a `fanmap.Failure` in its item's place, with `index`, `item` and `error`;
    - `"skip"`: left out.

    An error of the input is always raised, after the results of the items before it; so is that of a pool that cannot
    go on. Inside a worker of one of these pools the map runs in place, item by item.

    >>> import fanmap
    >>> list(fanmap.map(pow, range(5), [2] * 5))
    [0, 1, 4, 9, 16]
    >>> list(fanmap.map(abs, [-1, -2], executor="threads"))
    [1, 2]
    >>> list(fanmap.map(int, ["1", "two", "3"], executor="threads", on_error="skip"))
    [1, 3]
    >>> sorted(fanmap.map(abs, [-1, -2], executor="threads", ordered=False))
    [1, 2]
    >>> fanmap.shutdown()

    Raises TypeError if `fn` cannot be called, an input cannot be iterated or `executor` is no executor; ValueError for
    an unknown name, a number below 1, or options that exclude each other.
    """
    _check.function(fn)
    if not iterables:
        raise TypeError("map() must have at least two arguments: a function and something to iterate over")
    given = (
        workers,
        buffersize,
        ordered,
        chunksize,
        timeout,
        on_error,
        initializer,
        initargs,
        strict,
        progress,
        task_timeout,
        max_memory_per_worker,
        worker_memory_limit,
        retries,
        tag_output,
        forward_logging,
    )
    wanted = USUAL if executor == "auto" and asks_nothing(given) else Wanted(executor, *given).checked()
    if len(iterables) > 1 and not strict and (wanted.executor == "auto" or sends_copies(wanted.executor)):
        # With `strict`, what `repeat` gives counts.
        fn, iterables = fix(fn, iterables)
    return begin(fn, in_step(iterables, strict=strict), len(iterables) != 1, wanted)


def begin(
    fn: Callable[..., Any],
    source: Source,
    star: bool,
    wanted: Wanted,
    kind: Callable[..., MapResult[Any]] = MapResult,
) -> MapResult[Any]:
    """A map as it was asked for, and checked. With `star` an item is a tuple of arguments."""
    if wanted is USUAL and not _default.in_worker():
        # As below, in fewer steps: a short map feels each.
        usual = AutoLane(fn, Flow(star, None), source.length, None, "")
        plain = _plain(usual, fn, source, star)
        return kind(usual, source, Manner(goes=usual.goes, plain=plain, at_end=usual.dismiss))
    manner = partial(
        Manner,
        on_error=wanted.on_error,
        ordered=wanted.ordered,
        together=wanted.chunksize,
        deadline=None if wanted.timeout is None else monotonic() + wanted.timeout,
        progress=wanted.shown(source.length),
    )
    if wanted.executor == "serial" or (isinstance(wanted.executor, str) and _default.in_worker()):
        if wanted.task_timeout is not None:
            raise ValueError(
                "task_timeout= cannot be held inside a worker, where a map runs in place: give it to the outer map"
            )
        if wanted.limits_memory:
            raise ValueError(
                "max_memory_per_worker= and worker_memory_limit= cannot be held inside a worker, where a map runs in "
                "place: give them to the outer map"
            )
        prelude = None if wanted.initializer is None else partial(wanted.initializer, *wanted.initargs)
        here = HereLane(fn, star, prelude, wanted.retry)
        return kind(here, source, manner(workers=1, way="serial", plain=_plain(here, fn, source, star)))
    if wanted.executor == "auto":
        flow = Flow(star, wanted.buffersize, wanted.chunksize, wanted.ordered, retry=wanted.retry)
        auto = AutoLane(fn, flow, source.length, wanted.workers, wanted.not_here)
        plain = _plain(auto, fn, source, star)
        return kind(auto, source, manner(goes=auto.goes, at_end=auto.dismiss, plain=plain))
    pool: Executor
    end: Callable[[bool], object] | None = None
    if isinstance(wanted.executor, str):
        pool, end = _default.pool(wanted.executor, wanted)
    else:
        pool = wanted.executor
    workers: int = getattr(pool, "_max_workers", 0)
    quiet = Quiet(workers) if wanted.executor == "threads" else None
    try:
        if quiet is not None:
            fn = quiet.around(fn)
        flow = Flow(
            star,
            wanted.buffersize,
            wanted.chunksize,
            wanted.ordered,
            wanted.task_timeout,
            wanted.retry,
            wanted.tag_output,
            wanted.forward_logging,
        )
        lane = _lane(pool, fn, flow)
        way = wanted.executor if isinstance(wanted.executor, str) else "executor"
        return kind(lane, source, manner(workers=workers, way=way, at_end=end, quiet=quiet))
    except BaseException:
        if end is not None:
            end(False)
        raise


def _plain(lane: HereLane | AutoLane, fn: Callable[..., Any], source: Source, star: bool) -> Plain:
    if star:
        results: Iterator[Any] = starmap(fn, source.items)
    else:
        results = fn.over(source.items) if isinstance(fn, Fixed) else builtins.map(fn, source.items)
    return Plain(lane, fn, star, results, lane.begins())


def _lane(pool: Executor, fn: Callable[..., Any], flow: Flow) -> Lane:
    # An executor of ours brings its own lane.
    make: Callable[..., Lane] | None = getattr(pool, "_fanmap_lane", None)
    return lane_over_any(pool, fn, flow) if make is None else make(fn, flow)
