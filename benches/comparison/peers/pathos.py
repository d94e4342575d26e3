"""pathos: its pools of processes and of threads, which pickle by dill."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

from pathos.pools import ProcessPool, ThreadPool

from .peer import Peer


class _OverPool(Peer):
    by_value = True
    pool: Any

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        results: list[Any] = self.pool.map(function, items)
        return results

    def stream(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        results: Iterator[Any] = self.pool.imap(function, items)
        return results

    def map_with(self, function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any]) -> Iterable[Any]:
        results: list[Any] = self.pool.map(function, repeat(shared, len(items)), items)
        return results

    def submit(self, function: Callable[[Any], Any], item: Any) -> Callable[[], Any]:
        wait: Callable[[], Any] = self.pool.apipe(function, item).get
        return wait

    def close(self) -> None:
        self.pool.close()
        self.pool.join()
        self.pool.clear()


class Processes(_OverPool):
    """ProcessPool."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.pool = ProcessPool(nodes=workers)


class Threads(_OverPool):
    """ThreadPool."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.pool = ThreadPool(nodes=workers)
