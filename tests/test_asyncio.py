"""asyncio over fanmap's executors: its default executor, what is awaited, what is cancelled, what runs out of time."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import os
import subprocess
import sys
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import fanmap
import pytest

LIMIT = 60
MAKERS = {"threads": fanmap.ThreadPoolExecutor, "processes": fanmap.ProcessPoolExecutor}
both = pytest.mark.parametrize("way", MAKERS)


def make(way: str, workers: int = 2) -> Any:
    return MAKERS[way](workers)


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Runs to its end, which must come."""
    return asyncio.run(asyncio.wait_for(main, LIMIT))


class Gate:
    """A FIFO that tasks wait at, whatever they run on."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        os.mkfifo(self.path)

    async def open(self) -> None:
        """Waits until a task waits here, and lets it through. The wait is in a thread of the standard library's."""
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            await asyncio.get_running_loop().run_in_executor(pool, self._open)

    def _open(self) -> None:
        with open(self.path, "wb"):
            pass


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture
def second(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "second")


def hold(*paths: str) -> str:
    for path in paths:
        with open(path, "rb"):
            pass
    return "held"


def square(x: int) -> int:
    return x * x


def fail(x: int) -> int:
    error = LookupError("not there", x)
    error.add_note("a note")
    raise error


@both
def test_gather_gives_results_and_errors_in_order(way: str) -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        with make(way) as pool:
            calls = [loop.run_in_executor(pool, fail if x == 3 else square, x) for x in range(20)]
            return await asyncio.gather(*calls, return_exceptions=True)

    results = run(main())
    error = results.pop(3)
    assert type(error) is LookupError and error.args == ("not there", 3) and error.__notes__ == ["a note"]
    assert results == [x * x for x in range(20) if x != 3]


@both
def test_an_error_is_raised_where_it_is_awaited(way: str) -> None:
    async def main() -> None:
        with make(way) as pool, pytest.raises(LookupError, match="not there"):
            await asyncio.get_running_loop().run_in_executor(pool, fail, 1)

    run(main())


@both
def test_as_completed_gives_what_is_done_first(way: str, gate: Gate) -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        with make(way) as pool:
            calls = [loop.run_in_executor(pool, hold, gate.path), loop.run_in_executor(pool, square, 3)]
            given = []
            for call in asyncio.as_completed(calls, timeout=LIMIT):
                given.append(await call)
                if len(given) == 1:
                    await gate.open()
            return given

    assert run(main()) == [9, "held"]


@both
def test_cancelling_an_await_cancels_a_pending_task(way: str, gate: Gate, second: Gate, tmp_path: Path) -> None:
    """It never runs: what it would have made is not there when the pool has ended."""
    mark = tmp_path / "mark"

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with make(way, 1) as pool:
            running = loop.run_in_executor(pool, hold, gate.path, second.path)
            await gate.open()
            pending = asyncio.ensure_future(asyncio.wait_for(loop.run_in_executor(pool, os.mkdir, mark), LIMIT))
            await asyncio.sleep(0)
            assert pending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pending
            await second.open()
            assert await running == "held"
            assert await loop.run_in_executor(pool, square, 2) == 4

    run(main())
    assert not mark.exists()


@both
def test_cancelling_an_await_leaves_a_running_task_alone(way: str, gate: Gate, second: Gate) -> None:
    async def main() -> None:
        with make(way, 1) as pool:
            future = pool.submit(hold, gate.path, second.path)
            await gate.open()
            awaited = asyncio.wrap_future(future)
            assert awaited.cancel() and awaited.cancelled()
            await asyncio.sleep(0)
            assert not future.cancelled()
            await second.open()
            assert future.result(LIMIT) == "held"

    run(main())


@both
def test_a_time_out_cancels_what_has_not_started(way: str, gate: Gate, second: Gate) -> None:
    async def main() -> None:
        with make(way, 1) as pool:
            running = pool.submit(hold, gate.path, second.path)
            await gate.open()
            pending = pool.submit(square, 2)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(pending), 0.001)
            assert pending.cancelled()
            # Shielded, it is only the wait that ends.
            kept = pool.submit(square, 3)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await asyncio.shield(asyncio.wrap_future(kept))
            await second.open()
            assert await asyncio.wrap_future(running) == "held"
            assert await asyncio.wrap_future(kept) == 9

    run(main())


@both
def test_wrap_future_takes_results_errors_and_cancellation(way: str) -> None:
    async def main() -> None:
        with make(way) as pool:
            assert await asyncio.wrap_future(pool.submit(square, 5)) == 25
            with pytest.raises(LookupError):
                await asyncio.wrap_future(pool.submit(fail, 5))
            done = pool.submit(square, 6)
            assert done.result(LIMIT) == 36 and await asyncio.wrap_future(done) == 36
        cancelled: fanmap.Future[int] = fanmap.Future()
        awaited = asyncio.wrap_future(cancelled)
        assert cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await awaited

    run(main())


@both
def test_a_task_group_is_left_when_its_calls_have_ended(way: str) -> None:
    async def call(pool: Any, x: int) -> int:
        return await asyncio.get_running_loop().run_in_executor(pool, square, x)

    async def main() -> list[int]:
        with make(way) as pool:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(call(pool, x)) for x in range(10)]
            return [task.result() for task in tasks]

    assert run(main()) == [x * x for x in range(10)]


def test_a_worker_that_dies_fails_its_own_await() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with make("processes") as pool:
            calls = [loop.run_in_executor(pool, *call) for call in ((square, 2), (os._exit, 4), (square, 3))]
            four, crash, nine = await asyncio.gather(*calls, return_exceptions=True)
            assert (four, nine) == (4, 9)
            assert type(crash) is fanmap.WorkerCrashed and crash.exitcode == 4

    run(main())


_user: contextvars.ContextVar[str] = contextvars.ContextVar("user")


def test_the_thread_pool_can_be_the_default_executor() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        pool = fanmap.ThreadPoolExecutor(2, thread_name_prefix="ours")
        loop.set_default_executor(pool)
        _user.set("ada")
        assert await asyncio.to_thread(lambda: (_user.get(), threading.current_thread().name[:5])) == ("ada", "ours_")
        assert await loop.run_in_executor(None, square, 4) == 16
        host = await loop.getaddrinfo("127.0.0.1", 80)
        assert host[0][4] == ("127.0.0.1", 80)
        await loop.shutdown_default_executor()
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            pool.submit(square, 1)

    run(main())


def test_a_process_pool_is_refused_as_the_default_executor() -> None:
    async def main() -> None:
        with make("processes") as pool, pytest.raises(TypeError, match="ThreadPoolExecutor"):
            asyncio.get_running_loop().set_default_executor(pool)

    run(main())


def test_run_ends_with_the_default_executors_work_done() -> None:
    """`asyncio.run` shuts the default executor down, and waits for what still runs there."""
    done = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(fanmap.ThreadPoolExecutor(1))
        for x in range(5):
            loop.run_in_executor(None, done.append, x)

    asyncio.run(main())
    assert done == list(range(5))


def test_futures_complete_in_loops_of_several_threads() -> None:
    async def main(pool: Any) -> int:
        loop = asyncio.get_running_loop()
        return sum(await asyncio.gather(*(loop.run_in_executor(pool, square, x) for x in range(20))))

    sums: list[int] = []
    with make("processes") as pool:
        threads = [threading.Thread(target=lambda: sums.append(run(main(pool)))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
    assert sums == [sum(x * x for x in range(20))] * 4


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are of Python 3.12")
def test_eager_tasks_await_executors() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        with make("processes") as pool:
            return await asyncio.create_task(asyncio.wait_for(loop.run_in_executor(pool, square, 7), LIMIT))

    assert run(main()) == 49


# The interpreter's own cases that use executors, with fanmap's classes in the standard library's place.
SUITE = """
import concurrent.futures
import sys
import unittest

import fanmap

NAMES = ["*xecutor*", "*test_threads*", "*test_futures.*", "*RunCoroutineThreadsafe*", "*GetEventLoop*"]
FILES = ["test_threads", "test_futures", "test_tasks", "test_events", "test_base_events"]

if __name__ == "__main__":
    submitted = set()
    for kind in (fanmap.ThreadPoolExecutor, fanmap.ProcessPoolExecutor):

        def submit(self, *args, _submit=kind.submit, _name=kind.__name__, **kwargs):
            submitted.add(_name)
            return _submit(self, *args, **kwargs)

        kind.submit = submit
    for name in ("ThreadPoolExecutor", "ProcessPoolExecutor", "Future"):
        getattr(concurrent.futures, name)  # resolved lazily there too
        setattr(concurrent.futures, name, getattr(fanmap, name))
    loader = unittest.TestLoader()
    loader.testNamePatterns = NAMES
    suite = loader.loadTestsFromNames([f"test.test_asyncio.{name}" for name in FILES])
    result = unittest.TextTestRunner(sys.stderr).run(suite)
    # The proof that it was ours that was tested.
    print(result.wasSuccessful(), result.testsRun > 50, *sorted(submitted))
"""


def test_the_interpreters_own_asyncio_cases_pass(tmp_path: Path) -> None:
    pytest.importorskip("test.test_asyncio", reason="this interpreter came without its tests")
    script = tmp_path / "suite.py"
    script.write_text(SUITE, encoding="utf-8")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT - 5)
    assert done.stdout == "True True ProcessPoolExecutor ThreadPoolExecutor\n", done.stderr
