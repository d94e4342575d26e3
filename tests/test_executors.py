"""One suite for every executor: threads, and processes by each start method."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import gc
import multiprocessing
import operator
import os
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures.process import _RemoteTraceback as RemoteTraceback
from typing import Any

import fanmap
import pytest

LIMIT = 60
WAYS = ["threads", "processes", "fork", "forkserver", "spawn"]
PROCESSES = WAYS[1:]


def make(way: str, workers: int = 2, **options: Any) -> Any:
    if way == "threads":
        return fanmap.ThreadPoolExecutor(workers, **options)
    if way == "processes":
        return fanmap.ProcessPoolExecutor(workers, **options)
    return fanmap.ProcessPoolExecutor(workers, multiprocessing.get_context(way), **options)


every = pytest.mark.parametrize("way", WAYS)
each_process = pytest.mark.parametrize("way", PROCESSES)


def square(x: int) -> int:
    return x * x


def fail(x: int) -> int:
    raise ValueError(x, "no") if x == 3 else KeyError(x)


def fail_with_cause() -> None:
    try:
        raise LookupError("first")
    except LookupError as cause:
        error = ValueError("second", 2)
        error.add_note("a note")
        raise error from cause


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("cannot travel")
        self.lock = threading.Lock()


class NeedsTwo(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)
        self.two = two


def raise_(kind: type[BaseException], *args: Any) -> None:
    raise kind(*args)


def hold(gate: str) -> int:
    """Runs until the test opens the gate (a FIFO)."""
    with open(gate, "rb"):
        return os.getpid()


class Gate:
    """A FIFO that tasks wait at."""

    def __init__(self, path: Any) -> None:
        self.path = str(path)
        os.mkfifo(self.path)

    def open(self) -> None:
        """Waits until somebody waits here, and lets them through."""
        with open(self.path, "wb"):
            pass


@pytest.fixture
def gate(tmp_path: Any) -> Gate:
    return Gate(tmp_path / "gate")


@every
def test_submit_and_map_give_what_the_calls_give(way: str) -> None:
    with make(way) as pool:
        assert pool.submit(pow, 2, exp=5).result(LIMIT) == 32
        assert list(pool.map(square, range(20))) == [x * x for x in range(20)]
        assert list(pool.map(pow, [2, 3], [3, 2])) == [8, 9]
        assert list(pool.map(square, [])) == list(pool.map(square)) == []


@every
def test_an_exception_keeps_type_arguments_notes_and_cause(way: str) -> None:
    with make(way) as pool:
        error = pool.submit(fail_with_cause).exception(LIMIT)
    assert type(error) is ValueError and error.args == ("second", 2) and error.__notes__ == ["a note"]
    cause = error.__cause__
    if way != "threads":
        assert type(cause) is RemoteTraceback and "fail_with_cause" in str(cause)
        cause = cause.__cause__
    assert type(cause) is LookupError and cause.args == ("first",)


@each_process
def test_an_exception_that_cannot_travel_arrives_as_a_substitute(way: str) -> None:
    with make(way) as pool:
        unpicklable = pool.submit(raise_, Unpicklable).exception(LIMIT)
        needs_two = pool.submit(raise_, NeedsTwo, 1, 2).exception(LIMIT)
        assert pool.submit(square, 3).result(LIMIT) == 9
    assert isinstance(unpicklable, fanmap.RemoteError) and "cannot travel" in str(unpicklable)
    assert isinstance(needs_two, fanmap.RemoteError) and "NeedsTwo" in needs_two.type_name


@each_process
def test_what_cannot_be_pickled_raises_for_that_item_alone(way: str) -> None:
    with make(way) as pool:
        argument = pool.submit(square, threading.Lock())
        function = pool.submit(functools.partial(square, threading.Lock()))
        result = pool.submit(threading.Lock)
        assert pool.submit(square, 4).result(LIMIT) == 16
        for future, what in ((argument, "argument"), (function, "function"), (result, "result")):
            error = future.exception(LIMIT)
            assert isinstance(error, pickle.PicklingError) and what in str(error) and "lock" in str(error), error
        taken = []
        with pytest.raises(pickle.PicklingError, match="item 2"):
            for value in fanmap.map(square, [1, 2, threading.Lock(), 3], executor=pool):
                taken.append(value)
        assert taken == [1, 4]


@every
def test_base_exceptions_of_a_task_are_its_own(way: str) -> None:
    with make(way) as pool:
        assert type(pool.submit(raise_, SystemExit, 3).exception(LIMIT)) is SystemExit
        assert type(pool.submit(raise_, KeyboardInterrupt).exception(LIMIT)) is KeyboardInterrupt
        assert pool.submit(square, 2).result(LIMIT) == 4


@every
def test_a_waiting_task_can_be_cancelled_and_a_running_one_not(way: str, gate: Gate) -> None:
    with make(way, 1) as pool:
        running = pool.submit(hold, gate.path)
        waiting = [pool.submit(square, x) for x in range(3)]
        assert waiting[1].cancel() and waiting[1].cancelled() and waiting[1].cancel()
        gate.open()  # returns once the task waits there, so it runs
        assert isinstance(running.result(LIMIT), int)
        assert not running.cancel()
        assert [waiting[0].result(LIMIT), waiting[2].result(LIMIT)] == [0, 4]
        with pytest.raises(fanmap.CancelledError):
            waiting[1].result(LIMIT)
        done, pending = fanmap.wait(waiting, LIMIT)
        assert len(done) == 3 and not pending


@every
def test_wait_and_as_completed_mix_with_the_standard_library(way: str, gate: Gate) -> None:
    with make(way) as pool, concurrent.futures.ThreadPoolExecutor(1) as theirs:
        slow = pool.submit(hold, gate.path)
        quick = [pool.submit(square, 2), theirs.submit(square, 3)]
        done, pending = concurrent.futures.wait([slow, *quick], LIMIT, fanmap.FIRST_COMPLETED)
        assert done and slow in pending
        assert sorted(f.result(LIMIT) for f in fanmap.as_completed(quick, LIMIT)) == [4, 9]
        done, _ = fanmap.wait([slow, pool.submit(fail, 3)], LIMIT, fanmap.FIRST_EXCEPTION)
        assert slow not in done
        with pytest.raises(fanmap.TimeoutError):
            slow.result(0)
        gate.open()
        assert not fanmap.wait([slow], LIMIT).not_done


@every
def test_callbacks_run_in_order_and_one_that_raises_stops_none(way: str) -> None:
    heard: list[int] = []
    done = threading.Event()
    with make(way) as pool:
        future = pool.submit(square, 3)
        future.add_done_callback(lambda f: heard.append(1))
        future.add_done_callback(lambda f: 1 // 0)
        future.add_done_callback(lambda f: heard.append(f.result()))
        future.add_done_callback(lambda f: done.set())
        assert done.wait(LIMIT)
    assert heard == [1, 9]


def hold_twice(first: str, second: str) -> int:
    hold(first)
    return hold(second)


@every
def test_shutdown_finishes_what_runs_and_cancels_what_waits(way: str, tmp_path: Any) -> None:
    first, second = Gate(tmp_path / "first"), Gate(tmp_path / "second")
    pool = make(way, 1)
    running = pool.submit(hold_twice, first.path, second.path)
    waiting = [pool.submit(square, x) for x in range(5)]
    first.open()  # returns once the task waits there, so it runs
    pool.shutdown(wait=False, cancel_futures=True)
    second.open()
    pool.shutdown()
    assert isinstance(running.result(0), int) and all(f.cancelled() for f in waiting)
    for call in (lambda: pool.submit(square, 1), lambda: pool.map(square, [1])):
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            call()


@every
def test_shutdown_finishes_what_was_submitted(way: str) -> None:
    pool = make(way, 1)
    futures = [pool.submit(square, x) for x in range(50)]
    pool.shutdown(wait=False)
    pool.shutdown()
    assert [f.result(0) for f in futures] == [x * x for x in range(50)]


@each_process
def test_functions_that_are_called_once_hold_up_nothing(way: str) -> None:
    with make(way, 1) as pool:
        for k in range(60):  # more than are kept: the workers are told to forget the first
            assert pool.submit(functools.partial(operator.add, k), 1).result(LIMIT) == k + 1


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self, n: int) -> int:
        self.count += n
        return self.count


@each_process
def test_what_a_submitted_method_does_to_its_object_the_next_call_does_not_see(way: str) -> None:
    counter = Counter()
    with make(way, 1) as pool:
        assert [pool.submit(counter.add, n).result(LIMIT) for n in (1, 2, 3)] == [1, 2, 3]
        counter.add(10)
        assert pool.submit(counter.add, 1).result(LIMIT) == 11


_state = 0


def set_state(value: int) -> None:
    global _state
    _state = value


def get_state(_: int = 0) -> int:
    return _state


def broken_init() -> None:
    raise ZeroDivisionError("the initializer's own error")


@every
def test_the_initializer_runs_in_each_worker(way: str) -> None:
    with make(way, initializer=set_state, initargs=(7,)) as pool:
        assert set(pool.map(get_state, range(10))) == {7}
    set_state(0)


@every
def test_a_failing_initializer_breaks_the_pool_with_its_error(way: str) -> None:
    broken = fanmap.BrokenThreadPool if way == "threads" else fanmap.BrokenProcessPool
    with make(way, initializer=broken_init) as pool:
        try:
            error = pool.submit(square, 1).exception(LIMIT)
        except broken as raised:
            error = raised
        assert isinstance(error, broken)
        assert isinstance(error.__cause__, ZeroDivisionError) and "own error" in str(error.__cause__)
        assert way == "threads" or "own error" in str(error)
        for call in (pool.submit, pool.map):
            with pytest.raises(broken) as caught:
                call(square, [1])
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
        del caught, error


@every
def test_a_map_that_meets_a_broken_pool_while_it_reads_says_so_as_a_submit_does(way: str) -> None:
    broken = fanmap.BrokenThreadPool if way == "threads" else fanmap.BrokenProcessPool

    def numbers() -> Iterator[int]:
        yield 1
        concurrent.futures.wait([pool.submit(abs, -1)], LIMIT)
        yield 2

    with make(way, 1, initializer=broken_init) as pool, pytest.raises(broken) as caught:
        list(pool.map(square, numbers()))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


class Argument:
    def __reduce__(self) -> Any:
        raise RuntimeError("it stays here")


@each_process
def test_what_could_not_be_sent_is_gone_with_its_future_or_map_and_needs_no_collector(way: str) -> None:
    with make(way, 1) as pool:
        gc.collect()
        gc.disable()
        try:
            for fail_to_send in (pool.submit, lambda fn, arg: pool.map(fn, [arg])):
                argument = Argument()
                gone = weakref.ref(argument)
                kept = fail_to_send(square, argument)
                del argument
                if isinstance(kept, concurrent.futures.Future):
                    error = kept.exception(LIMIT)
                    assert "it stays here" in str(error.__cause__) and "__reduce__" in str(error.__cause__)
                    del error
                del kept
                assert gone() is None
        finally:
            gc.enable()


@every
def test_the_first_submit_gives_a_future_although_the_initializer_fails_at_once(way: str) -> None:
    for _ in range(20 if way == "threads" else 1):
        with make(way, 2, initializer=broken_init) as pool:
            assert isinstance(pool.submit(abs, -1).exception(LIMIT), concurrent.futures.BrokenExecutor)


def test_a_thread_that_cannot_be_started_is_a_runtime_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with fanmap.ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="can't start new thread"):
        pool.submit(abs, -1)


def note(path: str) -> None:
    with open(path, "a") as file:
        file.write("x")


@every
def test_what_was_submitted_before_the_input_failed_is_run(way: str, tmp_path: Any) -> None:
    path = tmp_path / "notes"

    def names() -> Iterator[str]:
        yield from [str(path)] * 3
        raise LookupError

    with make(way, 1) as pool, pytest.raises(LookupError):
        pool.map(note, names())
    assert path.read_text() == "xxx"


def stop_at_two(x: int) -> int:
    if x == 2:
        raise StopIteration
    return x


@every
def test_a_function_that_raises_stop_iteration_ends_no_map_in_silence(way: str) -> None:
    with make(way, 1) as pool, pytest.raises(RuntimeError, match="StopIteration"):
        list(pool.map(stop_at_two, range(5)))


@every
def test_a_map_goes_through_a_submit_of_the_programs_own(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = fanmap.ThreadPoolExecutor if way == "threads" else fanmap.ProcessPoolExecutor
    calls: list[Any] = []
    submit = kind.submit

    def counting(self: Any, fn: Any, /, *args: Any) -> Any:
        calls.append(args)
        return submit(self, fn, *args)

    monkeypatch.setattr(kind, "submit", counting)
    with make(way, 1) as pool:
        assert list(pool.map(square, range(3))) == [0, 1, 4]
        assert list(pool.map(square, range(3), buffersize=1)) == [0, 1, 4]
    assert len(calls) == 6


class Spoilt:
    """Pickles, and fails where it is unpickled."""

    def __reduce__(self) -> Any:
        return int, ("not a number",)


def make_spoilt(_: Any = None) -> Spoilt:
    return Spoilt()


@each_process
def test_what_cannot_be_unpickled_fails_its_own_task_with_the_cause(way: str) -> None:
    with make(way) as pool:
        given, made = pool.submit(type, Spoilt()), pool.submit(make_spoilt)
        for future, what in ((given, "argument"), (made, "result")):
            error = future.exception(LIMIT)
            assert type(error) is fanmap.UndecodableError and isinstance(error, fanmap.BrokenProcessPool)
            assert isinstance(error, pickle.UnpicklingError) and what in str(error) and "not a number" in str(error)
            causes = [error]
            while (cause := causes[-1].__cause__) is not None:
                causes.append(cause)
            assert type(causes[-1]) is ValueError and "not a number" in str(causes[1])
        with pytest.raises(fanmap.UndecodableError, match="item 0") as caught:
            list(pool.map(make_spoilt, [1]))
        assert type(caught.value.__cause__) is ValueError
        assert pool.submit(square, 3).result(LIMIT) == 9


class Unready(Exception):
    pass


def wait_and_break(gate: str) -> None:
    hold(gate)
    raise Unready("the initializer's own error")


@every
def test_a_failing_initializer_fails_what_waits_with_its_error(way: str, gate: Gate) -> None:
    broken = fanmap.BrokenThreadPool if way == "threads" else fanmap.BrokenProcessPool
    with make(way, 1, initializer=wait_and_break, initargs=(gate.path,)) as pool:
        waiting, results = [pool.submit(square, x) for x in range(3)], pool.map(square, range(3))
        gate.open()  # returns once the initializer waits there
        for future in waiting:
            error = future.exception(LIMIT)
            assert isinstance(error, broken) and isinstance(error.__cause__, Unready), error
        with pytest.raises(broken) as caught:
            next(results)
        assert isinstance(caught.value.__cause__, Unready)
        del caught, error, future, waiting


@pytest.mark.parametrize("way", ["processes", "forkserver", "spawn"])
def test_a_worker_is_replaced_after_max_tasks_per_child(way: str) -> None:
    with make(way, 1, max_tasks_per_child=2) as pool:
        pids = [pool.submit(os.getpid).result(LIMIT) for _ in range(6)]
    assert len(set(pids)) == 3 and all(pids[k] == pids[k + 1] for k in (0, 2, 4))


@each_process
def test_workers_start_one_by_one_and_those_of_fork_at_once(way: str) -> None:
    with make(way, 3) as pool:
        assert len(pool._processes) == 0
        pool.submit(abs, -1).result(LIMIT)
        assert len(pool._processes) == (3 if way == "fork" else 1)
        for worker in (processes := pool._processes).values():
            assert worker.is_alive()
        kept = list(processes.values())
    for worker in kept:
        worker.join()
        assert not worker.is_alive()


@each_process
def test_a_call_that_cannot_be_sent_starts_a_worker_as_any_other(way: str) -> None:
    with make(way, 2) as pool:
        for _ in range(3):
            with pytest.raises(pickle.PicklingError):
                pool.submit(abs, threading.Lock()).result(LIMIT)
        assert len(pool._processes) == 2


@every
def test_an_idle_worker_is_used_before_another_is_started(way: str) -> None:
    who: Callable[[], object] = threading.get_ident if way == "threads" else os.getpid
    with make(way, 40) as pool:
        workers = [pool.submit(who).result(LIMIT) for _ in range(40)]
    # As in the standard library, a pool that forks starts all its workers at once.
    assert len(set(workers)) == 1 or way == "fork"


@each_process
def test_a_dead_worker_fails_only_its_own_task(way: str) -> None:
    with make(way) as pool:
        futures = [pool.submit(os._exit, 3) if k == 5 else pool.submit(square, k) for k in range(30)]
        crash = futures.pop(5).exception(LIMIT)
        assert isinstance(crash, fanmap.WorkerCrashed) and crash.exitcode == 3 and "code 3" in str(crash)
        assert [f.result(LIMIT) for f in futures] == [k * k for k in range(30) if k != 5]


@every
def test_asyncio_runs_in_the_executor(way: str) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        with make(way) as pool:
            return await asyncio.gather(*(loop.run_in_executor(pool, square, x) for x in range(5)))

    assert asyncio.run(main()) == [0, 1, 4, 9, 16]


def test_asyncio_takes_the_thread_pool_as_its_default() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(fanmap.ThreadPoolExecutor(2, thread_name_prefix="mine"))
        assert (await asyncio.to_thread(threading.current_thread)).name.startswith("mine_")
        return await loop.run_in_executor(None, square, 4)

    assert asyncio.run(main()) == 16


_context: contextvars.ContextVar[str] = contextvars.ContextVar("context", default="none")


def swap_context(value: str) -> str:
    before = _context.get()
    _context.set(value)
    return before


def test_the_context_travels_to_threads_and_stays_apart() -> None:
    _context.set("submitter")
    with fanmap.ThreadPoolExecutor(1) as pool:
        assert [pool.submit(swap_context, "task").result(LIMIT) for _ in range(3)] == ["submitter"] * 3
        assert list(pool.map(swap_context, ["task"] * 3)) == ["submitter"] * 3
    assert _context.get() == "submitter"


def test_threads_are_named_and_real() -> None:
    with fanmap.ThreadPoolExecutor(2, thread_name_prefix="abc") as pool:
        thread = pool.submit(threading.current_thread).result(LIMIT)
        assert type(thread) is threading.Thread and thread.name.startswith("abc_")
        assert thread in pool._threads


def test_a_local_of_a_worker_thread_lives_as_long_as_the_thread() -> None:
    local = threading.local()

    def count() -> int:
        local.count = getattr(local, "count", 0) + 1
        return int(local.count)

    with fanmap.ThreadPoolExecutor(1) as pool:
        assert [pool.submit(count).result(LIMIT) for _ in range(3)] == [1, 2, 3]


def queue_of(queue: Any, lock: Any) -> None:
    global _shared
    _shared = queue, lock


def put_shared(x: int) -> tuple[str, int]:
    queue, lock = _shared
    with lock:
        queue.put(x)
    parent = multiprocessing.parent_process()
    assert parent is not None
    return multiprocessing.current_process().name, parent.pid or 0


@each_process
def test_primitives_of_multiprocessing_work_in_initargs(way: str) -> None:
    context = multiprocessing.get_context("fork" if way == "fork" else "spawn")
    queue, lock = context.SimpleQueue(), context.Lock()
    with make(way, initializer=queue_of, initargs=(queue, lock)) as pool:
        told = list(pool.map(put_shared, range(3)))
        assert sorted(queue.get() for _ in range(3)) == [0, 1, 2]
    assert {parent for _, parent in told} == {os.getpid()} and all(name != "MainProcess" for name, _ in told)
    queue.close()


def test_a_lock_of_a_fork_context_says_which_pool_it_needs() -> None:
    lock = multiprocessing.get_context("fork").Lock()
    with (
        fanmap.ProcessPoolExecutor(1, initializer=print, initargs=(lock,)) as pool,
        pytest.raises(TypeError, match=r'get_context\("fork"\)'),
    ):
        pool.submit(square, 1)


def nested(n: int) -> list[int]:
    with fanmap.ProcessPoolExecutor(1) as pool:
        return list(pool.map(square, range(n)))


def test_pools_can_be_nested() -> None:
    with fanmap.ProcessPoolExecutor(1) as pool:
        assert pool.submit(nested, 4).result(LIMIT) == [0, 1, 4, 9]


def deeper() -> int:
    with fanmap.ProcessPoolExecutor(1) as pool:
        return 1 + pool.submit(deeper).result(LIMIT)


def test_a_pool_that_makes_itself_again_in_its_workers_is_stopped() -> None:
    with pytest.raises(RuntimeError, match="when it is imported"):
        deeper()
