"""What type checkers know of results: `test_types.py` has mypy and pyright read this; nothing runs it.

Each `ignore` is of an error that must be there: both checkers complain of one that is not needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import as_completed
from typing import TypeVar, assert_type

import fanmap

A = TypeVar("A")
B = TypeVar("B")


def parse(text: str) -> int:
    return int(text)


def area(width: int, height: float = 1.0) -> float:
    return width * height


def box(width: int, height: int, depth: int) -> bytes:
    return bytes(width * height * depth)


def hypercube(a: int, b: int, c: int, d: int, e: int) -> int:
    return a * b * c * d * e


def pair(one: A, other: B) -> tuple[A, B]:
    return one, other


class Parser:
    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self, text: str) -> float:
        return float(text)


texts = ["1", "2"]
numbers = [1, 2]

# ---- map ----

assert_type(fanmap.map(parse, texts), fanmap.MapResult[int])
assert_type(list(fanmap.map(parse, texts, executor="threads", workers=4, ordered=False, progress=True)), list[int])
assert_type(next(fanmap.map(parse, texts, on_error="skip")), int)
assert_type(list(fanmap.map(parse, texts, on_error="return")), list[int | fanmap.Failure])
assert_type(list(fanmap.map(area, numbers)), list[float])
assert_type(list(fanmap.map(area, numbers, [0.5])), list[float])
assert_type(list(fanmap.map(area, numbers, [0.5], on_error="return")), list[float | fanmap.Failure])
assert_type(list(fanmap.map(box, numbers, numbers, numbers)), list[bytes])
assert_type(list(fanmap.map(hypercube, numbers, numbers, numbers, numbers, numbers)), list[int])
assert_type(list(fanmap.map(pair, numbers, texts)), list[tuple[int, str]])
assert_type(list(fanmap.map(Parser, texts)), list[Parser])
assert_type(list(fanmap.map(Parser(""), texts)), list[float])
assert_type(list(fanmap.map(len, texts)), list[int])
assert_type(list(fanmap.map(str.upper, texts)), list[str])
assert_type(fanmap.map(parse, texts).stats, fanmap.MapStats)

fanmap.map(parse, numbers)  # type: ignore[arg-type]
fanmap.map(area, numbers, texts)  # type: ignore[arg-type]
fanmap.map(parse, texts, ordered="no")  # type: ignore[call-overload]
fanmap.map(parse, texts, unordered=True)  # type: ignore[call-overload]
fanmap.map(parse)  # type: ignore[call-overload]

# ---- its family ----

rows = [(1, 0.5), (2, 1.5)]
assert_type(list(fanmap.starmap(area, rows)), list[float])
assert_type(list(fanmap.starmap(area, rows, on_error="return")), list[float | fanmap.Failure])
assert_type(list(fanmap.starmap(pair, rows)), list[tuple[int, float]])
assert_type(list(fanmap.starmap(area, [[1, 2], [3, 4]])), list[float])
assert_type(list(fanmap.filter(str.isdigit, texts)), list[str])
maybe: list[str | None] = ["1", None]
assert_type(list(fanmap.filter(None, maybe)), list[str])
assert_type(fanmap.reduce(max, numbers), int)
fanmap.for_each(print, texts)
fanmap.filter(parse, numbers)  # type: ignore[arg-type]
assert_type(fanmap.map_async(parse, texts), fanmap.Future[list[int]])
assert_type(fanmap.map_async(area, numbers, [0.5], workers=2).result(5), list[float])
assert_type(fanmap.map_async(parse, texts, on_error="return").result(), list[int | fanmap.Failure])
fanmap.map_async(parse, numbers)  # type: ignore[arg-type]


async def asynchronous() -> None:
    assert_type(fanmap.amap(parse, texts), fanmap.AsyncMapResult[int])
    assert_type([number async for number in fanmap.amap(parse, texts)], list[int])
    assert_type([size async for size in fanmap.amap(area, numbers, [0.5])], list[float])
    async with fanmap.amap(parse, texts, on_error="return") as results:
        async for result in results:
            assert_type(result, int | fanmap.Failure)
    assert_type(await fanmap.amap(parse, texts), list[int])
    assert_type(await fanmap.amap(parse, texts, on_error="return"), list[int | fanmap.Failure])
    fanmap.amap(parse, numbers)  # type: ignore[arg-type]


# ---- executors and futures ----


def processes(pool: fanmap.ProcessPoolExecutor) -> None:
    assert_type(pool.submit(parse, "1"), fanmap.Future[int])
    assert_type(pool.submit(parse, "1").result(), int)
    assert_type(pool.submit(area, 3, height=0.5).result(), float)
    assert_type(pool.submit(pair, 1, "x").result(), tuple[int, str])
    assert_type(pool.submit(Parser, "x").result(), Parser)
    assert_type(pool.submit(parse, "1").exception(), BaseException | None)
    assert_type(pool.submit_with(retries=2)(area, 3, height=0.5).result(), float)
    assert_type(pool.map(parse, texts, retries=2, task_timeout=5, progress=True), Iterator[int])
    assert_type(pool.map(parse, texts, timeout=3, chunksize=2, buffersize=8, strict=True), Iterator[int])
    assert_type(next(pool.map(parse, texts, on_error="return")), int | fanmap.Failure)
    assert_type(list(fanmap.map(parse, texts, executor=pool)), list[int])


def threads(pool: fanmap.ThreadPoolExecutor) -> None:
    assert_type(pool.submit(parse, "1"), fanmap.Future[int])
    assert_type(pool.submit(area, 3, height=0.5).result(), float)
    assert_type(pool.map(parse, texts), Iterator[int])
    assert_type(next(pool.map(parse, texts, on_error="return")), int | fanmap.Failure)


def refused(pool: fanmap.ProcessPoolExecutor) -> None:
    pool.submit(parse, 1)  # type: ignore[arg-type]
    pool.submit(parse)  # type: ignore[call-arg]
    pool.submit(area, 1, depth=2)  # type: ignore[call-arg]
    pool.map(parse, texts, order=False)  # type: ignore[call-overload]


def futures(pool: fanmap.ProcessPoolExecutor) -> Iterable[int]:
    calls = [pool.submit(parse, text) for text in texts]
    for future in as_completed(calls):
        yield future.result()
    executor: fanmap.Executor = pool
    assert_type(executor.submit(parse, "1").result(), int)


def a_failure_says_what_failed(results: fanmap.MapResult[int | fanmap.Failure]) -> Iterator[int]:
    for result in results:
        if isinstance(result, fanmap.Failure):
            assert_type(result.index, int)
            assert_type(result.error, BaseException)
        else:
            yield assert_type(result, int)
