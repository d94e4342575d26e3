"""One array of 256 MiB that every task reads: in a partial, in a closure, and as a repeated argument."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .. import tasks
from ..peers.peer import NotOffered, Peer
from ..plan import Figure, Open, Settings, Values, Workload, drain, seconds
from ..roster import PROCESSES

TASKS = 64
MEGABYTES = 256
FIRST = Figure("first", "start included", "ms/task", more_is_better=False)
SECOND = Figure("second", "the second map with the same partial", "ms/task", more_is_better=False)

Map = Callable[[Peer, Any, list[int]], None]


def by_partial(peer: Peer, array: Any) -> Callable[[list[int]], None]:
    """The array as the bound argument of a function that can be imported."""
    function = partial(tasks.total_with, array)
    return lambda items: drain(peer.map(function, items))


def by_closure(peer: Peer, array: Any) -> Callable[[list[int]], None]:
    """The array as a variable that the function closes over."""
    if not peer.by_value:
        raise NotOffered("closures")

    def function(item: int) -> float:
        return float(array.sum()) + item

    return lambda items: drain(peer.map(function, items))


def by_repeat(peer: Peer, array: Any) -> Callable[[list[int]], None]:
    """The array as an argument that is the same for each item."""
    return lambda items: drain(peer.map_with(tasks.total_with, array, items))


def measure_by(
    way: Callable[[Peer, Any], Callable[[list[int]], None]], again: bool
) -> Callable[[Open, Settings], Values]:
    """A measure for one way of handing over the array."""

    def measure(open_peer: Open, settings: Settings) -> Values:
        import numpy

        array = numpy.full(settings.scaled(MEGABYTES) * tasks.MIB // 8, 1.0)
        items = list(range(settings.scaled(TASKS, least=2)))
        pools: list[Peer] = []
        maps: list[Callable[[list[int]], None]] = []

        def first() -> None:
            pools.append(open_peer())
            maps.append(way(pools[0], array))
            maps[0](items)

        values = {"first": [seconds(first) * 1000 / len(items)]}
        if again:
            values["second"] = [seconds(lambda: maps[0](items)) * 1000 / len(items)]
        pools[0].close()
        return values

    return measure


WORKLOADS = tuple(
    Workload(
        name=name,
        title=f"one array of 256 MiB {title}, read by 64 tasks",
        timed="from the making of the process's first pool to the last result; a task reads all of the array",
        figures=(FIRST, SECOND) if again else (FIRST,),
        cast=(*PROCESSES, "futures-threads"),
        measure=measure_by(way, again),
        rounds=3,
        short_rounds=1,
        short_cast=("fanmap", "joblib", "futures-threads") if again else ("fanmap", "futures-threads"),
        limit=400.0,
    )
    for name, title, way, again in (
        ("shared-partial", "in a partial", by_partial, True),
        ("shared-closure", "in a closure", by_closure, False),
        ("shared-repeat", "as an itertools.repeat argument", by_repeat, False),
    )
)
