"""What a workload says of itself, and the tools that it measures with.

No `statistics` here and in the workloads: it imports `decimal`, and a program that has imported that pays for a decimal
context of its own for each task, in some pools.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from . import tasks
from .peers.peer import Peer


@dataclass(frozen=True)
class Figure:
    """One number that a workload yields for each peer: a row of the table."""

    key: str
    title: str
    unit: str
    more_is_better: bool


@dataclass(frozen=True)
class Settings:
    """What a measurement is told."""

    workers: int
    # 1.0 is the full size of a workload. A small fraction shows that everything works, and measures nothing.
    scale: float = 1.0
    # How long to repeat what is short, in seconds; what is longer is done once.
    patience: float = 1.0

    def scaled(self, count: int, least: int = 1) -> int:
        """So many things, or fewer at a smaller scale."""
        return max(least, round(count * self.scale))


# A peer's values for each figure: one for each repetition within the measurement.
Values = Mapping[str, list[float]]
Open = Callable[[], Peer]


@dataclass(frozen=True)
class Workload:
    """A piece of work, the peers that do it, and the function that measures one of them."""

    name: str
    # The work, for people.
    title: str
    # What lies within the time that is taken.
    timed: str
    figures: tuple[Figure, ...]
    cast: tuple[str, ...]
    measure: Callable[[Open, Settings], Values]
    rounds: int = 5
    # In the short mode: rounds (0: left out), and the peers if not the nearest.
    short_rounds: int = 2
    short_cast: tuple[str, ...] | None = None
    # What a measurement may take, in seconds, before it is given up.
    limit: float = 120.0
    # Whether the peer's import belongs to what is timed.
    cold: bool = False
    # Whether the program's main module imports numpy at its top.
    computing: bool = False
    # The workers that this work is about; None: as many as the user asks for.
    workers: int | None = None


def repeat(timed: Callable[[], float], patience: float, most: int = 15) -> list[float]:
    """What `timed` returns, again and again until the patience is used up, but at least once."""
    until = time.perf_counter() + patience
    values = [timed()]
    while len(values) < most and time.perf_counter() < until:
        values.append(timed())
    return values


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def drain(results: Iterable[object]) -> None:
    """Take the results and drop each."""
    for _ in results:
        pass


def warm(peer: Peer) -> None:
    """Have every worker started, and have had something to do."""
    for _ in range(2):
        drain(peer.map(tasks.nap, [0.005] * (4 * peer.workers)))


def quantile(values: Iterable[float], part: float) -> float:
    """The value below which `part` of the values lie: the nearest one that there is."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def in_order(durations: Iterable[float], workers: int) -> float:
    """How long the best schedule takes that starts the items in the order of the input."""
    free = [0.0] * workers
    for duration in durations:
        first = free.index(min(free))
        free[first] += duration
    return max(free)
