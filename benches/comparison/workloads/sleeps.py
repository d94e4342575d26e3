"""Tasks that only wait, on many threads: whether each thread goes from one wait straight to the next."""

from __future__ import annotations

import math

from .. import tasks
from ..plan import Figure, Open, Settings, Values, Workload, drain, quantile, repeat, seconds, warm
from ..roster import THREADS

COUNT = 2_000
WORKERS = 32
LENGTH = 0.005


def measure(open_peer: Open, settings: Settings) -> Values:
    """Times the rounds of a sleep as long as the system really makes it, which is measured just before."""
    count = settings.scaled(COUNT)
    rounds = math.ceil(count / settings.workers)
    with open_peer() as peer:
        warm(peer)

        def over() -> float:
            real = quantile((seconds(lambda: tasks.nap(LENGTH)) for _ in range(20)), 0.5)
            return seconds(lambda: drain(peer.map(tasks.nap, [LENGTH] * count))) / (rounds * real)

        return {"over": repeat(over, settings.patience, most=3)}


WORKLOADS = (
    Workload(
        name="sleeps",
        title="2000 sleeps of 5 ms on 32 threads",
        timed="from the call of a warm pool to the last result, over 63 rounds of a sleep as measured just before",
        figures=(Figure("over", "", "times the ideal", more_is_better=False),),
        cast=THREADS,
        measure=measure,
        workers=WORKERS,
    ),
)
