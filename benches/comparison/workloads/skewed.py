"""One item that takes forty times as long as each of the rest, met first or last."""

from __future__ import annotations

from ..plan import Workload
from ..roster import PROCESSES
from .even import SHARE, TIMED, share_of_best

SHORT = 0.005
LONG = 40 * SHORT
# So many that the best schedule still speeds it up by 1.67 on two cores where the long one comes last.
REST = 160

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
        ("skewed-first", "160 tasks of 5 ms after one of 200 ms", [LONG] + [SHORT] * REST),
        ("skewed-last", "160 tasks of 5 ms before one of 200 ms", [SHORT] * REST + [LONG]),
    )
)
