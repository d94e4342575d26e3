"""What docs/concurrent_futures.md says, where no other test does; and that the tests it names are there."""

from __future__ import annotations

import concurrent.futures
import inspect
import re
import signal
import threading
from collections.abc import Callable
from concurrent.futures import process, thread
from pathlib import Path
from typing import Any

import fanmap
import pytest

LIMIT = 60
TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "concurrent_futures.md"
# What 3.14 adds, for the Pythons before it.
OF_3_14 = {"map": {"buffersize"}}
# What we have more, by keyword only.
_OF_MAPS = {"ordered", "on_error", "strict", "retries", "progress"}
MORE = {
    ("ThreadPoolExecutor", "map"): _OF_MAPS,
    ("ProcessPoolExecutor", "map"): _OF_MAPS | {"task_timeout"},
}


def test_the_names_of_the_standard_library_are_here() -> None:
    ours = {"ThreadPoolExecutor", "ProcessPoolExecutor", "Future"}
    for name in set(concurrent.futures.__all__) - {"InterpreterPoolExecutor"}:
        theirs = getattr(concurrent.futures, name)
        if name in ours:
            assert issubclass(getattr(fanmap, name), theirs) and getattr(fanmap, name).__name__ == name
        else:
            assert getattr(fanmap, name) is theirs
    assert fanmap.TimeoutError is TimeoutError
    assert fanmap.BrokenThreadPool is thread.BrokenThreadPool
    assert fanmap.BrokenProcessPool is process.BrokenProcessPool
    assert issubclass(fanmap.WorkerCrashed, process.BrokenProcessPool)


@pytest.mark.parametrize("name", ["ThreadPoolExecutor", "ProcessPoolExecutor", "Future"])
def test_public_methods_take_what_the_standard_librarys_take(name: str) -> None:
    theirs, ours = getattr(concurrent.futures, name), getattr(fanmap, name)
    public = [method for method in dir(theirs) if not method.startswith("_")]
    methods = [method for method in public if inspect.isroutine(getattr(theirs, method))]
    for method in (*methods, "map", "shutdown", "submit") if name != "Future" else methods:
        expected, got = (inspect.signature(getattr(cls, method)).parameters for cls in (theirs, ours))
        more = MORE.get((name, method), set())
        assert all(got[one].kind is inspect.Parameter.KEYWORD_ONLY for one in more)
        extra = (OF_3_14.get(method, set()) | more) - set(expected)
        assert [one for one in got if one not in extra] == list(expected)
        assert all(got[one].kind is parameter.kind for one, parameter in expected.items())


@pytest.mark.parametrize("act", ["terminate_workers", "kill_workers"])
def test_ending_the_workers_breaks_the_pool(act: str) -> None:
    pool = fanmap.ProcessPoolExecutor(1)
    done = pool.submit(abs, -1)
    assert done.result(LIMIT) == 1
    futures = [pool.submit(signal.pause), pool.submit(abs, -2)]
    getattr(pool, act)()
    for future in futures:
        assert future.cancelled() or type(future.exception(LIMIT)) is fanmap.BrokenProcessPool
    with pytest.raises(RuntimeError):
        pool.submit(abs, -3)
    pool.shutdown()
    assert done.result(0) == 1


@pytest.mark.parametrize("way", ["ThreadPoolExecutor", "ProcessPoolExecutor"])
def test_chunksize_does_not_show_in_what_an_error_costs(way: str) -> None:
    taken: list[int] = []
    with getattr(fanmap, way)(1) as pool, pytest.raises(ValueError, match="'x'"):
        for value in pool.map(int, ["1", "2", "x", "4"], chunksize=4):
            taken.append(value)
    assert taken == [1, 2]


class Tally:
    def __init__(self) -> None:
        self.total = 0

    def add(self, n: int) -> int:
        self.total += n
        return self.total


def make_tally() -> Callable[[int], int]:
    total = 0

    def add(n: int) -> int:
        nonlocal total
        total += n
        return total

    return add


@pytest.mark.parametrize("make", [lambda: Tally().add, make_tally], ids=["method", "closure"])
def test_what_calls_do_to_a_function_with_state_the_next_submit_and_the_next_map_do_not_see(make: Any) -> None:
    """Each call takes a snapshot, as pickling for each call does in the standard library."""
    add = make()
    with fanmap.ProcessPoolExecutor(1) as pool:
        assert [pool.submit(add, 1).result(LIMIT) for _ in range(3)] == [1, 1, 1]
        assert [next(iter(pool.map(add, [1]))) for _ in range(3)] == [1, 1, 1]


def test_the_private_names_that_programs_reach_for_are_here() -> None:
    gate = threading.Event()
    with fanmap.ThreadPoolExecutor(1) as threads, fanmap.ProcessPoolExecutor(1) as processes:
        pools: tuple[Any, ...] = threads, processes
        try:
            running = threads.submit(gate.wait, LIMIT)
            threads.submit(abs, -1)
            processes.submit(abs, -1).result(LIMIT)
            for pool in pools:
                assert pool._max_workers == 1 and not pool._broken and pool._work_queue.qsize() >= 0
            assert [one.name for one in pools[0]._threads] and pools[0]._work_queue.qsize() >= 1
            ((pid, worker),) = pools[1]._processes.items()
            assert worker.pid == pid and worker.is_alive() and pools[1]._mp_context.Lock
        finally:
            gate.set()
        assert running.result(LIMIT)


def test_the_tests_and_programs_that_the_page_names_are_there() -> None:
    page = PAGE.read_text(encoding="utf-8")
    sources = "".join(path.read_text(encoding="utf-8") for path in TESTS.glob("test_*.py"))
    tests = set(re.findall(r"`(test_\w+)`", page))
    assert [name for name in tests if f"def {name}(" not in sources] == []
    programs = set(re.findall(r"`(\w+\.py)`", page))
    assert [name for name in programs if not (TESTS / "programs" / name).exists()] == []
    assert tests and programs
