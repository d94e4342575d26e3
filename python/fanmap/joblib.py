"""Backends for joblib, and so for scikit-learn: `"fanmap"` runs calls on processes, `"fanmap-threads"` on threads.

    import fanmap.joblib
    import joblib

    fanmap.joblib.register()
    with joblib.parallel_config("fanmap"):
        search = GridSearchCV(model, grid, n_jobs=-1).fit(x, y)

joblib cuts its input into batches and asks for a call of each; its callback takes the result and asks for the next.
How large a batch is over processes, joblib chooses by measured times. Were it one item, a tiny task would take 250 us
and not 8: joblib keeps few batches under way, and most of that is its own work for each. Over threads it is one item.

The pool of processes is warm, and shared by all calls of `Parallel` that want one like it; what belongs to one call
alone are its futures (`_Calls`). So an error, a time-out or a generator that was dropped cancels that call's work and
nothing else: over processes what runs is ended, too.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple

from . import _budget, _check, _default, _place
from ._options import Wanted
from ._processes import ProcessPoolExecutor
from ._threads import ThreadPoolExecutor

try:
    from joblib.parallel import (
        TASK_ERROR,
        AutoBatchingMixin,
        BatchCompletionCallBack,
        FallbackToBackend,
        ParallelBackendBase,
        SequentialBackend,
        cpu_count,
        register_parallel_backend,
    )
except ImportError as error:
    raise ImportError("fanmap.joblib needs joblib: pip install 'fanmap[joblib]'") from error

__all__ = ["FanmapBackend", "FanmapThreadsBackend", "register"]

# What joblib tells every backend, and is for those that keep large arrays in files.
_OF_JOBLIB = frozenset({"prefer", "require", "verbose", "context", "temp_folder", "max_nbytes", "mmap_mode"})


def register(*, make_default: bool = False) -> None:
    """Tell joblib of the backends `"fanmap"` (processes) and `"fanmap-threads"`.

    With `make_default`, `"fanmap"` is used wherever no other backend is asked for. Calling it again does no harm.

    >>> import fanmap, fanmap.joblib, joblib
    >>> fanmap.joblib.register()
    >>> with joblib.parallel_config("fanmap", n_jobs=2):
    ...     joblib.Parallel()(joblib.delayed(pow)(i, 2) for i in range(5))
    [0, 1, 4, 9, 16]
    >>> fanmap.shutdown()
    """
    register_parallel_backend("fanmap", FanmapBackend, make_default=make_default)
    register_parallel_backend("fanmap-threads", FanmapThreadsBackend)


class _Wish(NamedTuple):
    """What a pool is made for: a call of `Parallel` that wants the same shares it."""

    workers: int
    inner_threads: int | None = None
    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Wish)
            and self[:3] == other[:3]
            # The same ones: arrays among them would not say whether they are equal.
            and len(self.initargs) == len(other.initargs)
            and all(map(operator.is_, self.initargs, other.initargs))
        )


class _Calls:
    """The futures of one call of `Parallel`, on a pool that may be others' too."""

    def __init__(self, pool: ProcessPoolExecutor | ThreadPoolExecutor) -> None:
        self._pool = pool
        self._futures: set[Future[Any]] = set()
        self._cancelled = False

    def submit(self, batch: Callable[[], Any], callback: Callable[[Future[Any]], object] | None) -> Future[Any]:
        # The batch is an argument, so that its arrays travel as a task's do, and nobody looks whether workers have it.
        future: Future[Any] = self._pool.submit(operator.call, batch)
        self._futures.add(future)
        # Before joblib's own, which may submit the next.
        future.add_done_callback(self._futures.discard)
        if self._cancelled:
            future.cancel()  # perhaps after `cancel` had looked
        if callback is not None:
            future.add_done_callback(partial(self._tell, callback))
        return future

    def cancel(self) -> None:
        self._cancelled = True
        for future in list(self._futures):
            future.cancel()

    def end(self) -> None:
        """No more is submitted, and nothing under way is wanted."""

    def _tell(self, callback: Callable[[Future[Any]], object], future: Future[Any]) -> None:
        callback(future)


def _told(callback: BatchCompletionCallBack, future: Future[Any]) -> None:
    """joblib's callback for a batch, which reads on in the input. What it raises ends its call of `Parallel`.

    joblib itself sees to an Exception of the input, and would wait for ever for what else is raised: a SystemExit or
    KeyboardInterrupt of the input, the error of a pool that was closed meanwhile.
    """
    try:
        callback(future)
    except BaseException as error:
        parallel = callback.parallel
        with parallel._lock:
            if callback.parallel_call_id != parallel._call_id:
                return  # that call is over, and another one has begun
            # What joblib does with an Exception: a batch that has failed.
            failed = BatchCompletionCallBack(0, 1, parallel)
            parallel._register_new_job(failed)
        failed._register_outcome({"result": error, "status": TASK_ERROR})


class _CallsOnProcesses(_Calls):
    """On the warm pool. joblib's callbacks have a thread of this call's: they read its input, and wait for each other.

    In the pool's own thread, which tells of the ends of everybody's futures, they could wait for themselves.
    """

    def __init__(self, pool: ProcessPoolExecutor | ThreadPoolExecutor) -> None:
        super().__init__(pool)
        self._ended: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread = threading.Thread(target=_call_all, args=(self._ended,), name="fanmap-joblib", daemon=True)
        self._thread.start()

    def _tell(self, callback: Callable[[Future[Any]], object], future: Future[Any]) -> None:
        self._ended.put(partial(callback, future))

    def end(self) -> None:
        self._ended.put(None)
        if not self._cancelled and threading.current_thread() is not self._thread:
            # It has nothing more to do. After an abort it may be reading the input still.
            self._thread.join()


def _call_all(ended: SimpleQueue[Callable[[], object] | None]) -> None:
    while (call := ended.get()) is not None:
        call()
        del call  # nothing of a result may be kept until the next one comes


class _CallsOnThreads(_Calls):
    """On threads of their own: shared ones would wait for each other where calls are nested."""

    def __init__(self, wish: _Wish) -> None:
        wanted = Wanted(workers=wish.workers, initializer=wish.initializer, initargs=wish.initargs)
        pool, self._end = _default.pool("threads", wanted)
        super().__init__(pool)

    def end(self) -> None:
        assert self._end is not None, "the pool is this call's"
        # A thread that still runs something is not waited for.
        self._end(not self._cancelled and not self._pool._on_worker())


class _Backend(ParallelBackendBase):  # type: ignore[misc]
    """What both have in common."""

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True

    # The work of the call of `Parallel` that is under way. joblib's tests know the name.
    _workers: _Calls | None = None
    _wish = _Wish(1)

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many jobs run at a time. Negative numbers count from the cores, in a worker from its share of them."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(1, (_place.cores or cpu_count()) + 1 + n_jobs)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        **options: Any,
    ) -> int:
        """Called by joblib before a call, or at the beginning of `with Parallel(...)`; returns the number of workers.

        `initializer(*initargs)` is called first in each worker. TypeError for an option that is not known or of a wrong
        type, ValueError for less than one inner thread.
        """
        unknown = sorted((options.keys() - _OF_JOBLIB) | (self.backend_kwargs.keys() - {"initializer", "initargs"}))
        if unknown:
            raise TypeError(
                f"{type(self).__name__} has no option {', '.join(unknown)}; it has initializer and initargs"
            )
        workers = self.effective_n_jobs(n_jobs)
        if workers == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        if self._workers is not None:
            # All calls in a `with parallel_config(...)` are given this one, and generators may be read in turns.
            raise FallbackToBackend(
                type(self)(
                    nesting_level=self.nesting_level,
                    inner_max_num_threads=self.inner_max_num_threads,
                    **self.backend_kwargs,
                )
            )
        self.parallel = parallel
        initializer = initializer or self.backend_kwargs.get("initializer")
        initargs = _check.initializer(initializer, initargs or self.backend_kwargs.get("initargs", ()))
        _check.positive("inner_max_num_threads", self.inner_max_num_threads)
        self._wish = _Wish(workers, self.inner_max_num_threads, initializer, initargs)
        self._workers = self._begin()
        return workers

    def _begin(self) -> _Calls:
        raise NotImplementedError

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], object] | None = None) -> Future[Any]:
        """Called by joblib with a batch; `callback` is told the future when it is done."""
        assert self._workers is not None, "joblib configures a backend before it submits"
        return self._workers.submit(func, callback and partial(_told, callback))

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Called by joblib's callback, for the results of a batch."""
        return out.result()

    def retrieve_result(self, out: Future[Any], timeout: float | None = None) -> Any:
        """The same for classes made from this one that turn the callback off."""
        return out.result(timeout)

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Called by joblib when a call has failed, is out of time, or nobody wants its results any more."""
        if self._workers is not None:
            self._workers.cancel()
            self.terminate()
        if ensure_ready:
            self._workers = self._begin()

    def terminate(self) -> None:
        """Called by joblib after a call, or at the end of `with Parallel(...)`."""
        if self._workers is not None:
            self._workers.end()
            self._workers = None

    def get_nested_backend(self) -> tuple[Any, int | None]:
        """What calls in a worker use if they ask for nothing else: threads, and deeper down no workers at all."""
        level = (self.nesting_level or 0) + 1
        return (SequentialBackend(nesting_level=level) if level > 1 else _nested_threads(level)), None


class FanmapBackend(AutoBatchingMixin, _Backend):  # type: ignore[misc]
    """The backend `"fanmap"`: supervised worker processes.

    A worker that dies is a `fanmap.WorkerCrashed`, and the pool lives on. Workers get a share of the cores for BLAS,
    OpenMP and the like, or `inner_max_num_threads`. They stay warm for the next call, and end after 30 seconds without
    work, at `fanmap.shutdown()`, or when a call wants another number of workers.
    """

    def _begin(self) -> _Calls:
        return _CallsOnProcesses(_default.warm("joblib", self._wish, self._make))

    def _make(self) -> ProcessPoolExecutor:
        workers, inner_threads, initializer, initargs = self._wish
        return ProcessPoolExecutor._for_map(
            workers, _default.IDLE, initializer, initargs, inner_threads=inner_threads, cancel_running=True
        )

    def terminate(self) -> None:
        super().terminate()
        self.reset_batch_stats()


class FanmapThreadsBackend(_Backend):
    """The backend `"fanmap-threads"`: threads of this process, which share its memory, and end with the call.

    While it runs, libraries with threads of their own (BLAS, OpenMP) get a share of the cores, or
    `inner_max_num_threads`, if threadpoolctl is installed.
    """

    uses_threads = True
    supports_sharedmem = True
    _quiet: _budget.Quiet | None = None

    def _begin(self) -> _Calls:
        return _CallsOnThreads(self._wish)

    def start_call(self) -> None:
        """Called by joblib when the first batch is about to come."""
        self._quiet = _budget.Quiet(self._wish.workers, self._wish.inner_threads)
        self._quiet.begin()

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], object] | None = None) -> Future[Any]:
        return super().submit(func if self._quiet is None else self._quiet.around(func), callback)

    def stop_call(self) -> None:
        """Called by joblib when no more will come."""
        if self._quiet is not None:
            self._quiet.end()
            self._quiet = None

    def __reduce__(self) -> tuple[Any, ...]:
        # It travels to a worker with each batch, as what calls there are to use.
        return _nested_threads, (self.nesting_level,)


def _nested_threads(level: int | None) -> FanmapThreadsBackend:
    """The threads for calls in a worker, which must know the backends by their names, too."""
    register()
    return FanmapThreadsBackend(nesting_level=level)
