"""Many single calls at once: what is measured is what a pool adds to a call."""

from __future__ import annotations

from .. import tasks
from ..plan import Figure, Open, Settings, Values, Workload, repeat, seconds, warm
from ..roster import FORKED, THREADS

CALLS = 20_000
RATE = (Figure("rate", "", "tasks/s", more_is_better=True),)


def measure(open_peer: Open, settings: Settings) -> Values:
    """Tasks a second."""
    count = settings.scaled(CALLS)
    with open_peer() as peer:
        warm(peer)
        peer.submit(tasks.plus_one, 0)()

        def storm() -> None:
            waits = [peer.submit(tasks.plus_one, item) for item in range(count)]
            for wait in waits:
                wait()

        return {"rate": repeat(lambda: count / seconds(storm), settings.patience)}


TIMED = "from the first submit to a warm pool until every result was asked for and came"
WORKLOADS = (
    Workload(
        name="storm",
        title="20,000 single tasks, processes",
        timed=TIMED,
        figures=RATE,
        cast=FORKED,
        measure=measure,
    ),
    Workload(
        name="storm-threads",
        title="20,000 single tasks, threads",
        timed=TIMED,
        figures=RATE,
        cast=THREADS,
        measure=measure,
    ),
)
