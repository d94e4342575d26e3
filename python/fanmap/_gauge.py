"""What a map with no executor named knows of its function and items. `_auto` tells it what was measured, and asks what
follows; the decision itself is `_choice`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from time import perf_counter, thread_time
from typing import Any

from . import _choice, _measure
from ._choice import Choice, Measured
from ._cores import cpu_count

__all__ = ["TINY", "Gauge"]

# An item that takes less, in seconds, is tiny: timing each would be felt.
TINY = 1e-3

# Of how many items the time of a plain map tells something.
_MANY = 10

# How many tiny items must have been timed, where no plain map tells. Fewer, and workers start for what chance said.
_FEW = 3

# How much work there must be, in seconds, for a decision to be worth its time. Less, and small maps pay for it; more,
# and maps of some milliseconds never wait in many threads.
_WORTH = 0.005


class Gauge:
    """See the module."""

    # How it stands at first. Set here, since short maps feel each attribute.
    # How many items were sent.
    index = 0
    choice: Choice | None = None
    # Sums over the items that were timed: how many, and the seconds. Old ones fade.
    _timed = 0.0
    _wall = 0.0
    _cpu = 0.0
    # When the map became a plain one, by both clocks, and the seconds that it was one in all.
    _plain_since = 0.0
    _plain_began = 0.0
    plain_time = 0.0
    # Seconds for an item when the map last was a plain one, with what the consumer took.
    _plain_each = 0.0
    _plain_cpu = 0.0
    # Whether it was looked at if the function can be sent.
    _asked = False

    def __init__(
        self, fn: Callable[..., Any], length: int, workers: int | None, not_here: str, *, recalls: bool
    ) -> None:
        self._fn = fn
        self._length = length
        self._workers = workers
        # The option that rules out the calling thread.
        self.not_here = not_here
        self._known = _measure.recall(fn) if recalls else None
        # Whether the function was measured before.
        self.is_known = self._known is not None

    @cached_property
    def seen(self) -> Measured:
        """What is known of the function and its items. A short map of tiny items ends before anybody asks."""
        known = self._known
        return (known or Measured(0.0, 0.0, 0))._replace(
            items=max(known.items, 1) if known and not self._length else 0,
            cores=0,
            workers=self._workers,
            locked=_measure.is_locked(),
            not_here=self.not_here,
        )

    def keep(self) -> None:
        """For the next map of the same function; but not what that one sees as soon, with its first item."""
        if self.choice is None and self.is_tiny:
            return
        wall, cpu = self._tiny(*self._each())
        seen = self.seen._replace(wall=wall, cpu=cpu, items=self.index, left=None, not_here="", workers=None)
        _measure.keep(self._fn, seen)

    # ---- what was measured ----

    def note(self, wall: float, cpu: float) -> None:
        """An item took so many seconds."""
        if 0 < self._timed < 1.5 and wall < self._wall / 4:
            # What only the first call does (imports, caches) is no measure of the others.
            self.forget_times()
        wall, cpu = self._tiny(wall, cpu)
        fade = 0.9
        self._timed = self._timed * fade + 1
        self._wall = self._wall * fade + wall
        self._cpu = self._cpu * fade + cpu

    def _tiny(self, wall: float, cpu: float) -> tuple[float, float]:
        """Seconds for an item that was timed: of a tiny one, dearer to time than to do, those that a plain map took."""
        if wall < TINY and self._plain_each:
            # What the consumer took is in the plain map's figures.
            computes = cpu > 0.8 * wall
            cpu = min(cpu, self._plain_cpu)
            wall = cpu if computes else min(wall, self._plain_each)
        return wall, cpu

    def forget_times(self) -> None:
        """Those of single items, until now."""
        self._timed = self._wall = self._cpu = 0.0

    def did_first(self, wall: float, cpu: float, now: float, thread: float) -> None:
        """The map began with its first item, which took so many seconds, and is a plain one since: by both clocks."""
        if not self.is_known:
            self.note(wall, cpu)
        self.plain_time += wall
        self.index = 1
        self._plain_since, self._plain_began = now, thread

    def begin_plain(self) -> None:
        """The map is a plain one from now on."""
        self._plain_since, self._plain_began = perf_counter(), thread_time()

    def end_plain(self, count: int) -> None:
        """It did so many items as one."""
        took = perf_counter() - self._plain_since
        self.plain_time += took
        self.index += count
        if count >= _MANY:
            self._plain_each = took / count
            self._plain_cpu = (thread_time() - self._plain_began) / count

    def learn(self, **what: Any) -> None:
        """Set fields of what was `Measured`."""
        self.seen = self.seen._replace(**what)

    # ---- what follows ----

    @property
    def is_tiny(self) -> bool:
        """Whether items are, as far as they were seen."""
        return 0 < self._each()[0] < TINY

    def _each(self) -> tuple[float, float]:
        """Seconds for an item, by both clocks."""
        if self._timed:
            return self._wall / self._timed, self._cpu / self._timed
        return self.seen.wall, self.seen.cpu

    @property
    def has_timed(self) -> bool:
        """Whether an item was timed, lately."""
        return self._timed > 0

    @property
    def was_plain(self) -> bool:
        """Whether the map was a plain one already."""
        return self._plain_each > 0

    def may_be_plain(self) -> bool:
        """Whether items are tiny; or the calling thread was chosen, and not for want of a better look."""
        stays = self.choice is not None and self.choice.way == "serial" and (self.is_known or self._timed >= _FEW)
        return stays or self.is_tiny

    def is_worth_a_thought(self) -> bool:
        """Whether there may be enough to do for any way but the calling thread; brings `seen` up to date."""
        if self._is_thin():
            return False
        left = max(self._length - self.index, 0) if self._length else None
        wall, cpu = self._each()
        self.learn(wall=wall, cpu=cpu, items=max(self.seen.items, self.index), left=left)
        if _choice.expected(self.seen) * wall < _WORTH and not self.seen.not_here:
            return False
        if not self.seen.cores:
            # It reads files.
            self.learn(cores=cpu_count())
        return True

    def _is_thin(self) -> bool:
        """Whether too little was seen of tiny items: one call tells of chance and of what the first call does."""
        return not self.is_known and self._each()[0] < TINY and not self._plain_each and self._timed < _FEW

    def wants_sending(self) -> bool:
        """Whether it matters what sending would cost, and nobody has looked."""
        return self.seen.copy is None and not self.seen.refusal and not _choice.is_waiting(self.seen)

    def wants_refusal(self, *, for_an_account: bool) -> bool:
        """Whether it matters if the function can be sent, and nobody has looked."""
        if self._asked or self.seen.refusal:
            return False
        return for_an_account or _choice.decide(self.seen._replace(start=0.0)).way == "processes"

    def ask(self) -> None:
        """Look whether the function can be sent."""
        self._asked = True
        self.learn(refusal=_measure.refusal(self._fn))

    def decide(self, *, warm: bool) -> Choice:
        """The way for what is left; `warm` if worker processes are there."""
        self.is_worth_a_thought()
        self.learn(start=0.0 if warm else _choice.COLD)
        self.choice = _choice.decide(self.seen)
        return self.choice
