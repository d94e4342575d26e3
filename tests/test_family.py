"""`starmap`, `filter`, `reduce` and `for_each`, held to those that are built in or of itertools and functools."""

from __future__ import annotations

import builtins
import concurrent.futures
import functools
import itertools
import operator
import re
import threading
from typing import Any

import fanmap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

both = pytest.mark.parametrize("name", ["auto", "threads", "processes"])


# ---- starmap


@both
@settings(max_examples=20, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(-9, 9), st.integers(0, 5)), max_size=40), live=st.booleans())
def test_starmap_is_that_of_itertools(name: str, pairs: list[tuple[int, int]], live: bool) -> None:
    results = fanmap.starmap(pow, iter(pairs) if live else pairs, executor=name)
    assert list(results) == list(itertools.starmap(pow, pairs))


@both
def test_starmap_takes_what_can_be_iterated_for_arguments(name: str) -> None:
    assert list(fanmap.starmap(max, [[1, 2], "ab", range(3)], executor=name)) == [2, "b", 2]
    results = fanmap.starmap(max, [(1, 2), 3], executor=name)
    assert next(results) == 2
    with pytest.raises(TypeError, match="not iterable"):
        next(results)


@both
def test_starmap_knows_the_options(name: str) -> None:
    came = list(fanmap.starmap(operator.truediv, [(1, 1), (1, 0)], executor=name, on_error="return"))
    assert came[0] == 1.0
    assert isinstance(came[1], fanmap.Failure) and came[1].item == (1, 0)
    assert operator.length_hint(fanmap.starmap(pow, [(1, 1)] * 7, executor=name)) == 7


# ---- filter


def is_odd(x: int) -> int:
    return x % 2


@both
@settings(max_examples=30, deadline=None)
@given(
    items=st.lists(st.integers(-9, 9), max_size=60),
    ordered=st.booleans(),
    live=st.booleans(),
    buffersize=st.one_of(st.none(), st.integers(1, 9)),
)
def test_filter_is_the_built_in_one(
    name: str, items: list[int], ordered: bool, live: bool, buffersize: int | None
) -> None:
    source: Any = iter(items) if live else items
    came = list(fanmap.filter(is_odd, source, executor=name, ordered=ordered, buffersize=buffersize))
    wanted = list(builtins.filter(is_odd, items))
    assert came == wanted if ordered else sorted(came) == sorted(wanted)


@both
def test_what_filter_gives_are_the_very_items(name: str) -> None:
    items = [[1], [], [2, 3]]
    came = list(fanmap.filter(None, items, executor=name))
    assert came == [[1], [2, 3]] and came[0] is items[0] and came[1] is items[2]


@both
def test_threads_that_share_a_filter_get_each_item_once_and_no_answers(name: str) -> None:
    results = fanmap.filter(is_odd, range(3000), executor=name)
    came: list[int] = []
    lock = threading.Lock()

    def take() -> None:
        while True:
            try:
                item = next(results)
            except StopIteration:
                return
            except ValueError:  # another thread asks just now
                continue
            with lock:
                came.append(item)

    takers = [threading.Thread(target=take) for _ in range(3)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join(50)
    assert sorted(came) == list(range(1, 3000, 2))


def test_what_a_predicate_gives_need_not_travel() -> None:
    lines = ["a1", "b", "c3"]
    assert list(fanmap.filter(re.compile(r"\w\d").match, lines, executor="processes")) == ["a1", "c3"]


@both
def test_a_predicate_that_fails_is_an_error_or_no(name: str) -> None:
    results = fanmap.filter(int, ["1", "0", "x", "2"], executor=name)
    assert next(results) == "1"
    with pytest.raises(ValueError):
        next(results)
    assert list(fanmap.filter(int, ["1", "0", "x", "2"], executor=name, on_error="skip")) == ["1", "2"]
    with pytest.raises(ValueError, match="'raise' or 'skip'"):
        fanmap.filter(int, ["1"], executor=name, on_error="return")  # type: ignore[arg-type]


# ---- reduce


def concatenate(one: str, other: str) -> str:
    """Associative, and anything but commutative."""
    return one + other


@both
@settings(max_examples=25, deadline=None)
@given(
    items=st.lists(st.text(max_size=2), max_size=80),
    initial=st.one_of(st.just([]), st.just(["<"])),
    live=st.booleans(),
    chunksize=st.one_of(st.none(), st.integers(1, 20)),
)
def test_reduce_is_that_of_functools(
    name: str, items: list[str], initial: list[str], live: bool, chunksize: int | None
) -> None:
    options: dict[str, Any] = {"executor": name} if chunksize is None else {"executor": name, "chunksize": chunksize}
    source: Any = iter(items) if live else items
    if not items and not initial:
        with pytest.raises(TypeError, match=r"reduce\(\) of empty iterable with no initial value"):
            fanmap.reduce(concatenate, source, **options)
    else:
        assert fanmap.reduce(concatenate, source, *initial, **options) == functools.reduce(concatenate, items, *initial)


@both
def test_more_items_than_partial_results_are_kept_of_are_reduced(name: str) -> None:
    assert fanmap.reduce(operator.add, range(2000), executor=name, chunksize=1) == sum(range(2000))
    assert fanmap.reduce(operator.add, iter(range(100_000)), executor=name) == sum(range(100_000))


def test_one_pool_serves_a_whole_reduction() -> None:
    assert fanmap.reduce(operator.add, range(100), workers=2, chunksize=10, executor="processes") == 4950
    assert len(fanmap._default._own) <= 1


@both
def test_an_error_in_a_reduction_is_raised(name: str) -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        fanmap.reduce(operator.add, [1, 2, None, 4], executor=name)
    with pytest.raises(fanmap.TimeoutError):
        fanmap.reduce(operator.add, [1, 2], executor=name, timeout=0)


@pytest.mark.parametrize("option", [{"ordered": False}, {"on_error": "skip"}, {"on_errors": "skip"}])
def test_reduce_refuses_what_makes_no_sense_for_it(option: Any) -> None:
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{next(iter(option))}'"):
        fanmap.reduce(operator.add, [1], **option)


# ---- for_each


@both
def test_for_each_returns_when_all_are_done(name: str, tmp_path: Any) -> None:
    assert fanmap.for_each(touch, [str(tmp_path / str(k)) for k in range(20)], executor=name) is None
    assert sorted(int(file.name) for file in tmp_path.iterdir()) == list(range(20))


def touch(path: str) -> Any:
    open(path, "w").close()
    return lambda: None  # what is given back is nobody's, and need not travel


@both
def test_for_each_raises_the_first_error(name: str) -> None:
    with pytest.raises(ValueError, match="'one'"):
        fanmap.for_each(int, ["0", "one", "2", "three"], executor=name)
    fanmap.for_each(int, ["0", "one"], executor=name, on_error="skip")
    fanmap.for_each(pow, [1, 2], [3, 4], executor=name)
    with pytest.raises(ValueError, match="'raise' or 'skip'"):
        fanmap.for_each(int, ["0"], executor=name, on_error="return")  # type: ignore[arg-type]


# ---- all of them


def nested(_: int) -> list[Any]:
    return [
        list(fanmap.starmap(pow, [(2, 3)], executor="processes")),
        list(fanmap.filter(None, [0, 1, 2], executor="processes")),
        fanmap.reduce(operator.add, range(10), workers=2, executor="processes"),
        fanmap.for_each(abs, [1], executor="processes"),
    ]


@both
def test_inside_a_worker_they_run_in_place(name: str) -> None:
    assert list(fanmap.map(nested, [0, 1], executor=name)) == [[[8], [1, 2], 45, None]] * 2


def test_they_run_over_any_executor() -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert list(fanmap.starmap(pow, [(2, 3)], executor=pool)) == [8]
        assert list(fanmap.filter(re.compile("a").match, ["b", "a"], executor=pool)) == ["a"]
        assert fanmap.reduce(operator.add, range(100), executor=pool) == 4950
        fanmap.for_each(abs, [1, 2], executor=pool)


def test_the_initial_value_may_be_given_by_name() -> None:
    """As in `functools.reduce` since Python 3.14."""
    assert fanmap.reduce(operator.add, ["a", "b"], initial="z") == "zab"
    assert fanmap.reduce(operator.add, [], initial=7) == 7


@pytest.mark.parametrize("function", [fanmap.starmap, fanmap.filter, fanmap.reduce, fanmap.for_each])
def test_what_cannot_be_used_is_refused_at_the_call(function: Any) -> None:
    with pytest.raises(TypeError, match="callable"):
        function(3, [])
    with pytest.raises(TypeError):
        function(abs, 3)
    with pytest.raises(TypeError, match=rf"{function.__name__}\(\) got an unexpected keyword argument 'worker'"):
        function(abs, [], worker=2)
    with pytest.raises(ValueError, match="unknown executor"):
        function(abs, [], executor="green")
