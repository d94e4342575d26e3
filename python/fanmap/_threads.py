"""`ThreadPoolExecutor`: the engine's queue, and Python's own threads.

What threads share: an executor and its spawner belong to all. The engine's pool has a lock of its own; `_shutdown` is
only ever set; the spawner's `threads` is replaced as a whole, under its lock; `_refusal` is written before `broken`,
which goes from "" to its one value. `_FinishThreads.left` goes from False to True.

# The end of the program

The threads are daemons to `threading`, and `_FinishThreads`, which each of them holds, is what waits for them: so the
Ctrl-C that leaves this wait leaves them, where `threading` would go on to wait for them on its own. To the tasks they
are no daemons, and so neither are the threads that tasks start. A thread that is left stops when it next asks for the
interpreter's lock (`calls` of the native module has how), and goes with the process.

It is the second Ctrl-C that leaves what runs: the first ends the map, the `with` or the program, each of which then
waits; one more, in whichever of these waits, and nothing waits for that pool any more.
"""

from __future__ import annotations

import functools
import itertools
import logging
import math
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import thread as standard
from concurrent.futures.thread import BrokenThreadPool
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, Unpack, overload

from . import _check, _lifecycle, _lookalikes, _native, _place, _retry
from ._cores import default_threads
from ._foreign import lane_over_any
from ._future import Future, Submit
from ._lane import Flow, Lane, lane_over_threads
from ._options import OnError
from ._result import executor_map
from ._retry import Rests, Retry, Trying
from ._source import in_step

if TYPE_CHECKING:
    from types import TracebackType

    from ._failure import Failure
    from ._options import ExecutorOptions
    from ._progress import Shown

__all__ = ["ThreadPoolExecutor"]

P = ParamSpec("P")
T = TypeVar("T")

_numbers = itertools.count()


class ThreadPoolExecutor(standard.ThreadPoolExecutor):
    """Runs calls on a pool of threads: the standard library's `ThreadPoolExecutor`, by name and signature.

    `max_workers` defaults to the cores this process may use (affinity and the container's quota count) + 4, at most
    32. Threads are started as they are needed. Each task runs in a copy of the context (`contextvars`) that it was
    submitted in.

    With `retries` (a number, or a `fanmap.Retry`) a call that raised is tried again; the wait between two tries takes
    its thread. `submit_with` gives that to some calls alone.

    >>> import fanmap
    >>> with fanmap.ThreadPoolExecutor(max_workers=8) as pool:
    ...     list(pool.map(len, ["a", "bb"]))
    [1, 2]

    Raises ValueError if `max_workers` is below 1, TypeError if `initializer` cannot be called.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        task_timeout: None = None,
        retries: int | Retry | None = None,
    ) -> None:
        _no_limit(task_timeout)
        retry = _retry.wanted(retries)
        initargs = _check.initializer(initializer, initargs)
        prefix = thread_name_prefix or f"ThreadPoolExecutor-{next(_numbers)}"
        self._start(max_workers, _Spawner(prefix, initializer, initargs), retry=retry)

    @classmethod
    def _for_map(
        cls,
        workers: int | None,
        idle: float | None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> ThreadPoolExecutor:
        """A pool for `fanmap.map`, whose work is not worth waiting for at exit."""
        executor = cls.__new__(cls)
        executor._start(workers, _Spawner("fanmap", initializer, initargs), idle=idle, cancel_at_exit=True)
        return executor

    def _start(
        self,
        max_workers: int | None,
        spawner: _Spawner,
        *,
        idle: float | None = None,
        cancel_at_exit: bool = False,
        retry: Retry | None = None,
    ) -> None:
        self._retry = retry
        # Where its threads rest before they try a task again.
        self._rests = Rests()
        if max_workers is None:
            max_workers = default_threads()
        if isinstance(max_workers, float) and math.isfinite(max_workers):
            # The standard library starts threads while there are fewer.
            max_workers = math.ceil(max_workers)
        _check.workers(max_workers)
        self._max_workers = max_workers
        self._owner = os.getpid()
        self._spawner = spawner
        self._pool = _native.ThreadPool(max_workers, self._spawner, idle)
        self._exit = _FinishThreads(self._pool, self._spawner, self._rests, cancel_at_exit)
        self._spawner.exit = weakref.ref(self._exit)
        self._shutdown = False
        _lifecycle.at_exit(self._exit)

    @property
    def _threads(self) -> set[threading.Thread]:  # type: ignore[override]
        return self._spawner.threads

    @property
    def _broken(self) -> str | bool:  # type: ignore[override]
        return self._spawner.broken or False

    @property
    def _work_queue(self) -> _lookalikes.WorkQueue:  # type: ignore[override]
        return _lookalikes.WorkQueue(self._pool.queued)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have `fn(*args, **kwargs)` called on a thread; returns the future of its outcome.

        Raises RuntimeError after `shutdown`, `BrokenThreadPool` if the initializer failed.
        """
        return self._submit(self._retry, fn, args, kwargs)

    def submit_with(self, *, task_timeout: None = None, retries: int | Retry | None = None) -> Submit:
        """`submit` with other options for what is submitted by it; what is not given is as for the whole executor.

        >>> import fanmap
        >>> with fanmap.ThreadPoolExecutor() as pool:
        ...     pool.submit_with(retries=2)(pow, 2, 10).result()
        1024

        Raises what the executor raises for these options.
        """
        _no_limit(task_timeout)
        retry = self._retry if retries is None else _retry.wanted(retries)
        return Submit(functools.partial(self._submit, retry))

    def _submit(
        self, retry: Retry | None, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[T]:
        _check.function(fn)
        self._check_open()
        if retry is not None and retry.count:
            fn = Trying(fn, retry, self._rests)
        future: Future[T] = Future()
        try:
            self._pool.submit(future, (fn, *args), kwargs)
        except RuntimeError:
            if self._spawner.broken:
                # Since the look above: the initializer of a thread started for this very call may have failed.
                future.set_exception(self._spawner.broken_pool(self._spawner.broken))
                return future
            # Closed since then; this says it in the standard library's words.
            self._check_open()
            raise
        return future

    @overload
    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        on_error: Literal["raise", "skip"] = "raise",
        **options: Unpack[ExecutorOptions],
    ) -> Iterator[T]: ...
    @overload
    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        on_error: Literal["return"],
        **options: Unpack[ExecutorOptions],
    ) -> Iterator[T | Failure]: ...
    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
        ordered: bool = True,
        on_error: OnError = "raise",
        strict: bool = False,
        retries: int | Retry | None = None,
        progress: Shown = False,
    ) -> Iterator[Any]:
        """`map(fn, *iterables)` on the threads: the input is read and everything submitted now, results come in order.

        With `buffersize`, only so many items are submitted ahead of the results that were taken. `timeout` is in
        seconds from this call. `chunksize` has no effect on threads.

        `ordered`, `on_error`, `strict`, `retries` and `progress` are those of `fanmap.map`; the standard library's has
        none of them.
        """
        _check.executor_map(fn, None, buffersize, on_error, progress, ordered=ordered, strict=strict)
        retry = _retry.wanted(retries)
        source = in_step(iterables, strict=strict)
        lane = self._fanmap_lane(fn, Flow(len(iterables) != 1, buffersize or 0, ordered=ordered, retry=retry))
        return executor_map(lane, source, timeout, buffersize, ordered=ordered, on_error=on_error, progress=progress)

    def _fanmap_lane(self, fn: Callable[..., Any], flow: Flow) -> Lane:
        self._check_open()
        if getattr(self.submit, "__func__", None) is not _SUBMIT:
            # Somebody put a `submit` of their own in its place, and a map is submits.
            return lane_over_any(self, fn, flow)
        return lane_over_threads(self, fn, flow)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; with `wait`, return when all that were submitted have ended and the threads are gone."""
        self._shutdown = True
        self._pool.close(cancel_futures)
        if cancel_futures:
            self._rests.end()
        if wait:
            if self._on_worker():
                raise RuntimeError("cannot join current thread")
            self._pool.join()
            self._spawner.join()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        try:
            self.shutdown(wait=not (interrupted and self._exit.left))
        except KeyboardInterrupt:
            self._exit.left |= interrupted
            raise

    def __del__(self) -> None:
        pool = getattr(self, "_pool", None)
        if pool is not None:
            # Maps under way may still hold it; what was submitted is run, and then the threads end.
            pool.close(False)

    def _on_worker(self) -> bool:
        """Whether the calling thread is one of the pool's."""
        return self._pool.on_worker()

    def _check_open(self) -> None:
        if os.getpid() != self._owner:
            raise BrokenThreadPool(_lifecycle.NOT_OURS)
        if self._spawner.broken:
            raise self._spawner.broken_pool(self._spawner.broken)
        if self._shutdown:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if _lifecycle.exiting():
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")


_SUBMIT = ThreadPoolExecutor.submit


def _no_limit(task_timeout: object) -> None:
    if task_timeout is not None:
        raise ValueError("a thread cannot be ended, so task_timeout= is only for ProcessPoolExecutor")


class _Spawner:
    """Starts a pool's threads. It knows nothing of the executor, which the threads must not keep alive."""

    def __init__(self, prefix: str, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
        self._prefix = prefix
        self._initializer = initializer
        self._initargs = initargs
        self._count = itertools.count()
        self._lock = threading.Lock()
        self.threads: set[threading.Thread] = set()
        # What waits for the threads at exit. It holds the pool, which holds this.
        self.exit: Callable[[], _FinishThreads | None] = lambda: None
        self.broken = ""
        self._refusal: BaseException | None = None

    def spawn(self, seat: _native.Seat) -> None:
        """Start a thread that works at `seat`."""
        name = f"{self._prefix}_{next(self._count)}"
        thread = threading.Thread(name=name, target=self._work, args=(seat, self.exit()), daemon=True)
        thread.start()
        with self._lock:
            # Those that have ended for idleness are nobody's to join.
            self.threads = {thread, *(one for one in self.threads if one.is_alive())}

    def _work(self, seat: _native.Seat, exit: _FinishThreads | None) -> None:
        # `exit` is held, so that a pool is waited for that nobody else holds any more.
        threading.current_thread()._daemonic = False  # type: ignore[attr-defined]
        _place.thread.index = seat.index
        if self._initializer is not None:
            try:
                self._initializer(*self._initargs)
            except BaseException as error:
                logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
                # Without this frame, which refers to what keeps the exception: that would be a cycle.
                self._refusal = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
                self.broken = "A thread initializer failed, the thread pool is not usable anymore"
                seat.fail(self.broken)
                return
        seat.run()

    def join(self) -> None:
        """Wait until the threads are gone, once they are of no use to the pool."""
        for thread in list(self.threads):
            thread.join()

    def broken_pool(self, reason: str) -> BrokenThreadPool:
        """The exception of every task of a pool that cannot go on: its cause is the initializer's own."""
        error = BrokenThreadPool(reason)
        error.__cause__ = self._refusal
        return error


class _FinishThreads:
    """Finishes a pool's work at exit, unless a second Ctrl-C has left it."""

    def __init__(self, pool: _native.ThreadPool, spawner: _Spawner, rests: Rests, cancel: bool) -> None:
        self._pool = pool
        self._spawner = spawner
        self._rests = rests
        self._cancel = cancel
        # Whether the user does not want to wait for what runs.
        self.left = False

    def finish_at_exit(self) -> None:
        if self.left:
            self.leave_at_exit()
            return
        self._pool.close(self._cancel)
        if self._cancel:
            self._rests.end()
        self._pool.join()
        self._spawner.join()

    def leave_at_exit(self) -> None:
        self._pool.close(True)
        self._rests.end()
