"""The pools behind `fanmap.map(..., executor="threads" | "processes")`: made when needed, kept warm for the next call.

They hold nothing that must be finished: a map that is still under way when the program exits is cancelled.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from . import _place
from ._choice import MOST_THREADS
from ._options import Wanted

if TYPE_CHECKING:
    from typing import TypeAlias

    from ._processes import ProcessPoolExecutor
    from ._threads import ThreadPoolExecutor

    Pool: TypeAlias = ThreadPoolExecutor | ProcessPoolExecutor

__all__ = ["Gathering", "Pools", "gather", "in_worker", "pool", "shutdown", "warm"]


class Gathering(Protocol):
    """A thread that asks a map for its results."""

    thread: threading.Thread

    def finish_at_exit(self) -> None:
        """Cancel the map, and wait for the thread."""


# How long a warm pool keeps its workers without work, in seconds. Shorter, and a program that maps every few seconds
# starts its workers anew each time; longer, and one that mapped once keeps their memory for nothing.
IDLE = 30.0

_lock = threading.Lock()
# By name, with what was wished for when they were made.
_warm: dict[str, tuple[object, Pool]] = {}
# Pools of one map each, and warm ones that others took the place of, until they have ended.
_own: list[Pool] = []
# What asks maps for their results in the background, until it has ended.
_gathering: list[Gathering] = []


def in_worker() -> bool:
    """Whether this is a worker: a process of a pool, or a thread of the warm one."""
    return _place.depth > 0 or (bool(_warm) and any(pool._on_worker() for _, pool in list(_warm.values())))


def pool(name: str, wanted: Wanted) -> tuple[Pool, Callable[[bool], object] | None]:
    """A pool of that kind for a map; and, if it is for that map alone, what to call when that has ended."""
    if wanted.workers is not None or wanted.initializer is not None or wanted.limits_memory:
        with _lock:
            own = _make(name, wanted, None)
            _until_ended(own)
            return own, own.shutdown
    return warm(name, None, lambda: _make(name, Wanted(), IDLE)), None


def warm(name: str, wish: object, make: Callable[[], Pool]) -> Pool:
    """The warm pool of that name; a new one if the last was made for another wish, or is broken.

    The last one ends with the work of those who still hold it.
    """
    with _lock:
        kept = _warm.get(name)
        if kept is not None and kept[0] == wish and not kept[1]._broken:
            return kept[1]
        pool = make()
        _warm[name] = wish, pool
        if kept is not None:
            # Another handle, for `shutdown`: the pool closes when the last one that is used is dropped.
            _until_ended(copy.copy(kept[1]))
        return pool


def _until_ended(pool: Pool) -> None:
    _own[:] = [one for one in _own if not one._pool.join(0)]
    _own.append(pool)


def gather(gathering: Gathering) -> None:
    """Start its thread, for which `shutdown` waits."""
    with _lock:
        gathering.thread.start()
        _gathering[:] = [gathering, *(one for one in _gathering if one.thread.is_alive())]


class Pools:
    """Those of a map that chooses its way: the warm ones, or, of so many workers, some of its own."""

    def __init__(self, workers: int | None) -> None:
        self._workers = workers
        # Its own, with what ends them.
        self._ends: dict[str, tuple[Pool, Callable[[bool], object]]] = {}
        # Whether worker processes were started for it.
        self.started = False

    def __getitem__(self, name: str) -> Any:
        if name in self._ends:
            return self._ends[name][0]
        made, end = pool(name, Wanted(workers=self._workers))
        if end is not None:
            self._ends[name] = made, end
        return made

    def start_processes(self, fn: Callable[..., object]) -> None:
        """Have workers started that know the function; nobody waits for them."""
        self.started = True
        self["processes"]._start_ahead(fn)

    def have_processes(self) -> bool:
        """Whether the pool of processes is there and has a worker."""
        _, kept = _warm.get("processes", (None, None))
        if self._workers is not None:
            kept = self._ends.get("processes", (None, None))[0]
        return kept is not None and not kept._broken and bool(kept._engine.workers(wait=False))  # type: ignore[union-attr]

    def are_starting(self) -> bool:
        """Whether workers were started, and none is there yet."""
        return self.started and not self.have_processes()

    def dismiss(self, wait: bool) -> None:
        """End those that are the map's own."""
        for _, end in tuple(self._ends.values()):
            end(wait)


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
        pools = [*(pool for _, pool in _warm.values()), *_own]
        gathering = _gathering[:]
        _warm.clear()
        _own.clear()
        _gathering.clear()
    for one in gathering:
        one.finish_at_exit()
    for ending in pools:
        ending.shutdown(cancel_futures=True)


def _make(name: str, wanted: Wanted, idle: float | None) -> Pool:
    workers, initializer, initargs = wanted.workers, wanted.initializer, wanted.initargs
    if name != "processes":
        from ._threads import ThreadPoolExecutor

        if workers is None and name == "many threads":
            workers = MOST_THREADS
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
    _gathering.clear()


os.register_at_fork(after_in_child=_forked)
