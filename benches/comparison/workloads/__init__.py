"""The workloads, one idea a file, in the order of the table."""

from __future__ import annotations

from ..plan import Workload
from . import (
    arrays,
    cold_start,
    even,
    idle,
    round_trip,
    shared_array,
    skewed,
    sleeps,
    small_map,
    storm,
    streamed,
    tiny_map,
)

WORKLOADS: tuple[Workload, ...] = (
    *tiny_map.WORKLOADS,
    *storm.WORKLOADS,
    *round_trip.WORKLOADS,
    *even.WORKLOADS,
    *skewed.WORKLOADS,
    *cold_start.WORKLOADS,
    *small_map.WORKLOADS,
    *arrays.WORKLOADS,
    *shared_array.WORKLOADS,
    *streamed.WORKLOADS,
    *sleeps.WORKLOADS,
    *idle.WORKLOADS,
)


def chosen(words: list[str]) -> list[Workload]:
    """The workloads that the words name: each a whole name, or the beginning of names up to a hyphen.

    ValueError for a word that names none.
    """
    picked = {}
    for word in words:
        found = [one for one in WORKLOADS if one.name == word or one.name.startswith(word + "-")]
        if not found:
            raise ValueError(f"no workload is called {word}; there are {', '.join(one.name for one in WORKLOADS)}")
        picked.update({one.name: one for one in found})
    return [one for one in WORKLOADS if one.name in picked]
