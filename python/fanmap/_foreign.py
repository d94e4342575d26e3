"""Lanes over executors that know nothing of lanes: a sliding window of submits to any `concurrent.futures.Executor`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import suppress
from heapq import heappop, heappush
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any

from . import _native, _outcome
from ._lane import Objects, first_of
from ._remote import detach, say
from ._retry import Retry, note

if TYPE_CHECKING:
    from ._lane import Came, Flow, Lane

__all__ = ["lane_over_any"]

# How far to read ahead for an executor that we know nothing of. Fewer, and a large pool of it runs dry; more only holds
# more futures.
_FOREIGN_WINDOW = 256


def lane_over_any(
    executor: Executor, fn: Callable[..., Any], flow: Flow, full: Callable[[], bool] | None = None
) -> Lane:
    """A lane of submits to any executor. Without a bound it has one of its own. While it is `full` no more is sent than
    one item.
    """
    if flow.retry is not None and flow.retry.count:
        return _PersistentLane(executor, fn, flow, flow.retry, full)
    return (_ForeignLane if flow.ordered else _ForeignLaneAsTheyCome)(executor, fn, flow, full)


class _ForeignLane(Objects):
    """A sliding window of submits to any executor. What goes there is the user's function as it is: the other side need
    not have fanmap."""

    def __init__(
        self, executor: Executor, fn: Callable[..., Any], flow: Flow, full: Callable[[], bool] | None = None
    ) -> None:
        self._executor = executor
        self._fn = fn
        self._full = full
        self._star = flow.star
        self._together = flow.together
        self._window = flow.window or max(_FOREIGN_WINDOW, flow.together)
        # With the indices of their items.
        self._futures: deque[tuple[int, Future[Any]]] = deque()
        self._closed = False

    def room(self) -> int:
        free = self._window - self.outstanding()
        if self._full is not None and self.outstanding() and self._full():
            return 0
        return self._together if free >= self._together else 0

    def send(self, items: list[Any], index: int) -> None:
        for at, item in enumerate(items, index):
            if self._closed:
                return
            self._submit(at, item)

    def _submit(self, index: int, item: Any) -> None:
        submit = self._executor.submit
        self._sent(index, submit(self._fn, *item) if self._star else submit(self._fn, item))
        if self._closed:
            # Meanwhile: perhaps after `close` had looked at the futures.
            self._cancel()

    def _sent(self, index: int, future: Future[Any]) -> None:
        self._futures.append((index, future))

    def poll(self, stash: _native.Stash | None, /) -> Came | None:
        head = self._head()
        return None if head is None or not head[1].done() else self.wait(None)

    def wait(self, timeout: float | None) -> Came | None:
        head = self._head()
        if head is None:
            return None
        came = _came(*head, timeout)
        # Only now, so that `close` finds it meanwhile.
        first_of(self._futures)
        return came

    def _head(self) -> tuple[int, Future[Any]] | None:
        try:
            return self._futures[0]
        except IndexError:
            return None

    def outstanding(self) -> int:
        return len(self._futures)

    def spent(self) -> tuple[float, int, int]:
        return 0.0, 0, 0

    def close(self, *, interrupted: bool, kill: bool) -> None:
        self._closed = True
        self._cancel()

    def _cancel(self) -> None:
        # From the back: or each one cancelled would make room for the next to start. Another thread may take some.
        with suppress(IndexError):
            while True:
                _let_go(self._futures.pop()[1])


class _ForeignLaneAsTheyCome(_ForeignLane):
    """The same, with outcomes as they come: each future that is done says so in a queue."""

    def __init__(
        self, executor: Executor, fn: Callable[..., Any], flow: Flow, full: Callable[[], bool] | None = None
    ) -> None:
        super().__init__(executor, fn, flow, full)
        self._under_way: dict[int, Future[Any]] = {}
        # The indices of those that are done; None once the lane is closed.
        self._done: SimpleQueue[int | None] = SimpleQueue()

    def _sent(self, index: int, future: Future[Any]) -> None:
        self._under_way[index] = future
        done = self._done
        future.add_done_callback(lambda _: done.put(index))

    def poll(self, stash: _native.Stash | None, /) -> Came | None:
        try:
            return self._take(self._done.get_nowait())
        except Empty:
            return None

    def wait(self, timeout: float | None) -> Came | None:
        if not self._under_way:
            return None
        try:
            return self._take(self._done.get(timeout=None if timeout is None else max(timeout, 0)))
        except Empty:
            raise TimeoutError from None

    def _take(self, index: int | None) -> Came | None:
        future = None if index is None else self._under_way.pop(index, None)
        return None if index is None or future is None else _came(index, future, None)

    def outstanding(self) -> int:
        return len(self._under_way)

    def close(self, *, interrupted: bool, kill: bool) -> None:
        self._closed = True
        self._done.put(None)
        self._cancel()

    def _cancel(self) -> None:
        with suppress(KeyError):
            while True:
                _let_go(self._under_way.popitem()[1])


class _Kept:
    """An item whose outcome is not final."""

    def __init__(self, item: Any) -> None:
        self.item = item
        # What became of the attempts, but for the one that is under way.
        self.earlier: list[str] = []
        # Whether there are no more.
        self.last = False


class _PersistentLane(_ForeignLaneAsTheyCome):
    """The same, where what failed is submitted again: by the thread that asks for results, while it does."""

    def __init__(
        self,
        executor: Executor,
        fn: Callable[..., Any],
        flow: Flow,
        retry: Retry,
        full: Callable[[], bool] | None = None,
    ) -> None:
        super().__init__(executor, fn, flow, full)
        self._retry = retry
        self._kept: dict[int, _Kept] = {}
        # When to submit which again: a heap.
        self._resting: list[tuple[float, int]] = []
        # In order, outcomes that are final wait here for their turn.
        self._ordered = flow.ordered
        self._final: dict[int, Came] = {}
        self._turn = 0

    def _submit(self, index: int, item: Any) -> None:
        self._kept[index] = _Kept(item)
        try:
            super()._submit(index, item)
        except BaseException:
            del self._kept[index]
            raise

    def poll(self, stash: _native.Stash | None, /) -> Came | None:
        try:
            return self.wait(0)
        except TimeoutError:
            return None

    def wait(self, timeout: float | None) -> Came | None:
        deadline = None if timeout is None else monotonic() + timeout
        while not self._closed:
            self._submit_rested()
            if self._turn in self._final:
                self._turn += 1
                return self._final.pop(self._turn - 1)
            if not self._kept:
                return None
            until = [at for at in (deadline, self._resting[0][0] if self._resting else None) if at is not None]
            try:
                left = max(min(until) - monotonic(), 0) if until else None
                came = self._take(self._done.get(timeout=left))
            except Empty:
                if deadline is not None and monotonic() >= deadline:
                    raise TimeoutError from None
                continue
            if came is None or self._is_tried_again(came):
                continue
            if not self._ordered:
                return came
            self._final[came[2]] = came
        return None

    def _is_tried_again(self, came: Came) -> bool:
        """Whether an outcome is not final."""
        kind, error, index, _ = came
        kept = self._kept[index]
        if kind == _outcome.RAISED and not kept.last and isinstance(error, self._retry.on) and _is_its_own(error):
            rest = self._retry.rest(len(kept.earlier))
            if rest is not None:
                kept.earlier.append(say(error))
                heappush(self._resting, (monotonic() + rest, index))
                return True
        if kind == _outcome.RAISED:
            note(error, kept.earlier)
        del self._kept[index]
        return False

    def _submit_rested(self) -> None:
        while self._resting and self._resting[0][0] <= monotonic():
            index = heappop(self._resting)[1]
            kept = self._kept[index]
            try:
                super()._submit(index, kept.item)
            except Exception as error:
                # The executor takes no more: that is the item's last error.
                kept.last = True
                refused: Future[Any] = Future()
                refused.set_exception(detach(error))
                self._sent(index, refused)

    def outstanding(self) -> int:
        return len(self._kept) + len(self._final)


def _let_go(future: Future[Any]) -> None:
    """Cancel it, if its executor can: parsl's cannot, and says so like this."""
    with suppress(NotImplementedError):
        future.cancel()


def _is_its_own(error: BaseException) -> bool:
    """Whether an error is a task's own: not that of a pool which cannot go on, or of what cannot be unpickled."""
    if not isinstance(error, BrokenExecutor):
        return True
    from ._errors import WorkerCrashed

    return isinstance(error, WorkerCrashed)


def _came(index: int, future: Future[Any], timeout: float | None) -> Came:
    """What became of a future, waiting for it."""
    try:
        error = future.exception(timeout)
    except CancelledError:
        return _outcome.CANCELLED, None, index, 1
    if error is None:
        return _outcome.VALUE, future.result(), index, 1
    return _outcome.RAISED, error, index, 1
