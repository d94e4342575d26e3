"""Work of one length that keeps every core busy: how much of the cores' time becomes work."""

from __future__ import annotations

from collections.abc import Callable

from .. import tasks
from ..plan import Figure, Open, Settings, Values, Workload, drain, in_order, repeat, seconds, warm
from ..roster import PROCESSES

SHARE = (Figure("share", "", "% of the best schedule", more_is_better=True),)


def share_of_best(durations: list[float]) -> Callable[[Open, Settings], Values]:
    """A measure for tasks of these durations: how near a map comes to the best schedule that starts them in order."""

    def measure(open_peer: Open, settings: Settings) -> Values:
        items = durations[: settings.scaled(len(durations))]
        best = in_order(items, settings.workers)
        with open_peer() as peer:
            warm(peer)

            def share() -> float:
                return 100 * best / seconds(lambda: drain(peer.map(tasks.busy, items)))

            return {"share": repeat(share, settings.patience)}

    return measure


TIMED = "from the call of a warm pool to the last result; a task computes until it has used its processor time"
WORKLOADS = tuple(
    Workload(
        name=name,
        title=title,
        timed=TIMED,
        figures=SHARE,
        cast=PROCESSES,
        measure=share_of_best(durations),
    )
    for name, title, durations in (
        ("even-20ms", "64 tasks of 20 ms", [0.020] * 64),
        ("even-1ms", "2000 tasks of 1 ms", [0.001] * 2000),
    )
)
