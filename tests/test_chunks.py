"""Items travel in chunks, and nobody can tell but by the speed: errors, order, cancel and crashes are per item."""

from __future__ import annotations

import itertools
import operator
import os
import signal
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fanmap
import pytest
from _scripts import Gate
from conftest import children
from hypothesis import given, settings
from hypothesis import strategies as st

ATOMS = st.one_of(st.integers(), st.floats(allow_nan=False), st.text(max_size=8), st.binary(max_size=8), st.none())
ITEMS = st.one_of(ATOMS, st.lists(ATOMS, max_size=3), st.tuples(ATOMS, ATOMS), st.text(min_size=5000, max_size=5001))


def same(x: Any) -> Any:
    return x


def tiny(x: int) -> int:
    return x + 1


@pytest.fixture
def pool() -> Iterator[fanmap.ProcessPoolExecutor]:
    with fanmap.ProcessPoolExecutor(2) as executor:
        yield executor


def learn(pool: fanmap.ProcessPoolExecutor, work: Callable[[int], Any]) -> None:
    """Let the pool find that the tasks of `work` are tiny, so that it sends them in long chunks."""
    for _ in pool.map(work, range(1_000_000, 1_005_000)):
        pass


@settings(max_examples=30, deadline=None)
@given(items=st.lists(ITEMS, max_size=300), live=st.booleans())
def test_whatever_the_items_are_they_come_back_in_order(items: list[Any], live: bool) -> None:
    source: Any = iter(items) if live else items
    assert list(fanmap.map(same, source, executor="processes")) == items


@settings(deadline=None, max_examples=30)
@given(
    numbers=st.one_of(
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=300),
        st.lists(st.floats(), min_size=2, max_size=300),
        st.lists(st.one_of(st.integers(-(2**70), 2**70), st.booleans(), st.floats()), min_size=2, max_size=300),
    )
)
def test_runs_of_numbers_come_back_bit_for_bit_and_of_their_own_types(numbers: list[Any]) -> None:
    def bits(number: Any) -> Any:
        return struct.pack("d", number) if type(number) is float else (type(number), number)

    results = list(fanmap.map(same, numbers, executor="processes"))
    assert list(map(bits, results)) == list(map(bits, numbers))


def test_objects_are_equal_and_identities_do_not_show_chunk_borders(pool: fanmap.ProcessPoolExecutor) -> None:
    shared: list[int] = []
    # Each item is pickled alone, so that two of them never become one object, wherever the borders are.
    results = list(pool.map(same, [shared] * 500))
    assert len({id(result) for result in results}) == 500


def odd_ones_fail(x: int) -> int:
    if x % 7 == 3:
        raise ValueError(x)
    return x


def test_an_error_in_a_chunk_is_its_items_alone(pool: fanmap.ProcessPoolExecutor) -> None:
    learn(pool, odd_or_not)
    futures = [pool.submit(odd_ones_fail, x) for x in range(300)]
    for x, future in enumerate(futures):
        if x % 7 == 3:
            assert isinstance(future.exception(), ValueError)
        else:
            assert future.result() == x
    results = pool.map(odd_ones_fail, range(4, 1000))
    assert [next(results) for _ in range(6)] == [4, 5, 6, 7, 8, 9]
    with pytest.raises(ValueError, match="10"):
        next(results)


def odd_or_not(x: int) -> int:
    return x % 2


def unlike(x: int) -> Any:
    """Values that may travel together and values that may not, and one that cannot travel."""
    if x == 150:
        return lambda: (yield)
    if x == 151:
        return threading.Lock()
    return [x] if x % 10 == 0 else x


def test_values_of_all_kinds_share_a_chunk(pool: fanmap.ProcessPoolExecutor) -> None:
    learn(pool, unlike)
    results = pool.map(unlike, range(300))
    assert list(itertools.islice(results, 150)) == [[x] if x % 10 == 0 else x for x in range(150)]
    assert callable(next(results))
    with pytest.raises(Exception, match="pickle"):
        next(results)


def dies_at(x: int) -> int:
    if x == 777:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def test_a_crash_in_a_chunk_is_its_items_alone(pool: fanmap.ProcessPoolExecutor) -> None:
    learn(pool, dies_at)
    results = pool.map(dies_at, range(2000))
    assert list(itertools.islice(results, 777)) == list(range(777))
    with pytest.raises(fanmap.WorkerCrashed) as caught:
        next(results)
    assert caught.value.item == 777
    # What came before and after the one that died is done: the tiny ones whose results died with it, again.
    assert list(pool.map(dies_at, range(778, 3000))) == list(range(778, 3000))


def leaves_a_line(job: tuple[str, int]) -> int:
    path, x = job
    with open(path, "ab", buffering=0) as file:
        file.write(b"%d\n" % x)
    end = time.perf_counter() + 0.0005  # long enough not to be tiny
    while time.perf_counter() < end:
        pass
    if x == 20:
        os._exit(1)
    return x


def test_what_is_not_tiny_is_never_done_twice(pool: fanmap.ProcessPoolExecutor, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    jobs = [(str(path), x) for x in range(200)]
    results = pool.map(leaves_a_line, jobs)
    assert list(itertools.islice(results, 20)) == list(range(20))
    with pytest.raises(fanmap.WorkerCrashed):
        next(results)
    pool.shutdown()
    times = Counter(path.read_text().split())
    assert set(times.values()) == {1}
    assert times.keys() >= {str(x) for x in range(21)}


def waits_for_the_last(job: tuple[str, int]) -> int:
    """Item 0 waits until the last one is worked on, by way of a FIFO."""
    path, x = job
    if x == 0:
        with open(path) as gate:
            gate.read()
    if x == 499:
        open(path, "w").close()
    return x


def test_nothing_waits_behind_a_slow_item_of_its_chunk(pool: fanmap.ProcessPoolExecutor, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    os.mkfifo(gate)
    # Every item looks tiny, so item 0 is sent with many behind it. They are taken back from its worker, or this hangs.
    assert len(list(pool.map(waits_for_the_last, [(gate, x) for x in range(1000, 6000)]))) == 5000
    assert list(pool.map(waits_for_the_last, [(gate, x) for x in range(500)])) == list(range(500))


def test_closing_a_map_ends_its_chunks(pool: fanmap.ProcessPoolExecutor) -> None:
    learn(pool, tiny)
    with fanmap.map(tiny, itertools.count(), executor=pool) as results:
        assert next(results) == 1
    assert next(results, None) is None
    assert operator.length_hint(results) == 0
    assert pool.submit(tiny, 1).result() == 2


def test_shutdown_with_cancel_cuts_chunks_where_they_are(pool: fanmap.ProcessPoolExecutor) -> None:
    learn(pool, tiny)
    results = pool.map(tiny, range(200_000))
    pool.shutdown(cancel_futures=True)
    came = 0
    with pytest.raises(fanmap.CancelledError):
        for result in results:
            came += 1
            assert result == came


def test_the_length_hint_counts_what_is_kept() -> None:
    results = fanmap.map(tiny, range(5000), executor="processes")
    for taken in range(1, 5001):
        next(results)
        assert operator.length_hint(results) == 5000 - taken


def test_a_worker_is_replaced_after_its_tasks_whatever_the_chunks() -> None:
    with fanmap.ProcessPoolExecutor(2, max_tasks_per_child=100) as pool:
        pids = Counter(pool.map(pid_of, range(1000)))
    assert max(pids.values()) <= 100


def test_a_task_that_was_cancelled_is_none_of_its_workers_tasks(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with fanmap.ProcessPoolExecutor(1, max_tasks_per_child=2) as pool:
        first = pool.submit(held_pid, gate.name)
        gate.wait()
        # The worker has it already.
        assert pool.submit(pid_of, 1).cancel()
        last = pool.submit(pid_of, 2)
        gate.open()
        assert first.result() == last.result()
    gate.close()


def held_pid(name: str) -> int:
    with open(name, "wb", 0) as started:
        started.write(b"x")
    with open(name + ".gate", "rb") as gate:
        gate.read()
    return os.getpid()


def pid_of(_: int) -> int:
    return os.getpid()


def joined(a: Any, b: Any, c: Any = None) -> tuple[Any, Any, Any]:
    return a, b, c


@pytest.mark.parametrize(
    "inputs",
    [
        lambda: (range(5), itertools.repeat("x")),
        lambda: (itertools.repeat("x"), range(5)),
        lambda: (itertools.repeat("x"), range(5), itertools.repeat("y", 3)),
        lambda: (range(5), itertools.repeat("x", 0)),
        lambda: (itertools.repeat("x", 2), itertools.repeat("y")),
        lambda: (iter("abc"), itertools.repeat("x", 9), range(9)),
    ],
)
def test_an_argument_that_repeats_is_the_same_as_one_for_each_item(inputs: Any) -> None:
    expected = list(map(joined, *inputs()))
    assert list(fanmap.map(joined, *inputs(), executor="processes")) == expected
    assert list(fanmap.map(joined, *inputs(), executor="threads")) == expected
    with fanmap.ProcessPoolExecutor(1) as pool:
        assert list(pool.map(joined, *inputs())) == expected


def test_an_argument_that_repeats_travels_once() -> None:
    class Counted:
        def __reduce__(self) -> Any:
            pickled.append(1)
            return int, ()

    pickled: list[int] = []
    assert sum(fanmap.map(operator.add, range(100), itertools.repeat(Counted()), executor="processes")) == 4950
    assert len(pickled) <= 2


def reuses(x: int) -> list[int]:
    SCRATCH[:] = [x]
    return SCRATCH


SCRATCH: list[int] = []


def test_a_value_that_the_next_task_changes_is_sent_as_it_was(pool: fanmap.ProcessPoolExecutor) -> None:
    learn(pool, reuses)
    assert list(pool.map(reuses, range(2000))) == [[x] for x in range(2000)]


def test_a_thread_map_is_not_put_behind_a_call_that_waits_for_it() -> None:
    def slow(x: int) -> int:
        end = time.perf_counter() + 0.002
        while time.perf_counter() < end:
            pass
        return x

    with fanmap.ThreadPoolExecutor(1) as pool:
        results = pool.map(slow, range(10))
        assert pool.submit(lambda: list(results)).result(60) == list(range(10))


def workers_alive(_: int) -> int:
    time.sleep(0.03)  # long enough for more workers to start, if more than may be were wanted
    return len(children(os.getppid()))


def test_workers_that_retire_are_never_more_than_may_be() -> None:
    with fanmap.ProcessPoolExecutor(2, max_tasks_per_child=1) as pool:
        # One more may be on its way out, and one more has been forked for it.
        assert max(pool.map(workers_alive, range(20))) <= 4
