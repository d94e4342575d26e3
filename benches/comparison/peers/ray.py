"""Ray on this machine alone: remote functions, and its Pool for maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import ray
from ray.util.multiprocessing import Pool

from .peer import Peer


class Processes(Peer):
    """`ray.util.multiprocessing.Pool` for maps, remote functions for single calls and shared arguments."""

    by_value = True

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, configure_logging=False)
        self._pool: Any = None
        self._remote: dict[Any, Any] = {}

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        if self._pool is None:
            self._pool = Pool(processes=self.workers)
        results: list[Any] = self._pool.map(function, items)
        return results

    def stream(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        if self._pool is None:
            self._pool = Pool(processes=self.workers)
        results: Iterator[Any] = self._pool.imap(function, items)
        return results

    def map_with(self, function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any]) -> Iterable[Any]:
        # What Ray's pages tell its users to do with a large argument.
        reference = ray.put(shared)
        remote = ray.remote(function)
        results: list[Any] = ray.get([remote.remote(reference, item) for item in items])
        return results

    def submit(self, function: Callable[[Any], Any], item: Any) -> Callable[[], Any]:
        remote = self._remote.get(function)
        if remote is None:
            # The pool's actors hold the cores that remote functions need.
            if self._pool is not None:
                self._pool.terminate()
                self._pool = None
            remote = self._remote[function] = ray.remote(function)
        reference = remote.remote(item)
        return lambda: ray.get(reference)

    def close(self) -> None:
        ray.shutdown()
