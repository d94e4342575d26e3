"""Executors of `concurrent.futures`: the standard library's, and what fanmap's and loky's share with them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from itertools import repeat
from typing import Any

from .peer import Peer


class OverExecutor(Peer):
    """Any executor."""

    executor: Executor

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        return self.executor.map(function, items)

    def stream(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        return iter(self.executor.map(function, items))

    def map_with(self, function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any]) -> Iterable[Any]:
        return self.executor.map(function, repeat(shared), items)

    def submit(self, function: Callable[[Any], Any], item: Any) -> Callable[[], Any]:
        return self.executor.submit(function, item).result

    def close(self) -> None:
        self.executor.shutdown()


class Processes(OverExecutor):
    """ProcessPoolExecutor, with the start method that the Python at hand has as its default, or a named one."""

    def __init__(self, workers: int, method: str | None = None) -> None:
        from concurrent.futures import ProcessPoolExecutor

        super().__init__(workers)
        context = None
        if method is not None:
            from multiprocessing import get_context

            context = get_context(method)
        self.executor = ProcessPoolExecutor(workers, mp_context=context)


class ChunkedProcesses(Processes):
    """ProcessPoolExecutor whose user has found the best chunk size, by trying."""

    CHUNKS = (100, 500, 2_000, 10_000, 50_000)
    chunk: int | None = None

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        if self.chunk is None or len(items) < self.chunk:
            return self.executor.map(function, items, chunksize=max(1, len(items) // (4 * self.workers)))
        return self.executor.map(function, items, chunksize=self.chunk)

    def tune(self, function: Callable[[Any], Any], items: Sequence[Any]) -> None:
        """Try the chunk sizes, each twice, and keep the best."""
        times: dict[int, float] = {}
        for chunk in self.CHUNKS * 2:
            started = time.perf_counter()
            for _ in self.executor.map(function, items, chunksize=chunk):
                pass
            times[chunk] = min(times.get(chunk, float("inf")), time.perf_counter() - started)
        self.chunk = min(times, key=times.__getitem__)


class Threads(OverExecutor):
    """ThreadPoolExecutor."""

    by_value = True

    def __init__(self, workers: int) -> None:
        from concurrent.futures import ThreadPoolExecutor

        super().__init__(workers)
        self.executor = ThreadPoolExecutor(workers)
