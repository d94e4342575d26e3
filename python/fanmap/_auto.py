"""`executor="auto"`: a lane that measures the first items and then goes the way that `_choice` decides.

It is a row of lanes, its *legs*, of which the last one takes the items. When the way changes, what is under way on the
leg before finishes there, and is handed out first; nothing runs twice. The legs are:

1. *Alone*: an item at a time, in the calling thread; or, with an option that rules that out, in one thread of a pool.
   Each is timed, until it is known to be tiny or the calling thread is chosen: then the map runs as a plain one for
   some milliseconds, without a look at the clocks, before the next item is timed (`Stash` in the binding). Worker
   processes that will pay are started meanwhile, and the items go on here until the first of them is there.
2. *Trial*: two threads of a pool. If they are no faster than one, the way goes back to the first leg or on.
3. *Parallel*: threads or processes. Of work that waits, the threads become more while that brings more results. If it
   turns out slower than the calling thread would be (`_was_wrong`), the way is decided anew: once.

What was measured is kept for the next map of the same function, which starts with it.

Who may do what: the thread that asks the map for a result alone changes the row, as it alone sends. Any thread may
close, which closes all legs; one that is opened while that happens is closed by the thread that opened it, which looks
after it has put it into the row.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Any

from . import _choice, _default, _measure, _native, _outcome
from ._budget import Quiet
from ._choice import Choice, Measured, Way
from ._cores import cpu_count
from ._lane import HereLane, NotSent, lane_over_processes, lane_over_threads
from ._options import Wanted
from ._result import Goes

if TYPE_CHECKING:
    from ._default import Pool
    from ._lane import Came, Flow, Lane
    from ._processes import ProcessPoolExecutor

__all__ = ["AutoLane"]

# An item that takes less, in seconds, is tiny: timing each would be felt.
_TINY = 1e-3

# For how long a map in the calling thread runs without a look at the clocks, in seconds. Less, and the looks are felt;
# more, and slow items that come later stay there for longer.
_PLAIN = 0.008

# Of how many items the time of a plain map tells something.
_MANY = 10

# How many tiny items must have been timed, where no plain map tells. Fewer, and workers start for what chance said.
_FEW = 3

# How long a run of tiny items may take that is done ahead of the consumer, where the map cannot be a plain one.
_AHEAD = 5e-4

# How much work there must be, in seconds, for a decision to be worth its time. Less, and small maps pay for it; more,
# and maps of some milliseconds never wait in many threads.
_WORTH = 0.005

# Items that take longer, in seconds, go to workers that are still to start.
_NO_WAIT = 0.05

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

    def __init__(
        self, fn: Callable[..., Any], flow: Flow, length: int, workers: int | None, not_here: str, *, lasts: bool = True
    ) -> None:
        self._fn = fn
        self._flow = flow
        self._length = length
        # Whether the choice is to be kept, and workers may be started.
        self._lasts = lasts
        self._index = 0
        self._closed = False
        self._changes = 0
        self.trial: _measure.Timed | None = None
        self._pools: dict[str, tuple[Pool, Callable[[bool], object] | None]] = {}
        self._starting = False
        self._quiet: Quiet | None = None
        self._threads = 0
        self._growing = False
        # What the items compute, over threads.
        self._computing: _measure.Computing | None = None
        # Sums over the items that were timed: how many, and the seconds. Old ones fade.
        # Where the calling thread is ruled out: what times the items in the one thread, and the item that is there.
        self._alone: _measure.Timed | None = None
        self._item: Any = None
        self._timed = 0.0
        self._wall = 0.0
        self._cpu = 0.0
        # Of legs that were left: seconds, and bytes sent and received.
        self._gone = (0.0, 0, 0)
        self._plain_since = 0.0
        self._plain_time = 0.0
        # Seconds for an item when the map last was a plain one, with what the consumer took.
        self._plain_each = 0.0
        self._plain_cpu = 0.0
        self._plain_began = 0.0
        known = _measure.recall(fn) if lasts else None
        self._known = known is not None
        self.seen = (known or Measured(0.0, 0.0, 0))._replace(
            items=max(known.items, 1) if known and not length else 0,
            cores=0,
            workers=workers,
            locked=_measure.is_locked(),
            not_here=not_here,
        )
        self._legs: list[_Leg] = []
        self.choice: Choice | None = None
        if known is not None and self._is_worth_a_thought():
            self._decide()
            if self.choice is not None and self.choice.way != "serial":
                self._go(self.choice)
        if not self._legs:
            self._open_alone()

    # ---- a lane ----

    def room(self) -> int:
        leg = self._legs[-1]
        if self._alone is not None:
            if leg.lane.outstanding():
                return 0
            self._look_at(self._alone)
            leg = self._legs[-1]
            if self._alone is not None:
                return 1
        elif leg.way == "serial":
            if self._flow.window is not None and self.outstanding() >= self._flow.window:
                return 0
            return leg.lane.room() and self._run()
        if self.trial is not None:
            self._end_trial(self.trial)
        elif self._changes == 0 and leg.spent > _JUDGED and self._was_wrong(leg):
            self._changes = 1
            self._decide()
            if _choice.worth_trying(self.seen):
                self.try_two()
            elif self.choice is not None and self.choice.way != leg.way:
                self._go(self.choice)
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
        leg = self._legs[-1]
        began = perf_counter()
        if self._alone is not None:
            self._item = items[-1]
        if leg.way == "serial" and self._alone is None:
            self._send_here(leg, items, index)
        else:
            leg.lane.send(items, index)
        self._index = index + len(items)
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
        return busy + self._plain_time, sent, received

    def close(self, *, interrupted: bool, kill: bool) -> None:
        self._closed = True
        if self._quiet is not None:
            self._quiet.end()
        for leg in tuple(self._legs):
            leg.lane.close(interrupted=interrupted, kill=kill)
        if self._lasts and (self._timed or self._changes):
            wall, cpu = self._tiny(self.seen.wall, self.seen.cpu)
            kept = self.seen._replace(wall=wall, cpu=cpu, items=self._index, left=None, not_here="", workers=None)
            _measure.keep(self._fn, kept)

    # ---- what a map asks this lane alone ----

    def dismiss(self, wait: bool) -> None:
        """The map is over: its own pools, if any, may go."""
        for _, end in tuple(self._pools.values()):
            if end is not None:
                end(wait)

    @property
    def way(self) -> Way:
        return self._legs[-1].way

    @property
    def workers(self) -> int:
        """The most workers that there may be."""
        return 1 if self.way == "serial" else self._threads if self.way == "threads" else self._process_workers()

    def goes(self) -> Goes:
        """How the map goes now."""
        alone = self.seen.wall * self._index if self.way == "threads" and self.seen.wall > 0 else None
        return Goes(self.way, self.workers, alone)

    def plain_for(self) -> float:
        """For how many seconds the map may run as a plain one; 0 if it may not."""
        if self.way != "serial" or self.seen.not_here or len(self._legs) > 1 or not (self._is_tiny() or self._stays()):
            return 0.0
        self._plain_since, self._plain_began = perf_counter(), thread_time()
        return _PLAIN

    def _is_tiny(self) -> bool:
        return 0 < self.seen.wall < _TINY

    def _stays(self) -> bool:
        """Whether the calling thread was chosen, and not for want of a better look."""
        return self.choice is not None and self.choice.way == "serial" and (self._known or self._timed >= _FEW)

    def counted(self, count: int) -> None:
        """So many items were done by a plain map."""
        took = perf_counter() - self._plain_since
        self._plain_time += took
        self._index += count
        if count >= _MANY:
            self._plain_each = took / count
            self._plain_cpu = (thread_time() - self._plain_began) / count

    # ---- measuring ----

    def _run(self) -> int:
        """How many items to do now, in the calling thread."""
        if not self._timed or self._plain_since or self._flow.window is not None:
            return 1
        # Some that are as the last ones, before the next is timed.
        return max(1, min(int(_AHEAD / max(self.seen.wall, 1e-9)), self._index - self._legs[-1].base, 256))

    def _send_here(self, leg: _Leg, items: list[Any], index: int) -> None:
        if len(items) > 1:
            leg.lane.send(items[:-1], index)
        last = items[-1:]
        at = index + len(items) - 1
        clocks = _measure.Clocks()
        leg.lane.send(last, at)
        self._index = at + 1
        if len(self._legs) > 1:
            # What is under way elsewhere would be measured along.
            self._decide()
            return self._go_on()
        self._note(*clocks.read())
        came = leg.lane.last() if isinstance(leg.lane, HereLane) else None
        result = came[1] if came is not None and came[0] == _outcome.VALUE else None
        self._consider(lambda: _measure.sending(self._fn, last[0], result))

    def _look_at(self, timed: _measure.Timed) -> None:
        """After an item in the one thread."""
        item, self._item = self._item, None
        if timed.took:
            self._note(*timed.took.pop()[:2])
            self._consider(lambda: _measure.sending(self._fn, item, None))

    def _note(self, wall: float, cpu: float) -> None:
        if 0 < self._timed < 1.5 and wall < self._wall / 4:
            # What only the first call does (imports, caches) is no measure of the others.
            self._timed = self._wall = self._cpu = 0.0
        wall, cpu = self._tiny(wall, cpu)
        fade = 0.9
        self._timed = self._timed * fade + 1
        self._wall = self._wall * fade + wall
        self._cpu = self._cpu * fade + cpu

    def _tiny(self, wall: float, cpu: float) -> tuple[float, float]:
        """Seconds for an item that was timed: of a tiny one, dearer to time than to do, those that a plain map took."""
        if wall < _TINY and self._plain_each:
            # What the consumer took is in the plain map's figures.
            computes = cpu > 0.8 * wall
            cpu = min(cpu, self._plain_cpu)
            wall = cpu if computes else min(wall, self._plain_each)
        return wall, cpu

    def _is_worth_a_thought(self) -> bool:
        """Whether there may be enough to do for any way but the calling thread; brings `seen` up to date."""
        left = max(self._length - self._index, 0) if self._length else None
        wall, cpu = self.seen.wall, self.seen.cpu
        if self._timed:
            wall, cpu = self._wall / self._timed, self._cpu / self._timed
        items = max(self.seen.items, self._index)
        self.seen = self.seen._replace(wall=wall, cpu=cpu, items=items, left=left)
        if self._is_thin() or (_choice.expected(self.seen) * wall < _WORTH and not self.seen.not_here):
            return False
        if not self.seen.cores:
            # It reads files.
            self.seen = self.seen._replace(cores=cpu_count())
        return True

    def _is_thin(self) -> bool:
        """Whether too little was seen of tiny items: one call tells of chance and of what the first call does."""
        return not self._known and self.seen.wall < _TINY and not self._plain_each and self._timed < _FEW

    def _decide(self) -> None:
        self._is_worth_a_thought()
        self.seen = self.seen._replace(start=0.0 if self._is_ready() else _choice.COLD)
        self.choice = _choice.decide(self.seen)

    def _consider(self, sending: Callable[[], _measure.Sending]) -> None:
        """After an item on the first leg: whether to go another way."""
        if self._closed or not self._is_worth_a_thought():
            return
        self._decide()
        if self.seen.copy is None and not self.seen.refusal and not _choice.is_waiting(self.seen):
            found = sending()
            self.seen = self.seen._replace(copy=found.seconds, bytes=found.bytes, refusal=found.refusal)
            self._decide()
        if not self._lasts:
            return
        if _choice.worth_trying(self.seen):
            return self.try_two()
        self._start_if_worth_it()
        self._go_on()

    def _go_on(self) -> None:
        """From the calling thread, if another way was chosen and is there."""
        choice = self.choice
        if choice is None or choice.way == "serial":
            return
        if choice.way == "processes" and not self._is_ready() and self._starting and self.seen.wall < _NO_WAIT:
            return  # it goes on here until the first of them is there
        self._go(choice)

    def _tried_together(self) -> int:
        """How many items are under way in a trial: as many as keep two threads busy."""
        return max(_choice.TRIAL_ITEMS, int(_AHEAD / max(self.seen.wall, 1e-9)))

    def _end_trial(self, trial: _measure.Timed) -> None:
        took = trial.took[:]
        if len(took) < _choice.TRIAL_ITEMS or sum(wall for wall, _, _ in took) < 0.02:
            return
        self.end_trial()
        self._start_if_worth_it()
        assert self.choice is not None
        if self.choice.way == "serial" or (
            self.choice.way == "processes" and not self._is_ready() and self.seen.wall < _NO_WAIT
        ):
            self._open_alone()
        else:
            self._go(self.choice)

    def end_trial(self) -> Measured:
        """What is known once two threads have shown what they do."""
        trial, self.trial = self.trial, None
        assert trial is not None, "none was begun"
        if trial.took:
            self.seen = self.seen._replace(pair=min(max(trial.at_once(), 1.0), 2.0))
        self._decide()
        return self.seen

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
            self.seen = self.seen._replace(wall=alone, cpu=alone, dear=True)
        else:
            # One core's worth is what the interpreter's lock allows.
            cpu = 0.0 if self._computing is None else self._computing.each()
            if not self.seen.locked or cpu > 1.15 * each:
                return False
            if _choice.is_waiting(self.seen) and (cpu < 0.85 * each or cpu < 2 * self.seen.cpu):
                return False  # it waits, or computes no more than was foreseen
            self.seen = self.seen._replace(wall=cpu, cpu=cpu, pair=None)
        self._timed = 0.0
        return True

    # ---- ways ----

    def _open_alone(self) -> None:
        if self.seen.not_here:
            # One at a time, and so that each can be timed.
            timed = _measure.Timed(self._fn)
            self._open(lane_over_threads(self._pool("threads"), timed, self._flow, workers=1), "serial")
            self._alone = timed
        else:
            self._open(HereLane(self._fn, self._flow.star), "serial")

    def try_two(self) -> None:
        """Have two threads do the next items."""
        self.trial = _measure.Timed(self._fn)
        self._be_quiet(2)
        self._threads = 2
        self._open(lane_over_threads(self._pool("threads"), self.trial, self._flow, workers=2), "threads")

    def _go(self, choice: Choice) -> None:
        self._growing = False
        if choice.way == "serial":
            self._open_alone()
        elif choice.way == "processes":
            pool = self._pool("processes")
            try:
                lane = lane_over_processes(pool, self._fn, self._flow, gives_back=not self.seen.not_here)
            except RuntimeError:
                raise  # the pool's
            except Exception as error:
                # What it refers to has changed since it was looked at.
                self.seen = self.seen._replace(refusal=_measure.said(error))
                self.choice = _choice.decide(self.seen)
                return self._go(self.choice)
            self._open(lane, "processes")
        else:
            waits = _choice.is_waiting(self.seen)
            self._growing = waits and choice.workers > _FIRST_THREADS
            self._threads = _FIRST_THREADS if self._growing else choice.workers
            if not waits:
                self._be_quiet(choice.workers)
            pool = self._pool("many threads" if choice.workers > 4 else "threads")
            self._computing = _measure.Computing(self._fn)
            self._open(lane_over_threads(pool, self._computing, self._flow, workers=self._threads), "threads")

    def _grow(self, leg: _Leg) -> None:
        """More threads, as long as they bring more results."""
        taken, spent = leg.taken - leg.level[0], leg.spent - leg.level[1]
        if taken < 2 * self._threads or spent <= 0:
            return
        rate = taken / spent
        most = self.choice.workers if self.choice is not None else self._threads
        if rate < _FASTER * leg.rate or self._threads >= most:
            self._growing = False
            return
        leg.rate = rate
        leg.level = leg.taken, leg.spent
        self._threads = min(2 * self._threads, most)
        leg.lane.widen(self._threads)  # type: ignore[attr-defined]

    def _open(self, lane: Lane, way: Way) -> None:
        self._alone = None
        if way != "threads" and self._quiet is not None:
            self._quiet.end()
            self._quiet = None
        self._legs.append(_Leg(lane, way, self._index))
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
        if not leg.taken:
            # Workers had to start, perhaps; from here on it counts.
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

    def _pool(self, name: str) -> Any:
        if self.seen.workers is None:
            return _default.pool(name, Wanted())[0]
        if name not in self._pools:
            self._pools[name] = _default.pool(name, Wanted(workers=self.seen.workers))
        return self._pools[name][0]

    def _start_if_worth_it(self) -> None:
        if self._starting or not _choice.worth_starting(self.seen):
            return
        self._starting = True
        pool: ProcessPoolExecutor = self._pool("processes")
        pool._start_ahead(self._fn)

    def _is_ready(self) -> bool:
        if self.seen.workers is None:
            return _default.has_processes()
        pool = self._pools.get("processes")
        return pool is not None and pool[0]._engine.workers(wait=False) != []  # type: ignore[union-attr]

    def _process_workers(self) -> int:
        return self.seen.workers or self.seen.cores

    def _be_quiet(self, workers: int) -> None:
        if self._quiet is None:
            self._quiet = Quiet(workers)
            self._quiet.begin()
