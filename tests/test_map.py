"""`fanmap.map` is the built-in `map`: same results, same order, bounded, lazy."""

from __future__ import annotations

import concurrent.futures
import gc
import itertools
import multiprocessing
import operator
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import fanmap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = ["threads", "processes"]
MAKES: dict[str, Any] = {"threads": fanmap.ThreadPoolExecutor, "processes": fanmap.ProcessPoolExecutor}
both = pytest.mark.parametrize("name", NAMES)
every = pytest.mark.parametrize("name", ["auto", "serial", *NAMES])


def inverse(x: int) -> float:
    return 1 / x


def outcome(results: Iterator[Any]) -> tuple[list[Any], Any]:
    """What came, and what ended it."""
    came = []
    try:
        for result in results:
            came.append(result)
    except Exception as error:
        return came, (type(error), error.args)
    return came, None


@every
@settings(max_examples=40, deadline=None)
@given(
    items=st.lists(st.integers(-5, 50), max_size=60),
    buffersize=st.one_of(st.none(), st.integers(1, 20)),
    live=st.booleans(),
)
def test_a_parallel_map_is_the_map(name: str, items: list[int], buffersize: int | None, live: bool) -> None:
    source: Any = iter(items) if live else items
    parallel = fanmap.map(inverse, source, executor=name, buffersize=buffersize)
    assert outcome(parallel) == outcome(map(inverse, items))


# Few examples: each starts a pool.
@both
@settings(max_examples=4, deadline=None)
@given(
    items=st.lists(st.integers(-5, 50), max_size=60),
    workers=st.integers(1, 4),
    buffersize=st.one_of(st.none(), st.integers(1, 20)),
)
def test_it_is_so_with_any_number_of_workers(name: str, items: list[int], workers: int, buffersize: int | None) -> None:
    parallel = fanmap.map(inverse, items, executor=name, workers=workers, buffersize=buffersize)
    assert outcome(parallel) == outcome(map(inverse, items))


@every
@given(
    ones=st.lists(st.text(max_size=3), max_size=20),
    twos=st.lists(st.one_of(st.integers(0, 3), st.none()), max_size=20),
)
@settings(max_examples=20, deadline=None)
def test_several_inputs_are_the_maps_too(name: str, ones: list[str], twos: list[int | None]) -> None:
    parallel = fanmap.map(operator.mul, ones, twos, executor=name)
    assert outcome(parallel) == outcome(map(operator.mul, ones, twos))


@both
@settings(max_examples=15, deadline=None)
@given(
    items=st.lists(st.one_of(st.integers(), st.text(), st.lists(st.floats(allow_nan=False)), st.binary()), max_size=30)
)
def test_an_executors_map_is_the_map(name: str, items: list[Any]) -> None:
    make = fanmap.ThreadPoolExecutor if name == "threads" else fanmap.ProcessPoolExecutor
    with make(2) as pool:
        assert list(pool.map(repr, items, chunksize=3)) == list(map(repr, items))


@every
def test_an_error_of_the_input_comes_after_the_results_before_it(name: str) -> None:
    def source() -> Iterator[int]:
        yield from (1, 2)
        raise LookupError("the input's own")

    assert outcome(fanmap.map(abs, source(), executor=name)) == ([1, 2], (LookupError, ("the input's own",)))


@both
@pytest.mark.parametrize("kind", [dict.fromkeys, set])
@pytest.mark.parametrize("inputs", [1, 2])
def test_an_input_that_is_changed_while_it_is_mapped_is_an_error_in_its_place(
    name: str, kind: Any, inputs: int
) -> None:
    items = kind(range(20))
    results = fanmap.map(repr if inputs == 1 else operator.add, *[items] * inputs, executor=name, buffersize=5)
    came = [next(results)]
    items.update({20: None})
    with pytest.raises(RuntimeError, match="changed size during iteration"):
        came.extend(results)
    # Five were read with the first.
    assert came == [repr(x) if inputs == 1 else 2 * x for x in range(5)]


@every
def test_an_endless_input_is_read_only_so_far_ahead(name: str) -> None:
    read = itertools.count()
    source = (next(read) for _ in itertools.count())
    results = fanmap.map(abs, source, executor=name, buffersize=10)
    assert next(read) == 0  # lazy: nothing was read for it
    assert list(itertools.islice(results, 10_000)) == list(range(1, 10_001))
    assert next(read) <= 10_000 + 10 + 1
    results.close()
    assert list(results) == []
    assert list(fanmap.map(abs, [-1], executor=name)) == [1]


@every
def test_a_live_source_is_never_withheld(name: str) -> None:
    taken = threading.Event()

    def source() -> Iterator[int]:
        for k in range(20):
            if k:
                # Another thread than the consumer's could set it; this one only gets here once the result was taken.
                assert taken.is_set()
            taken.clear()
            yield k

    results = fanmap.map(abs, source(), executor=name, buffersize=1)
    for k in range(20):
        assert next(results) == k
        taken.set()
    results.close()


@every
def test_a_result_that_was_taken_is_not_kept(name: str) -> None:
    results = fanmap.map(set, [[1], [2], [3]], executor=name)
    reference = weakref.ref(next(results))
    gc.collect()
    assert reference() is None
    assert list(results) == [{2}, {3}]


@every
def test_it_is_a_context_manager_with_a_length_hint(name: str) -> None:
    with fanmap.map(abs, range(5), executor=name) as results:
        assert operator.length_hint(results) == 5
        assert next(results) == 0
        assert operator.length_hint(results) == 4
    assert operator.length_hint(results) == 0 and list(results) == []
    results = fanmap.map(pow, [1, 2, 3], itertools.repeat(2), executor=name)
    assert operator.length_hint(results) == 3, "what is repeated for ever has no length, and ends nothing"
    results.close()


@every
def test_the_first_error_ends_it(name: str) -> None:
    results = fanmap.map(inverse, [1, 0, 2], executor=name)
    assert next(results) == 1.0
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


def test_a_lost_worker_is_named_with_its_item() -> None:
    results = fanmap.map(_exit_on_three, range(6), executor="processes", workers=2)
    assert list(itertools.islice(results, 3)) == [0, 1, 2]
    with pytest.raises(fanmap.WorkerCrashed, match="item 3") as caught:
        next(results)
    assert (caught.value.item, caught.value.exitcode) == (3, 9)
    del caught


def _exit_on_three(x: int) -> int:
    import os

    if x == 3:
        os._exit(9)
    return x


def _inner(n: int) -> list[int]:
    return list(fanmap.map(abs, range(-n, 0), executor="processes"))


@every
def test_a_map_inside_a_map_runs_in_place(name: str) -> None:
    expected = [list(range(n, 0, -1)) for n in range(5)]
    assert list(fanmap.map(_inner, range(5), executor=name)) == expected


def test_any_executor_will_do() -> None:
    for make in (concurrent.futures.ThreadPoolExecutor, fanmap.ThreadPoolExecutor, fanmap.ProcessPoolExecutor):
        with make(2) as pool:
            assert outcome(fanmap.map(inverse, [1, 2, 0, 4], executor=pool)) == outcome(map(inverse, [1, 2, 0, 4]))
            assert list(itertools.islice(fanmap.map(abs, itertools.count(), executor=pool, buffersize=3), 9)) == [
                *range(9)
            ]


@every
def test_a_dropped_executor_map_that_nobody_asked_still_runs(name: str) -> None:
    make = fanmap.ThreadPoolExecutor if name == "threads" else fanmap.ProcessPoolExecutor
    with make(1) as pool:
        pool.map(abs, range(3))
        assert pool.submit(abs, -3).result(60) == 3


def test_a_map_that_runs_out_of_time_says_so() -> None:
    gate = threading.Event()
    with fanmap.ThreadPoolExecutor(2) as pool:
        results = pool.map(lambda wait: gate.wait(60) if wait else 7, [False, True], timeout=0.05)
        assert next(results) == 7
        with pytest.raises(fanmap.TimeoutError):
            next(results)
        gate.set()


def test_results_that_are_there_are_given_after_the_time_has_run_out() -> None:
    with fanmap.ThreadPoolExecutor(1) as pool:
        results = pool.map(abs, [-1, -2], timeout=0)
        assert pool.submit(abs, 0).result(60) == 0  # the only worker came here last
        assert list(results) == [1, 2]


@every
@pytest.mark.parametrize("buffersize", [1, 2, 7])
def test_no_more_items_are_read_than_the_buffer_holds(name: str, buffersize: int) -> None:
    read: list[int] = []

    def source() -> Iterator[int]:
        for k in range(30):
            read.append(k)
            yield k

    with fanmap.map(abs, source(), executor=name, buffersize=buffersize) as results:
        assert not read
        for taken in range(30):
            assert next(results) == taken
            assert taken + 1 <= len(read) <= taken + buffersize


@both
@pytest.mark.parametrize("buffersize", [1, 2, 7])
def test_an_executors_map_reads_what_its_buffer_holds_at_the_call(name: str, buffersize: int) -> None:
    read: list[int] = []

    def source() -> Iterator[int]:
        for k in range(30):
            read.append(k)
            yield k

    with MAKES[name](2) as pool:
        results = pool.map(abs, source(), buffersize=buffersize)
        assert len(read) == buffersize
        for taken in range(30):
            assert next(results) == taken
            assert len(read) <= taken + 1 + buffersize
        assert list(results) == []


@both
def test_an_executors_map_without_a_buffer_reads_all_at_the_call(name: str) -> None:
    source = iter(range(100))
    with MAKES[name](2) as pool:
        results = pool.map(abs, source)
        assert next(source, None) is None
        assert list(results) == list(range(100))


@pytest.mark.parametrize("how", ["close", "drop", "exit", "error"])
def test_a_map_that_ends_early_cancels_what_has_not_started(how: str) -> None:
    ran: list[int] = []
    gate, started = threading.Event(), threading.Event()

    def work(x: int) -> int:
        ran.append(x)
        if x == 1:
            started.set()
            gate.wait(60)
        return 1 // (x - 3) if how == "error" and x == 3 else x

    with fanmap.ThreadPoolExecutor(1) as pool:
        results = fanmap.map(work, [3, 1, 2] if how == "error" else [0, 1, 2], executor=pool, buffersize=3)
        if how == "error":
            # The window is full before the first is asked for: it is the error that cancels.
            with pytest.raises(ZeroDivisionError):
                next(results)
            gate.set()
        else:
            assert next(results) == 0
            assert started.wait(60)
            if how == "close":
                results.close()
            elif how == "exit":
                with results:
                    pass
            else:
                del results
            gate.set()
        assert pool.submit(abs, -1).result(60) == 1
    assert 2 not in ran or how == "error"


@every
def test_a_map_that_was_dropped_leaves_its_workers_to_the_next(name: str) -> None:
    for _ in range(3):
        assert next(fanmap.map(abs, itertools.count(5), executor=name)) == 5
    assert list(fanmap.map(abs, range(50), executor=name)) == list(range(50))


@every
def test_two_maps_of_one_pool_can_be_taken_in_turn(name: str) -> None:
    ones = fanmap.map(abs, range(50), executor=name, buffersize=3)
    twos = fanmap.map(operator.neg, range(50), executor=name, buffersize=5)
    assert list(zip(ones, twos, strict=True)) == [(k, -k) for k in range(50)]


@every
def test_a_map_may_be_the_input_of_another(name: str) -> None:
    inner = fanmap.map(abs, range(-20, 0), executor=name, buffersize=2)
    assert list(fanmap.map(operator.neg, inner, executor=name, buffersize=2)) == list(range(-20, 0))


def _stop(x: int) -> int:
    if x == 2:
        raise StopIteration("the function's own")
    return x


@every
def test_a_function_that_raises_stop_iteration_ends_it_as_it_does_the_map(name: str) -> None:
    assert list(fanmap.map(_stop, range(5), executor=name)) == list(map(_stop, range(5))) == [0, 1]


@every
def test_one_argument_that_is_a_tuple_stays_one(name: str) -> None:
    pairs = [(1, 2), (3, 4)]
    assert list(fanmap.map(len, pairs, executor=name)) == [2, 2]
    assert list(fanmap.map(max, pairs, pairs, executor=name)) == pairs


@every
def test_identity_within_an_item_is_kept_and_changes_of_it_are_not_shared(name: str) -> None:
    part: list[int] = []
    assert list(fanmap.map(_same, [[part, part], [part, list(part)]], executor=name)) == [True, False]


def _same(pair: list[list[int]]) -> bool:
    return pair[0] is pair[1]


def test_a_foreign_pool_of_processes_will_do() -> None:
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        assert outcome(fanmap.map(inverse, [2, 0, 1], executor=pool)) == outcome(map(inverse, [2, 0, 1]))


@both
def test_a_pool_that_was_shut_down_takes_no_map(name: str) -> None:
    pool = MAKES[name](1)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        fanmap.map(abs, [1], executor=pool)


@both
def test_a_map_that_was_begun_outlives_a_shutdown_of_the_warm_pools(name: str) -> None:
    """It ends with an error or an end, and never hangs."""
    results = fanmap.map(abs, itertools.count(), executor=name, buffersize=4)
    assert next(results) == 0
    fanmap.shutdown()
    with pytest.raises((fanmap.CancelledError, RuntimeError)):
        list(itertools.islice(results, 100))
    assert list(fanmap.map(abs, [-2], executor=name)) == [2]
