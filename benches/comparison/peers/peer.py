"""What a workload may ask of a pool, whosever it is. Each method is written as that library's users write it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self


class NotOffered(Exception):
    """The peer has no such thing; the message says what."""


class Peer:
    """A pool, open from its making until `close`."""

    # Whether functions that cannot be imported, closures for one, may be sent to the workers.
    by_value = False

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        """The results in order, as many at a time as the peer likes."""
        raise NotOffered("map")

    def stream(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """The results in order, each to be dropped before the next is asked for: the leanest way that there is."""
        return iter(self.map(function, list(items)))

    def map_with(self, function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any]) -> Iterable[Any]:
        """The results of `function(shared, item)`, as if by `map(function, itertools.repeat(shared), items)`."""
        raise NotOffered("map of two arguments")

    def submit(self, function: Callable[[Any], Any], item: Any) -> Callable[[], Any]:
        """Begin one call; what is returned waits for its result."""
        raise NotOffered("submit")

    def close(self) -> None:
        """End the workers and wait for them."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
