"""What `test_retries.py` has tried again: in a module that new workers import quickly."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import fanmap

FOR_EVER = 600.0


def attempt(path: str) -> int:
    """Which attempt this is, from 1: each leaves a byte."""
    with open(path, "ab") as file:
        file.write(b"x")
        return file.tell()


def flaky(x: int, folder: str, failures: int, how: str = "raise") -> int:
    """Fails so often first."""
    number = attempt(f"{folder}/{x}")
    if number <= failures:
        fail(number, how)
    return x


def fail(number: int, how: str) -> None:
    if how == "exit":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "sleep":
        time.sleep(FOR_EVER)
    if how == "memory":
        raise MemoryError(f"attempt {number}")
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "exit of python":
        raise SystemExit(4)
    raise ValueError(f"attempt {number}")


class Changes:
    """Changes what it is given, then fails in one of two ways, the first time."""

    def __init__(self, folder: str) -> None:
        self.path = f"{folder}/0"

    def __call__(self, data: bytearray, how: str) -> int:
        before = data.count(b"a")
        data[:] = bytes(len(data))
        number = attempt(self.path)
        if number == 1:
            fail(number, how)
        return before


def hold_and_fail(path: str) -> None:
    attempt(path)
    with open(f"{path}.gate", "rb") as gate:
        gate.read()
    raise ValueError


def unpicklable(path: str) -> Any:
    attempt(path)
    return threading.Lock()


class Undecodable:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return failing_to_load, (self.path,)


def failing_to_load(path: str) -> None:
    attempt(path)
    raise ValueError(path)


def never() -> None:
    raise RuntimeError("no worker today")


def flaky_add(path: str, one: int, other: int) -> int:
    if attempt(path) == 1:
        raise ValueError
    return one + other


def map_within(folder: str) -> list[int]:
    return list(
        fanmap.map(flaky, range(3), [folder] * 3, [2] * 3, retries=fanmap.Retry(2, wait=0.01), executor="processes")
    )
