"""No pool: the built-in `map` in the calling thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

from .peer import Peer


class Plain(Peer):
    """What all others are made to be faster than."""

    by_value = True

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        return map(function, items)

    def stream(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        return map(function, items)

    def map_with(self, function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any]) -> Iterable[Any]:
        return map(function, repeat(shared), items)


class Copy(Plain):
    """Stands for one plain copy of memory, where that is what all are compared with."""
