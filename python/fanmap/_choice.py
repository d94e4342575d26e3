"""Which way a map goes: in the calling thread, over threads or over processes. `_auto` measures, and asks here.

The decision is a pure function of what was measured: each way has a cost, in seconds for the items that are left, and
the cheapest one is taken. `docs/choice.md` tells its rules to users; `tests/test_choice.py` is a table of them.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, TypeAlias

__all__ = [
    "COLD",
    "MOST_THREADS",
    "TRIAL_ITEMS",
    "Choice",
    "Measured",
    "Way",
    "cap_threads",
    "decide",
    "expected",
    "is_waiting",
    "worth_starting",
    "worth_trying",
]

Way: TypeAlias = Literal["serial", "threads", "processes"]

# Seconds until the first worker process of a new pool has begun. Less, and short work waits for workers that come when
# it is nearly over; more, and work of half a second stays on one core.
COLD = 0.07

# Seconds of the caller's for an item over threads, and over processes beside what encoding takes. Less, and tiny items
# are sent for what they cost to send; more, and work that would gain from workers stays here.
_CALL = {"threads": 8e-6, "processes": 3e-6}

# Seconds until the first item is at work in a pool that is there.
_WAKE = 1e-4

# How much cheaper than the calling thread another way must look. Less, and what is saved is within the error of the
# measurement; more, and gains are left lying.
_GAIN = 0.85

# How many threads' work two threads must have done in their trial. Less, and chance sends Python code to threads; more,
# and work that releases the interpreter's lock for a part of its time stays in one.
_CLEAR = 1.2

# The most threads for work that waits. Fewer, and fast answers are waited for one after the other; more, and whoever
# answers is overrun, and each costs a stack.
MOST_THREADS = 64

# How many items of an input of unknown length are believed to come, at least, for each core. Fewer, and slow items stay
# here until many have been seen; more, and workers start for what ends at once.
_EXPECTED = 4

# What part of the work a trial of two threads may take. More, and a trial that fails costs what processes would gain.
_TRIAL = 0.1
TRIAL_ITEMS = 4

# How much work there must be, in seconds, for a trial: it takes some 15 ms where two threads are no faster. Less, and
# it is more than a twentieth of maps that stay in one thread; more, and those that release the lock stay there.
_TRIED = 0.3


class Measured(NamedTuple):
    """What is known of a function and its items."""

    wall: float
    """Seconds for an item in the calling thread."""
    cpu: float
    """Seconds of processor time for it, in all threads; the rest it waits."""
    items: int
    """Items that were seen."""
    left: int | None = None
    """Items to come, if the input tells."""
    cores: int = 1
    """Cores that are ours."""
    workers: int | None = None
    """How many workers were asked for."""
    locked: bool = True
    """Whether one thread at a time runs Python code here."""
    pair: float | None = None
    """How many threads' work two threads did in a trial, 1.0 to 2.0; None without a trial."""
    copy: float | None = None
    """Seconds of the caller's to encode an item and to decode a result; None if it was not looked at."""
    bytes: int = 0
    """Bytes of an item and a result, encoded."""
    refusal: str = ""
    """Why the function, an item or a result cannot be sent to another process."""
    start: float = COLD
    """Seconds until worker processes are there; 0 if they are."""
    not_here: str = ""
    """The option that rules out the calling thread."""
    dear: bool = False
    """Whether processes were tried, and sending took longer than computing."""


class Choice(NamedTuple):
    """The way that a map goes, and why."""

    way: Way
    workers: int
    why: str
    costs: dict[Way, float]
    """Seconds that each way would take for what is left. One that is ruled out is not in it."""


def decide(seen: Measured) -> Choice:
    """The cheapest way for what is left."""
    count = expected(seen)
    threads = _threads(seen)
    processes = seen.workers or seen.cores
    costs: dict[Way, float] = {}
    if not seen.not_here:
        costs["serial"] = count * seen.wall
    costs["threads"] = _over_threads(seen, count, threads)
    if not seen.refusal and not seen.dear:
        costs["processes"] = _over_processes(seen, count, processes)
    best = min(costs, key=lambda way: costs[way] * (1.1 if way == "processes" else 1.0))
    if best != "serial" and costs[best] > _GAIN * costs.get("serial", math.inf):
        best = "serial"
    if best == "serial":
        return Choice(best, 1, _why_serial(seen, count), costs)
    if best == "threads":
        return Choice(best, threads, _why_threads(seen), costs)
    return Choice(best, processes, _why_processes(seen), costs)


def worth_starting(seen: Measured) -> bool:
    """Whether worker processes are to be started while the first items are done here."""
    warm = seen._replace(start=0.0)
    return decide(warm).way == "processes" and expected(seen) * seen.wall > 2 * seen.start


def worth_trying(seen: Measured) -> bool:
    """Whether two threads are to show if they are faster than one."""
    if seen.pair is not None or not seen.locked or seen.cores < 2 or is_waiting(seen):
        return False
    if (seen.workers or seen.cores) < 2:
        return False
    work = expected(seen) * seen.wall
    # Where only threads are left, there is nothing to lose.
    most = 1.0 if seen.refusal or seen.dear else _TRIAL
    return seen.wall > 10 * _CALL["threads"] and work > _TRIED and TRIAL_ITEMS * seen.wall < most * work


def cap_threads(seen: Measured) -> int:
    """The most threads that can be of use to work that waits."""
    capacity = 1.0 if seen.locked else float(seen.cores)
    useful = math.ceil(2 * capacity * seen.wall / seen.cpu) if seen.cpu > 0 else MOST_THREADS
    return seen.workers or max(seen.cores, min(MOST_THREADS, useful))


def expected(seen: Measured) -> int:
    """How many items are to come. Of an input that does not tell: as many as came, which grows as they go on coming."""
    return max(seen.items, _EXPECTED * max(seen.cores, 1)) if seen.left is None else seen.left


def is_waiting(seen: Measured) -> bool:
    """Whether an item waits for longer than it computes."""
    return seen.wall > 2 * seen.cpu


def _threads(seen: Measured) -> int:
    return cap_threads(seen) if is_waiting(seen) else seen.workers or seen.cores


def _over_threads(seen: Measured, count: int, workers: int) -> float:
    together = float(min(workers, seen.cores))
    if seen.locked:
        # What one more thread adds is what the second one added.
        pair = seen.pair if seen.pair is not None and seen.pair > _CLEAR else 1.0
        together = 1 + (pair - 1.0) * (together - 1)
    computing = count * (seen.cpu / together + _CALL["threads"])
    return _WAKE + max(computing, math.ceil(count / workers) * seen.wall)


def _over_processes(seen: Measured, count: int, workers: int) -> float:
    caller = (seen.copy or 0.0) + _CALL["processes"]
    together = min(workers, seen.cores)
    # The caller works as well, on one of the cores; what it encodes, a worker decodes.
    computing = max(caller, (seen.cpu + 2 * caller) / seen.cores, (seen.cpu + caller) / together)
    return _WAKE + seen.start + max(count * computing, math.ceil(count / workers) * seen.wall)


def _why_serial(seen: Measured, count: int) -> str:
    if count <= 1:
        return "there is one item at most"
    if seen.workers == 1:
        return "one worker was asked for: the calling thread does as well"
    if seen.cpu > 1.3 * seen.wall:
        return "more than one core computes in this process already while an item runs"
    if seen.wall < 10 * _CALL["processes"]:
        return "an item takes less than it costs to give it to a worker"
    if count * seen.wall < 2 * seen.start:
        return "all of it takes less time than workers take to start"
    if seen.cores == 1:
        return "there is one core, and it does not wait"
    if seen.refusal:
        return f"{_of_threads(seen)}, and it cannot go to processes: {seen.refusal}"
    if seen.dear or (seen.copy or 0.0) * 2 > seen.wall:
        return f"{_of_threads(seen)}, and sending items and results to processes takes longer than it saves"
    return "no other way is faster by much"


def _why_threads(seen: Measured) -> str:
    if is_waiting(seen):
        return "it waits for most of the time, and many threads can wait at once"
    if not seen.locked:
        return "in this Python threads compute at the same time, and nothing has to be sent"
    if (seen.pair or 1.0) > _CLEAR:
        return "it releases the interpreter's lock: two threads were faster than one, and nothing has to be sent"
    if seen.refusal:
        return f"{seen.not_here} rules out the calling thread, and it cannot go to processes: {seen.refusal}"
    return "threads are the cheapest"


def _why_processes(seen: Measured) -> str:
    if not seen.locked or is_waiting(seen):
        return "items are short, and many of them go to a process together"
    return f"it computes, {_of_threads(seen)}, and sending is cheap"


def _of_threads(seen: Measured) -> str:
    """Why they are not the way."""
    if not seen.locked:
        return "threads are no faster by much"
    if seen.pair is None:
        return "one thread at a time runs Python code"
    return "two threads are no faster than one" if seen.pair <= _CLEAR else "threads wait for each other now and then"
