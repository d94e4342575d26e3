"""The pools behind `fanmap.map(..., executor="threads" | "processes")`: made when needed, kept warm for the next call.

They hold nothing that must be finished: a map that is still under way when the program exits is cancelled.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from . import _place
from ._options import Wanted

if TYPE_CHECKING:
    from typing import TypeAlias

    from ._processes import ProcessPoolExecutor
    from ._threads import ThreadPoolExecutor

    Pool: TypeAlias = ThreadPoolExecutor | ProcessPoolExecutor

__all__ = ["in_worker", "pool", "shutdown"]

# How long a warm pool keeps its workers without work, in seconds. Shorter, and a program that maps every few seconds
# starts its workers anew each time; longer, and one that mapped once keeps their memory for nothing.
IDLE = 30.0

_lock = threading.Lock()
_warm: dict[str, Pool] = {}
# Pools of one map each, until they have ended.
_own: list[Pool] = []
_worker = False


def in_worker() -> bool:
    """Whether this is a worker: a process of a pool, or a thread of the warm one."""
    return _place.depth > 0 or any(warm._on_worker() for warm in list(_warm.values()))


def pool(name: str, wanted: Wanted) -> tuple[Pool, Callable[[bool], object] | None]:
    """A pool of that kind for a map; and, if it is for that map alone, what to call when that has ended."""
    with _lock:
        if wanted.workers is not None or wanted.initializer is not None or wanted.limits_memory:
            _own[:] = [pool for pool in _own if not pool._pool.join(0)]
            own = _make(name, wanted, None)
            _own.append(own)
            return own, own.shutdown
        warm = _warm.get(name)
        if warm is None or warm._broken:
            warm = _warm[name] = _make(name, Wanted(), IDLE)
        return warm, None


def shutdown() -> None:
    """End the warm pools of `fanmap.map` and wait until no worker, thread or process of theirs is left.

    Maps that are still under way are cancelled. The next `fanmap.map` makes new pools. Without this they end after 30
    seconds without work, or when the program exits.

    >>> import fanmap
    >>> list(fanmap.map(abs, [-1, -2]))
    [1, 2]
    >>> fanmap.shutdown()
    """
    with _lock:
        pools = [*_warm.values(), *_own]
        _warm.clear()
        _own.clear()
    for ending in pools:
        ending.shutdown(cancel_futures=True)


def _make(name: str, wanted: Wanted, idle: float | None) -> Pool:
    workers, initializer, initargs = wanted.workers, wanted.initializer, wanted.initargs
    if name == "threads":
        from ._threads import ThreadPoolExecutor

        return ThreadPoolExecutor._for_map(workers, idle, initializer, initargs)
    from ._processes import ProcessPoolExecutor

    limits = wanted.max_memory_per_worker, wanted.worker_memory_limit
    return ProcessPoolExecutor._for_map(workers, idle, initializer, initargs, limits)


def _forked() -> None:
    # In a child that the user's program forked, the pools are the parent's, and so may be the lock.
    global _lock
    _lock = threading.Lock()
    _warm.clear()
    _own.clear()


os.register_at_fork(after_in_child=_forked)
