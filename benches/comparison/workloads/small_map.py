"""A map that is too small to be worth a pool: how much a user loses who uses one all the same."""

from __future__ import annotations

from .. import tasks
from ..plan import Figure, Open, Settings, Values, Workload, drain, seconds
from ..roster import PROCESSES, THREADS

ITEMS = 1_000
OVER = (Figure("over", "", "times plain map", more_is_better=False),)


def measure(open_peer: Open, settings: Settings) -> Values:
    """Times the built-in `map`, which is measured in the same process just before."""
    items = list(range(settings.scaled(ITEMS)))
    plain = min(seconds(lambda: drain(map(tasks.microsecond, items))) for _ in range(5))

    def once() -> None:
        with open_peer() as peer:
            drain(peer.map(tasks.microsecond, items))

    return {"over": [seconds(once) / plain]}


TIMED = "start of a process's first pool, the map, and shutdown; not the library's import"
WORKLOADS = (
    Workload(
        name="small-map",
        title="1000 items of 1 us with the pool's start, processes",
        timed=TIMED,
        figures=OVER,
        cast=PROCESSES,
        measure=measure,
        rounds=9,
        short_rounds=3,
    ),
    Workload(
        name="small-map-threads",
        title="1000 items of 1 us with the pool's start, threads",
        timed=TIMED,
        figures=OVER,
        cast=THREADS,
        measure=measure,
        rounds=9,
        short_rounds=3,
    ),
)
