"""Many threads share executors and futures: each task has one outcome, and nobody sees an error that is not documented.

The threads start together and follow seeds of their own, so what each does is the same in every run; how they
interleave is not, and no check depends on it.
"""

from __future__ import annotations

import collections
import itertools
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import fanmap
import pytest

LIMIT = 60
THREADS = 6
MAKERS: dict[str, Callable[[int], Any]] = {
    "threads": fanmap.ThreadPoolExecutor,
    "processes": fanmap.ProcessPoolExecutor,
}
each = pytest.mark.parametrize("way", MAKERS)
REFUSAL = "cannot schedule new futures after shutdown"


@pytest.fixture(autouse=True)
def threads_take_turns_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def together(*acts: Callable[[random.Random], object]) -> None:
    """Call all of them at once, each in a thread of its own; raise what any of them raises."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(acts))

    def run(seed: int, act: Callable[[random.Random], object]) -> None:
        try:
            barrier.wait(LIMIT)
            act(random.Random(seed))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


class Record:
    """Which tasks ran, whatever they ran on: a line each in a file that all append to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def ran(self) -> collections.Counter[int]:
        return collections.Counter(map(int, self.path.read_text(encoding="ascii").split()))


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "record")


def work(path: str, x: int) -> int:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, b"%d\n" % x)
    finally:
        os.close(fd)
    if x % 7 == 0:
        raise LookupError(x)
    return x


def check_outcomes(futures: dict[int, Any], record: Record) -> None:
    """Each future has one outcome, its own; what was cancelled never ran, and the rest ran once."""
    ran = record.ran()
    for x, future in futures.items():
        assert future.done()
        if future.cancelled():
            assert ran[x] == 0
            continue
        assert ran[x] == 1
        error = future.exception(0)
        if x % 7 == 0:
            assert type(error) is LookupError and error.args == (x,)
        else:
            assert error is None and future.result(0) == x
    assert set(ran) <= set(futures)


@each
def test_each_task_has_one_outcome_while_many_submit_cancel_and_ask(way: str, record: Record) -> None:
    numbers = itertools.count()
    futures: dict[int, Any] = {}
    heard: list[int] = []

    def use(rng: random.Random) -> None:
        for _ in range(60):
            x = next(numbers)
            future = futures[x] = pool.submit(work, str(record.path), x)
            future.add_done_callback(lambda _, x=x: heard.append(x))
            # Somebody else's as well as one's own.
            other = futures[rng.choice(list(futures))]
            act = rng.randrange(5)
            if act == 0 and future.cancel():
                assert future.cancelled()
            elif act == 1:
                other.cancel()
            elif act == 2:
                try:
                    assert other.result(LIMIT) in futures
                except (fanmap.CancelledError, LookupError):
                    assert other.done()
            elif act == 3:
                done, waiting = fanmap.wait([future, other], LIMIT, fanmap.FIRST_COMPLETED)
                assert done and done | waiting == {future, other}
            else:
                assert {future, other} == set(fanmap.as_completed([future, other], LIMIT))

    with MAKERS[way](2) as pool:
        together(*[use] * THREADS)
    assert len(futures) == THREADS * 60
    check_outcomes(futures, record)
    assert collections.Counter(heard) == collections.Counter(list(futures))


@each
@pytest.mark.parametrize("cancel", [False, True])
def test_shutdown_races_with_submit_and_nothing_that_was_taken_is_lost(way: str, cancel: bool, record: Record) -> None:
    numbers = itertools.count()
    futures: dict[int, Any] = {}
    closing = threading.Event()
    pool = MAKERS[way](2)

    def use(rng: random.Random) -> None:
        for _ in range(400):
            x = next(numbers)
            try:
                futures[x] = pool.submit(work, str(record.path), x)
            except RuntimeError as error:
                assert str(error) == REFUSAL
                return
            if len(futures) == 50:
                closing.set()

    def close(rng: random.Random) -> None:
        assert closing.wait(LIMIT)
        pool.shutdown(wait=rng.random() < 0.5, cancel_futures=cancel)

    together(*[use] * THREADS, close, close)
    pool.shutdown()
    assert len(futures) >= 50
    check_outcomes(futures, record)
    if not cancel:
        assert not any(future.cancelled() for future in futures.values())


@each
def test_maps_of_many_threads_keep_apart_and_in_order(way: str) -> None:
    def use(rng: random.Random) -> None:
        for _ in range(8):
            numbers = [rng.randrange(1000) for _ in range(40)]
            expected = [-x for x in numbers]
            which = rng.randrange(4)
            if which == 0:
                assert list(pool.map(int.__neg__, numbers, timeout=LIMIT)) == expected
            elif which == 1:
                assert list(pool.map(int.__neg__, numbers, buffersize=3)) == expected
            elif which == 2:
                assert list(fanmap.map(int.__neg__, numbers, executor=pool)) == expected
            else:
                with fanmap.map(int.__neg__, itertools.cycle(numbers), executor=pool) as results:
                    assert [next(results) for _ in range(20)] == expected[:20]

    with MAKERS[way](2) as pool:
        together(*[use] * THREADS)


@each
def test_one_map_asked_by_many_gives_each_result_once_and_refuses_who_comes_at_the_same_time(way: str) -> None:
    with MAKERS[way](2) as pool:
        results = fanmap.map(abs, range(2000), executor=pool)
        taken: list[list[int]] = [[] for _ in range(THREADS)]

        def take(mine: list[int]) -> None:
            while True:
                try:
                    mine.append(next(results))
                except StopIteration:
                    return
                except ValueError as error:
                    assert "already" in str(error)

        together(*(lambda _, mine=mine: take(mine) for mine in taken))
    assert all(mine == sorted(mine) for mine in taken)
    assert sorted(itertools.chain(*taken)) == list(range(2000))


@each
def test_shutdown_races_with_maps(way: str) -> None:
    """A map is refused, or gives its results in order, and ends by its own or by being cancelled."""
    closing = threading.Semaphore(0)
    pool = MAKERS[way](2)

    def use(rng: random.Random) -> None:
        while True:
            taken: list[int] = []
            try:
                taken.extend(pool.map(abs, range(-30, 0)))
            except fanmap.CancelledError:
                assert taken == list(range(30, 30 - len(taken), -1))
            except RuntimeError as error:
                assert str(error) == REFUSAL
                return
            else:
                assert taken == list(range(30, 0, -1))
            closing.release()

    def close(rng: random.Random) -> None:
        for _ in range(THREADS):
            assert closing.acquire(timeout=LIMIT)
        pool.shutdown(cancel_futures=rng.random() < 0.5)

    together(*[use] * THREADS, close)


@each
def test_a_map_whose_pool_is_shut_down_while_it_reads_is_refused_as_a_submit_is(way: str) -> None:
    def numbers() -> Iterator[int]:
        yield 1
        pool.shutdown(wait=False)
        yield 2

    with MAKERS[way](1) as pool, pytest.raises(RuntimeError, match=REFUSAL):
        pool.map(abs, numbers())


def test_a_storm_of_tasks_leaves_the_interpreter_to_other_threads() -> None:
    """Each `sleep(0)` gives the interpreter's lock away and wants it back from a thread that never lacks a task."""
    sys.setswitchinterval(0.005)
    over = threading.Event()

    def storm() -> None:
        if not over.is_set():
            pool.submit(storm)

    with fanmap.ThreadPoolExecutor(1) as pool:
        storm()
        for _ in range(200):
            time.sleep(0)
        over.set()


@each
def test_one_future_asked_by_many_gives_all_the_same(way: str) -> None:
    def use(rng: random.Random) -> None:
        for index, future in enumerate(futures):
            cancelled = future.cancel() if index % 3 == 0 else False
            try:
                given[index].append(future.result(LIMIT))
                assert not cancelled
            except fanmap.CancelledError:
                given[index].append("cancelled")
            future.add_done_callback(lambda future: heard.append(future))

    given: dict[int, list[Any]] = collections.defaultdict(list)
    heard: list[Any] = []
    with MAKERS[way](2) as pool:
        futures = [pool.submit(abs, -x) for x in range(60)]
        together(*[use] * THREADS)
    for index, answers in given.items():
        assert len(answers) == THREADS and len(set(answers)) == 1
        assert answers[0] in ({index, "cancelled"} if index % 3 == 0 else {index})
    assert collections.Counter(heard) == collections.Counter(futures * THREADS)


@each
def test_executors_come_and_go_in_many_threads(way: str) -> None:
    def use(rng: random.Random) -> None:
        for _ in range(3 if way == "threads" else 1):
            pool: Executor = MAKERS[way](2)
            futures = [pool.submit(abs, -x) for x in range(5)]
            if rng.random() < 0.5:
                pool.shutdown(wait=False)
            assert [future.result(LIMIT) for future in futures] == list(range(5))
            pool.shutdown()

    together(*[use] * THREADS)


def test_workers_that_die_fail_their_own_tasks_under_load() -> None:
    def use(rng: random.Random) -> None:
        for round_number in range(8):
            dies = round_number == 3
            future = pool.submit(os._exit, 7) if dies else pool.submit(abs, -round_number)
            error = future.exception(LIMIT)
            if dies:
                assert type(error) is fanmap.WorkerCrashed and error.exitcode == 7
            else:
                assert error is None and future.result(0) == round_number

    with fanmap.ProcessPoolExecutor(2) as pool:
        together(*[use] * THREADS)


def test_warm_pools_are_shared_and_closed_by_many_threads() -> None:
    """`fanmap.shutdown` cancels maps that are under way; the next map makes pools anew."""

    def use(rng: random.Random) -> None:
        for _ in range(10):
            try:
                assert list(fanmap.map(abs, range(-20, 0), executor="threads")) == list(range(20, 0, -1))
            except fanmap.CancelledError:
                pass
            except RuntimeError as error:
                assert str(error) == REFUSAL

    def close(rng: random.Random) -> None:
        for _ in range(5):
            fanmap.shutdown()

    together(*[use] * THREADS, close)
