"""What fanmap has to reach beside its peers, and whether it does. Pure.

A target is judged by the medians of one run, in which fanmap and the peers took turns: machines differ, and one machine
differs from hour to hour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .roster import ROSTER, library
from .summary import Cell, ranked

BEST = "best"
# Two medians as near as this are level: it is less than what the next run changes.
LEVEL = 0.02


@dataclass(frozen=True)
class Target:
    """Ours is at least, or at most, so many times what a peer shows; or, with no peer, such a number."""

    workload: str
    figure: str
    relation: Literal["at least", "at most"]
    factor: float
    of: str | None
    unit: str = ""
    ours: str | None = None

    @property
    def text(self) -> str:
        """The target in words."""
        who = f"{ROSTER[self.ours].title}: " if self.ours else ""
        if self.of is None:
            return f"{who}{self.relation} {self.factor:g} {self.unit}".rstrip()
        if self.of == BEST:
            return f"{who}not behind the best peer"
        title = ROSTER[self.of].title
        if self.factor == 1 and self.relation == "at least":
            return f"{who}ahead of {title}"
        return f"{who}{self.relation} {self.factor:g}x {title}"


@dataclass(frozen=True)
class Verdict:
    """How a target stands: what there is (a ratio, the number itself, or nothing) and whether that is enough."""

    shown: float | None
    met: bool


def judge(target: Target, row: Mapping[str, Cell], more_is_better: bool) -> Verdict | None:
    """The verdict by one row of the table; none if ours or the peer's figure is not there."""
    ours = target.ours or next((name for name in row if library(name) == "fanmap"), None)
    if ours is None or ours not in row:
        return None
    mine = row[ours].median
    if target.of is None:
        return Verdict(mine, mine >= target.factor if target.relation == "at least" else mine <= target.factor)
    if target.of == BEST:
        peers = [name for name in ranked(row, more_is_better) if library(name) not in ("fanmap", "plain", "copy")]
        if not peers:
            return None
        shown = mine / row[peers[0]].median
        return Verdict(shown, shown >= 1 - LEVEL if more_is_better else shown <= 1 + LEVEL)
    if target.of not in row:
        return None
    shown = mine / row[target.of].median
    return Verdict(shown, shown >= target.factor if target.relation == "at least" else shown <= target.factor)


def targets_of(workload: str, figure: str) -> list[Target]:
    """The targets of one row."""
    return [target for target in TARGETS if (target.workload, target.figure) == (workload, figure)]


TARGETS = (
    Target("tiny-map", "rate", "at least", 1.2, "pool"),
    Target("tiny-map", "rate", "at least", 2.5, "futures-chunked"),
    Target("tiny-map", "rate", "at least", 500, "futures"),
    Target("tiny-map-threads", "rate", "at least", 60, "futures-threads"),
    Target("tiny-map-threads", "rate", "at least", 0.5, "pool-threads"),
    Target("storm", "rate", "at least", 10, "futures-fork"),
    Target("storm", "rate", "at least", 3.5, "pool"),
    Target("storm-threads", "rate", "at least", 3, "futures-threads"),
    Target("round-trip", "close_p50", "at most", 0.5, "futures-fork"),
    Target("round-trip", "paced_p50", "at most", 0.7, "futures-fork"),
    Target("round-trip-threads", "close_p50", "at most", 0.6, "futures-threads"),
    Target("round-trip-threads", "paced_p50", "at most", 0.9, "futures-threads"),
    Target("even-20ms", "share", "at least", 1, BEST),
    Target("even-20ms", "share", "at least", 95, None, "%"),
    Target("even-1ms", "share", "at least", 1, BEST),
    Target("even-1ms", "share", "at least", 93, None, "%"),
    Target("skewed-first", "share", "at least", 1, BEST),
    Target("skewed-first", "share", "at least", 95, None, "%"),
    Target("skewed-last", "share", "at least", 1, BEST),
    Target("skewed-last", "share", "at least", 95, None, "%"),
    Target("cold-start", "time", "at most", 0.35, "futures-forkserver", ours="fanmap"),
    Target("cold-start", "time", "at most", 1.3, "futures-fork", ours="fanmap-fork"),
    *(
        target
        for figure, factor in (("in", 20), ("out", 3), ("out_dropped", 10), ("both", 4))
        for target in (
            Target("arrays", figure, "at least", factor, "futures"),
            Target("arrays", figure, "at least", 1, "joblib"),
            Target("arrays", figure, "at least", 1, "ray"),
        )
    ),
    Target("shared-partial", "first", "at most", 1.9, "futures-threads"),
    Target("shared-partial", "second", "at most", 1.3, "futures-threads"),
    Target("shared-closure", "first", "at most", 1.9, "futures-threads"),
    Target("shared-repeat", "first", "at most", 1.9, "futures-threads"),
    Target("sleeps", "over", "at most", 1.05, None),
    # The clock of a process counts single interrupts that happen to hit it.
    Target("idle", "cpu", "at most", 1, None, "ms (none, but for the clock's own grain)"),
    Target("idle", "memory", "at most", 12, None, "MB"),
)
