"""Dask on this machine alone: a local cluster of worker processes with one thread each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from distributed import Client

from .peer import Peer


class Processes(Peer):
    """`Client.map` and `Client.submit`."""

    by_value = True

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.client: Any = Client(n_workers=workers, threads_per_worker=1, dashboard_address=None)

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        # Without `pure=False` equal calls are made once.
        results: list[Any] = self.client.gather(self.client.map(function, items, pure=False))
        return results

    def map_with(self, function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any]) -> Iterable[Any]:
        # What Dask's pages tell its users to do with a large argument.
        future = self.client.scatter(shared, broadcast=True)
        calls = [self.client.submit(function, future, item, pure=False) for item in items]
        results: list[Any] = self.client.gather(calls)
        return results

    def submit(self, function: Callable[[Any], Any], item: Any) -> Callable[[], Any]:
        wait: Callable[[], Any] = self.client.submit(function, item, pure=False).result
        return wait

    def close(self) -> None:
        cluster = self.client.cluster
        self.client.close()
        cluster.close()
