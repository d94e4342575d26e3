"""`retries`: what fails is tried again, over every executor, and what that leaves of all the other promises."""

from __future__ import annotations

import asyncio
import concurrent.futures as standard
import functools
import operator
import os
import pickle
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fanmap
import pytest
from _flaky import (
    FOR_EVER,
    Changes,
    Undecodable,
    flaky,
    flaky_add,
    hold_and_fail,
    map_within,
    never,
    unpicklable,
)
from _scripts import good
from hypothesis import given, settings
from hypothesis import strategies as st

# A back-off that no test sees the end of.
LONG = fanmap.Retry(3, wait=FOR_EVER, max_wait=FOR_EVER)


def attempts(folder: Path, x: int = 0) -> int:
    return (folder / str(x)).stat().st_size


@contextmanager
def executor(name: str) -> Iterator[str | Executor]:
    """One to give to `fanmap.map`."""
    if name != "foreign":
        yield name
        return
    with standard.ThreadPoolExecutor(3) as pool:
        yield pool


everywhere = pytest.mark.parametrize("name", ["processes", "threads", "foreign"])


@everywhere
@settings(max_examples=12, deadline=None)
@given(
    failures=st.lists(st.integers(0, 3), max_size=25),
    retries=st.integers(0, 2),
    wait=st.sampled_from([0.0, 0.002]),
    buffersize=st.sampled_from([None, 2]),
    ordered=st.booleans(),
)
def test_what_fails_less_often_than_it_is_tried_has_succeeded(
    name: str, failures: list[int], retries: int, wait: float, buffersize: int | None, ordered: bool
) -> None:
    def shown(result: Any) -> Any:
        if not isinstance(result, fanmap.Failure):
            return result
        return result.index, str(result.error), getattr(result.error, "__notes__", [])

    def wanted(x: int) -> Any:
        if failures[x] <= retries:
            return x
        notes = [f"attempt {number} failed: ValueError: attempt {number}" for number in range(1, retries + 1)]
        return x, f"attempt {retries + 1}", notes

    with tempfile.TemporaryDirectory() as folder, executor(name) as pool:
        results = fanmap.map(
            flaky,
            range(len(failures)),
            [folder] * len(failures),
            failures,
            executor=pool,
            retries=fanmap.Retry(retries, wait=wait),
            buffersize=buffersize,
            ordered=ordered,
            on_error="return",
        )
        came = [shown(result) for result in results]
        tried = [attempts(Path(folder), x) for x in range(len(failures))]
        assert results.stats.done == len(failures)
        assert results.stats.failed == sum(count > retries for count in failures)
    serial = [wanted(x) for x in range(len(failures))]
    assert came == serial if ordered else sorted(came, key=repr) == sorted(serial, key=repr)
    assert tried == [min(count, retries) + 1 for count in failures]


@pytest.mark.parametrize("how", ["raise", "exit", "kill", "sleep", "memory"])
def test_over_processes_every_kind_of_failure_is_tried_again(how: str, tmp_path: Path) -> None:
    with fanmap.ProcessPoolExecutor(2, retries=2, task_timeout=0.3, worker_memory_limit=2**32) as pool:
        assert pool.submit(flaky, 0, str(tmp_path), 2, how).result() == 0
        error = pool.submit(flaky, 1, str(tmp_path), 3, how).exception()
        assert list(pool.map(flaky, [2, 3], [str(tmp_path)] * 2, [1, 0], [how] * 2)) == [2, 3]
    kinds = {"raise": ValueError, "sleep": fanmap.TaskTimeout, "memory": fanmap.MemoryLimitExceeded}
    assert type(error) is kinds.get(how, fanmap.WorkerCrashed) and len(error.__notes__) == 2
    assert error.__notes__[1].startswith(f"attempt 2 failed: {type(error).__name__}: ")


def test_of_a_chunk_only_what_failed_is_tried_again(tmp_path: Path) -> None:
    with fanmap.ProcessPoolExecutor(2, retries=1) as pool:
        # Of tasks so short that they travel in chunks.
        assert list(pool.map(operator.neg, range(5000))) == [-x for x in range(5000)]
        items = range(400)
        folders = [str(tmp_path)] * 400
        assert list(pool.map(flaky, items, folders, [x % 3 == 0 for x in items])) == list(items)
        # Again, with those that fail for good, and some whose worker dies, among others.
        failing = [2 * (x % 7 == 5) for x in range(1000, 1100)]
        how = ["kill" if x % 5 == 0 else "raise" for x in range(1000, 1100)]
        kept = pool.map(flaky, range(1000, 1100), folders, failing, how, on_error="skip")
        assert list(kept) == [x for x, count in zip(range(1000, 1100), failing, strict=True) if count == 0]
    assert [attempts(tmp_path, x) for x in items] == [1 + (x % 3 == 0) for x in items]


@pytest.mark.parametrize("how", ["raise", "kill"])
def test_another_try_finds_a_large_argument_as_it_was_sent(how: str, tmp_path: Path) -> None:
    mine = bytearray(b"a" * 300_000)
    with fanmap.ProcessPoolExecutor(1) as pool:
        assert pool.submit_with(retries=1)(Changes(str(tmp_path)), mine, how).result() == 300_000
        (tmp_path / "0").unlink()
        assert list(pool.map(Changes(str(tmp_path)), [mine], [how], retries=1)) == [300_000]
    assert mine == b"a" * 300_000 and attempts(tmp_path) == 2


def test_a_rest_holds_no_worker_and_its_place_in_the_window(tmp_path: Path) -> None:
    folder = str(tmp_path)
    with fanmap.ProcessPoolExecutor(1) as pool:
        failing = [9, *[0] * 99]
        results = fanmap.map(
            flaky, range(100), [folder] * 100, failing, executor=pool, retries=LONG, ordered=False, buffersize=2
        )
        with results:
            assert [next(results) for _ in range(99)] == list(range(1, 100))
            assert results.stats.read == 100 and attempts(tmp_path) == 1


@contextmanager
def resting(folder: Path, retries: fanmap.Retry = LONG, **options: Any) -> Iterator[tuple[Any, standard.Future[int]]]:
    """A pool of one process, and the future of a task that has failed there once and rests."""
    with fanmap.ProcessPoolExecutor(1, retries=retries, **options) as pool:
        future = pool.submit(flaky, 0, str(folder), 1)
        assert pool.submit(abs, -1).result() == 1  # behind it
        yield pool, future
    assert attempts(folder) == 1


def test_a_task_that_rests_can_be_cancelled(tmp_path: Path) -> None:
    with resting(tmp_path) as (_, future):
        assert not future.running() and not future.done()
        assert future.cancel() and future.cancelled()
        with pytest.raises(CancelledError):
            future.result()


def test_shutdown_cancels_what_rests_if_it_is_asked_to(tmp_path: Path) -> None:
    with resting(tmp_path) as (pool, future):
        assert pool._work_queue.qsize() == 1
        pool.shutdown(cancel_futures=True)
        assert future.cancelled()


def test_a_pool_that_ends_its_workers_fails_what_rests(tmp_path: Path) -> None:
    with resting(tmp_path) as (pool, future):
        pool.kill_workers()
        error = future.exception()
    assert isinstance(error, fanmap.BrokenProcessPool) and not isinstance(error, fanmap.WorkerCrashed)
    assert error.__notes__ == ["attempt 1 failed: ValueError: attempt 1"]


def test_shutdown_waits_for_further_tries(tmp_path: Path) -> None:
    with fanmap.ProcessPoolExecutor(1, retries=fanmap.Retry(2, wait=0.1)) as pool:
        future = pool.submit(flaky, 0, str(tmp_path), 2)
    assert future.result() == 0 and attempts(tmp_path) == 3


@everywhere
def test_a_map_can_be_closed_while_an_item_rests(name: str, tmp_path: Path) -> None:
    folder = str(tmp_path)
    with executor(name) as pool:
        results = fanmap.map(flaky, [0, 1], [folder] * 2, [1, 0], executor=pool, retries=LONG, ordered=False)
        assert next(results) == 1
        while not (tmp_path / "0").exists():
            os.sched_yield()
        results.close()
        assert list(results) == []
    assert attempts(tmp_path) == 1


@pytest.mark.parametrize("kind", [fanmap.ProcessPoolExecutor, fanmap.ThreadPoolExecutor])
@pytest.mark.parametrize("cancelled_by", ["closing the map", "shutdown"])
def test_what_runs_when_all_else_is_cancelled_is_not_tried_again(kind: Any, cancelled_by: str, tmp_path: Path) -> None:
    path = tmp_path / "0"
    os.mkfifo(f"{path}.gate")
    with kind(1, retries=LONG) as pool:
        results = pool.map(hold_and_fail, [str(path)])
        with open(f"{path}.gate", "wb"):  # it is opened once the task is there
            if cancelled_by == "shutdown":
                pool.shutdown(wait=False, cancel_futures=True)
            else:
                results.close()
    assert attempts(tmp_path) == 1


@everywhere
def test_a_map_whose_time_is_over_does_not_wait_for_a_rest(name: str, tmp_path: Path) -> None:
    with executor(name) as pool, pytest.raises(TimeoutError):
        list(fanmap.map(flaky, [0], [str(tmp_path)], [1], executor=pool, retries=LONG, timeout=0.2))


def test_at_exit_submitted_tasks_are_tried_again(tmp_path: Path) -> None:
    code = """
        import sys, fanmap
        sys.path.insert(0, sys.argv[1])
        from _flaky import flaky
        {pool} = fanmap.{pool}(1, retries=fanmap.Retry(1, wait=0.1))
        {pool}.submit(flaky, 0, sys.argv[2], 1).add_done_callback(lambda future: print(future.result(), flush=True))
    """
    for pool in ("ProcessPoolExecutor", "ThreadPoolExecutor"):
        folder = tmp_path / pool
        folder.mkdir()
        assert good(code.format(pool=pool), str(Path(__file__).parent), str(folder)) == "0\n"
        assert attempts(folder) == 2


@pytest.mark.parametrize("name", ["processes", "threads"])
def test_at_exit_a_map_does_not_wait_for_a_rest(name: str, tmp_path: Path) -> None:
    code = """
        import sys, fanmap
        sys.path.insert(0, sys.argv[1])
        from _flaky import flaky
        folder, name = sys.argv[2:]
        LONG = fanmap.Retry(1, wait=600, max_wait=600)
        results = fanmap.map(flaky, [0, 1], [folder] * 2, [1, 0], executor=name, retries=LONG, ordered=False)
        print(next(results))
    """
    assert good(code, str(Path(__file__).parent), str(tmp_path), name) == "1\n"


@everywhere
@pytest.mark.parametrize(("how", "kind"), [("interrupt", KeyboardInterrupt), ("exit of python", SystemExit)])
def test_what_is_no_exception_is_tried_again_only_if_it_is_named(
    name: str, how: str, kind: type[BaseException], tmp_path: Path
) -> None:
    pools = {
        "processes": functools.partial(fanmap.ProcessPoolExecutor, 1),
        "threads": functools.partial(fanmap.ThreadPoolExecutor, 1),
        "foreign": functools.partial(standard.ThreadPoolExecutor, 1),
    }
    with pools[name]() as pool:
        once = fanmap.map(flaky, [0], [str(tmp_path)], [1], [how], executor=pool, retries=3, on_error="skip")
        assert list(once) == [] and attempts(tmp_path) == 1
        named = fanmap.Retry(3, on=(kind,))
        assert list(fanmap.map(flaky, [1], [str(tmp_path)], [2], [how], executor=pool, retries=named)) == [1]


@pytest.mark.parametrize(
    ("on", "again"),
    [
        (ValueError, {"raise"}),
        (fanmap.WorkerCrashed, {"kill", "memory"}),
        (fanmap.BrokenProcessPool, {"kill", "memory"}),
        (MemoryError, {"memory"}),
        (TimeoutError, {"sleep"}),
        ((fanmap.TaskTimeout, ValueError), {"sleep", "raise"}),
    ],
)
def test_the_exceptions_are_asked_for_as_except_does(on: Any, again: set[str], tmp_path: Path) -> None:
    policy = fanmap.Retry(1, on=on)
    with fanmap.ProcessPoolExecutor(2, retries=policy, task_timeout=0.3, worker_memory_limit=2**32) as pool:
        hows = ["raise", "kill", "memory", "sleep"]
        futures = [pool.submit(flaky, x, str(tmp_path), 1, how) for x, how in enumerate(hows)]
        assert {how for how, future in zip(hows, futures, strict=True) if future.exception() is None} == again


def test_an_exception_of_the_main_module_is_known_in_its_workers(tmp_path: Path) -> None:
    code = """
        import sys, fanmap

        class Mine(Exception):
            pass

        def flaky(path):
            with open(path, "a") as file:
                file.write("x")
                if file.tell() < 3:
                    raise Mine
            return "done"

        with fanmap.ProcessPoolExecutor(1, retries=fanmap.Retry(2, on=Mine)) as pool:
            print(pool.submit(flaky, sys.argv[1]).result(), *pool.map(lambda x: x + 1, [1, 2]))
    """
    assert good(code, str(tmp_path / "0")) == "done 2 3\n"


def test_what_cannot_travel_is_not_tried_again(tmp_path: Path) -> None:
    with fanmap.ProcessPoolExecutor(1, retries=3) as pool:
        assert isinstance(pool.submit(unpicklable, str(tmp_path / "0")).exception(), pickle.PicklingError)
        assert isinstance(pool.submit(abs, Undecodable(str(tmp_path / "1"))).exception(), fanmap.UndecodableError)
        assert isinstance(pool.submit(abs, threading.Lock()).exception(), pickle.PicklingError)
    assert attempts(tmp_path, 0) == 1 and attempts(tmp_path, 1) == 1


def test_a_pool_whose_workers_cannot_live_is_broken_all_the_same(tmp_path: Path) -> None:
    with fanmap.ProcessPoolExecutor(1, initializer=never, retries=LONG) as pool:
        error = pool.submit(flaky, 0, str(tmp_path), 0).exception()
        assert isinstance(error, fanmap.BrokenProcessPool) and "no worker today" in str(error)
    with standard.ThreadPoolExecutor(1, initializer=never) as other, pytest.raises(fanmap.BrokenThreadPool):
        list(fanmap.map(flaky, [0], [str(tmp_path)], [0], executor=other, retries=LONG))


def close_and_fail(pool: Executor) -> None:
    pool.shutdown(wait=False)
    raise ValueError("no more")


def test_an_executor_that_takes_no_more_ends_the_tries() -> None:
    with standard.ThreadPoolExecutor(1) as other:
        results = fanmap.map(close_and_fail, [other], executor=other, retries=3)
        with pytest.raises(RuntimeError, match="after shutdown") as caught:
            next(results)
    assert caught.value.__notes__ == ["attempt 1 failed: ValueError: no more"]


both = pytest.mark.parametrize("kind", [fanmap.ProcessPoolExecutor, fanmap.ThreadPoolExecutor])


@both
def test_an_executors_number_is_that_of_all_that_say_none_of_their_own(kind: Any, tmp_path: Path) -> None:
    folder = str(tmp_path)
    with kind(1, retries=2) as pool:
        assert pool.submit(flaky, 0, folder, 2).result() == 0
        assert list(pool.map(flaky, [1], [folder], [2])) == [1]
        assert list(fanmap.map(flaky, [2], [folder], [2], executor=pool)) == [2]
        once = pool.submit_with(retries=0)
        assert [str(once(flaky, x, folder, failures=1).exception()) for x in (3, 4)] == ["attempt 1"] * 2
        assert pool.submit_with(retries=3)(flaky, 5, folder, 3).result() == 5
        with pytest.raises(ValueError, match="attempt 1"):
            list(pool.map(flaky, [6], [folder], [1], retries=0))
        assert list(pool.map(flaky, [7], [folder], [3], retries=3)) == [7]


def test_a_submit_with_a_limit_ends_what_takes_longer_and_nothing_else() -> None:
    with fanmap.ProcessPoolExecutor(1) as pool:
        impatient = pool.submit_with(task_timeout=0.1)
        late, other = impatient(time.sleep, FOR_EVER), pool.submit(time.sleep, 0.2)
        assert isinstance(late.exception(), fanmap.TaskTimeout) and other.exception() is None
        with pytest.raises(ValueError, match="task_timeout"):
            pool.submit_with(task_timeout=0)
    with fanmap.ThreadPoolExecutor(1) as threads, pytest.raises(ValueError, match="ProcessPoolExecutor"):
        threads.submit_with(task_timeout=1)  # type: ignore[arg-type]


def test_a_thread_that_rests_is_woken_by_a_shutdown_that_cancels(tmp_path: Path) -> None:
    with fanmap.ThreadPoolExecutor(2) as pool:
        future = pool.submit_with(retries=LONG)(flaky, 0, str(tmp_path), 1)
        results = pool.map(flaky, [1], [str(tmp_path)], [1], retries=LONG)
        while not (tmp_path / "1").exists():
            os.sched_yield()
        pool.shutdown(cancel_futures=True)
        assert isinstance(future.exception(), ValueError)
        with pytest.raises(ValueError, match="attempt 1"):
            next(results)


def add(one: int, other: int) -> int:
    return one + other


@everywhere
def test_the_family_tries_again(name: str, tmp_path: Path) -> None:
    folder = str(tmp_path)
    with executor(name) as pool:
        assert list(fanmap.starmap(flaky, [(x, folder, 1) for x in range(3)], executor=pool, retries=1)) == [0, 1, 2]
        fanmap.for_each(flaky, range(3, 6), [folder] * 3, [1] * 3, executor=pool, retries=1)
        picky = functools.partial(flaky, folder=folder, failures=1)
        assert list(fanmap.filter(picky, range(6, 9), executor=pool, retries=1)) == [6, 7, 8]
        flawed = functools.partial(flaky_add, f"{folder}/sum")
        assert fanmap.reduce(flawed, range(10), executor=pool, retries=1) == 45

        async def main() -> list[int]:
            results = fanmap.amap(flaky, range(9, 12), [folder] * 3, [1] * 3, executor=pool, retries=1)
            return [result async for result in results]

        assert asyncio.run(main()) == [9, 10, 11]
    assert [attempts(tmp_path, x) for x in range(12)] == [2] * 12


def test_a_map_in_a_worker_tries_again_in_place(tmp_path: Path) -> None:
    assert list(fanmap.map(map_within, [str(tmp_path)], executor="processes")) == [[0, 1, 2]]


@everywhere
def test_progress_counts_an_item_once(name: str, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    with executor(name) as pool:
        list(
            fanmap.map(
                flaky,
                range(20),
                [str(tmp_path)] * 20,
                [1] * 20,
                executor=pool,
                retries=1,
                progress=lambda done, total: told.append((done, total)),
            )
        )
    assert told[-1][0] == 20 and [done for done, _ in told] == sorted({done for done, _ in told})


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: fanmap.Retry(-1), ValueError),
        (lambda: fanmap.Retry(2**32), ValueError),
        (lambda: fanmap.Retry(True), TypeError),
        (lambda: fanmap.Retry(1.0), TypeError),  # type: ignore[arg-type]
        (lambda: fanmap.Retry(1, wait=-1), ValueError),
        (lambda: fanmap.Retry(1, wait=float("nan")), ValueError),
        (lambda: fanmap.Retry(1, wait="1"), TypeError),  # type: ignore[arg-type]
        (lambda: fanmap.Retry(1, wait=True), TypeError),
        (lambda: fanmap.Retry(1, factor=0.5), ValueError),
        (lambda: fanmap.Retry(1, factor=float("inf")), ValueError),
        (lambda: fanmap.Retry(1, max_wait=-1), ValueError),
        (lambda: fanmap.Retry(1, on=()), ValueError),
        (lambda: fanmap.Retry(1, on=int), TypeError),  # type: ignore[arg-type]
        (lambda: fanmap.Retry(1, on=ValueError()), TypeError),  # type: ignore[arg-type]
        (lambda: fanmap.Retry(1, on=[ValueError]), TypeError),  # type: ignore[arg-type]
        (lambda: fanmap.Retry(1, on=(ValueError, "OSError")), TypeError),  # type: ignore[arg-type]
        *((functools.partial(take, retries=wrong), error)
          for take in (
              functools.partial(fanmap.map, abs, [1]),
              functools.partial(fanmap.starmap, abs, [(1,)]),
              functools.partial(fanmap.reduce, add, [1]),
              fanmap.ProcessPoolExecutor,
              fanmap.ThreadPoolExecutor,
          )
          for wrong, error in [(-1, ValueError), (True, TypeError), (1.0, TypeError), ("3", TypeError)]),
    ],
)  # fmt: skip
def test_what_is_no_policy_is_refused_at_the_call(make: Callable[[], object], error: type[Exception]) -> None:
    with pytest.raises(error):
        make()


@both
def test_what_is_no_policy_is_refused_by_an_open_executor(kind: Any) -> None:
    with kind(1) as pool:
        for wrong, error in [(-1, ValueError), (True, TypeError), ([], TypeError)]:
            with pytest.raises(error, match="retries"):
                pool.map(abs, [1], retries=wrong)
            with pytest.raises(error, match="retries"):
                pool.submit_with(retries=wrong)


def test_a_policy_is_a_value() -> None:
    one = fanmap.Retry(3, wait=1, on=(ValueError, OSError))
    assert one == pickle.loads(pickle.dumps(one)) and hash(one) == hash(pickle.loads(pickle.dumps(one)))
    assert one != fanmap.Retry(3, wait=1) and one != 3
    assert repr(one) == "Retry(3, wait=1.0, factor=2.0, max_wait=60.0, on=(ValueError, OSError,))"
    assert [one.rest(tries) for tries in range(4)] == [1, 2, 4, None]
    assert fanmap.Retry(99, wait=1, factor=2**32).rest(98) == 60 and fanmap.Retry(99, factor=2**32).rest(98) == 0
