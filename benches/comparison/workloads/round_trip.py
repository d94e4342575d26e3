"""One call at a time on a warm idle pool, back to back and with pauses in which everybody falls asleep."""

from __future__ import annotations

import time
from collections.abc import Iterator

from .. import tasks
from ..peers.peer import Peer
from ..plan import Figure, Open, Settings, Values, Workload, quantile, warm
from ..roster import FORKED, THREADS

BACK_TO_BACK = 2_000
PACED = 400
PACE = 0.005

FIGURES = tuple(
    Figure(f"{way}_{part}", f"{title}, {part}", "us", more_is_better=False)
    for way, title in (("close", "back to back"), ("paced", "one every 5 ms"))
    for part in ("p50", "p99")
)


def trips(peer: Peer, count: int, pace: float) -> Iterator[float]:
    """The microseconds of so many calls that begin `pace` seconds apart, or (0) each at the end of the one before."""
    begin = time.perf_counter()
    for index in range(count):
        if pace:
            begin += pace
            time.sleep(max(0.0, begin - time.perf_counter()))
        started = time.perf_counter()
        peer.submit(tasks.plus_one, index)()
        yield (time.perf_counter() - started) * 1e6


def measure(open_peer: Open, settings: Settings) -> Values:
    """The median and the 99th percentile of each way."""
    share = min(1.0, settings.patience)
    with open_peer() as peer:
        warm(peer)
        for _ in trips(peer, 20, 0):
            pass
        values = {}
        for way, count, pace in (("close", BACK_TO_BACK, 0.0), ("paced", PACED, PACE)):
            taken = list(trips(peer, settings.scaled(round(count * share)), pace))
            values[f"{way}_p50"] = [quantile(taken, 0.5)]
            values[f"{way}_p99"] = [quantile(taken, 0.99)]
        return values


TIMED = "each call from submit to result, on a warm pool that has nothing else to do"
WORKLOADS = (
    Workload(
        name="round-trip",
        title="round trip, processes",
        timed=TIMED,
        figures=FIGURES,
        cast=FORKED,
        measure=measure,
    ),
    Workload(
        name="round-trip-threads",
        title="round trip, threads",
        timed=TIMED,
        figures=FIGURES,
        cast=THREADS,
        measure=measure,
    ),
)
