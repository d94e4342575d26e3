"""`fanmap.amap`: the results of a map in an event loop, which goes on meanwhile."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import select
import threading
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import fanmap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

both = pytest.mark.parametrize("name", ["auto", "threads", "processes"])


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(main, 50))


def inverse(x: int) -> float:
    return 1 / x


@both
@settings(max_examples=15, deadline=None)
@given(
    items=st.lists(st.integers(-2, 5), max_size=50),
    ordered=st.booleans(),
    buffersize=st.one_of(st.none(), st.integers(1, 9)),
)
def test_it_gives_what_the_map_gives(name: str, items: list[int], ordered: bool, buffersize: int | None) -> None:
    async def main() -> list[float]:
        results = fanmap.amap(inverse, items, executor=name, ordered=ordered, buffersize=buffersize, on_error="skip")
        return [result async for result in results]

    wanted = [1 / item for item in items if item]
    came = run(main())
    assert came == wanted if ordered else sorted(came) == sorted(wanted)


@both
@settings(max_examples=15, deadline=None)
@given(items=st.lists(st.integers(1, 5), max_size=50), taken=st.integers(0, 3))
def test_awaiting_it_gives_the_list_of_what_was_not_taken(name: str, items: list[int], taken: int) -> None:
    async def main() -> tuple[list[float], list[float], list[float]]:
        results = fanmap.amap(inverse, items, executor=name)
        first = [await anext(results) for _ in range(min(taken, len(items)))]
        return first, await results, await results

    first, rest, nothing = run(main())
    assert (first + rest, nothing) == ([1 / item for item in items], [])


@both
def test_awaiting_it_raises_the_first_error_and_ends_it(name: str) -> None:
    async def main() -> None:
        results = fanmap.amap(inverse, itertools.chain([1, 0], itertools.count(1)), executor=name)
        with pytest.raises(ZeroDivisionError):
            await results
        assert await results == []

    run(main())


@both
def test_lists_may_be_awaited_together(name: str) -> None:
    async def main() -> list[list[int]]:
        return await asyncio.gather(*(fanmap.amap(abs, range(-n, 0), executor=name) for n in range(8)))

    assert run(main()) == [list(range(n, 0, -1)) for n in range(8)]


@both
def test_an_error_is_raised_in_its_place_and_ends_it(name: str) -> None:
    async def main() -> None:
        results = fanmap.amap(inverse, [1, 0, 2], executor=name)
        assert await anext(results) == 1.0
        with pytest.raises(ZeroDivisionError):
            await anext(results)
        assert [result async for result in results] == []
        assert results.stats.failed == 1

    run(main())


class Slow:
    """A FIFO at which tasks wait, one byte each."""

    def __init__(self, directory: Path) -> None:
        self.name = str(directory / "slow")
        os.mkfifo(self.name)
        self._file = os.open(self.name, os.O_RDWR)

    def let_go(self, count: int) -> None:
        os.write(self._file, b"x" * count)

    def close(self) -> None:
        fanmap.shutdown()
        os.close(self._file)


def wait_at(path: str) -> int:
    with open(path, "rb", 0) as fifo:
        return len(fifo.read(1))


@both
def test_the_loop_goes_on_while_a_result_is_made(name: str, tmp_path: Path) -> None:
    slow = Slow(tmp_path)

    async def main() -> list[int]:
        results = fanmap.amap(wait_at, [slow.name], executor=name, workers=1)
        asking = asyncio.ensure_future(anext(results))
        for _ in range(100):
            await asyncio.sleep(0)  # many turns of the loop, in which the task cannot end
        assert not asking.done()
        slow.let_go(1)
        return [await asking, *[result async for result in results]]

    assert run(main()) == [1]
    slow.close()


@both
@pytest.mark.parametrize("whole", [False, True], ids=["next", "list"])
def test_a_cancelled_await_ends_the_work(name: str, whole: bool, tmp_path: Path) -> None:
    slow = Slow(tmp_path)

    async def main() -> None:
        results = fanmap.amap(wait_at, itertools.repeat(slow.name), executor=name, workers=1, buffersize=3)
        asking = asyncio.ensure_future(results if whole else anext(results))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert [result async for result in results] == []
        slow.let_go(1)  # a thread that has begun cannot be ended

    run(main())
    slow.close()


@both
def test_many_maps_in_one_loop_go_side_by_side(name: str) -> None:
    async def one(n: int) -> list[int]:
        return [result async for result in fanmap.amap(abs, range(-n, 0), executor=name)]

    async def main() -> list[list[int]]:
        return await asyncio.gather(*(one(n) for n in range(8)))

    assert run(main()) == [list(range(n, 0, -1)) for n in range(8)]


def test_the_input_is_read_in_one_thread_that_is_not_the_loops() -> None:
    readers = set()

    def source() -> Iterator[int]:
        for k in range(500):
            readers.add(threading.get_ident())
            yield k

    async def main() -> list[int]:
        return [result async for result in fanmap.amap(abs, source(), executor="threads")]

    assert run(main()) == list(range(500))
    assert len(readers) == 1 and threading.get_ident() not in readers


@both
@pytest.mark.parametrize("how", ["close", "exit", "drop"])
def test_one_that_ends_early_leaves_nothing(name: str, how: str) -> None:
    async def main() -> None:
        results = fanmap.amap(abs, itertools.count(), executor=name)
        assert await anext(results) == 0
        if how == "close":
            await results.aclose()
        elif how == "exit":
            async with results:
                pass
        if how != "drop":
            assert [result async for result in results] == []

    run(main())
    gc.collect()


def test_it_refuses_what_it_cannot_use() -> None:
    async def coroutine(x: int) -> int:
        return x

    async def source() -> Any:
        yield 1

    with pytest.raises(TypeError, match="coroutine function"):
        fanmap.amap(coroutine, [1], executor="processes")
    with pytest.raises(TypeError, match="async"):
        fanmap.amap(abs, source(), executor="processes")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="callable"):
        fanmap.amap(3, [1], executor="processes")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="at least two arguments"):
        fanmap.amap(abs, executor="processes")
    with pytest.raises(ValueError, match="on_error"):
        fanmap.amap(abs, [1], on_error="ignore", executor="processes")  # type: ignore[call-overload]


def tell_and_stay(started: str) -> None:
    with open(started, "w") as file:
        file.write(str(os.getpid()))
    threading.Event().wait()


def told(started: str) -> int:
    with open(started) as file:
        return int(file.read())


def has_ended(pid: int) -> bool:
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], 30)[0])
    finally:
        os.close(watched)


@pytest.mark.parametrize("by", ["cancel", "cancel list", "close", "leaving"])
def test_what_runs_in_a_process_is_ended_with_it(by: str, tmp_path: Path) -> None:
    started = str(tmp_path / "started")
    os.mkfifo(started)

    async def main() -> int:
        loop = asyncio.get_running_loop()
        async with fanmap.amap(tell_and_stay, [started], workers=1, executor="processes") as results:
            asking: asyncio.Future[Any] = asyncio.ensure_future(results if by == "cancel list" else anext(results))
            pid = await loop.run_in_executor(None, told, started)
            if by.startswith("cancel"):
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking
                assert await loop.run_in_executor(None, has_ended, pid)
            elif by == "close":
                await results.aclose()
                assert await loop.run_in_executor(None, has_ended, pid)
        with suppress(StopAsyncIteration, asyncio.CancelledError):
            await asking
        return pid

    assert has_ended(run(main()))
