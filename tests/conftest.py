"""What every test of the package is held to: nothing is left behind."""

from __future__ import annotations

import gc
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

# Run by test_programs.py, and read by test_types.py; not modules with doctests.
collect_ignore = ["programs", "typed.py"]


def children(pid: int) -> set[int]:
    """The child processes of a process, zombies included."""
    found: set[int] = set()
    for task in os.listdir(f"/proc/{pid}/task"):
        # A thread that was joined may leave this list a moment later; its children are then another thread's.
        with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/task/{task}/children") as file:
            found.update(map(int, file.read().split()))
    return found


# Of the flags in /proc/[pid]/task/[tid]/stat. The kernel sets it before it tells those who join the thread, and takes
# the thread off the list after that.
_PF_EXITING = 0x4


def _engine_threads() -> set[int]:
    """The engine's own threads, which `threading` does not know: they are told by their names."""
    found = set()
    for task in os.listdir("/proc/self/task"):
        with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/self/task/{task}/stat") as file:
            name, _, rest = file.read().partition("(")[2].rpartition(")")
            if name.startswith("fanmap-") and not int(rest.split()[6]) & _PF_EXITING:
                found.add(int(task))
    return found


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one that listed the others
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def _mappings() -> int:
    with open("/proc/self/maps") as file:
        return len(re.findall("memfd:fanmap", file.read()))


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """After each test, once the warm pools are closed: no process, thread, descriptor or mapping more than before."""
    processes, threads, descriptors = children(os.getpid()), set(threading.enumerate()), _descriptors()
    engine_threads = _engine_threads()
    yield
    fanmap = sys.modules.get("fanmap")
    if fanmap is None:
        return
    fanmap.shutdown()
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    kept = {tracker._resource_tracker._pid} if tracker else set()
    assert children(os.getpid()) - processes - kept == set(), "child processes are left"
    assert set(threading.enumerate()) - threads == set(), "threads are left"
    assert _engine_threads() - engine_threads == set(), "threads of the engine are left"
    tracker_fd = tracker._resource_tracker._fd if tracker else None

    def left() -> dict[int, str]:
        return {fd: to for fd, to in _descriptors().items() if descriptors.get(fd) != to and fd != tracker_fd}

    if left() or _mappings():
        # A traceback that the test caught can hold an executor in a cycle, and that its doorbell.
        gc.collect()
    assert left() == {}, "descriptors are left"
    assert _mappings() == 0, "shared memory is left"
