"""`fanmap.worker_index`: which of a pool's workers this is."""

from __future__ import annotations

import multiprocessing
import os
import select
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fanmap
import pytest
from _scripts import LIMIT

PROCESSES = ["processes", "fork", "forkserver", "spawn"]
WORKERS = 3


def make(way: str, **options: Any) -> Any:
    if way == "threads":
        return fanmap.ThreadPoolExecutor(WORKERS, **options)
    context = None if way == "processes" else multiprocessing.get_context(way)
    return fanmap.ProcessPoolExecutor(WORKERS, context, **options)


def index(_: object = None) -> tuple[int | None, int]:
    return fanmap.worker_index(), os.getpid()


class Gate:
    """Where tasks wait: they say that they are there, and are let through by a byte each."""

    def __init__(self, directory: Path) -> None:
        self.names = [str(directory / "came"), str(directory / "go")]
        for name in self.names:
            os.mkfifo(name)
        # For both, so that opening never blocks and nobody sees an end.
        self._came, self._go = (os.open(name, os.O_RDWR) for name in self.names)

    def wait(self, count: int) -> None:
        for _ in range(count):
            assert select.select([self._came], [], [], LIMIT)[0], "no task has come"
            os.read(self._came, 1)

    def open(self, count: int) -> None:
        os.write(self._go, b"x" * count)

    def close(self) -> None:
        os.close(self._came)
        os.close(self._go)


def index_past(came: str, go: str) -> tuple[int | None, int]:
    with open(came, "wb", 0) as there, open(go, "rb", 0) as through:
        there.write(b"x")
        through.read(1)
    return index()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = Gate(tmp_path)
    yield made
    made.close()


def all_at_once(pool: Any, gate: Gate) -> dict[int | None, int]:
    """The indices of all workers, which work at the same time, and their processes."""
    futures = [pool.submit(index_past, *gate.names) for _ in range(WORKERS)]
    gate.wait(WORKERS)
    gate.open(WORKERS)
    return dict(future.result(LIMIT) for future in futures)


@pytest.mark.parametrize("way", ["threads", *PROCESSES])
def test_each_worker_has_a_number_of_its_own_below_the_number_of_workers(way: str, gate: Gate) -> None:
    with make(way) as pool:
        assert set(all_at_once(pool, gate)) == set(range(WORKERS))


@pytest.mark.parametrize("way", PROCESSES)
def test_a_replacement_has_the_number_of_the_worker_that_died(way: str, gate: Gate) -> None:
    with make(way) as pool:
        before = all_at_once(pool, gate)
        victim = pool._processes[before[1]]
        victim.kill()
        victim.join(LIMIT)
        after = all_at_once(pool, gate)
    assert set(after) == set(range(WORKERS))
    assert [number for number in after if after[number] != before[number]] == [1]


@pytest.mark.parametrize("way", ["processes", "forkserver", "spawn"])
def test_workers_that_are_replaced_after_each_task_share_the_numbers(way: str) -> None:
    with make(way, max_tasks_per_child=1) as pool:
        found = [future.result(LIMIT) for future in [pool.submit(index) for _ in range(20)]]
    assert {number for number, _ in found} <= set(range(WORKERS))
    assert len({pid for _, pid in found}) == 20


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_a_map_has_them_too(executor: Any) -> None:
    numbers = {number for number, _ in fanmap.map(index, range(100), executor=executor)}
    assert numbers and None not in numbers
    assert max(filter(None, numbers), default=0) < 64


def test_outside_of_a_worker_there_is_none() -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(fanmap.worker_index()))
    thread.start()
    thread.join()
    assert [*found, fanmap.worker_index()] == [None, None]


def threads_within() -> tuple[int | None, list[int | None]]:
    with fanmap.ThreadPoolExecutor(1) as threads:
        return fanmap.worker_index(), [threads.submit(fanmap.worker_index).result(LIMIT)]


def test_threads_in_a_worker_have_their_own_pools_numbers(gate: Gate) -> None:
    with make("processes") as pool:
        for _ in range(2):
            pool.submit(index_past, *gate.names)
        gate.wait(2)
        assert pool.submit(threads_within).result(LIMIT) == (2, [0])
        gate.open(2)
