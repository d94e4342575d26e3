"""mpire: `WorkerPool`, kept alive from one map to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

from mpire import WorkerPool

from .peer import Peer


class _OverWorkerPool(Peer):
    pool: Any

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        # It joins the results into one array if they are arrays, unless told not to.
        results: list[Any] = self.pool.map(function, items, concatenate_numpy_output=False)
        return results

    def stream(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        results: Iterator[Any] = self.pool.imap(function, items)
        return results

    def map_with(self, function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any]) -> Iterable[Any]:
        results: list[Any] = self.pool.map(
            function, zip(repeat(shared), items, strict=False), iterable_len=len(items), concatenate_numpy_output=False
        )
        return results

    def submit(self, function: Callable[[Any], Any], item: Any) -> Callable[[], Any]:
        wait: Callable[[], Any] = self.pool.apply_async(function, (item,)).get
        return wait

    def close(self) -> None:
        self.pool.stop_and_join()
        self.pool.terminate()


class Processes(_OverWorkerPool):
    """Workers that are processes, started in mpire's default way."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.pool = WorkerPool(workers, keep_alive=True)


class Threads(_OverWorkerPool):
    """Workers that are threads."""

    by_value = True

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.pool = WorkerPool(workers, start_method="threading", keep_alive=True)
