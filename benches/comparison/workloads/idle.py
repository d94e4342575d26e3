"""A pool that has nothing to do: the processor time it uses all the same, and the memory that each worker holds."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

from .. import tasks
from ..plan import Figure, Open, Settings, Values, Workload, warm
from ..roster import PROCESSES

SECONDS = 10.0


def children(pid: int) -> set[int]:
    """The processes that descend from this one."""
    found: set[int] = set()
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/task/{task}/children") as file:
                for child in map(int, file.read().split()):
                    found |= {child} | children(child)
    return found


def ran(pids: set[int]) -> float:
    """The processor time of these processes and all their threads so far, in milliseconds.

    Not of this program's main thread, which sleeps but for the reading of these very figures.
    """
    nanoseconds = 0
    # A process or a thread may end meanwhile.
    gone = suppress(FileNotFoundError, ProcessLookupError)
    for pid in pids:
        tasks: list[str] = []
        with gone:
            tasks = os.listdir(f"/proc/{pid}/task")
        for task in tasks:
            if int(task) == os.getpid():
                continue
            with gone, open(f"/proc/{pid}/task/{task}/schedstat") as file:
                nanoseconds += int(file.read().split()[0])
    return nanoseconds / 1e6


def private(pids: Iterable[int]) -> list[float]:
    """The memory that is each process's alone, in MB (10^6 bytes). One may have ended: loky replaces its workers."""
    found = []
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/smaps_rollup") as file:
            kilobytes = sum(int(line.split()[1]) for line in file if line.startswith("Private_"))
            found.append(kilobytes * 1024 / 1e6)
    return found


def bare() -> float:
    """The private memory of an interpreter that has imported nothing of anybody's."""
    command = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as interpreter:
        assert interpreter.stdout is not None and interpreter.stdin is not None
        interpreter.stdout.readline()
        (memory,) = private([interpreter.pid])
        interpreter.stdin.close()
    return memory


def measure(open_peer: Open, settings: Settings) -> Values:
    """Milliseconds in ten seconds, of the pool and all its processes; MB a worker beyond a bare interpreter."""
    length = SECONDS * min(1.0, settings.scale, settings.patience)
    with open_peer() as peer:
        warm(peer)
        workers = set(peer.map(tasks.who, [0.02] * (8 * peer.workers)))
        time.sleep(min(1.0, length))  # What follows the last task is not idleness yet.
        everybody = {os.getpid()} | children(os.getpid())
        before = ran(everybody)
        time.sleep(length)
        used = ran(everybody) - before
        held = private(workers)
    values = {"cpu": [used * SECONDS / length]}
    return {**values, "memory": [statistics.mean(held) - bare()]} if held else values


WORKLOADS = (
    Workload(
        name="idle",
        title="an idle pool",
        timed="a pool that has done some work and now has none; its threads in the program are counted, too",
        figures=(
            Figure("cpu", "processor time in 10 s", "ms", more_is_better=False),
            Figure("memory", "private memory of a worker beyond a bare interpreter's", "MB", more_is_better=False),
        ),
        cast=PROCESSES,
        measure=measure,
        rounds=2,
        short_rounds=1,
    ),
)
