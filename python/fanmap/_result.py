"""`MapResult`: a map's results, ordered, read ahead within a bound. Also what an executor's own `map` hands out.

It reads the input and hands out results; a *lane* is what it sends items into and takes outcomes from: threads and
processes of the engine, any other executor, or the calling thread itself. No `Future` is made for the engine's own
lanes.

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

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from . import _native, _outcome
from ._failure import Failure
from ._progress import shown
from ._remote import detach

if TYPE_CHECKING:
    from types import TracebackType

    from ._budget import Quiet
    from ._lane import Came, Lane, Plain
    from ._options import OnError
    from ._progress import Progress, Shown
    from ._source import Source

__all__ = ["Goes", "Manner", "MapResult", "MapStats", "executor_map"]

T = TypeVar("T")

# Ends that are the item's own: not those of a pool that was closed or cannot go on.
_ITS_OWN = (_outcome.VALUE, _outcome.RAISED, _outcome.TIMED_OUT, _outcome.LOST)


class MapStats(NamedTuple):
    """How far a map is and what it took, as far as that is known without a look at each item.

    >>> import fanmap
    >>> results = fanmap.map(abs, range(1000))
    >>> _ = list(results)
    >>> results.stats.read, results.stats.done, results.stats.failed
    (1000, 1000, 0)
    >>> fanmap.shutdown()
    """

    read: int
    """Items that were read of the input."""
    done: int
    """Items whose outcome was taken. Some of the results may still have to be handed out."""
    failed: int
    """Those of them that failed. In the calling thread the input's own error may count as an item's."""
    wall: float
    """Seconds from the first question for a result to the last result, or to now."""
    workers: int
    """The most workers that there may be at a time; 1 where the map ran in place; 0 if only the executor knows."""
    busy: float
    """Seconds that workers were in the function, all together; 0.0 over an executor that is not fanmap's.

    `busy / wall` is how many of them were at it on average. Over processes this is about how many times as fast the map
    was as one worker alone; over threads that wait for the interpreter's lock, their waiting counts.
    """
    sent: int
    """Bytes that went to other processes, as encoded."""
    received: int
    """Bytes that came from other processes, as encoded."""
    alone: float
    """Seconds that the same items would have taken one after the other, in one thread: measured with
    `executor="auto"`, `busy` with any other."""
    way: str
    """`"serial"`, `"threads"` or `"processes"`: the way that the last item went; `"executor"` with one of yours."""

    @property
    def speedup(self) -> float:
        """How many times as fast as a serial map it was: `alone / wall`. What the consumer takes counts as well.

        0.0 over an executor that is not fanmap's, which does not tell.
        """
        return self.alone / self.wall if self.wall > 0 else 1.0


class Goes(NamedTuple):
    """How a map goes that may change its way."""

    way: str
    workers: int
    # Seconds that its items would have taken one after the other; None if nobody knows better than the workers.
    alone: float | None


class Manner(NamedTuple):
    """How a map's results are handed out."""

    on_error: OnError = "raise"
    # In the order of the items, or as they come.
    ordered: bool = True
    # How many items are read together of an input that may be slow.
    together: int = 1
    # When a result must be there, by the monotonic clock.
    deadline: float | None = None
    # The most workers that there may be; 0 if only the executor knows.
    workers: int = 0
    # "serial", "threads", "processes", or an executor.
    way: str = "executor"
    # What tells both as they are now, and the seconds of a serial map, where that changes.
    goes: Callable[[], Goes] | None = None
    # Whether items are needed once their outcome has come.
    keeps_items: bool = False
    # Whether it is an executor's own map, which runs even if nobody asks for its results.
    of_executor: bool = False
    plain: Plain | None = None
    # What is to be done when it is over: told whether all is done, or nobody wants to wait.
    at_end: Callable[[bool], object] | None = None
    progress: Progress | None = None
    quiet: Quiet | None = None


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

    # How it stands at first. Set here, since short maps feel each attribute.
    _sent = 0
    _taken = 0
    _failed = 0
    _began: float | None = None
    _ended: float | None = None
    _input_error: BaseException | None = None
    # Whether what runs is ended as well, where it can be, when the map is closed.
    _kills = False
    _closed = False

    def __init__(self, lane: Lane, source: Source, manner: Manner) -> None:
        self._lane = lane
        self._input: Iterator[Any] | None = source.items
        self._prompt = source.prompt
        self._hint = source.length
        self._together = manner.together
        self._deadline = manner.deadline
        self._at_end = manner.at_end
        # Whether dropping the iterator cancels the rest, even if nothing was asked of it.
        self._closes_itself = not manner.of_executor
        self._of_executor = manner.of_executor
        self._on_error = manner.on_error
        self._workers = manner.workers
        self._way = manner.way
        self._goes = manner.goes
        self._progress = manner.progress
        self._quiet = manner.quiet
        # Items under way, by index, where they are needed once their outcome has come.
        self._items: dict[int, Any] | None = {} if manner.keeps_items or manner.on_error == "return" else None
        self._ordered = manner.ordered
        # Whether outcomes must come one by one: those that come together would not follow each other.
        self._singly = not manner.ordered and self._items is not None
        # What a plain map does not do leaves it out.
        alone = manner.on_error == "raise" and manner.deadline is None and manner.progress is None
        self._plain = plain = manner.plain if alone and self._items is None else None
        # What is told of what a plain map did.
        self._counts = None if plain is None else plain.lane
        self._owner = os.getpid()
        # Held by the thread that asks for a result.
        self._turn = threading.Lock()
        if plain is not None and plain.begins is not None:
            self._try_first(plain.results, source.items, plain.fn, plain.star, *plain.begins)

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
            self._count_plain()
            if kept:
                first: T = kept[0]
                return first
            return self._next()
        finally:
            self._turn.release()

    def _next(self) -> T:
        self._closes_itself = True
        if self._began is None:
            self._began = monotonic()
            if self._quiet is not None:
                self._quiet.begin()
        while True:
            try:
                if self._progress is not None:
                    # All that was taken has been handed out.
                    self._progress.at(self._taken)
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
            try:
                values = self._values(*outcome)
            except BaseException:
                self._end()
                raise
            finally:
                del outcome
            if values:
                # Nothing of this frame may refer to what is handed out.
                first: T = values.pop(0)
                if values:
                    self._keep(values)
                elif self._plain is not None and not self._kept() and (time := self._plain.lane.plain_for()):
                    self._go_plain(self._plain.results, time)
                if self._closed:
                    raise StopIteration
                return first

    def _first_was_slow(self, item: Any, result: Any) -> float:
        """For how many seconds to go on as a plain map."""
        assert self._counts is not None, "only a map that may be a plain one begins by its first item"
        try:
            self._count_plain()
            return self._counts.first_was_slow(item, result)
        except BaseException as error:
            self._plain_ended(True, isinstance(error, KeyboardInterrupt))
            raise

    def _count_plain(self) -> None:
        """Count what a plain map did since."""
        told, count = self._told_of_first(True), self._plain_count(True)
        self._sent += count
        self._taken += count
        if told is not None and self._counts is not None:
            self._began, first = told
            if first is not None:
                self._counts.did_first(*first)
                count -= 1
        if count and self._counts is not None:
            self._counts.counted(count)

    def _plain_ended(self, failed: bool, interrupted: bool) -> None:
        """The input of a plain map is at its end; or it or the function failed."""
        if self._began is not None or interrupted:
            self._count_plain()
        self._failed += failed
        self._sent += failed
        self._taken += failed
        self._input = None
        if self._began is not None or interrupted:
            return self._end(interrupted=interrupted)
        # It was a plain map from its beginning, so nobody but this object knows that it was there.
        self._closed = True
        self._ended = monotonic()
        self._plain = None
        self._close_kept()

    def _values(self, kind: int, payload: Any, index: int, count: int) -> list[Any]:
        """What is handed out for an outcome; if it is a failure, and such are raised, it is raised here."""
        self._taken += count
        items = None
        if self._items is not None:
            take = self._items.pop
            # None, should another thread close the map just now.
            items = [take(at, None) for at in range(index, index + count)]
        if kind == _outcome.VALUE:
            try:
                return self._lane.values(payload, index, count)
            except KeyboardInterrupt:
                self._end(interrupted=True)
                raise
            except Exception as error:  # it could not be decoded
                failed: BaseException = error
        elif kind == _outcome.CANCELLED:
            failed = CancelledError()
        else:
            failed = self._lane.failure(kind, payload, index)
        del payload
        self._failed += count
        try:
            if kind in _ITS_OWN and self._on_error == "skip":
                return []
            if kind in _ITS_OWN and items is not None and self._on_error == "return":
                if kind == _outcome.VALUE:
                    # It was raised here, and would keep this frame, and by it the map.
                    failed = detach(failed)
                return [Failure(index + at, item, failed) for at, item in enumerate(items)]
            if isinstance(failed, StopIteration) and self._of_executor:
                # An executor's map is a generator in the standard library, where this is no silent end.
                raise RuntimeError("generator raised StopIteration") from failed
            raise failed
        finally:
            # The traceback refers to this frame, which must not refer to the exception: that would be a cycle.
            del failed

    @property
    def stats(self) -> MapStats:
        """How far it is and what it took: see `MapStats`. Also after its end."""
        now = monotonic() if self._ended is None else self._ended
        told = self._told_of_first(False)
        began = self._began if told is None else told[0]
        wall = 0.0 if began is None else now - began
        busy, sent, received = self._lane.spent()
        if told is not None:
            busy += wall  # it was a plain map all the time
        plain = self._plain_count(False)
        way, workers, alone = Goes(self._way, self._workers, None) if self._goes is None else self._goes()
        return MapStats(
            self._sent + plain,
            self._taken + plain,
            self._failed,
            wall,
            workers,
            busy,
            sent,
            received,
            busy if alone is None else alone,
            way,
        )

    def close(self) -> None:
        """Cancel what has not started, and end the iterator. What runs is not waited for; its results are dropped.

        Any thread may do so: a `next` that waits in another ends with StopIteration. (Over an executor that is not of
        this package it first sees the end of the call that it waits for, if that runs.)
        """
        self._end()

    def _kill_at_end(self) -> None:
        """From now on: whenever it ends, so does what still runs, where that can be ended."""
        self._kills = True

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
        return max(self._hint - self._taken - self._plain_count(False), self._lane.outstanding()) + kept

    def _outcome(self) -> Came | None:
        """The next outcome, or None at the end."""
        lane = self._lane
        # Then only what is there already is handed out.
        late = self._deadline is not None and monotonic() >= self._deadline
        if self._prompt and not late:
            while self._input is not None and (room := lane.room()):
                self._read(room)
        while not self._closed:
            outcome = lane.poll(None if self._singly else self)
            if outcome is not None:
                return outcome
            if late and self._input is not None:
                raise self._late()
            if self._input is not None and (room := lane.room()):
                self._read(room)
                continue
            if self._deadline is None:
                return lane.wait(None)
            try:
                return lane.wait(self._deadline - monotonic())
            except TimeoutError:
                raise self._late() from None
        return None

    def _late(self) -> TimeoutError:
        awaited = f"the result of item {self._taken}" if self._ordered else "another result"
        return TimeoutError(f"{awaited} was not there when timeout= had passed")

    def _read(self, count: int) -> None:
        """Read items and send them: up to `count` of an input that has them at hand, else what must go together."""
        source = self._input
        if source is None:
            return  # closed by another thread
        if not self._prompt and count > self._together:
            count = self._together
        items: list[Any] = []
        try:
            # Those that it gave before an error are in the list then.
            items.extend(islice(source, count))
        except Exception as error:
            # It surfaces in its place: after the results of the items that came before.
            self._input_error = error
        if self._closed:
            return
        if items:
            if self._items is not None:
                self._items.update(enumerate(items, self._sent))
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
        self._began = monotonic()
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
        self._ended = monotonic()
        self._plain = None
        handed_out = self._taken - self._kept()
        self._close_kept()
        whole = self._input is None and self._lane.outstanding() == 0
        self._input = None
        if self._items is not None:
            self._items = {}
        if self._quiet is not None:
            self._quiet.end()
        # A pool of its own: one that still runs something is not waited for, unless the user interrupted that.
        waits = interrupted or whole
        try:
            self._lane.close(interrupted=interrupted, kill=interrupted or self._kills)
        except KeyboardInterrupt:
            waits = False
            raise
        finally:
            if self._at_end is not None:
                self._at_end(waits)
            if self._progress is not None:
                self._progress.end(handed_out)


def executor_map(
    lane: Lane,
    source: Source,
    timeout: float | None,
    buffersize: int | None,
    *,
    ordered: bool = True,
    on_error: OnError = "raise",
    progress: Shown = False,
) -> Iterator[Any]:
    """An executor's `map`: everything (or as much as the buffer holds) is submitted at the call."""
    deadline = None if timeout is None else monotonic() + timeout
    manner = Manner(
        on_error=on_error,
        ordered=ordered,
        deadline=deadline,
        of_executor=True,
        progress=shown(progress, source.length),
    )
    result: MapResult[Any] = MapResult(lane, source, manner)
    result.fill(buffersize)
    return result
