"""The table of the figures, for people, in Markdown. Pure: what was taken in, text out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .chart import Bar, Panel
from .plan import Figure, Workload
from .roster import ROSTER, library
from .summary import Cell, Record, Taken, cells, number, ranked
from .targets import LEVEL, Target, Verdict, judge, targets_of

# The rows that the picture shows, the ones that tell most, with titles that fit above half of its width.
PICTURED = {
    ("tiny-map", "rate"): "map of x+1 over 100,000 integers, processes",
    ("tiny-map-threads", "rate"): "map of x+1 over 100,000 integers, threads",
    ("storm", "rate"): "20,000 single tasks, processes",
    ("round-trip", "close_p50"): "one round trip to a warm process",
    ("even-1ms", "share"): "2000 tasks of 1 ms",
    ("cold-start", "time"): "import, start, two results, shutdown",
    ("arrays", "both"): "64 arrays of 8 MiB, in and out",
    ("shared-partial", "first"): "256 MiB in a partial, read by 64 tasks",
}


def rows(taken: Taken, workloads: Sequence[Workload]) -> Iterator[tuple[Workload, Figure]]:
    """The workloads and figures that there is something of."""
    for workload in workloads:
        if workload.name in taken:
            yield from ((workload, figure) for figure in workload.figures)


def table(taken: Taken, workloads: Sequence[Workload]) -> str:
    """A row for each figure: fanmap's, the peers' from the best to the last, the targets and whether they are met."""
    lines = ["| work | fanmap | peers, the best first | target | shown |", "|---|---|---|---|---|"]
    for workload, figure in rows(taken, workloads):
        peers = taken[workload.name]
        row = cells(peers, figure.key)
        others = [name for name in ranked(row, figure.more_is_better) if library(name) != "fanmap"]
        columns = (
            heading(workload, figure),
            ours(row) or "-",
            "; ".join([*(with_title(name, row) + at_times(peers[name]) for name in others), *absent(peers, row)])
            or "-",
            *targets(workload, figure, peers),
        )
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines) + "\n"


def heading(workload: Workload, figure: Figure) -> str:
    """What a row is about, and its unit."""
    title = f"{workload.title}: {figure.title}" if figure.title else workload.title
    return f"{title}, {figure.unit}"


def ours(row: Mapping[str, Cell]) -> str:
    """fanmap's figures: the first is the one that is compared."""
    own = [name for name in row if library(name) == "fanmap"]
    first = [f"**{spread(row[name])}**{per_copy(name, row)}" for name in own[:1]]
    return "<br>".join([*first, *(with_title(name, row) for name in own[1:])])


def spread(cell: Cell) -> str:
    """The median, and between which numbers the rounds lay."""
    if cell.low == cell.high:
        return number(cell.median)
    return f"{number(cell.median)} ({number(cell.low)} to {number(cell.high)})"


def with_title(name: str, row: Mapping[str, Cell]) -> str:
    """A peer and its figure."""
    return f"{ROSTER[name].title} {spread(row[name])}"


def per_copy(name: str, row: Mapping[str, Cell]) -> str:
    """How a rate of bytes stands to that of one plain copy, if that was measured."""
    return f", {row[name].median / row['copy'].median:.2g}x one plain copy" if "copy" in row else ""


def absent(peers: Mapping[str, Record], row: Mapping[str, Cell]) -> Iterator[str]:
    """The peers that have no figure in this row, with the reason."""
    lacking = [ROSTER[name].title for name, record in peers.items() if "not_offered" in record]
    if lacking:
        yield f"not offered: {', '.join(lacking)}"
    for name, record in peers.items():
        if "failed" in record and name not in row:
            yield f"{ROSTER[name].title}: {reason(record)}"


def at_times(record: Record) -> str:
    """Why a peer has a figure of some rounds alone."""
    return f", but once {reason(record)}" if "failed" in record else ""


def reason(record: Record) -> str:
    """Somebody's error message, which must not end the row."""
    return str(record["failed"]).replace("|", "/").replace("<", "&lt;")


def targets(workload: Workload, figure: Figure, peers: Mapping[str, Record]) -> tuple[str, str]:
    """The targets of a row, and how each stands."""
    texts, shown = [], []
    for target, verdict in verdicts(workload, figure, peers):
        texts.append(target.text)
        if verdict is None:
            shown.append("not measured")
        elif verdict.shown is None:
            shown.append("no figure, **not met**")
        else:
            times = "" if target.of is None else "x"
            shown.append(f"{number(verdict.shown)}{times}, {'met' if verdict.met else '**not met**'}")
    return "<br>".join(texts) or "-", "<br>".join(shown) or "-"


def verdicts(
    workload: Workload, figure: Figure, peers: Mapping[str, Record]
) -> Iterator[tuple[Target, Verdict | None]]:
    """The targets of a row, each with its verdict. Where fanmap failed, its targets are not met."""
    row = cells(peers, figure.key)
    failed = any(library(name) == "fanmap" and "failed" in record for name, record in peers.items())
    for target in targets_of(workload.name, figure.key):
        verdict = judge(target, row, figure.more_is_better)
        yield target, Verdict(None, False) if verdict is None and failed else verdict


def tally(taken: Taken, workloads: Sequence[Workload]) -> tuple[int, int]:
    """How many targets are met, and how many could be judged."""
    judged = [
        verdict
        for workload, figure in rows(taken, workloads)
        for _, verdict in verdicts(workload, figure, taken[workload.name])
        if verdict is not None
    ]
    return sum(verdict.met for verdict in judged), len(judged)


def timings(taken: Taken, workloads: Sequence[Workload]) -> str:
    """What lies within each time."""
    return "".join(f"- {one.title}: {one.timed}.\n" for one in workloads if one.name in taken)


def page(taken: Taken, workloads: Sequence[Workload], circumstances: str) -> str:
    """The whole page."""
    met, judged = tally(taken, workloads)
    return (
        "<!-- made by benches/speed.py -->\n"
        f"{circumstances}\n\n"
        "The middle of several rounds in which the peers took turns, each in a fresh process; in brackets the least\n"
        f"and the most of the rounds. {met} of {judged} targets are met. Not behind the best peer is who is within\n"
        f"{LEVEL:.0%} of it, which is less than the next run may change.\n\n"
        f"{table(taken, workloads)}\n"
        "What lies within the time that was taken:\n\n"
        f"{timings(taken, workloads)}"
    )


def panels(taken: Taken, workloads: Sequence[Workload]) -> list[Panel]:
    """The rows of the picture."""
    found = []
    for workload, figure in rows(taken, workloads):
        row = cells(taken[workload.name], figure.key)
        title = PICTURED.get((workload.name, figure.key))
        if title is not None and row:
            bars = [
                Bar(ROSTER[name].title, row[name].median, number(row[name].median), library(name) == "fanmap")
                for name in ranked(row, figure.more_is_better)
            ]
            better = "more is better" if figure.more_is_better else "less is better"
            found.append(Panel(title, f"{figure.unit}, {better}", bars))
    return found
