"""The options of `fanmap.map` and of the executors' `map`. The oracle is a loop over the items."""

from __future__ import annotations

import concurrent.futures
import itertools
import operator
import os
import pickle
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
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


def plain(result: Any) -> Any:
    """A result as something that can be compared and sorted."""
    if isinstance(result, fanmap.Failure):
        return "failed", result.index, result.item, repr(result.error)
    return "value", result


def expected(items: list[int], on_error: str) -> list[Any]:
    found: list[Any] = []
    for index, item in enumerate(items):
        try:
            found.append(inverse(item))
        except ZeroDivisionError as error:
            if on_error == "return":
                found.append(fanmap.Failure(index, item, error))
    return [plain(result) for result in found]


@every
@settings(max_examples=40, deadline=None)
@given(
    items=st.lists(st.integers(-3, 3), max_size=60),
    on_error=st.sampled_from(["return", "skip"]),
    ordered=st.booleans(),
    buffersize=st.one_of(st.none(), st.integers(8, 20)),
    chunksize=st.integers(1, 8),
    live=st.booleans(),
)
def test_whatever_the_options_each_item_has_its_outcome(
    name: str, items: list[int], on_error: Any, ordered: bool, buffersize: int | None, chunksize: int, live: bool
) -> None:
    source: Any = iter(items) if live else items
    results = fanmap.map(
        inverse,
        source,
        executor=name,
        on_error=on_error,
        ordered=ordered,
        buffersize=buffersize,
        chunksize=chunksize,
    )
    came = [plain(result) for result in results]
    wanted = expected(items, on_error)
    assert came == wanted if ordered else sorted(came) == sorted(wanted)
    assert results.stats[:3] == (len(items), len(items), items.count(0))


@pytest.mark.parametrize("make", [concurrent.futures.ThreadPoolExecutor, *MAKES.values()])
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("on_error", ["return", "skip"])
def test_so_it_is_over_any_executor(make: Any, ordered: bool, on_error: Any) -> None:
    items = [1, 0, 2, 0, 0, 3]
    with make(2) as pool:
        results = fanmap.map(inverse, items, executor=pool, ordered=ordered, on_error=on_error, buffersize=2)
        came = [plain(result) for result in results]
        assert came == expected(items, on_error) if ordered else sorted(came) == sorted(expected(items, on_error))
        if hasattr(pool, "_fanmap_lane"):
            came = [plain(result) for result in pool.map(inverse, items, ordered=ordered, on_error=on_error)]
            assert sorted(came) == sorted(expected(items, on_error))


class Slow:
    """A FIFO that a task waits at until it is let go."""

    def __init__(self, directory: Path) -> None:
        self.name = str(directory / "slow")
        os.mkfifo(self.name)
        # Opened for both, so that no opening blocks.
        self._file = os.open(self.name, os.O_RDWR)

    def __enter__(self) -> Slow:
        return self

    def __exit__(self, *_: object) -> None:
        fanmap.shutdown()
        os.close(self._file)

    def let_go(self) -> None:
        os.write(self._file, b"x")


def through(path: str) -> str:
    """Waits at a FIFO, if it is given one."""
    if path:
        with open(path, "rb", 0) as fifo:
            fifo.read(1)
    return path


def executors() -> Iterator[tuple[str, Any]]:
    yield "threads", dict(executor="threads", workers=2)
    yield "processes", dict(executor="processes", workers=2)
    yield "standard library", dict(executor=concurrent.futures.ThreadPoolExecutor(2))


@pytest.mark.parametrize("options", [pytest.param(options, id=name) for name, options in executors()])
def test_as_they_come_nothing_waits_behind_a_slow_item(options: dict[str, Any], tmp_path: Path) -> None:
    with Slow(tmp_path) as slow:
        results = fanmap.map(through, [slow.name, "", ""], ordered=False, **options)
        assert [next(results), next(results)] == ["", ""]
        slow.let_go()
        assert list(results) == [slow.name]
    if not isinstance(options["executor"], str):
        options["executor"].shutdown()


@every
def test_as_they_come_no_more_is_read_than_the_buffer_holds(name: str) -> None:
    read: list[int] = []

    def source() -> Iterator[int]:
        for k in range(50):
            read.append(k)
            yield k

    results = fanmap.map(abs, source(), executor=name, buffersize=4, ordered=False)
    came = []
    for taken in range(50):
        came.append(next(results))
        assert len(read) <= taken + 4
    assert sorted(came) == read and list(results) == []


@every
def test_as_they_come_a_map_can_be_closed(name: str) -> None:
    results = fanmap.map(abs, itertools.count(), executor=name, ordered=False)
    assert next(results) >= 0
    results.close()
    assert list(results) == []


def exit_on_three(x: int) -> int:
    if x == 3:
        os._exit(9)
    return x


@pytest.mark.parametrize("ordered", [True, False])
def test_a_lost_worker_costs_its_item_and_no_more(ordered: bool) -> None:
    came = list(
        fanmap.map(exit_on_three, range(6), workers=2, on_error="return", ordered=ordered, executor="processes")
    )
    (failure,) = (result for result in came if isinstance(result, fanmap.Failure))
    assert (failure.index, failure.item, type(failure.error)) == (3, 3, fanmap.WorkerCrashed)
    assert isinstance(failure.error, fanmap.WorkerCrashed) and failure.error.item == 3
    assert sorted(set(range(6)) - {3}) == sorted(result for result in came if isinstance(result, int))


class Strange:
    def __reduce__(self) -> Any:
        return int, ("no number",)


def strange_if(x: Any) -> Any:
    return Strange() if x == 1 else 0


def test_what_cannot_travel_fails_as_its_item() -> None:
    lock = threading.Lock()
    came = list(fanmap.map(strange_if, [lock, 1, 2], on_error="return", executor="processes"))
    assert [type(one) for one in came] == [fanmap.Failure, fanmap.Failure, int]
    assert came[0].item is lock and isinstance(came[0].error, (pickle.PicklingError, TypeError))
    assert (came[1].index, came[1].item, type(came[1].error)) == (1, 1, fanmap.UndecodableError)
    assert list(fanmap.map(strange_if, [lock, 1, 2], on_error="skip", executor="processes")) == [0]


def test_a_failure_keeps_no_map_and_a_closed_map_no_item() -> None:
    results = fanmap.map(strange_if, [1], on_error="return", executor="processes")
    (failure,) = results
    reference = weakref.ref(results)
    del results
    assert reference() is None and isinstance(failure.error, fanmap.UndecodableError)
    items = [{1}, {2}, {3}]
    references = [weakref.ref(item) for item in items]
    waiting = fanmap.map(len, iter(items), executor="threads", on_error="return", buffersize=3)
    assert next(waiting) == 1
    waiting.close()
    fanmap.shutdown()
    del items
    assert [reference() for reference in references] == [None] * 3


def stop(x: int) -> int:
    raise StopIteration(x)


@every
def test_a_function_that_raises_stop_iteration_is_a_failure_like_any(name: str) -> None:
    came = list(fanmap.map(stop, [5], executor=name, on_error="return"))
    assert [repr(one) for one in came] == ["Failure(index=0, item=5, error=StopIteration(5))"]


@every
def test_an_error_of_the_input_is_raised_whatever_becomes_of_items(name: str) -> None:
    def source() -> Iterator[int]:
        yield from (1, 0, 2)
        raise LookupError("the input's own")

    for chunksize in (1, 2, 10):
        results = fanmap.map(inverse, source(), executor=name, on_error="skip", chunksize=chunksize)
        assert [next(results), next(results)] == [1.0, 0.5]
        with pytest.raises(LookupError, match="the input's own"):
            next(results)


@every
def test_arguments_of_a_failed_call_are_its_item(name: str) -> None:
    came = list(fanmap.map(operator.truediv, [1, 2], [0, 1], executor=name, on_error="return"))
    assert isinstance(came[0], fanmap.Failure) and (came[0].item, came[1]) == ((1, 0), 2.0)


@pytest.mark.parametrize("executor", ["auto", "serial"])
def test_in_the_calling_thread_an_exit_is_the_programs(executor: str) -> None:
    with pytest.raises(SystemExit):
        list(fanmap.map(sys.exit, [3], executor=executor, on_error="skip"))
    assert list(fanmap.map(sys.exit, [3], executor="threads", on_error="skip")) == []


# ---- timeout


@both
def test_what_is_not_there_in_time_is_an_error(name: str, tmp_path: Path) -> None:
    with Slow(tmp_path) as slow:
        results = fanmap.map(through, [slow.name], executor=name, workers=1, timeout=0.05)
        with pytest.raises(fanmap.TimeoutError, match="the result of item 0 was not there when timeout= had passed"):
            next(results)
        assert list(results) == []
        slow.let_go()  # a thread cannot be ended


@every
def test_after_its_time_a_map_reads_no_more(name: str) -> None:
    source = iter([1])
    with pytest.raises(fanmap.TimeoutError, match="another result was not there"):
        next(fanmap.map(abs, source, executor=name, timeout=0, ordered=False))
    assert next(source) == 1
    assert list(fanmap.map(abs, [-1], executor=name, timeout=60)) == [1]
    assert list(fanmap.map(abs, [], executor=name, timeout=60)) == []


# ---- initializer

told = "nothing"


def tell(word: str) -> None:
    global told
    told = word


def what_was_told(_: int) -> str:
    return told


@both
def test_an_initializer_runs_in_each_worker_of_a_pool_of_its_own(name: str) -> None:
    global told
    told = "nothing"
    results = fanmap.map(what_was_told, range(20), executor=name, initializer=tell, initargs=("something",))
    assert set(results) == {"something"}
    told = "nothing"
    # The warm pool was never told.
    assert set(fanmap.map(what_was_told, range(20), executor=name)) == {"nothing"}


def fail() -> None:
    raise LookupError("no data")


@both
def test_a_pool_whose_initializer_fails_is_an_error_of_the_map_and_not_of_items(name: str) -> None:
    results = fanmap.map(abs, range(5), executor=name, initializer=fail, on_error="skip")
    with pytest.raises(fanmap.BrokenExecutor):
        list(results)


def map_within(_: int) -> list[str]:
    return list(fanmap.map(what_was_told, range(2), initializer=tell, initargs=("within",), executor="processes"))


def test_in_a_worker_the_initializer_runs_in_place() -> None:
    assert list(fanmap.map(map_within, [1], executor="processes")) == [["within", "within"]]


# ---- strict

SHORT_AND_LONG: list[tuple[list[list[int]], str]] = [
    ([[1, 2], [1]], "map() argument 2 is shorter than argument 1"),
    ([[1], [1, 2]], "map() argument 2 is longer than argument 1"),
    ([[1, 2], [1, 2], [1]], "map() argument 3 is shorter than arguments 1-2"),
    ([[1], [1], [1, 2]], "map() argument 3 is longer than arguments 1-2"),
    ([[], [], [1], []], "map() argument 3 is longer than arguments 1-2"),
]


def add(*numbers: int) -> int:
    return sum(numbers)


@both
@pytest.mark.parametrize(("inputs", "message"), SHORT_AND_LONG)
def test_strict_is_the_built_in_maps(name: str, inputs: list[list[int]], message: str) -> None:
    maps: list[Any] = [fanmap.map(add, *inputs, executor=name, strict=True)]
    if sys.version_info >= (3, 14):
        maps.append(map(add, *inputs, strict=True))
    for results in maps:
        came: list[int] = []
        with pytest.raises(ValueError) as caught:
            for result in results:
                came.append(result)
        assert str(caught.value) == message
        assert came == [add(*numbers) for numbers in zip(*inputs, strict=False)]
    # An executor's map reads its input at the call.
    with MAKES[name](1) as pool, pytest.raises(ValueError) as caught:
        pool.map(add, *inputs, strict=True)
    assert str(caught.value) == message


@every
def test_strict_minds_only_inputs_of_several_lengths(name: str) -> None:
    assert list(fanmap.map(abs, [-1, 2], executor=name, strict=True)) == [1, 2]
    assert list(fanmap.map(add, [1, 2], (3, 4), executor=name, strict=True)) == [4, 6]
    assert list(fanmap.map(add, [1, 2], [3], executor=name)) == [4]


@every
def test_what_repeats_for_ever_is_longer(name: str) -> None:
    assert list(fanmap.map(add, [1, 2], itertools.repeat(5), executor=name)) == [6, 7]
    with pytest.raises(ValueError, match="argument 2 is longer"):
        list(fanmap.map(add, [1, 2], itertools.repeat(5), executor=name, strict=True))


@every
def test_an_inputs_own_value_error_stays_what_it_is(name: str) -> None:
    def bad() -> Iterator[int]:
        yield 1
        raise ValueError("zip() argument 2 is shorter than argument 1")

    with pytest.raises(ValueError, match=r"^zip\(\)"):
        list(fanmap.map(add, [1, 2], bad(), executor=name, strict=True))


# ---- chunksize


@both
def test_so_many_items_are_read_together_as_the_chunk_asks_for(name: str) -> None:
    read: list[int] = []

    def source() -> Iterator[int]:
        for k in range(120):
            read.append(k)
            yield k

    with fanmap.map(abs, source(), executor=name, chunksize=50) as results:
        assert next(results) == 0
        assert len(read) in (50, 100, 120)
        assert list(results) == list(range(1, 120))
    assert list(fanmap.map(abs, range(-333, 0), executor=name, chunksize=100)) == list(range(333, 0, -1))


# ---- what excludes what


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"chunksize": 0}, ValueError, "chunksize"),
        ({"chunksize": -1}, ValueError, "chunksize"),
        ({"chunksize": "2"}, TypeError, "chunksize"),
        ({"chunksize": 5, "buffersize": 4}, ValueError, "buffersize=4"),
        ({"timeout": "soon"}, TypeError, "timeout"),
        ({"on_error": "ignore"}, ValueError, "'raise', 'return' or 'skip', not 'ignore'"),
        ({"on_error": None}, ValueError, "on_error"),
        ({"initializer": 3}, TypeError, "initializer"),
        ({"initargs": (1,)}, ValueError, "initializer"),
        ({"initializer": print, "initargs": 3}, TypeError, "initargs"),
        ({"strictly": True}, TypeError, "strictly"),
        ({"timeout": float("nan")}, ValueError, "NaN"),
        ({"buffersize": 10**30}, ValueError, "buffersize must be at most"),
        ({"chunksize": 10**30}, ValueError, "chunksize must be at most"),
        ({"workers": 10**30}, ValueError, "workers must be at most"),
        *(
            ({name: True}, TypeError, f"{name}.* not bool")
            for name in ("workers", "buffersize", "chunksize", "timeout", "task_timeout", "retries")
        ),
        *(
            ({name: True}, TypeError, f"{name} .* not bool")
            for name in ("max_memory_per_worker", "worker_memory_limit")
        ),
        *(
            ({name: value}, TypeError, f"{name} must be True or False, not {value!r}")
            for name in ("ordered", "strict", "tag_output", "forward_logging")
            for value in ("no", 0, None)
        ),
    ],
)
def test_options_of_no_use_are_refused_at_the_call(options: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        fanmap.map(abs, [1], **options)


@pytest.mark.parametrize("options", [{"workers": 2}, {"workers": -1}, {"initializer": print}])
def test_an_executor_of_ones_own_has_its_workers(options: Any) -> None:
    with fanmap.ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="an executor that is given"):
        fanmap.map(abs, [1], executor=pool, **options)


@both
@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"on_error": "ignore"}, ValueError, "on_error"),
        ({"buffersize": True}, TypeError, "buffersize must be an integer or None, not bool"),
        ({"ordered": "no"}, TypeError, "ordered must be True or False, not 'no'"),
        ({"strict": 1}, TypeError, "strict must be True or False, not 1"),
    ],
)
def test_an_executors_map_refuses_options_of_no_use(
    name: str, options: Any, error: type[Exception], match: str
) -> None:
    with MAKES[name](1) as pool, pytest.raises(error, match=match):
        pool.map(abs, [1], **options)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"max_workers": 10**30}, ValueError, "max_workers must be at most .* leave it out"),
        ({"cancel_running": 1}, TypeError, "cancel_running must be True or False, not 1"),
        ({"tag_output": "yes"}, TypeError, "tag_output must be True or False, not 'yes'"),
        ({"forward_logging": None}, TypeError, "forward_logging must be True or False, not None"),
        ({"max_tasks_per_child": True}, TypeError, "max_tasks_per_child must be an integer, not bool"),
        ({"max_tasks_per_child": 10**30}, ValueError, "max_tasks_per_child must be at most"),
        ({"buffer_memory": True}, TypeError, "buffer_memory .* not bool"),
        ({"worker_exit_timeout": True}, TypeError, "worker_exit_timeout .* not bool"),
    ],
)
def test_an_executor_refuses_options_of_no_use_when_it_is_made(
    options: Any, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        fanmap.ProcessPoolExecutor(**options)
    if "max_workers" in options:
        with pytest.raises(error, match=match):
            fanmap.ThreadPoolExecutor(**options)


def test_a_flag_of_numpys_is_one() -> None:
    numpy = pytest.importorskip("numpy", reason="numpy is not installed")
    yes, no = numpy.bool_(True), numpy.bool_(False)
    assert list(fanmap.map(abs, [-1, -2], executor="threads", ordered=yes, strict=no)) == [1, 2]
    with fanmap.ProcessPoolExecutor(1, cancel_running=no, tag_output=no) as pool:
        assert list(pool.map(abs, [-1, -2], ordered=yes)) == [1, 2]


# ---- stats


def test_stats_tell_how_far_a_map_is_and_what_it_took() -> None:
    with fanmap.map(inverse, [1, 2, 0, 4], workers=2, on_error="skip", executor="processes") as results:
        assert results.stats == (0, 0, 0, 0.0, 2, 0.0, 0, 0, 0.0, "processes")
        assert next(results) == 1.0
        assert results.stats.read == 4 and 1 <= results.stats.done <= 4
    stats = results.stats
    assert stats.sent > 0 and stats.received > 0 and stats.wall > 0
    assert results.stats == stats, "nothing changes after the end"


def spin(n: int) -> int:
    return sum(range(n))


@both
def test_stats_tell_how_long_workers_were_busy(name: str) -> None:
    results = fanmap.map(spin, [20_000] * 50, executor=name, workers=2)
    assert len(list(results)) == 50
    assert results.stats.busy > 0
    assert results.stats.workers == 2


def stats_of_inner_map(_: int) -> Any:
    results = fanmap.map(spin, [20_000] * 5, executor="processes")
    list(results)
    return results.stats


def test_stats_of_a_map_that_runs_in_place_know_one_worker() -> None:
    (stats,) = fanmap.map(stats_of_inner_map, [1], executor="processes")
    assert (stats.read, stats.done, stats.workers, stats.sent) == (5, 5, 1, 0)
    assert 0 < stats.busy <= stats.wall
