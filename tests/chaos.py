"""Chaos: maps whose workers, and the process that forks them, are killed, stopped and crashed all the time.

    python tests/chaos.py [--seeds N] [--first SEED] [--small N] [--large N]

For each seed: small tasks, single calls and large arrays go through one pool, while a thread sends signals to processes
of the pool that it picks, after pauses that it picks. Then every item must have had exactly one outcome (its own value,
or a `WorkerCrashed` that names it), the pool must be usable, and after its end no process, descriptor or mapping may be
left. Which signal meets which instruction is up to the machine, so a seed does not repeat a run; it varies it.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import fanmap
import numpy

# Elements of a large array: 800 kB, far beyond what goes through the rings.
LARGE = 100_000
# The pause between two signals, in seconds, on average.
PEACE = 0.015
# The share of signals that go to the template. Its death ends all workers, and a pool whose templates die in a row,
# without a worker that got ready between, gives up.
TEMPLATE = 0.05


def small(x: int) -> int:
    # From nothing to some 60 us: on both sides of what counts as tiny.
    return x * 3 + sum(range(x % 6000)) * 0 + 1


def large(array: Any) -> Any:
    array += 1.0
    return array * 2.0


class Killer(threading.Thread):
    """Sends signals to processes of a pool until told to stop."""

    def __init__(self, pool: fanmap.ProcessPoolExecutor, seed: int) -> None:
        super().__init__(name="killer", daemon=True)
        self.sent: Counter[str] = Counter()
        self._pool = pool
        self._random = random.Random(seed)
        self._over = threading.Event()

    def run(self) -> None:
        there: set[int] = set()
        while not self._over.wait(self._random.expovariate(1 / PEACE)):
            # Only who was there at the last look: a pool in which nobody lives to get ready gives up, as it should.
            before, there = there, set(self._pool._processes)
            if self._random.random() < TEMPLATE:
                self._hurt_template()
            elif workers := sorted(before & there):
                self._hurt(self._random.choice(workers))

    def stop(self) -> None:
        self._over.set()
        self.join()

    def _hurt(self, pid: int, who: str = "") -> None:
        kind = self._random.choice(["SIGKILL", "SIGKILL", "SIGSEGV", "SIGSTOP"])
        if not _send(pid, kind):
            return
        self.sent[kind + who] += 1
        if kind == "SIGSTOP":
            time.sleep(self._random.uniform(0, 0.02))
            # Or it is killed while it stands still.
            _send(pid, self._random.choice(["SIGCONT", "SIGCONT", "SIGKILL"]))

    def _hurt_template(self) -> None:
        for pid in children():
            with suppress(OSError):
                if b"fanmap._template" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    self._hurt(pid, " to the template")
                    # Until its successor has a worker.
                    self._over.wait(0.5)


def _send(pid: int, name: str) -> bool:
    try:
        os.kill(pid, getattr(signal, name))
    except ProcessLookupError:
        return False
    return True


def children() -> set[int]:
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        with suppress(OSError):
            found.update(map(int, Path(f"/proc/self/task/{task}/children").read_text().split()))
    return found


def left_over() -> tuple[set[int], int, int]:
    """Child processes, descriptors, and mappings of shared memory."""
    shared = sum("memfd:" in line for line in Path("/proc/self/maps").read_text().splitlines())
    return children(), len(os.listdir("/proc/self/fd")), shared


def storm(seed: int, smalls: int, larges: int) -> tuple[Counter[str], int]:
    """One pool in chaos. What was sent to its processes, and how many tasks were lost; AssertionError if anything is
    not as it must be.
    """
    before = left_over()
    # Crashes are no news here.
    with fanmap.ProcessPoolExecutor(2, initializer=faulthandler.disable) as pool:
        pool.submit(small, 0).result()
        killer = Killer(pool, seed)
        killer.start()
        try:
            lost = _smalls(pool, smalls) + _calls(pool, smalls // 20) + _larges(pool, larges)
        finally:
            killer.stop()
        for pid in pool._processes:
            _send(pid, "SIGCONT")
        # What the last signals reached may end a moment later: workers do when their template has.
        lost += _smalls(pool, 100)
        assert list(pool.map(small, range(100))) == [small(x) for x in range(100)], "the pool is not usable"
    after = left_over()
    assert after == before, f"processes, descriptors, mappings: before {before}, after {after}"
    return killer.sent, lost


def _is_lost(outcome: Any, index: int) -> bool:
    """Whether an outcome is that of a task whose worker died; it must name its item."""
    if not isinstance(outcome, fanmap.Failure):
        return False
    assert isinstance(outcome.error, fanmap.WorkerCrashed), repr(outcome.error)
    assert outcome.index == index == outcome.error.item, f"item {index} is told as {outcome!r}"
    return True


def _smalls(pool: fanmap.ProcessPoolExecutor, count: int) -> int:
    lost = index = 0
    for index, outcome in enumerate(fanmap.map(small, range(count), executor=pool, on_error="return"), 1):
        if _is_lost(outcome, index - 1):
            lost += 1
        else:
            assert outcome == small(index - 1), f"item {index - 1} gave {outcome}"
    assert index == count, f"{count} items had {index} outcomes"
    return lost


def _calls(pool: fanmap.ProcessPoolExecutor, count: int) -> int:
    futures = [pool.submit(small, x) for x in range(count)]
    lost = 0
    for x, future in enumerate(futures):
        error = future.exception()
        if error is None:
            assert future.result() == small(x)
        else:
            assert isinstance(error, fanmap.WorkerCrashed), repr(error)
            lost += 1
    return lost


def _larges(pool: fanmap.ProcessPoolExecutor, count: int) -> int:
    arrays = (numpy.full(LARGE, float(x)) for x in range(count))
    lost = index = 0
    for index, outcome in enumerate(fanmap.map(large, arrays, executor=pool, on_error="return"), 1):
        if _is_lost(outcome, index - 1):
            lost += 1
        else:
            assert (outcome == 2.0 * index).all(), f"array {index - 1} came back changed"
    assert index == count, f"{count} arrays had {index} outcomes"
    return lost


def _resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10, help="how many pools (10)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (1)")
    parser.add_argument("--small", type=int, default=200_000, help="small tasks in all (200,000)")
    parser.add_argument("--large", type=int, default=2_000, help="tasks with a large array in all (2,000)")
    options = parser.parse_args()
    sent: Counter[str] = Counter()
    lost = resident = 0
    began = time.monotonic()
    for seed in range(options.first, options.first + options.seeds):
        signals, gone = storm(seed, options.small // options.seeds, options.large // options.seeds)
        sent += signals
        lost += gone
        resident = resident or _resident()
        print(f"seed {seed}: {sum(signals.values())} signals, {gone} tasks lost, all else as it must be", flush=True)
    grown = _resident() - resident
    assert grown < 32 << 20, f"memory grew by {grown >> 20} MiB after the first seed"
    told = ", ".join(f"{count} {name}" for name, count in sorted(sent.items()))
    print(f"survived {sum(sent.values())} signals in {time.monotonic() - began:.0f} s ({told}); {lost} tasks lost")


if __name__ == "__main__":
    sys.exit(main())
