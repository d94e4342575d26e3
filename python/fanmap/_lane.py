"""Lanes: what a map sends items into and takes outcomes from.

There is one over the engine's threads, one over its processes, and one that is no lane at all: it works on each item in
the calling thread. No `Future` is made for any of them. `_foreign` has those over other executors.
"""

from __future__ import annotations

import contextvars
import math
import sys
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from . import _native, _outcome
from ._remote import detach
from ._retry import Rests, Retry, Trying

if TYPE_CHECKING:
    from pickle import PickleBuffer

    from ._auto import AutoLane
    from ._codec import Encoder
    from ._processes import ProcessPoolExecutor
    from ._threads import ThreadPoolExecutor

__all__ = [
    "Came",
    "Flow",
    "HereLane",
    "Lane",
    "NotSent",
    "Objects",
    "Plain",
    "ProcessLane",
    "first_of",
    "lane_over_processes",
    "lane_over_threads",
]

T = TypeVar("T")

# An outcome that came: its kind, its payload, and of which items it is: the first one's index, and how many.
Came = tuple[int, Any, int, int]


class Flow(NamedTuple):
    """How items go and outcomes come."""

    # Whether an item is a tuple of arguments.
    star: bool
    # How many items may be under way; 0 is no bound, None as many as keep the workers busy.
    window: int | None
    # How many items go together, at least.
    together: int = 1
    # Whether outcomes come in the order of their items, or as they are ready.
    ordered: bool = True
    # How many seconds a task may take, if not what the executor says.
    time_limit: float | None = None
    # When a task that failed is tried again, if not as the executor says.
    retry: Retry | None = None
    # Whether output says which worker it is of, and log records come to the parent.
    tag_output: bool = False
    forward_logging: bool = False


class Plain(NamedTuple):
    """How a map in the calling thread begins, and what it may go over to: the built-in map."""

    lane: HereLane | AutoLane
    fn: Callable[..., Any]
    star: bool
    # The built-in map of the function over the items.
    results: Iterator[Any]
    # In seconds: if the first item takes less, the map goes over to that, and for how long. None: not with the first.
    begins: tuple[float, float] | None


class Lane(Protocol):
    """Where items go and outcomes come from."""

    def room(self) -> int:
        """How many items may be sent, together, before an outcome is taken."""

    def send(self, items: list[Any], index: int) -> None:
        """Send items, the first of which has this index: each a single argument, or a tuple of them."""

    def poll(self, stash: _native.Stash | None, /) -> Came | None:
        """The next outcome, if it is there. It may keep values that come after it in `stash`.

        Without a stash, the items of an outcome always follow each other.
        """

    def wait(self, timeout: float | None) -> Came | None:
        """The next outcome; None if there is none to come. TimeoutError after so many seconds."""

    def sent_all(self) -> None:
        """No item will be sent any more: what only sending needs may go."""

    def failure(self, kind: int, payload: Any, index: int) -> BaseException:
        """The exception for an outcome that is no value."""

    def values(self, payload: Any, index: int, count: int) -> list[Any]:
        """The value of an outcome that is one; all those that came with it, unless they are kept already."""

    def outstanding(self) -> int:
        """How many outcomes have not been taken."""

    def spent(self) -> tuple[float, int, int]:
        """How long workers were in the function, in seconds; and how many bytes were sent and received."""

    def close(self, *, interrupted: bool, kill: bool) -> None:
        """Cancel what has not started; with `kill` what runs is ended, too, if it can be. If the user interrupted and
        it cannot be, it is waited for.

        From any thread, while another is in one of the other methods: a `wait` then ends, and nothing is sent any more.
        """


def lane_over_threads(
    executor: ThreadPoolExecutor, fn: Callable[..., Any], flow: Flow, workers: int | None = None
) -> Lane:
    """A lane to an executor's threads: to so many of them, if that is given."""
    context = contextvars.copy_context()
    if "decimal" in sys.modules:
        fn = _with_own_decimal(fn)
    retry = executor._retry if flow.retry is None else flow.retry
    rests = None
    if retry is not None and retry.count:
        rests = Rests(executor._rests)
        fn = Trying(fn, retry, rests)
    run = _native.ThreadRun(executor._pool, fn, context, flow.star, flow.window, flow.together, flow.ordered, workers)
    return _ThreadLane(run, executor, rests)


def _own_decimal() -> None:
    """Give the current context a decimal context of its own: a copied context refers to the same, changeable, one."""
    import decimal

    decimal.setcontext(decimal.getcontext().copy())


def _with_own_decimal(fn: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        _own_decimal()
        return fn(*args)

    return call


class NotSent(Exception):
    """In the place of an item that cannot be encoded, where that is to be done here."""

    def __init__(self, item: Any) -> None:
        super().__init__()
        self.item = item


def lane_over_processes(
    executor: ProcessPoolExecutor,
    fn: Callable[..., Any],
    flow: Flow,
    *,
    gives_back: bool = False,
    expected: float | None = None,
) -> ProcessLane:
    """A lane to an executor's processes. What cannot be encoded fails, or (`gives_back`) is given back as `NotSent`.

    An item is `expected` to take so many seconds, as long as no worker has told.
    """
    terms = executor._terms.replaced(flow.time_limit, flow.retry)
    function, speaks = executor._function(
        fn,
        b"*" if flow.star else b"1",
        terms.again,
        tag_output=flow.tag_output,
        forward_logging=flow.forward_logging,
    )
    # Tasks under way hold the engine, so that at exit there is something to finish even if all else was dropped.
    pool, keeper = executor._native_pool(), executor._engine
    run = _native.ProcessRun(pool, function, flow.window, keeper, flow.together, flow.ordered, terms.native, expected)
    flush = keeper.flush_output if speaks else None
    return ProcessLane(run, executor, executor._encoder, flush, gives_back)


class _ThreadLane:
    def __init__(self, run: _native.ThreadRun, executor: ThreadPoolExecutor, rests: Rests | None) -> None:
        self._run = run
        # Where its tasks rest before they are tried again.
        self._rests = rests
        # Kept for as long as the map sends it items: one that nobody else holds then ends when it has done them.
        self._executor: ThreadPoolExecutor | None = executor
        self._exit = executor._exit
        self._broken_pool = executor._spawner.broken_pool
        self.room = run.room
        self.poll = run.try_pop
        self.wait = run.pop
        self.outstanding = run.outstanding
        self.spent = run.spent
        self.widen = run.widen

    def send(self, items: list[Any], index: int) -> None:
        assert self._executor is not None, "an item was sent after the last"
        self._executor._check_open()
        try:
            self._run.push(items)
        except RuntimeError:
            # Closed or broken since the look above: it says so in the standard library's words.
            self._executor._check_open()
            raise

    def sent_all(self) -> None:
        self._executor = None

    def values(self, payload: Any, index: int, count: int) -> list[Any]:
        return [payload]

    def failure(self, kind: int, payload: Any, index: int) -> BaseException:
        if kind == _outcome.BROKEN:
            return self._broken_pool(payload[0])
        error: BaseException = payload
        return error

    def close(self, *, interrupted: bool, kill: bool) -> None:
        self._run.close()
        if self._rests is not None:
            self._rests.end()
        if interrupted:
            try:
                self._run.wait_quiet()
            except KeyboardInterrupt:
                self._exit.left = True
                raise


class ProcessLane:
    """A lane to processes: see `lane_over_processes`."""

    def __init__(
        self,
        run: _native.ProcessRun,
        executor: ProcessPoolExecutor,
        encoder: Encoder,
        flush: Callable[[], None] | None,
        gives_back: bool,
    ) -> None:
        self._run = run
        self._gives_back = gives_back
        # Kept for as long as the map sends it items: one that nobody else holds then ends when it has done them.
        self._executor: ProcessPoolExecutor | None = executor
        self._encode = encoder.encode
        self._encode_atoms = encoder.encode_atoms
        self._decode = executor._decode_result
        self.room = run.room
        # Methods of its own in their place would be a cycle, and hold the pool until the next collection.
        self.poll = run.try_pop if flush is None else _after_output(run.try_pop, flush)
        self.wait = run.pop if flush is None else _after_output(run.pop, flush)
        self.outstanding = run.outstanding
        self.spent = run.spent
        # For who does an item that waits for the first worker, in the calling thread.
        self.reclaim = run.reclaim
        self.put_here = run.put_here
        self.put_failed_here = run.put_failed_here

    def send(self, items: list[Any], index: int) -> None:
        if len(items) > 1:
            run = _native.pack_numbers(items)
            if run is None and _native.are_atoms(items):
                run = self._encode_atoms(items)
            if run is not None:
                self._push(run, len(items))
                return
        for at, item in enumerate(items, index):
            what = f"item {at}"
            buffers: list[PickleBuffer] = []
            try:
                data = self._encode(item, what, buffers)
            except Exception as error:
                self._run.push_error(NotSent(item) if self._gives_back else detach(error))
                continue
            if not self._push(data, 1, buffers):
                # There is no memory for the buffers, so they go with the rest.
                self._push(self._encode(item, what), 1)

    def _push(self, data: bytes, count: int, buffers: list[PickleBuffer] | None = None) -> bool:
        assert self._executor is not None, "an item was sent after the last"
        self._executor._prepare()
        try:
            return self._run.push(data, count, buffers)
        except RuntimeError:
            # Closed or broken while the input was read: it says so in the standard library's words.
            self._executor._check_open()
            raise

    def sent_all(self) -> None:
        self._executor = None

    def values(self, payload: Any, index: int, count: int) -> list[Any]:
        if type(payload) is list:
            return payload  # it was done in the calling thread
        try:
            if count > 1 and (numbers := _native.unpack_numbers(payload)) is not None:
                return numbers
            value = self._decode(payload)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            from ._errors import undecodable

            raise undecodable(f"the result of item {index}", error) from error
        return value if count > 1 else [value]

    def failure(self, kind: int, payload: Any, index: int) -> BaseException:
        if isinstance(payload, BaseException):
            return payload  # the item could not be sent
        from ._errors import failure

        return failure(kind, payload, index)

    def close(self, *, interrupted: bool, kill: bool) -> None:
        self._run.close(kill)


def _after_output(take: Callable[[Any], Came | None], flush: Callable[[], None]) -> Callable[[Any], Came | None]:
    """Takes an outcome once what its task has written is there, which `flush` writes."""

    def taken(how: Any, /) -> Came | None:
        came = take(how)
        if came is not None:
            flush()
        return came

    return taken


class Objects:
    """What lanes have in common whose outcomes are the objects themselves, one at a time."""

    def sent_all(self) -> None:
        pass

    def values(self, payload: Any, index: int, count: int) -> list[Any]:
        return [payload]

    def failure(self, kind: int, payload: Any, index: int) -> BaseException:
        error: BaseException = payload
        return error


class HereLane(Objects):
    """No lane at all: each item is worked on as it is sent."""

    def __init__(
        self,
        fn: Callable[..., Any],
        star: bool,
        prelude: Callable[[], object] | None = None,
        retry: Retry | None = None,
    ) -> None:
        self._rests = Rests() if retry is not None and retry.count else None
        self._fn = fn if retry is None or self._rests is None else Trying(fn, retry, self._rests)
        self._star = star
        # What is to be called before the first item.
        self._prelude = prelude
        self._done: deque[Came] = deque()
        self._closed = False
        self._busy = 0.0
        self._plain_since = 0.0

    def room(self) -> int:
        return 0 if self._done else 1

    def send(self, items: list[Any], index: int) -> None:
        if self._prelude is not None:
            self._prelude()
            self._prelude = None
        for at, item in enumerate(items, index):
            if self._closed:
                return
            began = monotonic()
            try:
                result = self._fn(*item) if self._star else self._fn(item)
            except Exception as error:
                self._done.append((_outcome.RAISED, error, at, 1))
            else:
                self._done.append((_outcome.VALUE, result, at, 1))
            self._busy += monotonic() - began

    def poll(self, stash: _native.Stash | None, /) -> Came | None:
        first = first_of(self._done)
        if first is None or stash is None or first[0] != _outcome.VALUE:
            return first
        values = []
        while (head := self.last(first=True)) is not None and head[0] == _outcome.VALUE:
            if (came := first_of(self._done)) is not None:
                values.append(came[1])
        if values:
            stash._keep(values)
        return _outcome.VALUE, first[1], first[2], 1 + len(values)

    def last(self, *, first: bool = False) -> Came | None:
        """A look at the last outcome, or the first, that was not taken."""
        try:
            return self._done[0 if first else -1]
        except IndexError:
            return None

    def wait(self, timeout: float | None) -> Came | None:
        return first_of(self._done)

    def outstanding(self) -> int:
        return len(self._done)

    def spent(self) -> tuple[float, int, int]:
        return self._busy, 0, 0

    def begins(self) -> tuple[float, float] | None:
        """A map that is in the calling thread whatever comes is a plain one, if there is nothing else to do."""
        return None if self._prelude is not None or self._rests is not None else (math.inf, math.inf)

    def plain_for(self) -> float:
        """It has no end."""
        return 0.0

    def did_first(self, wall: float, cpu: float, now: float, thread: float) -> None:
        """The map began with its first item, and is a plain one since."""
        self._busy += wall
        self._plain_since = now

    def first_was_slow(self, item: Any, result: Any) -> float:
        """No item is."""
        return math.inf

    def counted(self, count: int) -> None:
        """So many items were done by a plain map since."""
        self._busy += monotonic() - self._plain_since

    def close(self, *, interrupted: bool, kill: bool) -> None:
        self._closed = True
        if self._rests is not None:
            self._rests.end()
        self._done.clear()


def first_of(queue: deque[T]) -> T | None:
    """Taken from it; None if it is empty, which another thread may make it at any time."""
    try:
        return queue.popleft()
    except IndexError:
        return None
