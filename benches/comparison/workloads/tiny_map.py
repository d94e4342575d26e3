"""The least work for the most items: what is measured is what a pool adds to each."""

from __future__ import annotations

from .. import tasks
from ..plan import Figure, Open, Settings, Values, Workload, drain, repeat, seconds, warm
from ..roster import PROCESSES, THREADS

ITEMS = 100_000
RATE = (Figure("rate", "", "items/s", more_is_better=True),)


def measure(open_peer: Open, settings: Settings) -> Values:
    """Items a second."""
    items = list(range(settings.scaled(ITEMS)))
    with open_peer() as peer:
        warm(peer)
        tune = getattr(peer, "tune", None)
        if tune is not None:
            tune(tasks.plus_one, items)

        def rate() -> float:
            return len(items) / seconds(lambda: drain(peer.map(tasks.plus_one, items)))

        return {"rate": repeat(rate, settings.patience)}


TIMED = "from the call of a warm pool to the last result"
WORKLOADS = (
    Workload(
        name="tiny-map",
        title="map of x+1 over 100,000 integers, processes",
        timed=TIMED,
        figures=RATE,
        cast=("plain", *PROCESSES, "fanmap-dropin", "futures-chunked"),
        measure=measure,
        # Without `futures`, whose chunks of one take all the time of the short mode.
        short_cast=("plain", "fanmap", "futures-chunked", "pool"),
    ),
    Workload(
        name="tiny-map-threads",
        title="map of x+1 over 100,000 integers, threads",
        timed=TIMED,
        figures=RATE,
        cast=("plain", *THREADS, "fanmap-threads-dropin"),
        measure=measure,
    ),
)
