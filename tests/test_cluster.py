"""What the executors over clusters share, over the smallest cluster there is: a few interpreters at the other end of a
pipe, which have cloudpickle and not fanmap.

Ray and Dask have tests of their own, which need them.
"""

from __future__ import annotations

import concurrent.futures
import functools
import gc
import itertools
import os
import pickle
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import cloudpickle
import fanmap
import numpy
import pytest
from _scripts import HOLD, Gate
from fanmap import _errand
from fanmap._batches import PATIENCE, Batch, Lost, batch_size, by_value
from fanmap._cluster import ClusterExecutor

exec(HOLD)

# Its standard output is the way back, and not for prints.
CHILD = """
import os, pickle, sys, threading
sys.path.append(sys.argv[1])
sys.modules["fanmap"] = None
import cloudpickle
here, there, lock = sys.stdin.buffer, os.fdopen(os.dup(1), "wb"), threading.Lock()
os.dup2(2, 1)
def say(*what):
    with lock:
        pickle.dump(what, there, 5)
        there.flush()
def allowed(batch):
    say("claim")
    return pickle.load(here)
while True:
    try:
        run, *arguments = pickle.load(here)
    except EOFError:
        break
    say("report", run(*arguments, allowed, lambda told: say("told", told), cloudpickle.dumps))
"""


class Interpreters:
    """Runs batches in interpreters, each of which is one thread's."""

    cloudpickle = cloudpickle

    def __init__(self, size: int) -> None:
        self.count = size
        self.puts: list[bool] = []
        self.batches: list[int] = []
        self.closed = False
        self.connected = True

    def begin(self, events: SimpleQueue[Any]) -> None:
        self._events = events
        self._board: dict[int, int] = {}
        self._lock = threading.Lock()
        self._run = by_value(_errand.run, cloudpickle)
        self._threads = ThreadPoolExecutor(self.count)
        self._mine = threading.local()
        self._children: list[subprocess.Popen[bytes]] = []

    def alive(self) -> bool:
        return self.connected

    def size(self) -> int:
        return self.count

    def put(self, part: Any, *, for_all: bool) -> Any:
        self.puts.append(for_all)
        return [bytes(pickle.PickleBuffer(part).raw())]

    def start(self, batch: Batch) -> None:
        self.batches.append(len(batch.calls))
        self._threads.submit(self._work, batch)

    def _work(self, batch: Batch) -> None:
        child = getattr(self._mine, "child", None) or self._begin_child()
        parts = [part for (part,) in batch.parts]
        job = cloudpickle.dumps((self._run, batch.number, batch.function, batch.calls, parts, PATIENCE))
        self._say(child, job)
        while True:
            try:
                what, *told = pickle.load(child.stdout)
            except EOFError:
                del self._mine.child
                self._events.put((batch.number, Lost(f"it exited with code {child.wait()}")))
                return
            if what == "report":
                self._events.put((batch.number, told[0]))
                return
            if what == "told":
                self._events.put(told[0])
            else:
                with self._lock:
                    verdict = _errand.claim(self._board, batch.number, batch.oldest, batch.retries + 1)
                self._say(child, pickle.dumps(verdict))

    @staticmethod
    def _say(child: Any, data: bytes) -> None:
        child.stdin.write(data)
        child.stdin.flush()

    def _begin_child(self) -> Any:
        line = [sys.executable, "-I", "-S", "-c", CHILD, str(Path(cloudpickle.__file__).parent.parent)]
        child = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._mine.child = child
        self._children.append(child)
        return child

    def take_back(self, number: int) -> bool:
        with self._lock:
            return _errand.take_back(self._board, number)

    def begun(self, number: int) -> bool:
        with self._lock:
            return _errand.begun(self._board, number)

    def drop(self, number: int) -> None:
        pass

    def close(self) -> None:
        self._threads.shutdown()
        for child in self._children:
            with child:
                assert child.stdin is not None
                child.stdin.close()
        self.closed = True


class InterpretersExecutor(ClusterExecutor):
    def __init__(self, size: int = 2, retries: int = 0, batches: bool = True) -> None:
        self.cluster = Interpreters(size)
        self._open(self.cluster, None, batches, retries)


@pytest.fixture
def pool() -> Iterator[InterpretersExecutor]:
    with InterpretersExecutor() as pool:
        yield pool
    assert pool.cluster.closed


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path)
    yield gate
    gate.close()


def visit(name: str) -> str:
    return hold(name) if name else name  # type: ignore[name-defined] # noqa: F821


def double(x: int) -> int:
    return 2 * x


def leave(x: int, if_it_is: int, log: str = "") -> int:
    if log:
        with open(log, "a") as file:
            file.write(f"{x}\n")
    if x == if_it_is:
        os._exit(3)
    return x


# What is imported by its name there would not be found: tests are not on its path.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def test_the_family_over_workers_that_cannot_import_fanmap(pool: InterpretersExecutor) -> None:
    assert list(fanmap.map(double, range(300), executor=pool)) == [2 * x for x in range(300)]
    assert max(pool.cluster.batches) > 10, "tiny calls go together"
    assert list(fanmap.map(pow, range(5), itertools.repeat(2), executor=pool)) == [0, 1, 4, 9, 16]
    assert sorted(fanmap.map(abs, range(-9, 0), executor=pool, ordered=False)) == list(range(1, 10))
    assert list(fanmap.starmap(pow, [(2, 5), (3, 2)], executor=pool)) == [32, 9]
    assert list(fanmap.filter(lambda x: x % 2, range(9), executor=pool)) == [1, 3, 5, 7]
    assert fanmap.reduce(max, range(100), executor=pool) == 99
    fanmap.for_each(lambda x: threading.Lock(), range(3), executor=pool)  # whose results could not travel
    assert list(pool.map(double, [1, 2])) == [2, 4]
    assert pool.submit(lambda *, x: x, x=b"some").result() == b"some"
    with fanmap.map(double, itertools.count(), executor=pool, buffersize=3) as endless:
        assert list(itertools.islice(endless, 6)) == [0, 2, 4, 6, 8, 10]


def test_an_error_is_its_own_items_with_the_traceback_from_there(pool: InterpretersExecutor) -> None:
    list(fanmap.map(double, range(4), executor=pool))

    def fail(x: int) -> Any:
        if x == 1:
            return 1 // 0
        return threading.Lock() if x == 2 else x

    class Unloadable:
        def __reduce__(self) -> Any:
            return int, ("no number",)

    items = [0, 1, 2, Unloadable(), threading.Lock(), 5]
    came = list(fanmap.map(fail, items, executor=pool, on_error="return"))
    assert (came[0], came[5]) == (0, 5)
    kinds = [type(failed.error) for failed in came[1:5]]
    assert kinds == [ZeroDivisionError, TypeError, ValueError, TypeError]
    assert "in fail" in str(came[1].error.__cause__) and "in run" not in str(came[1].error.__cause__)
    notes = [str(getattr(failed.error, "__notes__", "")) for failed in came[2:5]]
    assert "its result" in notes[0] and "its arguments" in notes[1] and "item 4" in notes[2]


def test_a_lost_worker_fails_only_its_own_call_and_names_it(pool: InterpretersExecutor) -> None:
    list(fanmap.map(leave, range(20), [99] * 20, executor=pool))
    came = list(fanmap.map(leave, range(60), [30] * 60, executor=pool, on_error="return"))
    failed = came.pop(30)
    assert came == [*range(30), *range(31, 60)]
    assert isinstance(failed.error, fanmap.WorkerCrashed)
    assert (failed.error.item, failed.error.call) == (30, "leave(30, 30)")
    assert "code 3" in str(failed.error) and "item 30" in str(failed.error)
    assert pool.submit(double, 4).result() == 8


def test_without_batches_no_call_is_begun_twice_and_with_retries_so_often(tmp_path: Path) -> None:
    def begun(name: str, **options: Any) -> Counter[int]:
        log = tmp_path / name
        with InterpretersExecutor(**options) as pool:
            came = [pool.submit(leave, x, 3, str(log)) for x in range(8)]
            assert [type(future.exception()) for future in came].count(fanmap.WorkerCrashed) == 1
        return Counter(map(int, log.read_text().split()))

    assert begun("alone", batches=False) == Counter(range(8))
    # The engine of this page says "lost" and tries no more; Ray and Dask try again.
    assert begun("again", batches=False, retries=1)[3] >= 1


def test_cancelled_is_never_run_and_running_is_the_truth(gate: Gate) -> None:
    with InterpretersExecutor(size=1) as pool:
        runs, handed_over, waits, left = (pool.submit(visit, name) for name in (gate.name, "", "", ""))
        gate.wait()
        assert runs.running() and not handed_over.running() and not waits.running()
        assert not runs.cancel()
        # Has gone to the cluster, where nobody has begun it.
        wait([runs, handed_over], 0, FIRST_COMPLETED)
        assert handed_over.cancel() and waits.cancel() and handed_over.cancelled()
        assert wait([handed_over, waits], 5).not_done == set()
        with pytest.raises(CancelledError):
            handed_over.result()
        gate.open()
        assert runs.result() == gate.name and left.result() == ""
        assert not runs.cancel() and not runs.running()
        assert sum(pool.cluster.batches) <= 3, "what was cancelled in the queue never went there"


def test_a_cluster_that_calls_a_batch_lost_which_was_dropped_does_not_spoil_cancelling(gate: Gate) -> None:
    with InterpretersExecutor(size=1) as pool:
        seen_to = threading.Event()

        def drop(number: int) -> None:
            pool.cluster._events.put((number, Lost("its key was cancelled")))
            # Asked by the desk's thread after each event.
            pool.cluster.alive = lambda: seen_to.set() is None  # type: ignore[method-assign]
            assert seen_to.wait(20)

        pool.cluster.drop = drop  # type: ignore[method-assign]
        runs, handed_over = pool.submit(visit, gate.name), pool.submit(visit, "")
        gate.wait()
        assert handed_over.cancel() and handed_over.cancelled()
        gate.open()
        assert runs.result() == gate.name


def test_nothing_waits_behind_a_slow_call(pool: InterpretersExecutor, gate: Gate) -> None:
    assert list(fanmap.map(visit, [""] * 300, executor=pool)) == [""] * 300
    pool.cluster.batches.clear()
    items = [*[""] * 150, gate.name, *[""] * 150]
    results = fanmap.map(visit, items, executor=pool, ordered=False)
    assert list(itertools.islice(results, 300)) == [""] * 300
    assert max(pool.cluster.batches) > 2
    gate.wait()
    gate.open()
    assert list(results) == [gate.name]


def test_shutdown_ends_what_was_submitted_or_cancels_what_nobody_has_begun(gate: Gate) -> None:
    pool = InterpretersExecutor(size=1)
    runs, *others = (pool.submit(visit, name) for name in (gate.name, *[""] * 5))
    gate.wait()
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(other.cancelled() for other in others)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(double, 1)
    gate.open()
    assert runs.result() == gate.name
    pool.shutdown()
    assert pool.cluster.closed

    with InterpretersExecutor(size=1) as pool:
        futures = [pool.submit(double, x) for x in range(4)]
    assert [future.result() for future in futures] == [0, 2, 4, 6]


def test_without_a_connection_nothing_hangs(gate: Gate) -> None:
    pool = InterpretersExecutor(size=1)
    runs, waits = pool.submit(visit, gate.name), pool.submit(double, 1)
    gate.wait()
    pool.cluster.connected = False
    with pytest.raises(concurrent.futures.BrokenExecutor, match="connection"):
        pool.submit(double, 1)
    assert not runs.running() and waits.cancel()
    gate.open()
    pool.shutdown()
    assert runs.done()


def test_a_callback_may_use_the_executor(pool: InterpretersExecutor) -> None:
    more: list[Any] = []
    done = threading.Event()

    def submit(future: Any) -> None:
        more.append(pool.submit(double, future.result()))
        done.set()

    pool.submit(double, 1).add_done_callback(submit)
    assert done.wait(30) and more[0].result() == 4


def test_large_things_go_there_once_and_as_they_were(pool: InterpretersExecutor) -> None:
    table = numpy.arange(50_000.0)

    def look(table: Any, at: int) -> float:
        return float(table[at])

    results = fanmap.map(functools.partial(look, table), range(20), executor=pool)
    first = next(results)
    assert list(fanmap.map(functools.partial(look, table), range(20), executor=pool)) == list(range(20))
    assert pool.cluster.puts == [True], "the same bytes are not sent again"
    table[:] = -1
    assert [first, *results] == list(range(20)), "it is a snapshot"
    calls = [pool.submit(look, table, at) for at in range(5)]
    assert [call.result() for call in calls] == [-1.0] * 5
    assert pool.cluster.puts == [True, False]
    fortran = numpy.asfortranarray(numpy.arange(20_000.0).reshape(100, 200))
    assert numpy.array_equal(pool.submit(lambda x: 2 * x, fortran).result(), 2 * fortran)


def test_what_an_earlier_call_did_to_a_function_a_later_one_does_not_see(pool: InterpretersExecutor) -> None:
    def count(seen: list[int]) -> Any:
        return lambda _: (seen.append(1), len(seen))[1]

    counting = count([])
    assert [pool.submit(counting, x).result() for x in range(3)] == [1, 1, 1]


def test_what_a_cluster_cannot_do_is_refused(pool: InterpretersExecutor) -> None:
    with pytest.raises(ValueError, match="task_timeout"):
        fanmap.map(abs, [1], executor=pool, task_timeout=1)
    with pytest.raises(TypeError, match="callable"):
        pool.submit(3)  # type: ignore[arg-type]


def test_what_cannot_be_pickled_is_named(pool: InterpretersExecutor) -> None:
    lock = threading.Lock()
    for call in (pool.submit, lambda fn: fanmap.map(fn, [1], executor=pool)):
        with pytest.raises(TypeError) as raised:
            call(lambda _: lock)
        assert (
            "test_what_cannot_be_pickled_is_named.<locals>.<lambda> could not be pickled" in raised.value.__notes__[0]
        )


def test_an_executor_that_is_dropped_in_a_circle_may_go_wherever_memory_is_asked_for() -> None:
    pool = InterpretersExecutor(size=1)
    pool.myself = pool  # type: ignore[attr-defined]
    future, desk = pool.submit(double, 2), pool._desk
    with desk._lock:
        del pool
        gc.collect()
    assert future.result() == 4
    desk.thread.join()


@pytest.mark.parametrize("waiting", [1, 7, 5000])
@pytest.mark.parametrize("workers", [1, 3, 64])
@pytest.mark.parametrize("seconds", [None, 0.0, 1e-6, 1e-3, 0.1, 1e4])
def test_a_batch_is_never_empty_and_leaves_work_for_all(waiting: int, workers: int, seconds: float | None) -> None:
    size = batch_size(waiting, workers, seconds)
    assert 1 <= size <= max(1, waiting // workers)
    assert seconds is None or size == 1 or size * seconds <= 0.021


def test_a_map_with_retries_tries_again_there(pool: InterpretersExecutor, tmp_path: Path) -> None:
    def second_time(name: str) -> str:
        try:
            os.mkdir(name)
        except FileExistsError:
            return "again"
        raise OSError(name)

    names = [str(tmp_path / name) for name in "abc"]
    assert list(fanmap.map(second_time, names, executor=pool, retries=1)) == ["again"] * 3
    names = [str(tmp_path / name) for name in "def"]
    assert list(pool.map(second_time, names, retries=1)) == ["again"] * 3
