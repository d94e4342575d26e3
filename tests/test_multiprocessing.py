"""multiprocessing in workers: its primitives in `initargs`, managers, shared memory, and processes that tasks start."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from multiprocessing import connection, resource_tracker, shared_memory
from pathlib import Path
from typing import Any

import fanmap
import pytest
from _scripts import good

LIMIT = 60
WAYS = ["default", "spawn", "forkserver", "fork"]
each = pytest.mark.parametrize("way", WAYS)


def make(way: str, workers: int = 2, **options: Any) -> fanmap.ProcessPoolExecutor:
    context = None if way == "default" else multiprocessing.get_context(way)
    return fanmap.ProcessPoolExecutor(workers, context, **options)


def primitives(way: str) -> Any:
    """The context whose primitives a pool takes."""
    return multiprocessing.get_context("fork" if way == "fork" else "spawn")


@pytest.fixture(scope="module", autouse=True)
def what_multiprocessing_keeps_is_there() -> None:
    """Its resource tracker and the memory of its values live as long as the program: no test's to leave behind."""
    resource_tracker.ensure_running()
    multiprocessing.get_context("spawn").Value("i")


def keep(*things: Any) -> None:
    global _kept
    _kept = things


# Primitives in initargs


def put_under_lock(x: int) -> None:
    queue, lock = _kept
    with lock:
        queue.put(x)


@each
def test_a_queue_and_a_lock_in_initargs_are_the_parents_own(way: str) -> None:
    context = primitives(way)
    queue, lock = context.Queue(), context.Lock()
    with make(way, initializer=keep, initargs=(queue, lock)) as pool:
        assert list(pool.map(put_under_lock, range(10))) == [None] * 10
        assert sorted(queue.get(timeout=LIMIT) for _ in range(10)) == list(range(10))
        with lock:
            held = pool.submit(put_under_lock, 11)
            with pytest.raises(fanmap.TimeoutError):
                held.result(0.05)
        assert held.result(LIMIT) is None
        assert queue.get(timeout=LIMIT) == 11
    queue.close()
    queue.join_thread()


def answer() -> str:
    asked, answered = _kept
    asked.set()
    return "answered" if answered.wait(LIMIT) else "late"


@each
def test_events_in_initargs_go_both_ways(way: str) -> None:
    asked, answered = primitives(way).Event(), primitives(way).Event()
    with make(way, 1, initializer=keep, initargs=(asked, answered)) as pool:
        future = pool.submit(answer)
        assert asked.wait(LIMIT)
        assert not future.done()
        answered.set()
        assert future.result(LIMIT) == "answered"


def echo() -> str:
    (pipe,) = _kept
    text: str = pipe.recv()
    pipe.send(text.upper())
    return text


@each
def test_a_pipe_in_initargs_goes_both_ways(way: str) -> None:
    ours, theirs = primitives(way).Pipe()
    with ours, theirs, make(way, 1, initializer=keep, initargs=(theirs,)) as pool:
        future = pool.submit(echo)
        ours.send("a word")
        assert ours.poll(LIMIT) and ours.recv() == "A WORD"
        assert future.result(LIMIT) == "a word"


def add(n: int) -> None:
    value, semaphore = _kept
    with semaphore, value.get_lock():
        value.value += n


@each
def test_shared_values_and_semaphores_count_in_all_workers(way: str) -> None:
    value, semaphore = primitives(way).Value("i", 0), primitives(way).BoundedSemaphore(2)
    with make(way, initializer=keep, initargs=(value, semaphore)) as pool:
        list(pool.map(add, range(100)))
    assert value.value == sum(range(100))


def meet(who: int) -> int:
    (barrier,) = _kept
    barrier.wait(LIMIT)
    return who


@each
def test_a_barrier_is_met_by_two_workers_at_once(way: str) -> None:
    barrier = primitives(way).Barrier(2)
    with make(way, 2, initializer=keep, initargs=(barrier,)) as pool:
        futures = [pool.submit(meet, who) for who in range(2)]
        assert [future.result(LIMIT) for future in futures] == [0, 1]


def leave_or_put(x: int) -> int:
    (queue,) = _kept
    if x == 0:
        os._exit(1)
    queue.put(x)
    return x


@each
def test_a_worker_that_replaces_another_gets_the_initargs_too(way: str) -> None:
    queue = primitives(way).SimpleQueue()
    with make(way, 1, initializer=keep, initargs=(queue,)) as pool:
        assert type(pool.submit(leave_or_put, 0).exception(LIMIT)) is fanmap.WorkerCrashed
        assert pool.submit(leave_or_put, 5).result(LIMIT) == 5
        assert queue.get() == 5
    queue.close()


@pytest.mark.parametrize("way", ["default", "spawn", "forkserver"])
@pytest.mark.parametrize("kind", ["Lock", "Event", "Queue"])
def test_a_fork_contexts_primitive_names_the_way_out(way: str, kind: str) -> None:
    thing = getattr(multiprocessing.get_context("fork"), kind)()
    with make(way, initializer=keep, initargs=(thing,)) as pool:
        with pytest.raises(TypeError, match=r'mp_context=.*get_context\("fork"\)'):
            pool.submit(abs, -1)
        with pytest.raises(TypeError, match=r'mp_context=.*get_context\("fork"\)'):
            list(pool.map(abs, [-1]))


@each
def test_a_primitive_as_an_item_fails_that_item_alone(way: str) -> None:
    """As everywhere with multiprocessing: they are inherited, not sent."""
    with make(way) as pool:
        bad, good = pool.submit(repr, primitives(way).Lock()), pool.submit(abs, -3)
        error = bad.exception(LIMIT)
        assert error is not None and "pass it in initargs=" in str(error)
        assert good.result(LIMIT) == 3


# Managers


def record(shared: Any, key: int) -> int:
    shared[key] = os.getpid()
    return key


def swap(shared: Any, lock: Any) -> None:
    with lock:
        shared.value = shared.value + 1


@pytest.fixture(scope="module")
def manager() -> Iterator[Any]:
    with multiprocessing.get_context("spawn").Manager() as manager:
        yield manager


@each
def test_managers_proxies_are_items(way: str, manager: Any) -> None:
    shared, counter, lock, queue = manager.dict(), manager.Value("i", 0), manager.Lock(), manager.Queue()
    with make(way) as pool:
        assert list(pool.map(record, [shared] * 6, range(6))) == list(range(6))
        assert sorted(shared) == list(range(6)) and os.getpid() not in shared.values()
        for future in [pool.submit(swap, counter, lock) for _ in range(20)]:
            future.result(LIMIT)
        assert counter.value == 20
        pool.submit(queue.put, "from a worker").result(LIMIT)
        assert queue.get(timeout=LIMIT) == "from a worker"


# Shared memory


def increment(name: str) -> int:
    segment = shared_memory.SharedMemory(name=name)
    segment.buf[0] += 1
    segment.close()
    return os.getpid()


@each
def test_shared_memory_attached_in_workers_survives_them(way: str) -> None:
    segment = shared_memory.SharedMemory(create=True, size=16)
    try:
        for _ in range(2):
            with make(way, 1) as pool:
                list(pool.map(increment, [segment.name] * 5))
        again = shared_memory.SharedMemory(name=segment.name)
        assert again.buf[0] == segment.buf[0] == 10
        again.close()
    finally:
        segment.close()
        segment.unlink()


def create() -> str:
    segment = shared_memory.SharedMemory(create=True, size=16)
    segment.buf[:5] = b"hello"
    segment.close()
    return segment.name


@each
def test_shared_memory_made_in_a_worker_outlives_it(way: str) -> None:
    with make(way, 1) as pool:
        name = pool.submit(create).result(LIMIT)
    segment = shared_memory.SharedMemory(name=name)
    assert bytes(segment.buf[:5]) == b"hello"
    segment.close()
    segment.unlink()


SHARED = """
    import multiprocessing
    from multiprocessing import shared_memory

    import fanmap


    def attach(name, at):
        segment = shared_memory.SharedMemory(name=name)
        segment.buf[at] += 1
        segment.close()


    if __name__ == "__main__":
        segment = shared_memory.SharedMemory(create=True, size=10)
        context = multiprocessing.get_context({way!r}) if {way!r} != "default" else None
        with fanmap.ProcessPoolExecutor(2, context) as pool:
            list(pool.map(attach, [segment.name] * 5, range(5)))
        again = shared_memory.SharedMemory(name=segment.name)
        print(sum(again.buf[:5]))
        again.close()
        segment.close()
        segment.unlink()
"""


@each
def test_shared_memory_in_workers_makes_no_noise(way: str, tmp_path: Path) -> None:
    """Nobody's resource tracker complains, nor destroys what is the parent's."""
    script = tmp_path / "shared.py"
    script.write_text(textwrap.dedent(SHARED).format(way=way), encoding="utf-8")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=LIMIT)
    assert (done.stdout, done.stderr, done.returncode) == ("5\n", "", 0)


# What a worker is, to multiprocessing


def who() -> tuple[str, bool, int | None, bool, bytes]:
    process, parent = multiprocessing.current_process(), multiprocessing.parent_process()
    assert parent is not None
    return process.name, process.daemon, parent.pid, parent.is_alive(), bytes(process.authkey)


@each
def test_a_worker_knows_its_name_its_parent_and_the_key(way: str) -> None:
    with make(way) as pool:
        name, daemon, parent, alive, key = pool.submit(who).result(LIMIT)
    assert name != "MainProcess" and not daemon
    assert parent == os.getpid() and alive
    assert key == bytes(multiprocessing.current_process().authkey)


def parents_sentinel_is_quiet() -> bool:
    parent = multiprocessing.parent_process()
    assert parent is not None
    return connection.wait([parent.sentinel], timeout=0) == []


@each
def test_the_parents_sentinel_can_be_waited_for(way: str) -> None:
    with make(way) as pool:
        assert pool.submit(parents_sentinel_is_quiet).result(LIMIT)


# Processes that tasks start


def nested(n: int) -> list[int]:
    with fanmap.ProcessPoolExecutor(2) as pool:
        return list(pool.map(abs, range(-n, 0)))


@each
def test_a_task_may_have_a_pool_of_its_own(way: str) -> None:
    with make(way, 1) as pool:
        assert pool.submit(nested, 4).result(LIMIT) == [4, 3, 2, 1]


def multiprocessing_pool(n: int) -> list[int]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.map(abs, range(-n, 0))


def test_a_task_may_use_multiprocessings_pool() -> None:
    with make("default", 1) as pool:
        assert pool.submit(multiprocessing_pool, 3).result(LIMIT) == [3, 2, 1]


def send_double(pipe: Any, x: int) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    pipe.send((2 * x, parent.pid))


def start_process(start: str, x: int) -> tuple[int, bool, int | None]:
    context: Any = multiprocessing.get_context(start)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send_double, args=(sender, x))
    process.start()
    assert receiver.poll(LIMIT)
    double, parent = receiver.recv()
    process.join(LIMIT)
    return double, parent == os.getpid(), process.exitcode


@each
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_task_may_start_a_process(way: str, start: str) -> None:
    with make(way, 1) as pool:
        assert pool.submit(start_process, start, 21).result(LIMIT) == (42, True, 0)


def test_a_closed_pool_keeps_no_copy_of_the_resource_trackers_pipe() -> None:
    """multiprocessing waits at exit, or when its tracker is stopped, until nobody holds the other end."""
    good("""
        import fanmap
        from multiprocessing import get_context, resource_tracker
        lock = get_context("spawn").Lock()
        pools = [fanmap.ProcessPoolExecutor(1) for _ in range(3)]
        for pool in pools:
            assert pool.submit(abs, -1).result(60) == 1
        pools[0].shutdown()
        pools[1].shutdown(wait=False)
        pools[2].terminate_workers()
        for pool in pools[1:]:
            pool._executor_manager_thread.join()
        del lock
        resource_tracker._resource_tracker._stop()
        print("stopped")
    """)


def test_a_forked_worker_winds_up_although_the_parent_has_children_of_its_own() -> None:
    """What a worker put into a queue arrives, also when it could not get ready."""
    good("""
        import fanmap, logging, multiprocessing
        logging.getLogger("concurrent.futures").disabled = True
        def put_and_fail(queue):
            queue.put("it was here")
            raise ValueError
        context = multiprocessing.get_context("fork")
        with context.Manager() as manager:
            queue = context.Queue()
            with fanmap.ProcessPoolExecutor(1, context, put_and_fail, (queue,)) as pool:
                assert isinstance(pool.submit(abs, -1).exception(60), fanmap.BrokenProcessPool)
                assert queue.get(timeout=60) == "it was here"
            assert manager.list([1])[0] == 1
    """)
