"""A lane to processes of which none may be there yet: what it was sent ahead is done in the calling thread meanwhile.

So items wait for the first worker from the start, and when it comes it need not wait for the calling thread, which may
be at a slow one just then.

The pool's queue says who does an item: `reclaim` takes the first one out of it, under the pool's lock, if no worker is
there that could have it. From the first time that there is one, workers do all that is left. Items are kept until a
worker has answered for one: if the pool breaks before, as where no process can be started, they are done here as well,
those that it had taken before those that it refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from time import monotonic
from typing import TYPE_CHECKING, Any

from . import _measure, _native, _outcome
from ._lane import NotSent

if TYPE_CHECKING:
    from ._lane import Came, ProcessLane

__all__ = ["AheadLane"]


class AheadLane:
    """See the module. `note` is told what each item took that was done here, by both clocks."""

    def __init__(
        self, lane: ProcessLane, fn: Callable[..., Any], star: bool, note: Callable[[float, float], None]
    ) -> None:
        self._lane = lane
        self._fn = fn
        self._star = star
        self._note = note
        # Those that no worker has answered for, by index in this lane.
        self._items: dict[int, Any] = {}
        self._sent = 0
        # Those that a broken pool has given back, which are next; and those that it did not take.
        self._left: deque[int] = deque()
        self._refused: deque[int] = deque()
        self._helps = True
        self._busy = 0.0
        # Whether a worker has answered; whether none will.
        self.has_worker = self.is_broken = False
        self.room = lane.room
        self.sent_all = lane.sent_all
        self.values = lane.values
        self.failure = lane.failure

    def send(self, items: list[Any], index: int) -> None:
        if self.has_worker:
            return self._lane.send(items, index)
        first = self._sent
        self._items.update(enumerate(items, first))
        self._sent += len(items)
        taken = self._lane.outstanding()
        try:
            if not self.is_broken:
                self._lane.send(items, index)
        except BrokenExecutor:
            self.is_broken = True
        if self.is_broken:
            self._refused.extend(range(first + self._lane.outstanding() - taken, self._sent))

    def poll(self, stash: _native.Stash | None, /) -> Came | None:
        if self.is_broken:
            return self.wait(None)
        came = self._lane.poll(stash)
        if self.has_worker:
            return came
        if came is None and self._helps and self._lane.outstanding():
            index = self._lane.reclaim()
            if index is None:
                self._helps = False
                return None
            self._do(index)
            came = self._lane.poll(stash)
        return None if came is None else self._seen(came)

    def wait(self, timeout: float | None) -> Came | None:
        if self.has_worker:
            return self._lane.wait(timeout)
        if not self._left and not self._lane.outstanding():
            self._left, self._refused = self._refused, self._left
        if self._left:
            return self._do_left()
        came = self._lane.wait(timeout)
        return None if came is None else self._seen(came)

    def outstanding(self) -> int:
        return self._lane.outstanding() + len(self._left) + len(self._refused)

    def spent(self) -> tuple[float, int, int]:
        busy, sent, received = self._lane.spent()
        return self._busy + busy, sent, received

    def close(self, *, interrupted: bool, kill: bool) -> None:
        self._lane.close(interrupted=interrupted, kill=kill)

    def _seen(self, came: Came) -> Came:
        kind, payload, index, count = came
        if index not in self._items or type(payload) is NotSent:
            return came
        if kind == _outcome.BROKEN or isinstance(payload, BrokenExecutor):
            self.is_broken = True
            self._left.extend(range(index, index + count))
            return self._do_left()
        self.has_worker = True
        self._items.clear()
        return came

    def _do_left(self) -> Came:
        index = self._left.popleft()
        try:
            return _outcome.VALUE, [self._call(index)], index, 1
        except Exception as error:
            return _outcome.RAISED, error, index, 1

    def _do(self, index: int) -> None:
        try:
            result = self._call(index)
        except Exception as error:
            self._lane.put_failed_here(index, error)
        else:
            self._lane.put_here(index, result)

    def _call(self, index: int) -> Any:
        item = self._items.pop(index)
        began = monotonic()
        clocks = _measure.Clocks()
        try:
            return self._fn(*item) if self._star else self._fn(item)
        finally:
            self._note(*clocks.read())
            self._busy += monotonic() - began
