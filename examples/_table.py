"""What the examples share: run one job in several ways, and show how long each took and who did the work.

Used by `scientists.py`, `crunch.py` and `scrape.py`. A worker process imports this module by its name, so importing
it does nothing.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

SMALL = os.environ.get("FANMAP_DEMO") == "small"
"""Whether to run on a small part of the input: the tests do."""

LEGEND = """\
cpu s    processor time that the tasks used, added up: far below the seconds means that they waited
at once  how many tasks were under way at the same time, on average"""


class Seen(NamedTuple):
    """A task's value, and who made it: where it ran and what it took."""

    value: Any
    pid: int
    thread: str
    core: str
    seconds: float
    cpu: float


def seen(fn: Callable[[Any], Any], item: Any) -> Seen:
    """`fn(item)`, with a note of who did it. Runs in the worker."""
    started, cpu = time.perf_counter(), time.thread_time()
    value = fn(item)
    seconds, cpu = time.perf_counter() - started, time.thread_time() - cpu
    return Seen(value, os.getpid(), threading.current_thread().name, core(), seconds, cpu)


def core() -> str:
    """The core that the calling thread runs on; "?" where the system does not tell."""
    try:
        with open("/proc/thread-self/stat") as stat:
            # Field 39 of proc(5). The second is a name in parentheses that may hold anything: count from its end.
            return stat.read().rpartition(")")[2].split()[39 - 3]
    except (OSError, IndexError):
        return "?"


class Race:
    """One job run in several ways; `print(race)` shows them side by side, each against the first."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, ...]] = []
        self._first: float | None = None

    def run(
        self,
        how: str,
        mapper: Callable[..., Iterable[Any]],
        fn: Callable[[Any], Any],
        items: Sequence[Any],
        **options: Any,
    ) -> list[Any]:
        """`list(mapper(fn, items, **options))`, timed, and kept as a row called `how`.

        The time is what a user waits: it includes starting workers that are not there yet.
        """
        print(f"{how}: {len(items)} items ...", flush=True)
        started = time.perf_counter()
        results = mapper(partial(seen, fn), items, **options)
        tasks = list(results)
        seconds = time.perf_counter() - started
        if stats := getattr(results, "stats", None):
            print(f"{how}: went over {stats.way}", flush=True)
        self._first = self._first or seconds
        self._rows.append(row(how, seconds, self._first, tasks))
        return [task.value for task in tasks]

    def __str__(self) -> str:
        return f"\n{align([HEADER, *self._rows])}\n\n{LEGEND}\n"


HEADER = ("how", "workers", "seconds", "speed-up", "cpu s", "at once", "processes", "threads", "cores")


def row(how: str, seconds: float, first: float, tasks: Sequence[Seen]) -> tuple[str, ...]:
    """The cells of one way to run the job, under `HEADER`."""
    return (
        how,
        str(len({(task.pid, task.thread) for task in tasks})),
        f"{seconds:.2f}",
        f"{first / seconds:.1f} x",
        f"{sum(task.cpu for task in tasks):.2f}",
        f"{sum(task.seconds for task in tasks) / seconds:.1f}",
        brief(str(task.pid) for task in tasks),
        brief(task.thread for task in tasks),
        brief(task.core for task in tasks),
    )


def brief(names: Iterable[str], room: int = 30) -> str:
    """The distinct names; if they need more than `room` characters the first, how the last differs, and how many."""
    distinct = sorted(set(names), key=lambda name: (len(name), name))
    whole = " ".join(distinct)
    if len(whole) <= room or len(distinct) == 1:
        return whole
    first, last = distinct[0], distinct[-1]
    return f"{first} .. {last.removeprefix(first.rstrip('0123456789'))} ({len(distinct)})"


def align(rows: Sequence[Sequence[str]], numbers: range = range(1, 6)) -> str:
    """The rows as lines with columns of one width: those in `numbers` to the right, the others to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for cells in rows:
        padded = (
            cell.rjust(width) if index in numbers else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)
