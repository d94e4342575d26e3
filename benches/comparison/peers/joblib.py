"""joblib: `Parallel(n_jobs=...)(delayed(f)(x) for x in items)`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from joblib import Parallel, delayed

from .peer import Peer


class _OverParallel(Peer):
    by_value = True
    hint: str

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        results: list[Any] = self._parallel("list")(delayed(function)(item) for item in items)
        return results

    def stream(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        results: Iterator[Any] = self._parallel("generator")(delayed(function)(item) for item in items)
        return results

    def map_with(self, function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any]) -> Iterable[Any]:
        results: list[Any] = self._parallel("list")(delayed(function)(shared, item) for item in items)
        return results

    def _parallel(self, results: str) -> Any:
        return Parallel(n_jobs=self.workers, prefer=self.hint, return_as=results)


class Processes(_OverParallel):
    """The default backend, loky, whose workers stay for the next call."""

    hint = "processes"

    def close(self) -> None:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown()


class Threads(_OverParallel):
    """The backend of threads."""

    hint = "threads"
