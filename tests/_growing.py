"""Tasks that take memory. A module of its own, so that the workers that have it import nothing else."""

from __future__ import annotations

import gc
import os
from typing import Any

MIB = 2**20

kept: list[Any] = []


def keep(size: int, x: int = 0) -> tuple[int, int]:
    """Keeps so many bytes for ever; tells what it was given, and its process."""
    kept.append(b"x" * size)
    return x, os.getpid()


def note_and_keep(x: int, path: str) -> tuple[int, int]:
    with open(path, "a") as notes:
        notes.write(f"{x}\n")
    return keep(70 * MIB if x % 20 == 10 else 0, x)


def take(size: int) -> int:
    return len(b"x" * size)


def take_and_catch(size: int) -> tuple[str, int]:
    try:
        take(size)
    except MemoryError:
        return "caught", os.getpid()
    return "taken", os.getpid()


class Ring:
    """Nothing refers to it but itself."""

    def __init__(self, size: int) -> None:
        self.me, self.data = self, b"x" * size


def leave_garbage(size: int) -> int:
    gc.disable()
    Ring(size)
    return os.getpid()


def make_zeros(count: int) -> Any:
    import numpy

    return numpy.zeros(count)


def take_and_raise() -> None:
    raise MemoryError("mine")
