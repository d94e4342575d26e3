"""A future does what the standard library's does, step by step, whoever looks and however the threads interleave."""

from __future__ import annotations

import concurrent.futures
import copy
import gc
import itertools
import pickle
import random
import re
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import fanmap
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_executors import LIMIT, Gate, each_process, every, hold, make, square


def _copied(future: Any) -> str:
    copied = copy.copy(future)
    assert copied._condition is future._condition
    return repr(copied)


# What a program may do to a future; each gives something to compare.
STEPS: dict[str, Callable[[Any, list[Any]], Any]] = {
    "start": lambda future, heard: future.set_running_or_notify_cancel(),
    "give": lambda future, heard: future.set_result([1]),
    "give none": lambda future, heard: future.set_result(None),
    "fail": lambda future, heard: future.set_exception(KeyError("k")),
    "fail with nothing": lambda future, heard: future.set_exception(None),
    "fail with a class": lambda future, heard: future.set_exception(LookupError),
    "cancel": lambda future, heard: future.cancel(),
    "done": lambda future, heard: (future.done(), future.running(), future.cancelled()),
    "result": lambda future, heard: future.result(0),
    "exception": lambda future, heard: repr(future.exception(timeout=0)),
    "past": lambda future, heard: future.result(-1),
    "repr": lambda future, heard: repr(future),
    "state": lambda future, heard: (future._state, future._result, repr(future._exception)),
    "set by hand": lambda future, heard: setattr(future, "_result", "by hand"),
    "start by hand": lambda future, heard: setattr(future, "_state", "RUNNING"),
    "observe": lambda future, heard: future._condition.notify_all() if future._condition.acquire(False) else None,
    "release": lambda future, heard: future._condition.release(),
    "waiters": lambda future, heard: (len(future._waiters), len(future._done_callbacks)),
    "call back": lambda future, heard: future.add_done_callback(lambda done: heard.append(done is future)),
    "call back badly": lambda future, heard: future.add_done_callback(lambda done: 1 / 0),
    "wait": lambda future, heard: [len(some) for some in concurrent.futures.wait([future], 0)],
    "wait for a failure": lambda future, heard: [
        len(some) for some in concurrent.futures.wait([future], 0, concurrent.futures.FIRST_EXCEPTION)
    ],
    "as completed": lambda future, heard: len(list(concurrent.futures.as_completed([future], 0))),
    "snapshot": lambda future, heard: repr(future._get_snapshot()) if hasattr(future, "_get_snapshot") else None,
    "copy": lambda future, heard: _copied(future),
    "pickle": lambda future, heard: pickle.dumps(future),
}


def run(kind: type, script: list[str]) -> list[Any]:
    """What each step of a script gives or raises, on a new future."""
    future, heard, told = kind(), [], []
    for step in script:
        try:
            outcome = STEPS[step](future, heard)
        except BaseException as error:
            message = "" if step == "pickle" else str(error)
            outcome = type(error).__name__, re.sub("0x[0-9a-f]+", "0x", message)
        told.append(re.sub("0x[0-9a-f]+", "0x", outcome) if isinstance(outcome, str) else outcome)
    return [*told, heard]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=10))
@example(["fail", "start by hand", "give", "copy"])
def test_every_script_does_the_same_to_both_futures(script: list[str]) -> None:
    assert run(fanmap.Future, script) == run(concurrent.futures.Future, script)


def test_a_subclass_may_have_a_constructor_of_its_own() -> None:
    class Named(fanmap.Future[int]):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    future = Named("one")
    future.set_result(2)
    assert (future.name, future.result(), repr(future)[:7]) == ("one", 2, "<Named ")
    with pytest.raises(TypeError):
        fanmap.Future(1)  # type: ignore[call-arg]


@pytest.mark.parametrize("observed", [False, True])
def test_a_future_in_a_circle_is_collected(observed: bool) -> None:
    future = fanmap.Future[Any]()
    if observed:
        future.add_done_callback(lambda _, future=future: None)
    future.set_result([future])
    gone = weakref.ref(future)
    del future
    gc.collect()
    assert gone() is None


@pytest.fixture
def turns_are_short() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def _observe(future: Any, how: int, heard: list[Any]) -> object:
    """Look at a future in one of several ways; the value that it came to."""
    if how == 0:
        future.result(LIMIT)
    elif how == 1:
        assert not concurrent.futures.wait([future], LIMIT).not_done
    elif how == 2:
        assert list(concurrent.futures.as_completed([future], LIMIT)) == [future]
    elif how == 3:
        called = threading.Event()
        future.add_done_callback(lambda _: called.set())
        assert called.wait(LIMIT)
    elif how == 4:
        assert future.exception(LIMIT) is None
    else:
        with future._condition:
            assert future._condition.wait_for(future.done, LIMIT)
    future.add_done_callback(heard.append)
    return future.result(0)


@pytest.mark.usefixtures("turns_are_short")
def test_nobody_who_looks_while_an_outcome_comes_misses_it() -> None:
    rounds, watchers = 150, 6
    futures = [fanmap.Future[int]() for _ in range(rounds)]
    heard: list[Any] = []
    barrier = threading.Barrier(watchers + 1)

    def watch(seed: int) -> list[object]:
        rng = random.Random(seed)
        seen = []
        for future in futures:
            barrier.wait(LIMIT)
            seen.append(_observe(future, rng.randrange(6), heard))
        return seen

    with concurrent.futures.ThreadPoolExecutor(watchers) as pool:
        asked = [pool.submit(watch, seed) for seed in range(watchers)]
        for number, future in enumerate(futures):
            barrier.wait(LIMIT)
            assert future.set_running_or_notify_cancel()
            future.set_result(number)
        assert [one.result(LIMIT) for one in asked] == [list(range(rounds))] * watchers
    assert len(heard) == rounds * watchers


@pytest.mark.usefixtures("turns_are_short")
@pytest.mark.parametrize("way", ["threads", "processes"])
def test_nobody_who_looks_while_a_task_ends_misses_it(way: str) -> None:
    heard: list[Any] = []
    with make(way, 2) as pool, concurrent.futures.ThreadPoolExecutor(6) as watchers:
        for number in range(60):
            future = pool.submit(square, number)
            ways = random.Random(number).sample(range(6), 4)
            seen = [watchers.submit(_observe, future, how, heard) for how in ways]
            assert [one.result(LIMIT) for one in seen] == [number * number] * 4
    assert len(heard) == 240


@every
def test_a_future_that_only_its_task_holds_is_there_until_the_task_has_ended(way: str, tmp_path: Any) -> None:
    gate, gone = Gate(tmp_path / "gate"), threading.Event()
    with make(way, 1) as pool:
        held = weakref.ref(pool.submit(hold, gate.path), lambda _: gone.set())
        assert held() is not None
        gate.open()
        assert gone.wait(LIMIT)


class Keeps:
    """An object that tells where it is decoded."""

    decoded: ClassVar[list[int]] = []

    def __reduce__(self) -> Any:
        return _decode, ()


def _decode() -> Keeps:
    Keeps.decoded.append(threading.get_ident())
    return Keeps()


class Interrupts:
    """An object whose first decoding here is interrupted."""

    times = itertools.count()

    def __reduce__(self) -> Any:
        return _interrupt, ()


def _interrupt() -> str:
    if next(Interrupts.times) == 0:
        raise KeyboardInterrupt
    return "decoded"


@each_process
def test_a_result_is_decoded_once_by_the_first_thread_that_wants_it(way: str) -> None:
    Keeps.decoded.clear()
    with make(way, 1) as pool, concurrent.futures.ThreadPoolExecutor(1) as other:
        future, behind = pool.submit(Keeps), pool.submit(square, 2)
        assert behind.result(LIMIT) == 4 and future.done() and not Keeps.decoded
        assert other.submit(future.exception, LIMIT).result(LIMIT) is None
        assert future.result(LIMIT) is future.result(0) is future._result
        assert Keeps.decoded == [other.submit(threading.get_ident).result(LIMIT)]


def test_ctrl_c_while_a_result_is_decoded_is_the_askers_and_the_next_one_gets_the_result() -> None:
    Interrupts.times = itertools.count()
    with make("processes", 1) as pool:
        future = pool.submit(Interrupts)
        with pytest.raises(KeyboardInterrupt):
            future.result(LIMIT)
        assert future.done() and future.result(LIMIT) == "decoded"
