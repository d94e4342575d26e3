"""Medians and spreads of what was taken. Pure: saved figures in, numbers out."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# What was taken: of each workload, of each peer, `values` (of each figure, of each round, the repetitions within it),
# and `failed` or `not_offered` with a reason.
Record = dict[str, Any]
Taken = Mapping[str, Mapping[str, Record]]


@dataclass(frozen=True)
class Cell:
    """The middle of several rounds, and the least and the most of them."""

    median: float
    low: float
    high: float


def cell(rounds: Sequence[Sequence[float]]) -> Cell:
    """Each round counts once, by the median of its repetitions: repetitions within a process resemble each other."""
    each = [statistics.median(repetitions) for repetitions in rounds]
    return Cell(statistics.median(each), min(each), max(each))


def cells(peers: Mapping[str, Record], figure: str) -> dict[str, Cell]:
    """The cell of each peer that has this figure."""
    return {
        name: cell(record["values"][figure]) for name, record in peers.items() if record.get("values", {}).get(figure)
    }


def ranked(row: Mapping[str, Cell], more_is_better: bool) -> list[str]:
    """The peers of a row, the best first."""
    return sorted(row, key=lambda name: row[name].median, reverse=more_is_better)


def number(value: float) -> str:
    """In about three digits, and a word for thousands and millions: 12.3 k."""
    for size, word in ((1e6, " M"), (1e4, " k")):
        if abs(value) >= size:
            return f"{_three(value / (1e6 if word == ' M' else 1e3))}{word}"
    return _three(value)


def _three(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
