"""Large arrays to the workers, back from them, and both."""

from __future__ import annotations

from typing import Any

from .. import tasks
from ..peers.peer import Peer
from ..plan import Figure, Open, Settings, Values, Workload, drain, repeat, seconds, warm
from ..roster import PROCESSES

COUNT = 64
MEGABYTES = 8
FIGURES = tuple(
    Figure(key, title, "GB/s", more_is_better=True)
    for key, title in (
        ("in", "in"),
        ("out", "out, all results kept"),
        ("out_dropped", "out, each result dropped after use"),
        ("both", "in and out, all results kept"),
    )
)


def take(peer: Peer, function: Any, items: list[Any]) -> None:
    """Take results that are small."""
    drain(peer.map(function, items))


def keep(peer: Peer, function: Any, items: list[Any]) -> None:
    """Hold all results, and read something of each page."""
    results = list(peer.map(function, items))
    for result in results:
        tasks.touch(result)


def drop(peer: Peer, function: Any, items: list[Any]) -> None:
    """Read something of each page of a result, and drop it."""
    for result in peer.stream(function, items):
        tasks.touch(result)
        del result


def measure(open_peer: Open, settings: Settings) -> Values:
    """Bytes a second, counted once for each array that crosses: twice a task where it goes in and out."""
    import numpy

    count = settings.scaled(COUNT)
    arrays = [numpy.full(MEGABYTES * tasks.MIB // 8, float(index)) for index in range(count)]
    sizes = [MEGABYTES] * count
    gigabytes = count * MEGABYTES * tasks.MIB / 1e9
    with open_peer() as peer:
        warm(peer)
        # numpy is imported by every worker before anything is timed.
        list(peer.map(tasks.make, [1] * (2 * peer.workers)))

        def rate(work: Any, function: Any, items: list[Any], crossings: int = 1) -> list[float]:
            taken = repeat(lambda: seconds(lambda: work(peer, function, items)), settings.patience / 4, most=5)
            return [crossings * gigabytes / one for one in taken]

        return {
            "in": rate(take, tasks.total, arrays),
            "out": rate(keep, tasks.make, sizes),
            "out_dropped": rate(drop, tasks.make, sizes),
            "both": rate(keep, tasks.raise_all, arrays, crossings=2),
        }


def measure_copy(open_peer: Open, settings: Settings) -> Values:
    """What one plain copy into memory that is warm does: nothing that copies can be faster."""
    import numpy

    source = numpy.full(MEGABYTES * tasks.MIB // 8, 1.0)
    target = numpy.zeros_like(source)
    taken = repeat(lambda: seconds(lambda: numpy.copyto(target, source)), settings.patience / 4, most=50)
    rates = [source.nbytes / 1e9 / one for one in taken]
    return {figure.key: rates for figure in FIGURES}


def measure_either(open_peer: Open, settings: Settings) -> Values:
    """A peer, or the copy that all are compared with."""
    from ..peers.plain import Copy

    peer = open_peer()
    if isinstance(peer, Copy):
        return measure_copy(open_peer, settings)
    return measure(lambda: peer, settings)


WORKLOADS = (
    Workload(
        name="arrays",
        title="64 arrays of 8 MiB",
        timed="from the call of a warm pool until every page of the results was touched; a task reads all of its array",
        figures=FIGURES,
        cast=("copy", *PROCESSES, "futures-threads"),
        measure=measure_either,
        rounds=3,
        short_cast=("copy", "fanmap", "futures", "futures-threads"),
    ),
)
