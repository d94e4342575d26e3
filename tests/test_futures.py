"""Futures of every executor are the standard library's: waits, callbacks, states, and what they keep alive."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import weakref
from typing import Any

import fanmap
import pytest
from test_executors import LIMIT, Gate, every, hold, hold_twice, make, raise_, square

STATES = ["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"]


class Result(set[int]):
    """A value that can be referred to weakly, and pickled."""


def make_result(argument: Result) -> Result:
    return Result(argument)


@every
def test_a_future_is_the_standard_librarys(way: str) -> None:
    with make(way, 1) as pool:
        future = pool.submit(square, 3)
        assert type(future) is fanmap.Future and isinstance(future, concurrent.futures.Future)
        assert future.result(LIMIT) == future.result(0) == 9 and future.exception(0) is None
        assert future.done() and not future.running() and not future.cancelled() and not future.cancel()
        with pytest.raises(fanmap.InvalidStateError):
            future.set_result(1)


@every
def test_a_future_is_running_while_its_task_runs(way: str, tmp_path: Any) -> None:
    first, second = Gate(tmp_path / "first"), Gate(tmp_path / "second")
    with make(way, 1) as pool:
        future, behind = pool.submit(hold_twice, first.path, second.path), pool.submit(square, 2)
        first.open()  # returns once the task waits there, so it runs
        assert future.running() and not future.done() and not behind.running()
        second.open()
        assert behind.result(LIMIT) == 4
        assert future.done() and not future.running()


@every
def test_waits_that_run_out_of_time_leave_the_task_alone(way: str, tmp_path: Any) -> None:
    gate = Gate(tmp_path / "gate")
    with make(way, 2) as pool:
        slow, quick = pool.submit(hold, gate.path), pool.submit(square, 2)
        assert quick.result(LIMIT) == 4
        for wait in (slow.result, slow.exception):
            with pytest.raises(fanmap.TimeoutError):
                wait(timeout=0)
        assert fanmap.wait([slow, quick], 0) == ({quick}, {slow})
        came = []
        with pytest.raises(fanmap.TimeoutError):
            for future in fanmap.as_completed([slow, quick], 0):
                came.append(future)
        assert came == [quick]
        gate.open()
        assert isinstance(slow.result(LIMIT), int)


@every
@pytest.mark.parametrize("until", STATES)
def test_wait_returns_when_it_was_asked_to(way: str, until: str, tmp_path: Any) -> None:
    gate = Gate(tmp_path / "gate")
    with make(way, 2) as pool:
        slow = pool.submit(hold, gate.path)
        others = [pool.submit(square, 1), pool.submit(raise_, ValueError, 2)]
        if until == "ALL_COMPLETED":
            gate.open()
        done, pending = fanmap.wait([slow, *others], LIMIT, getattr(fanmap, until))
        if until == "ALL_COMPLETED":
            assert done == {slow, *others} and not pending
        else:
            assert done and slow in pending
            assert until == "FIRST_COMPLETED" or others[1] in done
            gate.open()


@every
def test_as_completed_gives_each_once_cancelled_ones_too(way: str, tmp_path: Any) -> None:
    gate = Gate(tmp_path / "gate")
    with make(way, 1) as pool:
        slow = pool.submit(hold, gate.path)
        waiting = [pool.submit(square, x) for x in range(3)]
        assert waiting[1].cancel()
        gate.open()
        came = list(fanmap.as_completed([slow, *waiting, *waiting], LIMIT))
    assert len(came) == 4 and set(came) == {slow, *waiting}


@every
def test_a_callback_on_a_future_that_is_done_is_called_at_once(way: str) -> None:
    heard: list[Any] = []
    with make(way, 1) as pool:
        future = pool.submit(square, 2)
        assert future.result(LIMIT) == 4
        future.add_done_callback(lambda f: heard.append((f, threading.get_ident())))
    assert heard == [(future, threading.get_ident())]


@every
def test_a_cancelled_future_calls_its_callbacks_once_and_says_so(way: str, tmp_path: Any) -> None:
    gate, heard = Gate(tmp_path / "gate"), []
    with make(way, 1) as pool:
        slow, waiting = pool.submit(hold, gate.path), pool.submit(square, 2)
        waiting.add_done_callback(heard.append)
        assert waiting.cancel() and heard == [waiting]
        for ask in (waiting.result, waiting.exception):
            with pytest.raises(fanmap.CancelledError):
                ask(LIMIT)
        gate.open()
        assert isinstance(slow.result(LIMIT), int)
    assert heard == [waiting]


@every
def test_a_callback_may_submit(way: str) -> None:
    inner: concurrent.futures.Future[Any] = concurrent.futures.Future()
    with make(way, 1) as pool:
        pool.submit(square, 2).add_done_callback(lambda f: inner.set_result(pool.submit(square, f.result())))
        assert inner.result(LIMIT).result(LIMIT) == 16


@every
def test_all_who_wait_for_a_future_get_its_result(way: str, tmp_path: Any) -> None:
    gate = Gate(tmp_path / "gate")
    with make(way, 1) as pool, concurrent.futures.ThreadPoolExecutor(4) as waiters:
        slow = pool.submit(hold, gate.path)
        waits = [waiters.submit(slow.result, LIMIT) for _ in range(4)]
        gate.open()
        assert {wait.result(LIMIT) for wait in waits} == {slow.result(LIMIT)}


@every
def test_asyncio_wraps_a_future_and_cancels_it(way: str, tmp_path: Any) -> None:
    gate = Gate(tmp_path / "gate")

    async def main(pool: Any) -> None:
        slow, waiting = pool.submit(hold, gate.path), pool.submit(square, 2)
        wrapped = asyncio.wrap_future(waiting)
        wrapped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wrapped
        await asyncio.sleep(0)  # the loop's turn, in which it passes the cancellation on
        assert waiting.cancelled()
        gate.open()
        assert isinstance(await asyncio.wait_for(asyncio.wrap_future(slow), LIMIT), int)
        with pytest.raises(ValueError, match="mine"):
            await asyncio.wrap_future(pool.submit(raise_, ValueError, "mine"))

    with make(way, 1) as pool:
        asyncio.run(main(pool))


@every
def test_a_pool_keeps_neither_result_nor_argument_of_a_task_that_is_done(way: str) -> None:
    with make(way, 1) as pool:
        argument = Result([1])
        future = pool.submit(make_result, argument)
        references = [weakref.ref(argument), weakref.ref(future.result(LIMIT)), weakref.ref(future)]
        del argument, future
        # Once the only worker has done another, it has let go of the one before.
        assert pool.submit(square, 2).result(LIMIT) == 4
        assert [reference() for reference in references] == [None] * 3


class Ends:
    """Arrives as an exception that is no Exception, where the program is."""

    def __init__(self, owner: int, kind: type[BaseException]) -> None:
        self.owner, self.kind = owner, kind

    def __reduce__(self) -> Any:
        return end_in, (self.owner, self.kind)


def end_in(owner: int, kind: type[BaseException]) -> None:
    if os.getpid() == owner:
        raise kind


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_neither_a_result_nor_a_callback_ends_the_thread_that_completes_futures(kind: type[BaseException]) -> None:
    with fanmap.ProcessPoolExecutor(max_workers=1) as pool:
        ends = pool.submit(Ends, os.getpid(), kind)
        assert fanmap.wait([ends], LIMIT).done == {ends}
        assert type(ends.exception(LIMIT)) is fanmap.UndecodableError
        raises = pool.submit(abs, -1)
        raises.add_done_callback(lambda _: raise_(kind))
        assert fanmap.wait([raises], LIMIT).done == {raises}
        after = pool.submit(abs, -2)
        assert fanmap.wait([after], LIMIT).done == {after} and after.result(LIMIT) == 2
