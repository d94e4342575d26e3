"""`multiprocessing.Pool`, and its pool of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

from .peer import Peer


class _OverPool(Peer):
    pool: Any

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        results: list[Any] = self.pool.map(function, items)
        return results

    def stream(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        results: Iterator[Any] = self.pool.imap(function, items)
        return results

    def map_with(self, function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any]) -> Iterable[Any]:
        results: list[Any] = self.pool.starmap(function, zip(repeat(shared), items, strict=False))
        return results

    def submit(self, function: Callable[[Any], Any], item: Any) -> Callable[[], Any]:
        wait: Callable[[], Any] = self.pool.apply_async(function, (item,)).get
        return wait

    def close(self) -> None:
        self.pool.close()
        self.pool.join()


class Processes(_OverPool):
    """multiprocessing.Pool."""

    def __init__(self, workers: int) -> None:
        from multiprocessing import Pool

        super().__init__(workers)
        self.pool = Pool(workers)


class Threads(_OverPool):
    """multiprocessing.pool.ThreadPool."""

    by_value = True

    def __init__(self, workers: int) -> None:
        from multiprocessing.pool import ThreadPool

        super().__init__(workers)
        self.pool = ThreadPool(workers)
