"""`executor="auto"`: a lane that measures the first items and then goes the way that `_choice` decides.

It is a row of lanes, its *legs*, of which the last one takes the items. When the way changes, what is under way on the
leg before finishes there, and is handed out first; nothing runs twice. The legs are:

1. *Alone*: an item at a time, in the calling thread; or, with an option that rules that out, in one thread of a pool.
   Each is timed, until it is known to be tiny or the calling thread is chosen: then the map runs as a plain one for
   some milliseconds, without a look at the clocks, before the next item is timed (`Stash` in the binding). Worker
   processes that will pay are started meanwhile, and short items go on here until the first of them is there.
   The very first item goes past the lane where it can (`begins`): if it is tiny, a short map needs no leg at all.
2. *Trial*: two threads of a pool. If they are no faster than one, the way goes back to the first leg or on.
3. *Parallel*: threads or processes. Items that are sent before the first worker process is there are done here as long
   as there is none (`_ahead`). Of work that waits, the threads become more while that brings more results. If it
   turns out slower than the calling thread would be (`_was_wrong`), the way is decided anew: once.

What was measured is kept for the next map of the same function, which starts with it; but not if a first item tells as
much.

Who may do what: the thread that asks the map for a result alone changes the row, as it alone sends. Any thread may
close, which closes all legs; one that is opened while that happens is closed by the thread that opened it, which looks
after it has put it into the row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

from . import _choice, _default, _measure, _native, _outcome
from ._ahead import AheadLane
from ._budget import Quiet
from ._choice import Choice, Measured, Way
from ._gauge import TINY, Gauge
from ._lane import HereLane, NotSent, lane_over_processes, lane_over_threads
from ._result import Goes

if TYPE_CHECKING:
    from ._lane import Came, Flow, Lane

__all__ = ["AutoLane"]

# For how long a map in the calling thread runs without a look at the clocks, in seconds. Less, and the looks are felt;
# more, and slow items that come later stay there for longer.
_PLAIN = 0.008

# How long a run of tiny items may take that is done ahead of the consumer, where the map cannot be a plain one.
_AHEAD = 5e-4

# Items that take longer, in seconds, go to workers that are still to start.
_NO_WAIT = 0.05

# Items that take longer, in seconds, are sent ahead of the first worker, though many will be done here. Less, and
# sending them is felt; more, and workers that come while the calling thread is at a slow item have nothing to do.
_AHEAD_OF_WORKERS = 2e-4

# For which encoding is no larger part than this. Less, and they come to nothing; more, and it is felt.
_CHEAP = 0.1

# How long a way is gone, in seconds of waiting for it, before it is judged. Less, and the start is judged; more, and a
# wrong way is gone for long.
_JUDGED = 0.25

# How many threads begin to wait at once; and by how much twice as many must be faster for yet more.
_FIRST_THREADS = 8
_FASTER = 1.15


class _Leg:
    def __init__(self, lane: Lane, way: Way, base: int) -> None:
        self.lane = lane
        self.way = way
        # The index of its first item.
        self.base = base
        self.taken = 0
        # Seconds in which the map was at it, not the consumer.
        self.spent = 0.0
        # Seconds of them in which the calling thread encoded and decoded.
        self.sending = 0.0
        # What it had done with its first outcome.
        self.busy = 0.0
        self.first = 0
        # Where growing threads began with their present number.
        self.level = (0, 0.0)
        self.rate = 0.0


class AutoLane:
    """See the module."""

    # How it stands at first. Set here, since short maps feel each attribute.
    _closed = False
    _changes = 0
    trial: _measure.Timed | None = None
    _quiet: Quiet | None = None
    _threads = 0
    _growing = False
    # What the items compute, over threads.
    _computing: _measure.Computing | None = None
    # Where the calling thread is ruled out: what times the items in the one thread, and the item that is there.
    _alone: _measure.Timed | None = None
    _item: Any = None
    # Of legs that were left: seconds, and bytes sent and received.
    _gone = (0.0, 0, 0)

    def __init__(
        self, fn: Callable[..., Any], flow: Flow, length: int, workers: int | None, not_here: str, *, lasts: bool = True
    ) -> None:
        self._fn = fn
        self._flow = flow
        # Whether the choice is to be kept, and workers may be started.
        self._lasts = lasts
        self._pools = _default.Pools(workers)
        self._legs: list[_Leg] = []
        self._gauge = Gauge(fn, length, workers, not_here, recalls=lasts)
        if self._gauge.is_known and self._gauge.is_worth_a_thought():
            choice = self._decide()
            if choice.way != "serial":
                self._go(choice)

    # ---- a lane ----

    def room(self) -> int:
        leg = self._last()
        if self._alone is not None:
            if leg.lane.outstanding():
                return 0
            self._look_at(self._alone)
            leg = self._last()
            if self._alone is not None:
                return 1
        elif leg.way == "serial":
            if self._flow.window is not None and self.outstanding() >= self._flow.window:
                return 0
            return leg.lane.room() and self._run()
        if self.trial is not None:
            self._end_trial(self.trial)
        elif isinstance(leg.lane, AheadLane) and leg.lane.is_broken:
            # No process can be started: nothing to keep in mind, but for this map.
            self._lasts = False
            self._gauge.learn(refusal="worker processes cannot be started")
            self._go(self._decide())
        elif self._changes == 0 and leg.spent > _JUDGED and self._was_wrong(leg):
            self._changes = 1
            choice = self._decide()
            if _choice.worth_trying(self.seen):
                self.try_two()
            elif choice.way != leg.way:
                self._go(choice)
        if self._growing:
            self._grow(self._legs[-1])
        room = self._legs[-1].lane.room()
        if self.trial is not None:
            # Few, since what is under way stays with the two threads when their trial is over.
            room = min(room, max(self._tried_together() - leg.lane.outstanding(), 0))
        if self._flow.window is not None:
            room = min(room, max(self._flow.window - self.outstanding(), 0))
        return room

    def send(self, items: list[Any], index: int) -> None:
        leg = self._last()
        began = perf_counter()
        if self._alone is not None:
            self._item = items[-1]
        if leg.way == "serial" and self._alone is None:
            self._send_here(leg, items, index)
        else:
            leg.lane.send(items, index)
        self._gauge.index = index + len(items)
        self._count_sending(leg, began)

    def poll(self, stash: _native.Stash | None, /) -> Came | None:
        for leg in tuple(self._legs):
            came = leg.lane.poll(stash)
            if came is not None:
                return self._take(leg, came)
            if leg.lane.outstanding():
                if self._flow.ordered:
                    return None
            elif leg is not self._legs[-1]:
                self._leave(leg)
        return None

    def wait(self, timeout: float | None) -> Came | None:
        legs = tuple(self._legs)
        # As they come, the next one is most likely one of the last leg's: an item that is still under way on a leg that
        # was left is a slow one.
        for leg in legs if self._flow.ordered else reversed(legs):
            if leg.lane.outstanding():
                began = perf_counter()
                came = leg.lane.wait(timeout)
                leg.spent += perf_counter() - began
                return None if came is None else self._take(leg, came)
        return None

    def sent_all(self) -> None:
        for leg in tuple(self._legs):
            leg.lane.sent_all()

    def values(self, payload: Any, index: int, count: int) -> list[Any]:
        began = perf_counter()
        values = self._came.values(payload, index, count)
        self._count_sending(self._legs[-1], began)
        return values

    def _count_sending(self, leg: _Leg, began: float) -> None:
        took = perf_counter() - began
        leg.spent += took
        leg.sending += took

    def failure(self, kind: int, payload: Any, index: int) -> BaseException:
        return self._came.failure(kind, payload, index)

    def outstanding(self) -> int:
        return sum(leg.lane.outstanding() for leg in tuple(self._legs))

    def spent(self) -> tuple[float, int, int]:
        busy, sent, received = self._gone
        for leg in tuple(self._legs):
            more = leg.lane.spent()
            busy, sent, received = busy + more[0], sent + more[1], received + more[2]
        return busy + self._gauge.plain_time, sent, received

    def close(self, *, interrupted: bool, kill: bool) -> None:
        self._closed = True
        if self._quiet is not None:
            self._quiet.end()
        for leg in tuple(self._legs):
            leg.lane.close(interrupted=interrupted, kill=kill)
        if self._lasts and (self._gauge.has_timed or self._changes):
            self._gauge.keep()

    # ---- what a map asks this lane alone ----

    def dismiss(self, wait: bool) -> None:
        """The map is over: its own pools, if any, may go."""
        self._pools.dismiss(wait)

    @property
    def seen(self) -> Measured:
        """What is known of the function and its items."""
        return self._gauge.seen

    @property
    def way(self) -> Way:
        return self._legs[-1].way if self._legs else "serial"

    @property
    def workers(self) -> int:
        """The most workers that there may be."""
        return 1 if self.way == "serial" else self._threads if self.way == "threads" else self._process_workers()

    def goes(self) -> Goes:
        """How the map goes now."""
        alone = self.seen.wall * self._gauge.index if self.way == "threads" and self.seen.wall > 0 else None
        return Goes(self.way, self.workers, alone)

    def plain_for(self) -> float:
        """For how many seconds the map may run as a plain one; 0 if it may not."""
        gauge = self._gauge
        if self.way != "serial" or gauge.not_here or len(self._legs) > 1 or not gauge.may_be_plain():
            return 0.0
        gauge.begin_plain()
        return _PLAIN

    def begins(self) -> tuple[float, float] | None:
        """How a map may begin that nobody has asked for anything yet: if its first item takes fewer seconds than the
        first, it is a plain one for the second of them."""
        gauge = self._gauge
        if self._legs or gauge.not_here:
            return None
        if not gauge.is_known:
            return TINY, _PLAIN
        return (math.inf, _PLAIN) if gauge.may_be_plain() else None

    def did_first(self, wall: float, cpu: float, now: float, thread: float) -> None:
        """The map began with its first item, and may be a plain one since."""
        self._gauge.did_first(wall, cpu, now, thread)

    def first_was_slow(self, item: Any, result: Any) -> float:
        """It was not tiny. For how many seconds the map may be a plain one all the same."""
        self._consider(lambda: _measure.sending(item, result))
        return self.plain_for()

    def counted(self, count: int) -> None:
        """So many items were done by a plain map."""
        self._gauge.end_plain(count)

    # ---- measuring ----

    def _run(self) -> int:
        """How many items to do now, in the calling thread."""
        gauge = self._gauge
        if not gauge.has_timed or gauge.was_plain or self._flow.window is not None:
            return 1
        # Some that are as the last ones, before the next is timed.
        return max(1, min(int(_AHEAD / max(self.seen.wall, 1e-9)), gauge.index - self._legs[-1].base, 256))

    def _send_here(self, leg: _Leg, items: list[Any], index: int) -> None:
        if len(items) > 1:
            leg.lane.send(items[:-1], index)
        last = items[-1:]
        at = index + len(items) - 1
        clocks = _measure.Clocks()
        leg.lane.send(last, at)
        self._gauge.index = at + 1
        if len(self._legs) > 1:
            # What is under way elsewhere would be measured along.
            return self._go_on(self._decide())
        self._gauge.note(*clocks.read())
        came = leg.lane.last() if isinstance(leg.lane, HereLane) else None
        result = came[1] if came is not None and came[0] == _outcome.VALUE else None
        self._consider(lambda: _measure.sending(last[0], result))

    def _look_at(self, timed: _measure.Timed) -> None:
        """After an item in the one thread."""
        item, self._item = self._item, None
        if timed.took:
            self._gauge.note(*timed.took.pop()[:2])
            self._consider(lambda: _measure.sending(item, None))

    def _decide(self) -> Choice:
        return self._gauge.decide(warm=self._pools.have_processes())

    def _consider(self, sending: Callable[[], _measure.Sending]) -> None:
        """After an item on the first leg: whether to go another way."""
        gauge = self._gauge
        if self._closed or not gauge.is_worth_a_thought():
            return
        if gauge.wants_sending():
            found = sending()
            gauge.learn(copy=found.seconds, bytes=found.bytes, refusal=found.refusal)
        if gauge.wants_refusal(for_an_account=not self._lasts):
            gauge.ask()
        choice = self._decide()
        if not self._lasts:
            return
        if _choice.worth_trying(self.seen):
            return self.try_two()
        self._start_if_worth_it()
        self._go_on(choice)

    def _go_on(self, choice: Choice) -> None:
        """From the calling thread, if another way was chosen and is there."""
        if choice.way == "serial":
            return
        if self._is_early(choice) and self._pools.are_starting():
            return  # it goes on here until the first of them is there
        self._go(choice)

    def _is_early(self, choice: Choice) -> bool:
        """Whether nothing is to be sent to processes before one is there."""
        return choice.way == "processes" and self.seen.wall < _NO_WAIT and not self._goes_ahead()

    def _goes_ahead(self) -> bool:
        """Whether items are sent ahead of the first worker, and done here until it is there."""
        seen = self.seen
        is_cheap = (seen.copy or 0.0) < _CHEAP * seen.wall
        return not seen.not_here and _AHEAD_OF_WORKERS < seen.wall < _NO_WAIT and is_cheap

    def _tried_together(self) -> int:
        """How many items are under way in a trial: as many as keep two threads busy."""
        return max(_choice.TRIAL_ITEMS, int(_AHEAD / max(self.seen.wall, 1e-9)))

    def _end_trial(self, trial: _measure.Timed) -> None:
        took = trial.took[:]
        if len(took) < _choice.TRIAL_ITEMS or sum(wall for wall, _, _ in took) < 0.02:
            return
        choice = self._end(trial)
        self._start_if_worth_it()
        if choice.way == "serial" or (self._is_early(choice) and not self._pools.have_processes()):
            self._open_alone()
        else:
            self._go(choice)

    def end_trial(self) -> Measured:
        """What is known once two threads have shown what they do."""
        assert self.trial is not None, "none was begun"
        self._end(self.trial)
        return self.seen

    def _end(self, trial: _measure.Timed) -> Choice:
        self.trial = None
        if trial.took:
            self._gauge.learn(pair=min(max(trial.at_once(), 1.0), 2.0))
        return self._decide()

    def _was_wrong(self, leg: _Leg) -> bool:
        """Whether the calling thread would be faster than this; what is measured now is what counts then."""
        taken = leg.taken - leg.first
        if taken < 4 * self.workers:
            return False
        each = leg.spent / taken
        if leg.way == "processes":
            # Workers decode what was encoded here, which takes about as long, and is no work of the function's.
            alone = max(leg.lane.spent()[0] - leg.busy - leg.sending, 0.0) / taken
            if each <= 1.2 * alone:
                return False
            self._gauge.learn(wall=alone, cpu=alone, dear=True)
        else:
            # One core's worth is what the interpreter's lock allows.
            cpu = 0.0 if self._computing is None else self._computing.each()
            if not self.seen.locked or cpu > 1.15 * each:
                return False
            if _choice.is_waiting(self.seen) and (cpu < 0.85 * each or cpu < 2 * self.seen.cpu):
                return False  # it waits, or computes no more than was foreseen
            self._gauge.learn(wall=cpu, cpu=cpu, pair=None)
        self._gauge.forget_times()
        return True

    # ---- ways ----

    def _open_alone(self) -> None:
        if self._gauge.not_here:
            # One at a time, and so that each can be timed.
            timed = _measure.Timed(self._fn)
            self._open(lane_over_threads(self._pools["threads"], timed, self._flow, workers=1), "serial")
            self._alone = timed
        else:
            self._open(HereLane(self._fn, self._flow.star), "serial")

    def try_two(self) -> None:
        """Have two threads do the next items."""
        self.trial = _measure.Timed(self._fn)
        self._be_quiet(2)
        self._threads = 2
        self._open(
            lane_over_threads(self._pools["threads"], self._limited(self.trial), self._flow, workers=2), "threads"
        )

    def _go(self, choice: Choice) -> None:
        self._growing = False
        if choice.way == "serial":
            self._open_alone()
        elif choice.way == "processes":
            pool = self._pools["processes"]
            try:
                lane = lane_over_processes(
                    pool, self._fn, self._flow, gives_back=not self.seen.not_here, expected=self.seen.wall
                )
            except RuntimeError:
                raise  # the pool's
            except Exception as error:
                # What it refers to has changed since it was looked at.
                self._gauge.learn(refusal=_measure.said(error))
                return self._go(self._decide())
            ahead = AheadLane(lane, self._fn, self._flow.star, self._gauge.note) if self._goes_ahead() else lane
            self._open(ahead, "processes")
        else:
            waits = _choice.is_waiting(self.seen)
            self._growing = waits and choice.workers > _FIRST_THREADS
            self._threads = _FIRST_THREADS if self._growing else choice.workers
            if not waits:
                self._be_quiet(choice.workers)
            pool = self._pools["many threads" if choice.workers > 4 else "threads"]
            self._computing = _measure.Computing(self._fn)
            fn = self._limited(self._computing)
            self._open(lane_over_threads(pool, fn, self._flow, workers=self._threads), "threads")

    def _grow(self, leg: _Leg) -> None:
        """More threads, as long as they bring more results."""
        taken, spent = leg.taken - leg.level[0], leg.spent - leg.level[1]
        if taken < 2 * self._threads or spent <= 0:
            return
        rate = taken / spent
        most = self._gauge.choice.workers if self._gauge.choice is not None else self._threads
        if rate < _FASTER * leg.rate or self._threads >= most:
            self._growing = False
            return
        leg.rate = rate
        leg.level = leg.taken, leg.spent
        self._threads = min(2 * self._threads, most)
        leg.lane.widen(self._threads)  # type: ignore[attr-defined]

    def _last(self) -> _Leg:
        """The leg that takes the items."""
        if not self._legs:
            self._open_alone()
        return self._legs[-1]

    def _open(self, lane: Lane, way: Way) -> None:
        self._alone = None
        if way != "threads" and self._quiet is not None:
            self._quiet.end()
            self._quiet = None
        self._legs.append(_Leg(lane, way, self._gauge.index))
        if self._closed:
            lane.close(interrupted=False, kill=False)

    def _leave(self, leg: _Leg) -> None:
        """All of a leg before the last was taken."""
        busy, sent, received = self._gone
        more = leg.lane.spent()
        self._legs.remove(leg)
        self._gone = busy + more[0], sent + more[1], received + more[2]

    def _take(self, leg: _Leg, came: Came) -> Came:
        kind, payload, index, count = came
        if not leg.taken or (isinstance(leg.lane, AheadLane) and not leg.lane.has_worker):
            # Workers had to start, perhaps; from here on it counts.
            leg.taken = 0
            leg.spent = leg.sending = 0.0
            leg.busy = leg.lane.spent()[0]
            leg.first = count
        leg.taken += count
        self._came: Lane = leg.lane
        if not isinstance(leg.lane, HereLane):
            index += leg.base
        if type(payload) is NotSent:
            # It could not be encoded, and its turn is now.
            self._came = here = HereLane(self._fn, self._flow.star)
            here.send([payload.item], index)
            return here.poll(None) or came
        return kind, payload, index, count

    def _start_if_worth_it(self) -> None:
        if not self._pools.started and _choice.worth_starting(self.seen):
            self._pools.start_processes(self._fn)

    def _process_workers(self) -> int:
        return self.seen.workers or self.seen.cores

    def _be_quiet(self, workers: int) -> None:
        if self._quiet is not None:
            self._quiet.end()  # of a trial, which has fewer
        self._quiet = Quiet(workers)
        self._quiet.begin()
        if self._closed:
            self._quiet.end()

    def _limited(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        return fn if self._quiet is None else self._quiet.around(fn)
