"""What workers call. A module that every peer can import by name, and that imports next to nothing itself.

numpy is imported by the tasks that need it, so that a worker of another workload does not carry it.
"""

from __future__ import annotations

import os
import time
from typing import Any

MIB = 1 << 20
PAGE_OF_DOUBLES = 4096 // 8


def plus_one(x: int) -> int:
    """Next to nothing: what is measured is the way there and back."""
    return x + 1


def microsecond(x: int) -> int:
    """About a microsecond of arithmetic."""
    return sum((x, x + 1, x + 2, x + 3, x + 4, x + 5, x + 6, x + 7)) + len(range(x, x + 100, 3))


def busy(seconds: float) -> float:
    """Compute until this thread has used so many seconds of processor time.

    Not a number of steps: two cores of one chip may run slower together than alone, which is no peer's doing.
    """
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass
    return seconds


def nap(seconds: float) -> None:
    """Wait without computing."""
    time.sleep(seconds)


def who(seconds: float) -> int:
    """Which process this is; waits a while, so that the next call goes to another worker."""
    time.sleep(seconds)
    return os.getpid()


def touch(array: Any) -> float:
    """Read something of every page: memory that nobody reads need never arrive."""
    return float(array[::PAGE_OF_DOUBLES].sum())


def total(array: Any) -> float:
    """Read all of it."""
    return float(array.sum())


def total_with(array: Any, item: int) -> float:
    """`total`, with an argument for the item."""
    return total(array) + item


def make(megabytes: int) -> Any:
    """A fresh array of so many MiB."""
    import numpy

    return numpy.full(megabytes * MIB // 8, 1.0)


def raise_all(array: Any) -> Any:
    """A fresh array of the same size, from every element."""
    return array + 1.0


def length(text: bytes) -> int:
    """Small from large."""
    return len(text)
