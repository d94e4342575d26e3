"""The relatives of `map`: `starmap`, `filter`, `reduce` and `for_each`. All take `fanmap.map`'s options, where they
make sense.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import length_hint
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, TypeVar, TypeVarTuple, Unpack, overload

from . import _check, _default, _outcome
from ._around import Nothing, Truth
from ._cores import cpu_count
from ._map import begin
from ._options import OnError, Options, Wanted
from ._progress import Progress
from ._result import Manner, MapResult
from ._source import Source, in_step, of_tuples

if TYPE_CHECKING:
    from ._failure import Failure
    from ._lane import Lane

__all__ = ["filter", "for_each", "reduce", "starmap"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@overload
def starmap(
    fn: Callable[[*Ts], T],
    iterable: Iterable[tuple[*Ts]],
    /,
    *,
    on_error: Literal["raise", "skip"] = "raise",
    **options: Unpack[Options],
) -> MapResult[T]: ...
@overload
def starmap(
    fn: Callable[[*Ts], T],
    iterable: Iterable[tuple[*Ts]],
    /,
    *,
    on_error: Literal["return"],
    **options: Unpack[Options],
) -> MapResult[T | Failure]: ...
@overload
def starmap(
    fn: Callable[..., T],
    iterable: Iterable[Iterable[Any]],
    /,
    *,
    on_error: Literal["raise", "skip"] = "raise",
    **options: Unpack[Options],
) -> MapResult[T]: ...
@overload
def starmap(
    fn: Callable[..., T],
    iterable: Iterable[Iterable[Any]],
    /,
    *,
    on_error: Literal["return"],
    **options: Unpack[Options],
) -> MapResult[T | Failure]: ...
def starmap(
    fn: Callable[..., T],
    iterable: Iterable[Iterable[Any]],
    /,
    *,
    on_error: OnError = "raise",
    **options: Unpack[Options],
) -> MapResult[Any]:
    """`itertools.starmap`, in parallel: `fn(*arguments)` for each item, which is a tuple of arguments.

    The options are those of `fanmap.map`.

    >>> import fanmap
    >>> list(fanmap.starmap(pow, [(2, 5), (3, 2), (10, 3)]))
    [32, 9, 1000]
    >>> fanmap.shutdown()
    """
    _check.function(fn)
    wanted = Wanted.by("starmap", {**options, "on_error": on_error}).checked()
    return begin(fn, of_tuples(iterable), True, wanted)


@overload
def filter(
    predicate: None,
    iterable: Iterable[T | None],
    /,
    *,
    on_error: Literal["raise", "skip"] = "raise",
    **options: Unpack[Options],
) -> MapResult[T]: ...
@overload
def filter(
    predicate: Callable[[T], object],
    iterable: Iterable[T],
    /,
    *,
    on_error: Literal["raise", "skip"] = "raise",
    **options: Unpack[Options],
) -> MapResult[T]: ...
def filter(
    predicate: Callable[[Any], object] | None,
    iterable: Iterable[Any],
    /,
    *,
    on_error: Literal["raise", "skip"] = "raise",
    **options: Unpack[Options],
) -> MapResult[Any]:
    """The built-in `filter`, in parallel: the items for which `predicate` says yes, in their order.

    The predicate is called in the workers. The items themselves stay here: what is handed out are the very objects that
    the input gave. With None for a predicate, an item is asked for its own truth.

    The options are those of `fanmap.map`; `on_error="skip"` leaves out what the predicate failed for.

    >>> import fanmap
    >>> list(fanmap.filter(str.isupper, ["A", "b", "C"]))
    ['A', 'C']
    >>> fanmap.shutdown()
    """
    predicate = bool if predicate is None else predicate
    _check.function(predicate)
    wanted = Wanted.by("filter", {**options, "on_error": on_error}).checked()
    _no_failures("filter gives items", wanted)
    return begin(_around(Truth, predicate, wanted), in_step((iterable,)), False, wanted, _Filtered)


class _Filtered(MapResult[T]):
    """Hands out items, by the results of the predicate."""

    def __init__(self, lane: Lane, source: Source, manner: Manner) -> None:
        super().__init__(lane, source, manner._replace(keeps_items=True))
        # Answers may not wait in the stash, where another thread would take them for results.
        self._singly = True

    def _values(self, kind: int, payload: Any, index: int, count: int) -> list[Any]:
        assert self._items is not None, "they are kept"
        items = [self._items.get(at) for at in range(index, index + count)]
        answers = super()._values(kind, payload, index, count)
        if kind != _outcome.VALUE or not answers:
            return answers
        return [item for item, answer in zip(items, answers, strict=True) if answer]


def for_each(
    fn: Callable[..., object],
    /,
    *iterables: Iterable[Any],
    on_error: Literal["raise", "skip"] = "raise",
    **options: Unpack[Options],
) -> None:
    """`fn(item)` for each item, for what it does and not for what it gives: returns when all are done.

    The first error, in the order of the items, is raised; what has not started is then cancelled. With
    `on_error="skip"` it goes on. The other options are those of `fanmap.map`.

    >>> import fanmap
    >>> fanmap.for_each(print, ["once"], executor="threads")
    once
    >>> fanmap.shutdown()
    """
    _check.function(fn)
    if not iterables:
        raise TypeError("for_each() must have at least two arguments: a function and something to iterate over")
    wanted = Wanted.by("for_each", {**options, "on_error": on_error}).checked()
    _no_failures("for_each gives nothing", wanted)
    source = in_step(iterables, strict=wanted.strict)
    with begin(_around(Nothing, fn, wanted), source, len(iterables) != 1, wanted) as results:
        for _ in results:
            pass


_MISSING: Any = object()

# How many items of an input of unknown length to reduce together at most. Fewer, and a function that does next to
# nothing costs more to send than to run; more, and the last run is somebody's alone for long.
_MOST_TOGETHER = 4096

# Into how many runs for each worker an input of known length is cut. Fewer, and all wait for the slowest; more, and
# more partial results travel.
_RUNS = 4

# How many partial results to keep before they are reduced themselves: what bounds the memory for an endless input.
_MOST_PARTIAL = 256


def reduce(fn: Callable[[T, T], T], iterable: Iterable[T], /, initial: T = _MISSING, **options: Unpack[Options]) -> T:
    """`functools.reduce`, in parallel, for a function that is associative: `fn(fn(a, b), c) == fn(a, fn(b, c))`.

    Runs of items are reduced in the workers, and their results again, two by two, until one is left; always neighbours,
    in their order, so `fn` need not be commutative. `initial` comes before all items, and is what an empty input gives.

    The options are those of `fanmap.map`; `chunksize` is the number of items of a run. Results in no order, or without
    some, make no sense here, so there is neither `ordered` nor `on_error`.

    >>> import fanmap, operator
    >>> fanmap.reduce(operator.add, range(1, 101))
    5050
    >>> fanmap.reduce(operator.add, ["a", "b", "c"], "> ")
    '> abc'
    >>> fanmap.shutdown()

    Raises TypeError if the input is empty and there is no `initial`.
    """
    _check.function(fn)
    for name in ("ordered", "on_error"):
        if name in options:
            raise TypeError(f"reduce() got an unexpected keyword argument {name!r}")
    wanted = Wanted.by("reduce", options).checked()
    runs = _runs(iterable, options.get("chunksize"), wanted)
    items = iter(iterable)
    end: Callable[[bool], object] | None = None
    if wanted.executor in ("threads", "processes") and not _default.in_worker():
        # One pool for all its maps.
        pool, end = _default.pool(str(wanted.executor), wanted)
        wanted = wanted._replace(executor=pool, workers=None, initializer=None)
    progress = wanted.shown(length_hint(iterable, 0))
    try:
        found = _reduced(fn, items, runs, wanted._replace(progress=False), progress)
    finally:
        if end is not None:
            end(False)
    if not found:
        if initial is _MISSING:
            raise TypeError("reduce() of empty iterable with no initial value")
        return initial
    return found[0] if initial is _MISSING else fn(initial, found[0])


def _runs(iterable: Iterable[Any], chunksize: int | None, wanted: Wanted) -> Iterator[int]:
    """How many items to take for one run after the other, for ever."""
    if chunksize is not None:
        while True:
            yield chunksize
    length = length_hint(iterable, 0)
    if length:
        workers = wanted.workers or getattr(wanted.executor, "_max_workers", None) or cpu_count()
        while True:
            yield max(1, -(-length // (_RUNS * workers)))
    count = 1
    while True:
        # Few at first: it may be that each takes long.
        for _ in range(16):
            yield count
        count = min(2 * count, _MOST_TOGETHER)


def _reduced(
    fn: Callable[[T, T], T], items: Iterator[T], runs: Iterator[int], wanted: Wanted, progress: Progress | None
) -> list[T]:
    """The one value that is left of the items; none if there are none."""
    deadline = None if wanted.timeout is None else monotonic() + wanted.timeout
    # The standard library's own, so that workers of any executor know it.
    each = functools.partial(functools.reduce, fn)

    def of_each(lists: Iterator[list[T]]) -> MapResult[T]:
        left = None if deadline is None else deadline - monotonic()
        return begin(each, in_step((lists,)), False, wanted._replace(timeout=left, chunksize=1))

    def by_twos(values: list[T]) -> list[T]:
        while len(values) > 1:
            pairs = [values[at : at + 2] for at in range(0, len(values), 2)]
            values = list(of_each(iter(pairs)))
        return values

    sizes: deque[int] = deque()

    def lists() -> Iterator[list[T]]:
        while run := list(islice(items, next(runs))):
            sizes.append(len(run))
            yield run

    partial: list[T] = []
    done = 0
    try:
        if progress is not None:
            progress.at(done)
        with of_each(lists()) as results:
            for result in results:
                partial.append(result)
                if len(partial) == _MOST_PARTIAL:
                    partial = by_twos(partial)
                done += sizes.popleft()
                if progress is not None:
                    progress.at(done)
        return by_twos(partial)
    finally:
        if progress is not None:
            progress.end(done)


def _no_failures(why: str, wanted: Wanted) -> None:
    if wanted.on_error == "return":
        raise ValueError(f"{why}, so no failure can be returned in the place of a result: use 'raise' or 'skip'")


def _around(kind: Callable[[Callable[..., Any]], Any], fn: Callable[..., Any], wanted: Wanted) -> Callable[..., Any]:
    """`fn` with something of ours around it, where the workers have fanmap."""
    ours = isinstance(wanted.executor, str) or hasattr(wanted.executor, "_fanmap_lane")
    wrapped: Callable[..., Any] = kind(fn) if ours else fn
    return wrapped
