"""What every test of the package is held to: nothing is left behind."""

from __future__ import annotations

import gc
import os
import re
import sys
import threading
from collections.abc import Iterator

import pytest


def children(pid: int) -> set[int]:
    """The child processes of a process, zombies included."""
    found: set[int] = set()
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as file:
            found.update(map(int, file.read().split()))
    return found


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the one that listed the others
    return found


def _mappings() -> int:
    with open("/proc/self/maps") as file:
        return len(re.findall("memfd:fanmap", file.read()))


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """After each test, once the warm pools are closed: no process, thread, descriptor or mapping more than before."""
    processes, threads, descriptors = children(os.getpid()), set(threading.enumerate()), _descriptors()
    yield
    fanmap = sys.modules.get("fanmap")
    if fanmap is None:
        return
    fanmap.shutdown()
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    kept = {tracker._resource_tracker._pid} if tracker else set()
    assert children(os.getpid()) - processes - kept == set(), "child processes are left"
    assert set(threading.enumerate()) - threads == set(), "threads are left"
    # A traceback that the test caught can hold an executor in a cycle, and that its doorbell.
    gc.collect()
    tracker_fd = tracker._resource_tracker._fd if tracker else None
    left = {fd: to for fd, to in _descriptors().items() if descriptors.get(fd) != to and fd != tracker_fd}
    assert left == {}, "descriptors are left"
    assert _mappings() == 0, "shared memory is left"
