"""`fanmap.map_async`: a map that goes on in the background, and the future of the list of its results."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import itertools
import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fanmap
import pytest
from _scripts import HOLD, Gate, ended, good, started
from hypothesis import given, settings
from hypothesis import strategies as st

every = pytest.mark.parametrize("name", ["auto", "serial", "threads", "processes"])


def inverse(x: int) -> float:
    return 1 / x


@every
@settings(max_examples=15, deadline=None)
@given(
    items=st.lists(st.integers(-2, 5), max_size=50),
    ordered=st.booleans(),
    buffersize=st.one_of(st.none(), st.integers(1, 9)),
)
def test_it_gives_what_the_map_gives(name: str, items: list[int], ordered: bool, buffersize: int | None) -> None:
    future = fanmap.map_async(inverse, items, executor=name, ordered=ordered, buffersize=buffersize, on_error="skip")
    wanted = [1 / item for item in items if item]
    came = future.result(40)
    assert came == wanted if ordered else sorted(came) == sorted(wanted)
    assert future.done() and not future.running() and not future.cancelled() and not future.cancel()


@every
def test_failures_are_in_their_places(name: str) -> None:
    first, second, third = fanmap.map_async(inverse, [1, 0, 2], executor=name, on_error="return").result(40)
    assert (first, third) == (1.0, 0.5)
    assert isinstance(second, fanmap.Failure) and (second.index, second.item) == (1, 0)


@every
def test_an_error_is_the_futures_and_ends_the_map(name: str) -> None:
    future = fanmap.map_async(inverse, itertools.chain([1, 0], itertools.count(1)), executor=name)
    with pytest.raises(ZeroDivisionError):
        future.result(40)

    def source() -> Iterator[int]:
        yield 1
        raise LookupError("of the input")

    assert isinstance(fanmap.map_async(inverse, source(), executor=name).exception(40), LookupError)


def test_a_mistake_is_an_error_of_the_call() -> None:
    with pytest.raises(TypeError, match="callable"):
        fanmap.map_async(3, [1])  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="at least two arguments"):
        fanmap.map_async(abs)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="not iterable"):
        fanmap.map_async(abs, 1)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="unordered"):
        fanmap.map_async(abs, [1], unordered=True)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="on_error"):
        fanmap.map_async(abs, [1], on_error="ignore")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="executor"):
        fanmap.map_async(abs, [1], executor="thread")


def test_it_starts_at_once_and_reads_its_input_in_one_thread_with_the_callers_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")
    variable.set("the caller's")
    seen = set()
    all_read = threading.Event()

    def source() -> Iterator[int]:
        for k in range(500):
            seen.add((threading.get_ident(), variable.get()))
            yield k
        all_read.set()

    for name in ("auto", "threads"):
        seen.clear()
        all_read.clear()
        future = fanmap.map_async(lambda _: variable.get(), source(), executor=name)
        assert all_read.wait(40), "nobody has asked for anything"
        ((reader, read),) = seen
        assert reader != threading.get_ident() and read == "the caller's"
        assert future.result(40) == ["the caller's"] * 500


@pytest.mark.parametrize("name", ["auto", "threads"])
def test_one_that_is_cancelled_runs_nothing_that_had_not_started(name: str) -> None:
    begun, gate, ran = threading.Event(), threading.Event(), []

    def work(x: int) -> None:
        ran.append(x)
        begun.set()
        gate.wait()

    future = fanmap.map_async(work, itertools.count(), executor=name, workers=1)
    assert begun.wait(40)
    assert future.running() and not future.done()
    with pytest.raises(TimeoutError):
        future.result(0.01)
    assert future.cancel() and future.cancel() and future.cancelled() and not future.running()
    with pytest.raises(fanmap.CancelledError):
        future.result(40)
    gate.set()
    assert fanmap.wait([future], 40).done == {future}
    fanmap.shutdown()
    assert ran == [0]


@every
def test_callbacks_waits_and_event_loops_are_told(name: str) -> None:
    futures = [fanmap.map_async(abs, range(-n, 0), executor=name) for n in range(4)]
    called: list[Any] = []
    all_called = threading.Event()
    for future in futures:
        future.add_done_callback(lambda future: (called.append(future), len(called) == 4 and all_called.set()))
    assert all_called.wait(40) and set(called) == set(futures)
    assert {len(future.result()) for future in concurrent.futures.as_completed(futures, 40)} == {0, 1, 2, 3}

    async def main() -> list[int]:
        return await asyncio.wait_for(asyncio.wrap_future(fanmap.map_async(abs, [-1, -2], executor=name)), 40)

    assert asyncio.run(main()) == [1, 2]


def test_a_cancelled_await_cancels_the_map() -> None:
    begun, gate = threading.Event(), threading.Event()

    async def main() -> fanmap.Future[list[bool]]:
        future = fanmap.map_async(lambda _: (begun.set(), gate.wait())[1], itertools.count(), executor="threads")
        await asyncio.get_running_loop().run_in_executor(None, begun.wait)
        awaited = asyncio.wrap_future(future)
        awaited.cancel()
        with pytest.raises(asyncio.CancelledError):
            await awaited
        return future

    assert asyncio.run(main()).cancelled()
    gate.set()


@every
def test_shutting_down_cancels_it(name: str) -> None:
    future = fanmap.map_async(abs, itertools.count(), executor=name)
    fanmap.shutdown()
    assert future.cancelled()


@every
def test_a_callback_may_shut_down(name: str) -> None:
    ended: list[Any] = []
    called = threading.Event()

    def shut_down(future: fanmap.Future[list[int]]) -> None:
        try:
            fanmap.shutdown()
        except BaseException as error:
            ended.append(error)
        else:
            ended.append(future.result())
        called.set()

    begin = threading.Event()

    def source() -> Iterator[int]:
        yield -1 if begin.wait(40) else 0
        yield -2

    fanmap.map_async(abs, source(), executor=name).add_done_callback(shut_down)
    begin.set()
    assert called.wait(40) and ended == [[1, 2]]


def test_over_an_executor_of_anybodys() -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert fanmap.map_async(abs, range(-50, 0), executor=pool).result(40) == list(range(50, 0, -1))


def test_a_progress_function_is_told() -> None:
    told: list[tuple[int, int | None]] = []
    future = fanmap.map_async(abs, [1, 2, 3], executor="threads", progress=lambda *at: told.append(at))
    assert future.result(40) == [1, 2, 3] and told[-1] == (3, 3)


def test_what_has_ended_keeps_nothing_and_needs_no_collection() -> None:
    class Item:
        pass

    for work in (lambda item: None, lambda item: 1 / 0):
        item = Item()
        kept = weakref.ref(item)
        gc.collect()
        gc.disable()
        try:
            future = fanmap.map_async(work, [item], executor="threads")
            assert fanmap.wait([future], 40).done
            del future, item
            fanmap.shutdown()
            assert kept() is None
        finally:
            gc.enable()


def in_a_worker(name: str) -> tuple[bool, list[int]]:
    future = fanmap.map_async(lambda _: threading.get_ident(), [1, 2], executor=name)
    return future.done(), [thread - threading.get_ident() for thread in future.result()]


@pytest.mark.parametrize("outer", ["threads", "processes"])
@pytest.mark.parametrize("inner", ["auto", "threads", "processes"])
def test_inside_a_worker_it_runs_in_place(outer: str, inner: str) -> None:
    assert list(fanmap.map(in_a_worker, [inner] * 3, executor=outer)) == [(True, [0, 0])] * 3


# ---- the end of the program ----


@every
def test_one_that_never_ends_is_cancelled_at_exit(name: str) -> None:
    out = good(f"""
        import atexit, fanmap, itertools
        def work(x):
            return x
        atexit.register(print, "handler")
        future = fanmap.map_async(work, itertools.count(), executor={name!r})
        future.add_done_callback(lambda future: print("cancelled", future.cancelled()))
        fanmap.map(work, [1], executor={name!r}).close()
    """)
    assert out == "cancelled True\nhandler\n"


def test_tasks_that_never_end_in_processes_do_not_keep_the_program(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    code = HOLD + (
        "import fanmap, sys\n"
        "future = fanmap.map_async(hold, [sys.argv[1]] * 4, workers=2, executor='processes')\n"
        "open(sys.argv[1] + '.go').read()\n"
    )
    go = tmp_path / "started.go"
    os.mkfifo(go)
    with started(code, gate.name) as program:
        gate.wait(2)
        os.close(os.open(go, os.O_WRONLY))
        result = ended(program)
    gate.close()
    assert (result.status, result.err) == (0, ""), result


def test_it_cannot_be_started_at_exit() -> None:
    out = good("""
        import atexit, fanmap
        def late():
            try:
                fanmap.map_async(abs, [-1])
            except RuntimeError as error:
                print("shutdown" in str(error))
        atexit.register(late)
        fanmap.map_async(abs, [-1]).result()
    """)
    assert out == "True\n"


@every
def test_a_fork_neither_hangs_nor_hurts_it(name: str, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    code = HOLD + (
        "import fanmap, os, sys\n"
        f"future = fanmap.map_async(hold, [sys.argv[1]], executor={name!r})\n"
        "open(sys.argv[1] + '.go').read()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    try:\n"
        "        future.result(0.01)\n"
        "    except TimeoutError:\n"
        "        print('pending', flush=True)\n"
        "    future.cancel()\n"
        "    assert fanmap.map_async(abs, [-1]).result(40) == [1]\n"
        "    sys.exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "print('parent', flush=True)\n"
        "assert future.result(40) == [sys.argv[1]]\n"
    )
    go = tmp_path / "started.go"
    os.mkfifo(go)
    with started(code, gate.name) as program:
        gate.wait()
        os.close(os.open(go, os.O_WRONLY))
        assert program.stdout is not None
        assert program.stdout.readline() == "pending\n"
        assert program.stdout.readline() == "parent\n"
        gate.open()
        result = ended(program)
    gate.close()
    assert (result.status, result.err) == (0, ""), result
