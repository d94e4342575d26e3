"""A long input that is read as it goes and results that are dropped as they come: how much memory the program needs."""

from __future__ import annotations

from .. import tasks
from ..plan import Figure, Open, Settings, Values, Workload, warm
from ..roster import PROCESSES, THREADS

ITEMS = 50_000
ITEM_BYTES = 4_000

GROWTH = (Figure("growth", "", "MB", more_is_better=False),)


def memory(key: str) -> float:
    """A line of this process's status, in MB (10^6 bytes)."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key + ":")) * 1024 / 1e6


def measure(open_peer: Open, settings: Settings) -> Values:
    """How far the peak of the parent's resident memory lies above what it had with the pool warm."""
    count = settings.scaled(ITEMS)
    with open_peer() as peer:
        warm(peer)
        before = memory("VmRSS")
        total = sum(peer.stream(tasks.length, (bytes(ITEM_BYTES) for _ in range(count))))
        assert total == count * ITEM_BYTES, total
        return {"growth": [max(0.0, memory("VmHWM") - before)]}


TIMED = "peak resident memory of the program beyond what it had with a warm pool; workers not counted"
WORKLOADS = tuple(
    Workload(
        name=name,
        title=f"memory of a streamed map, 50,000 items of 4 kB, {kind}",
        timed=TIMED,
        figures=GROWTH,
        cast=("plain", *cast),
        measure=measure,
        rounds=3,
        short_rounds=0,
    )
    for name, kind, cast in (("streamed", "processes", PROCESSES), ("streamed-threads", "threads", THREADS))
)
