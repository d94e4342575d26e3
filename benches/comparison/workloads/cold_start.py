"""From nothing to two results and back, in a fresh interpreter that has imported numpy as programs that compute do.

The import of numpy itself is not timed. Workers that import the main module again import it as well.
"""

from __future__ import annotations

import time

from .. import tasks
from ..plan import Figure, Open, Settings, Values, Workload
from ..roster import PROCESSES


def measure(open_peer: Open, settings: Settings) -> Values:
    """Milliseconds. The peer's own import is part of `open_peer`."""
    started = time.perf_counter()
    with open_peer() as peer:
        results = list(peer.map(tasks.plus_one, [1, 2]))
    taken = time.perf_counter() - started
    assert results == [2, 3], results
    return {"time": [taken * 1000]}


METHODS = ("fanmap-fork", "fanmap-spawn", "futures-fork", "futures-forkserver", "futures-spawn")
WORKLOADS = (
    Workload(
        name="cold-start",
        title="import, start, two results, shutdown",
        timed="all of it, in a fresh interpreter whose main module imports numpy at its top",
        figures=(Figure("time", "", "ms", more_is_better=False),),
        # ProcessPoolExecutor's default is one of the three.
        cast=(*(name for name in PROCESSES if name != "futures"), *METHODS),
        measure=measure,
        cold=True,
        computing=True,
        rounds=15,
        short_rounds=3,
    ),
)
