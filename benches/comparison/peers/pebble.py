"""pebble: its pools of processes and of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

from pebble import ProcessPool, ThreadPool

from .peer import Peer


class _OverPool(Peer):
    pool: Any

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        results: Iterable[Any] = self.pool.map(function, items).result()
        return results

    def stream(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        results: Iterator[Any] = self.pool.map(function, items).result()
        return results

    def map_with(self, function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any]) -> Iterable[Any]:
        results: Iterable[Any] = self.pool.map(function, repeat(shared), items).result()
        return results

    def submit(self, function: Callable[[Any], Any], item: Any) -> Callable[[], Any]:
        wait: Callable[[], Any] = self.pool.schedule(function, args=(item,)).result
        return wait

    def close(self) -> None:
        self.pool.close()
        self.pool.join()


class Processes(_OverPool):
    """ProcessPool."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.pool = ProcessPool(max_workers=workers)


class Threads(_OverPool):
    """ThreadPool."""

    by_value = True

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.pool = ThreadPool(max_workers=workers)
