"""fanmap: its executors, and `fanmap.map` over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

import fanmap

from .futures import OverExecutor


class _Ours(OverExecutor):
    by_value = True

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        return fanmap.map(function, items, executor=self.executor)

    def stream(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        return fanmap.map(function, items, executor=self.executor)

    def map_with(self, function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any]) -> Iterable[Any]:
        return fanmap.map(function, repeat(shared), items, executor=self.executor)


class Processes(_Ours):
    """`fanmap.map` over a ProcessPoolExecutor of fanmap's, started in the default way or by a named method."""

    def __init__(self, workers: int, method: str | None = None) -> None:
        super().__init__(workers)
        context = None
        if method is not None:
            from multiprocessing import get_context

            context = get_context(method)
        self.executor = fanmap.ProcessPoolExecutor(workers, mp_context=context)


class Threads(_Ours):
    """`fanmap.map` over a ThreadPoolExecutor of fanmap's."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.executor = fanmap.ThreadPoolExecutor(workers)


class DropInProcesses(OverExecutor):
    """fanmap's ProcessPoolExecutor in a program that was written for the standard library's."""

    by_value = True

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.executor = fanmap.ProcessPoolExecutor(workers)


class DropInThreads(OverExecutor):
    """fanmap's ThreadPoolExecutor in a program that was written for the standard library's."""

    by_value = True

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.executor = fanmap.ThreadPoolExecutor(workers)
