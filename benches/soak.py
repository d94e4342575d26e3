"""Soak: ten million tasks, then two thousand pool starts, in one process. Memory and descriptors must stay flat.

    python benches/soak.py [--tasks N] [--starts N] [--save]

Prints what the process had after each tenth, and fails if it had more at the end than after the first one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fanmap
from _results import save

# What memory may differ by: the allocator gives back in pieces. A leak of 8 bytes a task, or 16 KiB a pool, is more.
SLACK = 24 << 20


def plus_one(x: int) -> int:
    return x + 1


def had() -> tuple[int, int, int]:
    """Resident bytes, descriptors, threads."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resident, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def soak(what: str, count: int, work: Callable[[int], None]) -> dict[str, object]:
    """Does `count` of something in ten parts; what there was after each, and whether all was flat."""
    began = time.monotonic()
    after = []
    for part in range(1, 11):
        work(count // 10)
        after.append(had())
        resident, descriptors, threads = after[-1]
        seconds, done = time.monotonic() - began, count // 10 * part
        memory = f"{resident / 2**20:7.1f} MiB  {descriptors:3} descriptors  {threads:3} threads"
        print(f"{what}: {done:>10,}  {memory}  {seconds:6.1f} s", flush=True)
    first, last = after[0], after[-1]
    return {
        "count": count,
        "seconds": round(time.monotonic() - began, 1),
        "resident_bytes": [resident for resident, _, _ in after],
        "descriptors": [descriptors for _, descriptors, _ in after],
        "threads": [threads for _, _, threads in after],
        "flat": last[0] <= first[0] + SLACK and last[1] <= first[1] and last[2] <= first[2],
    }


def tasks(count: int) -> None:
    """Half of them in a map over processes, and some of the rest each other way."""
    for executor, share in (("processes", 0.5), ("threads", 0.48)):
        for got, x in enumerate(fanmap.map(plus_one, range(int(count * share)), executor=executor), 1):
            assert got == x
    with fanmap.ProcessPoolExecutor(2) as pool:
        for start in range(0, count // 50, 10_000):
            futures = [pool.submit(plus_one, x) for x in range(start, min(start + 10_000, count // 50))]
            assert [future.result() for future in futures] == [x + 1 for x in range(start, start + len(futures))]


def starts(count: int) -> None:
    """Of every other pool what workers print would come through pipes."""
    for start in range(count):
        piped = contextlib.redirect_stdout(io.StringIO()) if start % 2 else contextlib.nullcontext()
        with piped, fanmap.ProcessPoolExecutor(1) as pool:
            assert pool.submit(plus_one, 1).result() == 2


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=10_000_000)
    parser.add_argument("--starts", type=int, default=2_000)
    parser.add_argument("--save", action="store_true", help="keep the figures in benches/results")
    options = parser.parse_args()
    figures = {"tasks": soak("tasks", options.tasks, tasks)}
    fanmap.shutdown()
    figures["pools"] = soak("pools", options.starts, starts)
    flat = all(one["flat"] for one in figures.values())
    print("flat" if flat else "NOT FLAT")
    if options.save:
        save("soak", dict(figures))
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
