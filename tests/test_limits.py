"""Tasks that take too long, and tasks that are cancelled while they run: over processes both are ended."""

from __future__ import annotations

import asyncio
import concurrent.futures as standard
import os
import pickle
import select
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import fanmap
import pytest
from conftest import children

FOR_EVER = 600.0


def nap(x: int, long: int) -> int:
    if x == long:
        time.sleep(FOR_EVER)
    return x


def begin(fifo: str, wait: float) -> None:
    with open(fifo, "wb") as started:
        started.write(b"x")
    time.sleep(wait)


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    path = str(tmp_path / "started")
    os.mkfifo(path)
    return path


@pytest.fixture
def there() -> set[int]:
    """The processes that were there before: those of other tests' warm pools."""
    return children(os.getpid())


def await_start(fifo: str) -> None:
    with open(fifo, "rb") as started:
        assert started.read(1) == b"x"


def test_a_task_that_takes_too_long_fails_alone_and_is_named(there: set[int]) -> None:
    with fanmap.ProcessPoolExecutor(2, task_timeout=1) as pool:
        futures = [pool.submit(nap, x, 20) for x in range(40)]
        errors = [future.exception() for future in futures]
        assert [type(error) for error in errors if error] == [fanmap.TaskTimeout]
        late = errors[20]
        assert isinstance(late, fanmap.TaskTimeout) and isinstance(late, TimeoutError)
        assert (late.item, late.call, late.seconds) == (None, "nap(20, 20)", 1)
        assert late.call in str(late) and str(late.pid) in str(late)
        assert pickle.loads(pickle.dumps(late)).__dict__ == late.__dict__
        assert pool.submit(nap, 1, 2).result() == 1
    assert children(os.getpid()) <= there


def test_a_map_gives_what_came_before_and_names_the_item() -> None:
    with fanmap.ProcessPoolExecutor(2, task_timeout=1) as pool:
        results = pool.map(nap, range(10), [7] * 10)
        assert [next(results) for _ in range(7)] == list(range(7))
        with pytest.raises(fanmap.TaskTimeout, match=r"item 7, nap\(7, 7\)") as caught:
            next(results)
        assert caught.value.item == 7


def test_one_map_can_have_a_limit_and_go_on_after_it() -> None:
    results = list(fanmap.map(nap, range(20), [3] * 20, task_timeout=1, on_error="return", executor="processes"))
    assert [one for one in results if isinstance(one, int)] == [x for x in range(20) if x != 3]
    failure = results[3]
    assert isinstance(failure, fanmap.Failure) and isinstance(failure.error, fanmap.TaskTimeout)
    assert (failure.index, failure.item, failure.error.item) == (3, (3, 3), 3)
    with fanmap.ProcessPoolExecutor(2) as pool:
        kept = fanmap.map(nap, range(6), [3] * 6, executor=pool, task_timeout=1, on_error="skip")
        assert list(kept) == [0, 1, 2, 4, 5]
        own = pool.map(nap, range(6), [3] * 6, task_timeout=1, on_error="skip")
        assert list(own) == [0, 1, 2, 4, 5]
        with pytest.raises(ValueError, match="task_timeout must be at least"):
            pool.map(abs, [1], task_timeout=0)


def test_a_limit_is_refused_where_a_map_is_submits() -> None:
    class Mine(fanmap.ProcessPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **named: Any) -> Any:
            return super().submit(fn, *args, **named)

    with Mine(1) as pool, pytest.raises(ValueError, match="task_timeout= is not for an executor whose submit"):
        pool.map(abs, [1], task_timeout=1)


@pytest.mark.parametrize("executor", ["threads", fanmap.ThreadPoolExecutor(1), standard.ThreadPoolExecutor(1)])
def test_a_limit_where_no_task_can_be_ended_is_refused(executor: Any) -> None:
    with pytest.raises(ValueError, match="task_timeout"):
        fanmap.map(abs, [1], executor=executor, task_timeout=1)


def limited_map(x: int) -> list[int]:
    return list(fanmap.map(abs, [x], task_timeout=1, executor="processes"))


def test_a_limit_inside_a_worker_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="give it to the outer map"):
        list(fanmap.map(limited_map, [1], executor="processes"))


def tell_and_nap(x: int, folder: str) -> int:
    """Leaves a file for the item. The first also tells its process and the one that forked it, and stays for ever."""
    Path(folder, str(x)).touch()
    if x == 0:
        with open(Path(folder, "started"), "w") as started:
            started.write(f"{os.getpid()} {os.getppid()}")
        time.sleep(FOR_EVER)
    return x


def processes_of_first(folder: Path) -> tuple[int, int]:
    """What the first item tells, once it does."""
    worker, template = (folder / "started").read_text().split()
    return int(worker), int(template)


def await_end(pid: int) -> None:
    watched = os.pidfd_open(pid)
    assert select.select([watched], [], [], 60)[0]
    os.close(watched)


def test_what_shares_a_chunk_with_a_task_that_is_ended_can_be_cancelled(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "started")
    with fanmap.ProcessPoolExecutor(1, task_timeout=0.2) as pool:
        results = fanmap.map(tell_and_nap, [0, 1, 2], [str(tmp_path)] * 3, executor=pool, chunksize=3)
        asking = threading.Thread(target=lambda: next(results, None))
        asking.start()
        worker, template = processes_of_first(tmp_path)
        # Nobody is told of the worker's end for as long as what forked it stands still.
        os.kill(template, signal.SIGSTOP)
        await_end(worker)
        results.close()
        os.kill(template, signal.SIGCONT)
        asking.join()
    assert {path.name for path in tmp_path.iterdir()} == {"0", "started"}


def test_a_worker_that_crashed_in_time_has_crashed_though_it_is_told_late(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "started")
    with fanmap.ProcessPoolExecutor(1, task_timeout=0.5) as pool:
        crashed = pool.submit(tell_and_nap, 0, str(tmp_path))
        worker, template = processes_of_first(tmp_path)
        os.kill(template, signal.SIGSTOP)
        os.kill(worker, signal.SIGKILL)
        await_end(worker)
        time.sleep(0.6)  # its time passes
        os.kill(template, signal.SIGCONT)
        assert isinstance(crashed.exception(), fanmap.WorkerCrashed)


def note_and_nap(x: int, path: str) -> int:
    with open(path, "a") as notes:
        notes.write(f"{x}\n")
    if x == 5030:
        time.sleep(FOR_EVER)
    return x


def test_what_shares_a_chunk_with_a_task_that_is_ended_is_done_by_others(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with fanmap.ProcessPoolExecutor(2, task_timeout=1) as pool:
        # Tasks so short that they travel in chunks.
        assert list(pool.map(note_and_nap, range(5000), [os.devnull] * 5000)) == list(range(5000))
        futures = pool.map(note_and_nap, range(5000, 5100), [str(notes)] * 100)
        done = []
        with pytest.raises(fanmap.TaskTimeout):
            for one in futures:
                done.append(one)
        assert done == list(range(5000, 5030))
    assert Counter(notes.read_text().split())["5030"] == 1


def test_waiting_for_a_worker_does_not_count() -> None:
    with fanmap.ProcessPoolExecutor(1, task_timeout=1) as pool:
        assert list(pool.map(time.sleep, [0.2] * 10)) == [None] * 10


def stop_myself(_: int) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def ignore_and_nap(_: int) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    time.sleep(FOR_EVER)


@pytest.mark.parametrize("stuck", [stop_myself, ignore_and_nap])
def test_no_task_can_keep_its_worker(stuck: Callable[[int], None], there: set[int]) -> None:
    with fanmap.ProcessPoolExecutor(1, task_timeout=0.2) as pool:
        assert isinstance(pool.submit(stuck, 1).exception(), fanmap.TaskTimeout)
        assert pool.submit(abs, -1).result() == 1
    assert children(os.getpid()) <= there


def test_many_tasks_in_a_row_can_take_too_long() -> None:
    with fanmap.ProcessPoolExecutor(2, task_timeout=0.05) as pool:
        futures = [pool.submit(time.sleep, FOR_EVER) for _ in range(12)]
        assert {type(future.exception()) for future in futures} == {fanmap.TaskTimeout}


@pytest.mark.parametrize("wrong", [0, -1, 1e-4, float("nan"), float("inf")])
def test_a_timeout_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="task_timeout"):
        fanmap.ProcessPoolExecutor(task_timeout=wrong)


def test_a_timeout_must_be_a_number() -> None:
    with pytest.raises(TypeError, match="task_timeout"):
        fanmap.ProcessPoolExecutor(task_timeout="1")  # type: ignore[arg-type]


def test_threads_cannot_be_ended_and_say_so() -> None:
    with pytest.raises(ValueError, match="ProcessPoolExecutor"):
        fanmap.ThreadPoolExecutor(task_timeout=1)  # type: ignore[arg-type]


def test_cancel_ends_a_call_that_runs_where_that_was_asked_for(fifo: str, there: set[int]) -> None:
    with fanmap.ProcessPoolExecutor(1, cancel_running=True) as pool:
        running = pool.submit(begin, fifo, FOR_EVER)
        waiting = pool.submit(abs, -7)
        await_start(fifo)
        before = set(pool._processes)
        assert running.cancel() and running.cancelled() and running.cancel()
        with pytest.raises(CancelledError):
            running.result()
        assert waiting.result() == 7
        assert before.isdisjoint(pool._processes)
    assert children(os.getpid()) <= there


def test_cancel_leaves_a_call_that_runs_alone_otherwise(fifo: str) -> None:
    with fanmap.ProcessPoolExecutor(1) as pool:
        running = pool.submit(begin, fifo, 0)
        await_start(fifo)
        running.cancel()  # it may be over already
        assert not running.cancelled() and running.result() is None


def test_cancel_does_not_undo_a_call_that_has_ended() -> None:
    with fanmap.ProcessPoolExecutor(1, cancel_running=True) as pool:
        done = pool.submit(abs, -1)
        assert done.result() == 1
        assert not done.cancel() and done.result() == 1


def test_callbacks_of_a_call_that_is_cancelled_while_it_runs_are_called_once(fifo: str) -> None:
    called: list[bool] = []
    told = threading.Event()
    with fanmap.ProcessPoolExecutor(1, cancel_running=True) as pool:
        running = pool.submit(begin, fifo, FOR_EVER)
        running.add_done_callback(lambda future: (called.append(future.cancelled()), told.set()))
        await_start(fifo)
        assert running.cancel()
        assert told.wait(60)
    assert called == [True]


def test_a_cancelled_await_ends_the_call(fifo: str, there: set[int]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with fanmap.ProcessPoolExecutor(1, cancel_running=True) as pool:
            call = loop.run_in_executor(pool, begin, fifo, FOR_EVER)
            await loop.run_in_executor(None, await_start, fifo)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await loop.run_in_executor(pool, abs, -3) == 3

    asyncio.run(main())
    assert children(os.getpid()) <= there


def test_all_who_cancel_a_call_at_once_are_told_the_truth(fifo: str) -> None:
    rounds, both = 300, threading.Barrier(2)
    told: list[list[bool]] = [[], []]
    with fanmap.ProcessPoolExecutor(1, cancel_running=True) as pool:
        holds = pool.submit(begin, fifo, FOR_EVER)
        await_start(fifo)
        waiting = [pool.submit(abs, x) for x in range(rounds)]

        def cancel_all(mine: list[bool]) -> None:
            for future in waiting:
                both.wait(60)
                mine.append(future.cancel())

        threads = [threading.Thread(target=cancel_all, args=(mine,)) for mine in told]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert told == [[True] * rounds] * 2
        assert standard.wait(waiting, timeout=60).not_done == set()
        assert holds.cancel()
