"""A plain `map` made parallel: threads, supervised processes, and a drop-in for `concurrent.futures`.

    import fanmap

    results = list(fanmap.map(work, items))                          # in the fastest way; ordered, bounded
    results = list(fanmap.map(fetch, urls, executor="threads"))      # over threads

    with fanmap.ProcessPoolExecutor() as pool:                       # the standard library's names and signatures
        future = pool.submit(work, item)

Importing this starts no thread and no process. Names are resolved when they are first used, so that a worker process,
which imports this package too, loads only its own loop.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builtins import TimeoutError
    from concurrent.futures import (
        ALL_COMPLETED,
        FIRST_COMPLETED,
        FIRST_EXCEPTION,
        BrokenExecutor,
        CancelledError,
        Executor,
        InvalidStateError,
        as_completed,
        wait,
    )
    from concurrent.futures.thread import BrokenThreadPool

    from ._async import AsyncMapResult, amap
    from ._cores import cpu_count
    from ._default import shutdown
    from ._errors import BrokenProcessPool, MemoryLimitExceeded, TaskTimeout, UndecodableError, WorkerCrashed
    from ._explain import explain
    from ._failure import Failure
    from ._family import filter, for_each, reduce, starmap
    from ._future import Future
    from ._map import map
    from ._map_async import map_async
    from ._place import worker_index
    from ._processes import ProcessPoolExecutor
    from ._remote import RemoteError
    from ._result import MapResult, MapStats
    from ._retry import Retry
    from ._threads import ThreadPoolExecutor

__version__ = "0.1.0"

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "AsyncMapResult",
    "BrokenExecutor",
    "BrokenProcessPool",
    "BrokenThreadPool",
    "CancelledError",
    "Executor",
    "Failure",
    "Future",
    "InvalidStateError",
    "MapResult",
    "MapStats",
    "MemoryLimitExceeded",
    "ProcessPoolExecutor",
    "RemoteError",
    "Retry",
    "TaskTimeout",
    "ThreadPoolExecutor",
    "TimeoutError",
    "UndecodableError",
    "WorkerCrashed",
    "amap",
    "as_completed",
    "cpu_count",
    "explain",
    "filter",
    "for_each",
    "map",
    "map_async",
    "reduce",
    "shutdown",
    "starmap",
    "wait",
    "worker_index",
]

_WHERE = {
    "ALL_COMPLETED": "concurrent.futures",
    "FIRST_COMPLETED": "concurrent.futures",
    "FIRST_EXCEPTION": "concurrent.futures",
    "AsyncMapResult": "fanmap._async",
    "BrokenExecutor": "concurrent.futures",
    "BrokenProcessPool": "fanmap._errors",
    "BrokenThreadPool": "concurrent.futures.thread",
    "CancelledError": "concurrent.futures",
    "Executor": "concurrent.futures",
    "Failure": "fanmap._failure",
    "Future": "fanmap._future",
    "InterpreterPoolExecutor": "concurrent.futures",  # since Python 3.14, and the standard library's own
    "InvalidStateError": "concurrent.futures",
    "MapResult": "fanmap._result",
    "MapStats": "fanmap._result",
    "MemoryLimitExceeded": "fanmap._errors",
    "ProcessPoolExecutor": "fanmap._processes",
    "RemoteError": "fanmap._remote",
    "Retry": "fanmap._retry",
    "TaskTimeout": "fanmap._errors",
    "ThreadPoolExecutor": "fanmap._threads",
    "TimeoutError": "builtins",
    "UndecodableError": "fanmap._errors",
    "WorkerCrashed": "fanmap._errors",
    "amap": "fanmap._async",
    "as_completed": "concurrent.futures",
    "cpu_count": "fanmap._cores",
    "explain": "fanmap._explain",
    "filter": "fanmap._family",
    "for_each": "fanmap._family",
    "map": "fanmap._map",
    "map_async": "fanmap._map_async",
    "reduce": "fanmap._family",
    "shutdown": "fanmap._default",
    "starmap": "fanmap._family",
    "wait": "concurrent.futures",
    "worker_index": "fanmap._place",
}


def __getattr__(name: str) -> object:
    try:
        where = _WHERE[name]
    except KeyError:
        hint = f"; it is to be imported: import fanmap.{name}" if name in ("joblib", "ray", "dask") else ""
        raise AttributeError(f"module 'fanmap' has no attribute {name!r}{hint}") from None
    import importlib

    if "fanmap._native" not in sys.modules and _in_subinterpreter():
        raise ImportError(
            "fanmap cannot be used in a sub-interpreter: its engine belongs to a process's main interpreter. "
            "Import it there and send the work here, or use processes."
        )
    value: object = getattr(importlib.import_module(where), name)
    globals()[name] = value
    return value


def _in_subinterpreter() -> bool:
    for name in ("_interpreters", "_xxsubinterpreters"):  # since Python 3.13, and before
        try:
            interpreters = __import__(name)
        except ImportError:
            continue
        here, main = interpreters.get_current(), interpreters.get_main()
        return bool(here != main)
    return False


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
