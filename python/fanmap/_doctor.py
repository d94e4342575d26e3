"""What `python -m fanmap doctor` says: what there is to work with, what it costs to start a worker, what that means."""

from __future__ import annotations

import os
import platform
import sys
import textwrap
from collections.abc import Iterator
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from . import __version__, _native
from ._cores import cpu_count, default_threads

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

__all__ = ["report"]

# Seconds, after which a start method counts as one that does not work here.
_PATIENCE = 60.0


def report() -> Iterator[str]:
    """The report, line by line: those that take time to find out come as they are found."""
    cores = _Cores.here()
    yield f"fanmap {__version__}"
    yield from _interpreter()
    yield ""
    yield from cores.lines()
    yield ""
    yield from _memory()
    yield ""
    yield "start methods (milliseconds until a first worker has given its first result)"
    yield from _start_methods()
    yield ""
    yield from _defaults()
    yield ""
    yield from textwrap.wrap(_meaning(cores), 100)


def _line(name: str, value: str) -> str:
    return f"  {name:<24}{value}"


def _interpreter() -> Iterator[str]:
    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    yield _line("interpreter", f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})")
    yield _line("system", system)
    yield _line("threads", f"{_lock()}: {'several compute' if _is_free_threaded() else 'one computes'} at a time")


def _is_free_threaded() -> bool:
    return not getattr(sys, "_is_gil_enabled", lambda: True)()


def _lock() -> str:
    import sysconfig

    if _is_free_threaded():
        return "free-threaded"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "free-threaded, but the interpreter's lock was switched on"
    return "with the interpreter's lock"


class _Cores(NamedTuple):
    machine: int
    allowed: frozenset[int]
    quota: float | None
    taken: int

    @classmethod
    def here(cls) -> _Cores:
        allowed = frozenset(os.sched_getaffinity(0))
        return cls(os.cpu_count() or len(allowed), allowed, _native.cgroup_limits()[0], cpu_count())

    def lines(self) -> Iterator[str]:
        yield "cores"
        yield _line("of the machine", str(self.machine))
        yield _line("by affinity", f"{len(self.allowed)} ({_ranges(self.allowed)})")
        yield _line("by the cgroup's quota", "no limit" if self.quota is None else f"{self.quota:g}")
        yield _line("fanmap.cpu_count()", str(self.taken))


def _ranges(numbers: frozenset[int]) -> str:
    """Numbers as the system writes them: 0-3,8."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _memory() -> Iterator[str]:
    found = {}
    with open("/proc/meminfo") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name in ("MemTotal", "MemAvailable"):
                found[name] = int(value.split()[0]) * 1024
    limit = _native.cgroup_limits()[1]
    yield "memory"
    yield _line("of the machine", _gib(found.get("MemTotal")))
    yield _line("free to use now", _gib(found.get("MemAvailable")))
    yield _line("by the cgroup's limit", "no limit" if limit is None else _gib(limit))


def _gib(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 2**30:.1f} GiB"


def _start_methods() -> Iterator[str]:
    import multiprocessing

    # The one that forks comes first: later there are threads, and a fork of a process with threads is warned of.
    methods = [name for name in ("fork", "forkserver", "spawn") if name in multiprocessing.get_all_start_methods()]
    for method in methods:
        yield _line(method, _first_result(multiprocessing.get_context(method)))
    yield _line("the default", f"{_first_result(None)} (a template process that forks workers)")


def _first_result(context: BaseContext | None) -> str:
    """How long a first result takes, in milliseconds; or why there is none."""
    from ._processes import ProcessPoolExecutor

    before = perf_counter()
    try:
        with ProcessPoolExecutor(1, context) as pool:
            try:
                pool.submit(abs, -1).result(_PATIENCE)
                return f"{(perf_counter() - before) * 1e3:.0f}"
            except BaseException:
                pool.kill_workers()
                raise
    except Exception as error:
        return f"does not work here: {type(error).__name__}: {error}"


def _defaults() -> Iterator[str]:
    yield "defaults"
    for name, workers in (("processes", cpu_count()), ("threads", default_threads())):
        yield _line(f'executor="{name}"', f"{workers} worker{'' if workers == 1 else 's'}")
    yield _line("read ahead", "50 ms of work for each worker, at least 2 items, at most 32768 items in all")


def _meaning(cores: _Cores) -> str:
    threads = (
        "Here threads compute at the same time, so they serve for work that computes as well"
        if _is_free_threaded()
        else "Here only one thread runs Python code at a time, so threads are for work that waits, or that computes in "
        "C code which lets go of the interpreter's lock"
    )
    are = "one is" if cores.taken == 1 else f"{cores.taken} are"
    of = "" if cores.taken == cores.machine else f", of the {cores.machine} in the machine"
    return (
        f"A core computes one thing at a time. Of these {are} yours{of}: more workers than that pay only for work that "
        "waits. A process is a program with memory and an interpreter of its own: processes compute at the same time, "
        "and what goes to one is copied. A thread is one of several places at which one process runs, all in the same "
        f"memory. {threads}. A pool is a number of threads or processes that wait for work: starting a process takes "
        "what the table says, and a warm pool pays that once."
    )
