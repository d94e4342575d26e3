"""`fanmap.explain`: what `executor="auto"` measures, what it would choose, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from time import perf_counter
from typing import Any, Unpack

from . import _check, _choice, _default
from ._auto import AutoLane
from ._choice import Choice, Measured, decide
from ._cores import cpu_count
from ._fixed import fix
from ._lane import Flow
from ._options import Options, Wanted
from ._source import Source, in_step

__all__ = ["account", "explain"]

# How many items to look at, and for how long, in seconds. Fewer, and the account is of chance; more, and one waits.
_ITEMS = 16
_TIME = 0.3


def explain(fn: Callable[..., Any], /, *iterables: Iterable[Any], **options: Unpack[Options]) -> None:
    """Print a short account of how `fanmap.map(fn, *iterables)` would go: what was measured, what each way would cost,
    what is chosen and why, and what would change that.

    It calls `fn`, on the first items of the input: up to 16 in the calling thread, for up to 0.3 seconds, and some more
    in two threads if that can tell anything. No worker process is started. The options are those of `fanmap.map`.

    >>> import fanmap
    >>> fanmap.explain(abs, [-1, -2, -3])  # doctest: +ELLIPSIS
    fanmap.map(abs, ...) over 3 items
      looked at     3 of them, in the calling thread
      ...
      chosen        serial: ...
    >>> fanmap.shutdown()

    Raises what `fn` raises, and what `fanmap.map` raises for its arguments.
    """
    _check.function(fn)
    if not iterables:
        raise TypeError("explain() must have at least two arguments: a function and something to iterate over")
    wanted = Wanted.by("explain", options).checked()
    name = getattr(fn, "__qualname__", type(fn).__name__)
    if wanted.executor != "auto":
        print(f"fanmap.map({name}, ...) leaves no choice: {_why_none(wanted)}. Nothing was measured.")
        return
    if _default.in_worker():
        print(f"fanmap.map({name}, ...) runs in place, as this is a worker. Nothing was measured.")
        return
    if not wanted.strict:
        fn, iterables = fix(fn, iterables)
    source = in_step(iterables, strict=wanted.strict)
    seen = _measured(fn, source, len(iterables) != 1, wanted)
    print(account(name, source.length, seen))


def _why_none(wanted: Wanted) -> str:
    if wanted.executor == "processes" and wanted.means_processes:
        return f"{wanted.means_processes}= is for worker processes"
    return f"executor={wanted.executor!r} was named"


def _measured(fn: Callable[..., Any], source: Source, star: bool, wanted: Wanted) -> Measured:
    """Look at the first items."""
    lane = AutoLane(fn, Flow(star, None), source.length, wanted.workers, "", lasts=False)
    index = 0

    def do(count: int) -> int:
        items = list(islice(source.items, count))
        if items:
            lane.send(items, index)
        for _ in items:
            kind, payload, at, _ = lane.wait(None) or (0, None, 0, 0)
            if kind:
                raise lane.failure(kind, payload, at)
        return len(items)

    try:
        until = perf_counter() + _TIME
        while index < _ITEMS and (not index or perf_counter() < until) and do(1):
            index += 1
        seen = lane.seen
        if index and _choice.worth_trying(seen):
            lane.try_two()
            index += do(max(2 * _choice.TRIAL_ITEMS, min(64, int(0.05 / seen.wall))))
            seen = lane.end_trial()
    finally:
        lane.close(interrupted=False, kill=False)
        lane.dismiss(True)
    not_here = wanted.not_here
    return seen._replace(items=index, left=source.length or None, not_here=not_here, cores=cpu_count())


def account(name: str, length: int, seen: Measured) -> str:
    """What was measured, and what follows from it, in some lines."""
    unknown = "an input that does not tell its length" if seen.items else "an empty input"
    over = _count(length, "item") if length else unknown
    lines = [f"fanmap.map({name}, ...) over {over}"]

    def line(what: str, said: str) -> None:
        lines.append(f"  {what:<14}{said}")

    if not seen.items:
        line("looked at", "nothing")
        return "\n".join(lines)
    choice = decide(seen)
    count = _choice.expected(seen)
    also = "" if seen.pair is None else " and in two threads"
    line("looked at", f"{seen.items} of them, in the calling thread{also}")
    waits = f", of which {_time(seen.wall - seen.cpu)} waiting" if seen.wall - seen.cpu > 0.05 * seen.wall else ""
    line("an item", f"takes {_time(seen.wall)}{waits}")
    if seen.pair is not None:
        line("two threads", f"do {seen.pair:.1f} times as much as one")
    if seen.refusal:
        line("sending", f"impossible: {seen.refusal}")
    elif seen.copy is not None:
        line("sending", f"{_time(seen.copy)} for an item and its result of {seen.bytes:,} bytes together")
    lock = "one thread at a time runs Python code" if seen.locked else "threads run Python code at the same time"
    start = f"about {_time(seen.start)} to start worker processes" if seen.start else "worker processes are there"
    line("here", f"{_count(seen.cores, 'core')}; {lock}; {start}")
    if seen.not_here:
        line("ruled out", f"the calling thread, by {seen.not_here}=")
    costs = ", ".join(f"{way} {_time(cost)}" for way, cost in sorted(choice.costs.items(), key=lambda each: each[1]))
    line("would take", costs if length else f"{costs} for the next {_count(count, 'item')}")
    workers = f", {'up to ' if _choice.is_waiting(seen) else ''}{choice.workers}" if choice.way != "serial" else ""
    line("chosen", f"{choice.way}{workers}: {choice.why}")
    for said in _what_would_change(seen, choice, count):
        line("would change", said)
    return "\n".join(lines)


def _what_would_change(seen: Measured, choice: Choice, count: int) -> list[str]:
    found = []
    for factor in (10, 100, 1000, 10_000):
        other = decide(seen._replace(left=count * factor))
        if other.way != choice.way:
            found.append(f"with {count * factor:,} items: {other.way}")
            break
    for factor in (10, 100, 1000):
        other = decide(seen._replace(wall=seen.wall * factor, cpu=seen.cpu * factor))
        if other.way != choice.way:
            found.append(f"if an item took {_time(seen.wall * factor)}: {other.way}")
            break
    if seen.refusal and (other := decide(seen._replace(refusal=""))).way != choice.way:
        found.append(f"if it could be sent: {other.way}")
    if seen.cores == 1 and (other := decide(seen._replace(cores=4))).way != choice.way:
        found.append(f"on four cores: {other.way}")
    if choice.costs.get("serial", 0.0) > 1.0 and choice.way == "serial" and not found:
        found.append("a function that releases the interpreter's lock, or items that are cheaper to send")
    return found


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.2g} us" if seconds < 1e-4 else f"{seconds * 1e6:.3g} us"
