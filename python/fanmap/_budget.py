"""One budget of cores: what computes in a worker with threads of its own (BLAS, OpenMP, rayon, numexpr) gets a share.

Left alone, each such library starts as many threads as the machine has cores, in each worker: on eight cores that makes
sixty-four threads, which take the cores from each other. So a worker process gets the cores divided by the workers, at
least 1. It is told so by environment variables, which libraries read when they are loaded; what the user has set wins.
Libraries that are loaded already, in a forked worker or beside the threads of a map, are told through threadpoolctl, if
that is installed. To BLAS that is a setting of the whole process. To OpenMP it is one of each thread: so it is set in
the thread of a map that calls the function, before the call, and restored after it. Nothing is left in a thread that
lives on, and a library that sets its own number when a thread first comes to it (as torch does) is told again.
"""

from __future__ import annotations

import ctypes
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

    What is a setting of the whole process the first of several maps at a time sets, and the last restores. Any thread
    may end it, even before another begins it, who then comes too late.
    """

    # The collector may end a map in the thread that has it.
    _lock = threading.RLock()
    _maps = 0
    _limits: Any = None
    _controller: Any = None
    _openmp: tuple[ctypes.PyDLL, ...] = ()
    _loaded = 0

    def __init__(self, workers: int, inner_threads: int | None = None) -> None:
        self._cores = inner_threads or share(workers)
        self._asked = inner_threads is not None
        self._held = False
        self._over = False

    def around(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """The function as threads are to call it: where OpenMP is loaded, with its share of the cores."""
        if self._finds_libraries():
            for library in Quiet._openmp:
                fn = _limited(fn, library.omp_get_max_threads, library.omp_set_num_threads, self._cores)
        return fn

    def _finds_libraries(self) -> bool:
        """Have `_controller` and `_openmp` as they should be, if anything is to be told them."""
        limiter = threadpoolctl() if self._asked or not _is_decided() else None
        if limiter is None:
            return False
        with Quiet._lock:
            if Quiet._loaded != len(sys.modules):
                # What was imported since may have brought a library with threads.
                controller = limiter.ThreadpoolController()
                openmp = (one for one in controller.lib_controllers if one.user_api == "openmp")
                # Calls that keep the interpreter's lock: each is a few instructions.
                Quiet._openmp = tuple(ctypes.PyDLL(one.filepath) for one in openmp)
                Quiet._controller, Quiet._loaded = controller, len(sys.modules)
        return True

    def begin(self) -> None:
        if self._over or not self._finds_libraries():
            return
        with Quiet._lock:
            if Quiet._maps == 0:
                Quiet._limits = _alone(lambda: Quiet._controller.limit(limits=self._cores))
            Quiet._maps += 1
            self._held = True
        if self._over:
            self.end()

    def end(self) -> None:
        # In this order: who begins it at the same time sees that it is over, or is seen to hold it. The lock is for
        # what is held: the collector may end a map that never began, in the thread of `_alone` as well.
        self._over = True
        if not self._held:
            return
        with Quiet._lock:
            if not self._held:
                return  # by another thread
            self._held = False
            Quiet._maps -= 1
            if Quiet._maps == 0:
                _alone(Quiet._limits.restore_original_limits)
                Quiet._limits = None


def _limited(
    fn: Callable[..., Any], get: Callable[[], int], set_to: Callable[[int], object], cores: int
) -> Callable[..., Any]:
    """The function with so many threads at most, in the thread that calls it and during the call."""

    def call(*args: Any) -> Any:
        free = get()
        if free <= cores:
            return fn(*args)
        set_to(cores)
        try:
            return fn(*args)
        finally:
            set_to(free)

    return call


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
    Quiet._lock = threading.RLock()
    Quiet._maps = 0


os.register_at_fork(after_in_child=_forked)
