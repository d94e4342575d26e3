"""One budget of cores: what computes in a worker with threads of its own (BLAS, OpenMP, rayon, numexpr) gets a share.

Left alone, each such library starts as many threads as the machine has cores, in each worker: on eight cores that makes
sixty-four threads, which take the cores from each other. So a worker process gets the cores divided by the workers, at
least 1. It is told so by environment variables, which libraries read when they are loaded; what the user has set wins.
Libraries that are loaded already, in a forked worker or beside the threads of a map, are told through threadpoolctl, if
that is installed.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from . import _place
from ._cores import cpu_count

__all__ = ["Quiet", "environment", "limit_loaded", "share", "threadpoolctl"]

# A variable, and those by which the user has decided it, too.
_VARIABLES: dict[str, tuple[str, ...]] = {
    "OMP_NUM_THREADS": (),
    "OPENBLAS_NUM_THREADS": ("OMP_NUM_THREADS", "GOTO_NUM_THREADS"),
    "MKL_NUM_THREADS": ("OMP_NUM_THREADS",),
    "BLIS_NUM_THREADS": ("OMP_NUM_THREADS",),
    "NUMEXPR_NUM_THREADS": ("OMP_NUM_THREADS", "NUMEXPR_MAX_THREADS"),
    "NUMEXPR_MAX_THREADS": ("OMP_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
    "NUMBA_NUM_THREADS": (),
    "RAYON_NUM_THREADS": (),
    "POLARS_MAX_THREADS": (),
}


def share(workers: int) -> int:
    """The cores of each of so many workers: of this process's own share, if it is a worker itself."""
    return max(1, (_place.cores or cpu_count()) // workers)


def environment(cores: int, *, always: bool = False) -> tuple[dict[str, str], frozenset[str]]:
    """The environment for a worker that has so many cores, and the variables in it that are ours.

    With `always` they are so many whatever the user has set.
    """
    # What another pool has set in this process is nobody's wish.
    theirs = {name: value for name, value in os.environ.items() if name not in _place.limited}
    ours = {
        name: str(cores)
        for name, others in _VARIABLES.items()
        if always or not any(variable in theirs for variable in (name, *others))
    }
    return {**theirs, **ours}, frozenset(ours)


class Quiet:
    """Beside the threads of a map: libraries that are loaded have their share of the cores, until it is over.

    It is a setting of the whole process, so of several maps at a time the first sets it and the last restores it.
    """

    _lock = threading.Lock()
    _maps = 0
    _limits: Any = None
    _controller: Any = None
    _loaded = 0

    def __init__(self, workers: int, inner_threads: int | None = None) -> None:
        self._cores = inner_threads or share(workers)
        self._asked = inner_threads is not None
        self._held = False

    def begin(self) -> None:
        limiter = threadpoolctl() if self._asked or not _is_decided() else None
        if limiter is None:
            return
        with Quiet._lock:
            if Quiet._maps == 0:
                if Quiet._loaded != len(sys.modules):
                    # What was imported since may have brought a library with threads.
                    Quiet._controller, Quiet._loaded = limiter.ThreadpoolController(), len(sys.modules)
                Quiet._limits = _alone(lambda: Quiet._controller.limit(limits=self._cores))
            Quiet._maps += 1
            self._held = True

    def end(self) -> None:
        if not self._held:
            return
        with Quiet._lock:
            self._held = False
            Quiet._maps -= 1
            if Quiet._maps == 0:
                _alone(Quiet._limits.restore_original_limits)
                Quiet._limits = None


def _alone(act: Callable[[], Any]) -> Any:
    """What it returns or raises, called in a thread of its own.

    threadpoolctl lets no other thread change OpenBLAS's number while the one that did so is alive, and a map may be
    ended by any thread.
    """
    returned, raised = [], []

    def call() -> None:
        try:
            returned.append(act())
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    try:
        thread.start()
    except RuntimeError:
        return act()  # the interpreter ends, and has no new threads
    thread.join()
    for error in raised:
        raise error
    return returned[0]


def _is_decided() -> bool:
    """Whether the user has set how many threads there are to be."""
    return any(name in os.environ for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"))


def threadpoolctl() -> Any:
    """The module, if there is anything for it to do."""
    if "numpy" not in sys.modules and "torch" not in sys.modules:
        return None
    try:
        import threadpoolctl
    except ImportError:
        return None
    return threadpoolctl


def limit_loaded(cores: int) -> None:
    """Have the libraries that are loaded use so many threads from now on."""
    limiter = threadpoolctl()
    if limiter is not None:
        limiter.threadpool_limits(cores)


def _forked() -> None:
    # In a child that the user's program forked, the maps are the parent's, and so may be the lock.
    Quiet._lock = threading.Lock()
    Quiet._maps = 0


os.register_at_fork(after_in_child=_forked)
