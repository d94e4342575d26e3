"""`ProcessPoolExecutor`: supervised worker processes under the standard library's name.

What goes to the engine is bytes: this encodes functions and arguments. The result of a submitted call is kept in its
future as it comes, and decoded by who asks. Where more is to do than that (somebody observes the future, a worker died)
it comes through `_native.Completions` to one thread of the pool's, which completes the future; it is started with the
first submit. Maps need neither futures nor that thread.

What threads share: an executor and its engine belong to all. `_functions` (executor) and `_started`, `_completions`,
`_thread`, `_released` (engine) are written under a lock of their owner's; all but the last two are read without it;
`_started` and `_completions` go from None to their one value. `_closed` is only ever set. `_was_broken` is written
before `_started` is taken away, and `_told_broken` may at worst be missed once, so that a failure is logged twice.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import process as standard
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, Unpack, overload

from . import _budget, _check, _codec, _lifecycle, _lookalikes, _native, _outcome, _place, _retry, _start
from ._errors import (
    BrokenProcessPool,
    MemoryLimitExceeded,
    TaskTimeout,
    WorkerCrashed,
    broken_pool,
    complete,
)
from ._fixed import fix
from ._foreign import lane_over_any
from ._future import Future, Submit
from ._lane import Flow, Lane, lane_over_processes
from ._options import OnError
from ._output import Output
from ._remote import decode_refusal, detach
from ._result import executor_map
from ._retry import Retry
from ._source import in_step

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext
    from pickle import PickleBuffer

    from ._failure import Failure
    from ._options import ProcessOptions
    from ._progress import Shown

__all__ = ["ProcessPoolExecutor"]

Exceptions = tuple[type[BaseException], ...]

P = ParamSpec("P")
T = TypeVar("T")

# How many functions are kept known to the workers after their last call, and how large one may be. Fewer, and programs
# that submit a handful in turn send them again and again; more or larger is memory of every worker for nothing.
_KEPT_FUNCTIONS = 16
_KEPT_BYTES = 64 * 1024
# How deep pools may lie within workers of others. Less, and programs that mean it are refused; more, and a module that
# makes a pool wherever it is imported has filled the machine with processes before it is told.
_DEEPEST = 5


class ProcessPoolExecutor(standard.ProcessPoolExecutor):
    """Runs calls on a pool of worker processes: the standard library's `ProcessPoolExecutor`, by name and signature.

    `max_workers` defaults to the cores this process may use (affinity and the container's quota count). Processes are
    started as they are needed. `initializer(*initargs)` is called in each new one; if it fails, the pool is broken.
    With `max_tasks_per_child` a worker is replaced by a fresh one after so many calls.

    `worker_exit()` is called in each worker that ends in order: when the pool was shut down, when its time of
    `max_tasks_per_child` has come. Then its `atexit` handlers run. A worker that is killed or crashes runs neither. One
    that takes longer than `worker_exit_timeout` seconds to end is killed (None: never), so that a handler that hangs
    cannot hold up `shutdown` for ever.

    Buffers of 64 KiB and more (arrays, `bytes`) travel through shared memory, and what has come back is kept for the
    next ones until the pool was idle for five seconds. `buffer_memory` bounds how many bytes are kept so, by default
    1 GiB, or an eighth of what the container may have: half of it for what goes to workers, half for results. What
    exceeds it travels all the same, at the speed of fresh memory. The arrays of the last function that brought some are
    held until `shutdown`, for a next call with the same, if they take no more than a quarter of it. Memory that a
    result of yours lies in is yours and does not count.

    `max_memory_per_worker` (in bytes) is how much memory of its own a worker may have between calls, beyond what it
    began with: one that has more is replaced by a fresh one. What counts is what it has written to, in memory or
    swapped out; shared memory and the files of programs do not. It is looked at after calls, at most every 10 ms, so
    that short calls pay nothing. With `worker_memory_limit` (in bytes, too) the system refuses what a worker asks for
    beyond that at any time, used or not (`RLIMIT_DATA`; programs that a call starts have the same limit). A call that
    so raises MemoryError fails with `MemoryLimitExceeded`, and its worker is replaced; C code that cannot do without
    the memory may crash instead.

    With `task_timeout` (in seconds) a call that runs for longer fails with `TaskTimeout`, and its worker is replaced;
    waiting for a worker, and loading the function in a new one, does not count. With `retries` (a number, or a
    `fanmap.Retry`) a call that failed is tried again, also if its worker died or its time was up. `submit_with` gives
    both to some calls alone. With `cancel_running` a future's
    `cancel` ends a call that runs, too, and so does a cancelled `await` of asyncio: its worker is killed and replaced.

    What workers print goes to the program's standard streams, line by line; where `sys.stdout` or `sys.stderr` is
    something else when a call is submitted (in a notebook, a test's capture, `redirect_stdout`), it goes there. With
    `tag_output` each line begins with its worker, `[worker 0]`. With `forward_logging` the log records of workers are
    handled by the program's own loggers, if their levels pass them, and by no handler of the worker's. What a call
    printed or logged is there before its result.

    Unlike there, a worker that dies fails its own task alone (`WorkerCrashed`), no `__main__` guard is needed, and a
    call can be cancelled until a worker really starts it. `mp_context` asks for one of `multiprocessing`'s start
    methods instead of the default, which sends functions and classes of `__main__` by value.

    >>> import fanmap
    >>> with fanmap.ProcessPoolExecutor() as pool:
    ...     pool.submit(pow, 2, 10).result()
    1024

    Raises ValueError if `max_workers` or `max_tasks_per_child` is below 1, `buffer_memory` or `worker_exit_timeout` is
    below 0, `task_timeout` is below 0.001, a limit of memory is below 1 MiB, or for `max_tasks_per_child` with the fork
    method; TypeError if `initializer` or `worker_exit` cannot be called, or a limit of memory is no int.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        buffer_memory: int | None = None,
        worker_exit: Callable[[], object] | None = None,
        worker_exit_timeout: float | None = _start.EXIT_TIME,
        task_timeout: float | None = None,
        retries: int | Retry | None = None,
        cancel_running: bool = False,
        max_memory_per_worker: int | None = None,
        worker_memory_limit: int | None = None,
        tag_output: bool = False,
        forward_logging: bool = False,
    ) -> None:
        hooks = _start.Hooks(initializer, _check.initializer(initializer, initargs), worker_exit)
        _check.worker_exit(worker_exit, worker_exit_timeout)
        start = _start.choose(mp_context, hooks)
        _check.tasks_per_child(max_tasks_per_child, start.method)
        for name, value in (
            ("cancel_running", cancel_running),
            ("tag_output", tag_output),
            ("forward_logging", forward_logging),
        ):
            _check.flag(name, value)
        _check.not_negative("buffer_memory", buffer_memory)
        terms = _Terms.checked(task_timeout, retries)
        _check.memory(max_memory_per_worker, worker_memory_limit)
        self._context = mp_context
        self._tag_output, self._forward_logging = tag_output, forward_logging
        options = _start.Options(
            _workers(max_workers),
            max_tasks_per_child,
            exit_time=worker_exit_timeout,
            buffer_memory=buffer_memory,
            cancel_running=cancel_running,
            max_memory=max_memory_per_worker,
            memory_limit=worker_memory_limit,
        )
        self._begin(start, hooks, options, terms)

    @classmethod
    def _for_map(
        cls,
        workers: int | None,
        idle: float | None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        memory: tuple[int | None, int | None] = (None, None),
        *,
        inner_threads: int | None = None,
        cancel_running: bool = False,
    ) -> ProcessPoolExecutor:
        """A pool for `fanmap.map` or an adapter, whose work is not worth waiting for at exit.

        With `inner_threads`, that is how many cores each worker is told to have, whatever the user's variables say.
        """
        executor = cls.__new__(cls)
        executor._context = None
        executor._tag_output = executor._forward_logging = False
        options = _start.Options(
            _workers(workers),
            idle=idle,
            exit_time=_start.EXIT_TIME,
            cancel_running=cancel_running,
            max_memory=memory[0],
            memory_limit=memory[1],
        )
        start = _start.Template()
        start.inner_threads = inner_threads
        executor._begin(start, _start.Hooks(initializer, initargs), options, _Terms(), end_at_exit=True)
        return executor

    def _begin(
        self,
        start: _start.Start,
        hooks: _start.Hooks,
        options: _start.Options,
        terms: _Terms,
        *,
        end_at_exit: bool = False,
    ) -> None:
        if _place.depth >= _DEEPEST:
            raise RuntimeError(
                f"a pool of processes would lie within {_DEEPEST} others, each made by a worker of the one before: is "
                "there a module that makes a pool when it is imported, outside any function?"
            )
        self._terms = terms
        self._max_workers = options.workers
        self._owner = os.getpid()
        self._start = start
        start.cores = start.inner_threads or _budget.share(options.workers)
        self._hooks = hooks
        self._lock = threading.Lock()
        self._closed = False
        self._functions: dict[tuple[bytes, bytes], _native.Function] = {}
        # Kept, with its buffers, for a next call with the same.
        self._last_large: _native.Function | None = None
        self._decode_result = _codec.decode_result
        self._engine = _Engine(start, options, end_at_exit)
        self._workers = _lookalikes.Workers(self._engine)
        _lifecycle.at_exit(self._engine)

    # For `__del__`: at the interpreter's end a module's names may be gone before its objects are.
    _getpid = staticmethod(os.getpid)

    @property
    def _pool(self) -> _Engine:
        return self._engine

    @property
    def _encoder(self) -> _codec.Encoder:
        return self._engine.started().encoder

    @property
    def _mp_context(self) -> BaseContext:  # type: ignore[override]
        """The context that was asked for; else one whose primitives may be used in every pool's `initargs`."""
        if self._context is None:
            import multiprocessing

            return multiprocessing.get_context("spawn")
        return self._context

    @property
    def _processes(self) -> _lookalikes.Workers:  # type: ignore[override]
        """The workers, by process id."""
        return self._workers

    @property
    def _executor_manager_thread(self) -> _lookalikes.Manager | None:  # type: ignore[override]
        return _lookalikes.Manager(self._engine) if self._engine.is_started() else None

    @property
    def _call_queue(self) -> _lookalikes.CallQueue:
        return _lookalikes.CallQueue(self._engine.queued)

    @property
    def _broken(self) -> str | bool:  # type: ignore[override]
        broken = self._engine.broken()
        return broken[0] if broken else False

    @property
    def _work_queue(self) -> _lookalikes.WorkQueue:
        return _lookalikes.WorkQueue(self._engine.queued)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have `fn(*args, **kwargs)` called in a worker process; returns the future of its outcome.

        What cannot be pickled is the future's exception. Raises RuntimeError after `shutdown`, `BrokenProcessPool` if
        the workers cannot live.
        """
        return self._submit(self._terms, fn, args, kwargs)

    def submit_with(self, *, task_timeout: float | None = None, retries: int | Retry | None = None) -> Submit:
        """`submit` with other options for what is submitted by it; what is not given is as for the whole executor.

        >>> import fanmap
        >>> with fanmap.ProcessPoolExecutor() as pool:
        ...     pool.submit_with(task_timeout=5, retries=2)(pow, 2, 10).result()
        1024

        Raises what the executor raises for these options.
        """
        _Terms.checked(task_timeout, retries)
        return Submit(functools.partial(self._submit, self._terms.replaced(task_timeout, _retry.wanted(retries))))

    def _submit(self, terms: _Terms, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[T]:
        _check.function(fn)
        self._check_open()
        started = self._engine.started()
        completions = self._engine.completions()
        future: Future[T] = Future()
        how, given = (b"k", (args, kwargs)) if kwargs else (b"*", args)
        try:
            function, speaks = self._function(fn, how, terms.again)
            buffers: list[PickleBuffer] = []
            argument = started.encoder.encode(given, "the task's argument", buffers)
        except Exception as error:
            # As there, a call that cannot be sent has its worker started all the same.
            self._prepare()
            started.pool.want_worker()
            future.set_running_or_notify_cancel()
            future.set_exception(detach(error))
            return future
        if speaks:
            future._engine = self._engine
        if started.pool.may_start_worker():
            self._prepare()
        try:
            if not started.pool.submit(function, argument, buffers, completions, future, terms.native):
                argument = started.encoder.encode(given, "the task's argument")  # there is no memory for the buffers
                started.pool.submit(function, argument, None, completions, future, terms.native)
        except RuntimeError:
            # Closed or broken since the look above, which says it in the standard library's words.
            self._check_open()
            raise
        return future

    @overload
    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        on_error: Literal["raise", "skip"] = "raise",
        **options: Unpack[ProcessOptions],
    ) -> Iterator[T]: ...
    @overload
    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        on_error: Literal["return"],
        **options: Unpack[ProcessOptions],
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
        task_timeout: float | None = None,
    ) -> Iterator[Any]:
        """`map(fn, *iterables)` on the processes: the input is read and everything submitted now; results in order.

        With `buffersize`, only so many items are submitted ahead of the results that were taken. `timeout` is in
        seconds from this call. `chunksize` is accepted and not needed: how many items are
        sent ahead follows from their measured times.

        `ordered`, `on_error`, `strict`, `retries`, `progress` and `task_timeout` are those of `fanmap.map`; the
        standard library's has none of them.
        """
        _check.executor_map(fn, chunksize, buffersize, on_error, progress, ordered=ordered, strict=strict)
        _check.task_timeout(task_timeout)
        retry = _retry.wanted(retries)
        if self._sends_copies and not strict:
            fn, iterables = fix(fn, iterables)
        source = in_step(iterables, strict=strict)
        flow = Flow(len(iterables) != 1, buffersize or 0, ordered=ordered, time_limit=task_timeout, retry=retry)
        lane = self._fanmap_lane(fn, flow)
        return executor_map(lane, source, timeout, buffersize, ordered=ordered, on_error=on_error, progress=progress)

    def _fanmap_lane(self, fn: Callable[..., Any], flow: Flow) -> Lane:
        self._check_open()
        if not self._sends_copies:
            if flow.time_limit is not None:
                raise ValueError("task_timeout= is not for an executor whose submit was replaced")
            return lane_over_any(self, fn, flow)
        return lane_over_processes(self, fn, flow)

    @property
    def _sends_copies(self) -> bool:
        """Whether a map encodes its function and items. If somebody put a `submit` in its place, a map is submits."""
        return getattr(self.submit, "__func__", None) is _SUBMIT

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; with `wait`, return when all that were submitted have ended and no process is left."""
        self._closed = True
        if os.getpid() != self._owner:
            return  # in a fork, where locks of the pool's may be held for ever by threads that are not there
        self._last_large = None
        self._engine.close(cancel_futures)
        if wait:
            self._engine.join()
            self._engine.release()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            # Workers do not hear Ctrl-C themselves; who pressed it does not want to wait for what they run.
            self._engine.end_workers(True)
        self.shutdown(wait=True)

    def terminate_workers(self) -> None:
        """End every worker by SIGTERM now. What was not done fails with `BrokenProcessPool`; the pool takes no more."""
        self._force_shutdown(operation="terminate")

    def kill_workers(self) -> None:
        """End every worker by SIGKILL now. What was not done fails with `BrokenProcessPool`; the pool takes no more."""
        self._force_shutdown(operation="kill")

    def _force_shutdown(self, operation: str) -> None:
        if operation not in ("terminate", "kill"):
            raise ValueError(f"operation must be 'terminate' or 'kill', not {operation!r}")
        workers = self._workers.present()
        self._engine.end_workers(operation == "kill")
        for worker in workers:
            # They were told; this is for who put something of their own in the place of a worker's method.
            getattr(worker, operation)()
        self.shutdown(wait=False, cancel_futures=True)

    def __del__(self) -> None:
        engine = getattr(self, "_engine", None)
        if engine is not None and self._getpid() == self._owner:
            engine.close(False)

    def _on_worker(self) -> bool:
        """Whether the calling thread is one of the pool's: they are in other processes."""
        return False

    def _check_open(self) -> None:
        if os.getpid() != self._owner:
            raise BrokenProcessPool(_lifecycle.NOT_OURS)
        broken = self._engine.broken()
        if broken:
            raise broken_pool(*broken)
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if _lifecycle.exiting():
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def _native_pool(self) -> _native.ProcessPool:
        return self._engine.started().pool

    def _prepare(self) -> None:
        """Before a task is submitted: if that may start a worker, say how things stand for it."""
        pool = self._native_pool()
        if pool.may_start_worker():
            started = self._engine.started()
            told, fds = self._start.surroundings(started.encoder, self._hooks, started.output.behavior)
            pool.set_setup(told, fds)

    def _start_ahead(self, fn: Callable[..., Any]) -> None:
        """Have all workers started, in the background, for calls of `fn`."""
        pool = self._engine.started(fn).pool
        for _ in range(self._max_workers):
            self._prepare()
            pool.want_worker()

    def _function(
        self,
        fn: Callable[..., Any],
        how: bytes,
        again: Exceptions | None,
        *,
        tag_output: bool = False,
        forward_logging: bool = False,
    ) -> tuple[_native.Function, bool]:
        """What the workers know `fn`, as it is now, by; and whether what its calls write comes here, and before their
        outcomes. `how` it is to be called, and `again` for what: see `_worker`.

        What has a state of its own is known anew for each call of `submit` and `map`: what an earlier call did to a
        worker's copy of it, a later one must not see.
        """
        started = self._engine.started(fn)
        behavior = started.output.behave(
            tag=tag_output or self._tag_output, logs=forward_logging or self._forward_logging, keeper=self._engine
        )
        buffers: list[PickleBuffer] = []
        name = _name(fn, how)
        sent: Any = fn
        if again is not None:
            how, sent = how + b"r", (fn, again)
        head = (len(behavior).to_bytes(4, sys.byteorder) + behavior if behavior else _NO_BEHAVIOR) + how
        body = started.encoder.encode_function(sent, buffers)
        if buffers:
            return self._large_function(started.pool, name, sent, head, body, buffers), bool(behavior)
        key = head, body
        function = self._functions.get(key)
        if function is None:
            function = _sent_once(started.pool, name, head + body)
            if len(body) <= _KEPT_BYTES and _is_stateless(fn):
                with self._lock:
                    function = self._functions.setdefault(key, function)
                    if len(self._functions) > _KEPT_FUNCTIONS:
                        del self._functions[next(iter(self._functions))]
        return function, bool(behavior)

    def _large_function(
        self, pool: _native.ProcessPool, name: str, fn: object, head: bytes, body: bytes, buffers: list[PickleBuffer]
    ) -> _native.Function:
        """One that brings large buffers. If those of the last one hold the same, they are not copied again."""
        function = pool.function(name, head + body, buffers, self._last_large)
        if function is None:  # there is no memory for them
            return _sent_once(pool, name, head + self._encoder.encode_function(fn))
        if pool.may_hold(function):
            self._last_large = function
        return function


_NO_BEHAVIOR = bytes(4)

_SUBMIT = ProcessPoolExecutor.submit


class _Terms:
    """How long a call may take, and when it is tried again."""

    def __init__(self, task_timeout: float | None = None, retry: Retry | None = None) -> None:
        self._task_timeout = task_timeout
        self._retry = retry
        # For which exceptions its worker is to ask for another try; None for none.
        self.again: Exceptions | None = None
        retries = None
        if retry is not None and retry.count:
            self.again = retry.on
            covered = [issubclass(one, retry.on) for one in (WorkerCrashed, MemoryLimitExceeded, TaskTimeout)]
            lost, outgrown, timed_out = covered
            retries = (retry.count, retry.wait, retry.factor, retry.max_wait, lost, outgrown, timed_out)
        # What the engine is told; None if there is nothing to tell.
        self.native = _native.Terms(task_timeout, retries) if task_timeout or retries else None

    @classmethod
    def checked(cls, task_timeout: Any, retries: Any) -> _Terms:
        """Those that a user asks for."""
        _check.task_timeout(task_timeout)
        return cls(task_timeout, _retry.wanted(retries))

    def replaced(self, task_timeout: float | None, retry: Retry | None) -> _Terms:
        """The same, but for what is given."""
        if task_timeout is None and retry is None:
            return self
        return _Terms(task_timeout or self._task_timeout, self._retry if retry is None else retry)


def _workers(wanted: int | None) -> int:
    """The number of workers, checked."""
    _check.workers(_native.cpu_count() if wanted is None else wanted)
    return _native.cpu_count() if wanted is None else wanted


def _name(fn: Callable[..., Any], how: bytes) -> str:
    """What `_sketch` is to know a function by: how it is called, and its name."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__qualname__", None)
    return how.decode() + (name if type(name) is str else type(fn).__qualname__)


def _sent_once(pool: _native.ProcessPool, name: str, body: bytes) -> _native.Function:
    function = pool.function(name, body)
    assert function is not None, "only buffers need memory"
    return function


def _is_stateless(fn: Callable[..., Any]) -> bool:
    """Whether calls leave nothing behind in `fn` itself, as they can in `self`, a closure or a partial's arguments."""
    if isinstance(fn, FunctionType):
        return fn.__closure__ is None
    return isinstance(fn, type) or (isinstance(fn, BuiltinFunctionType) and isinstance(fn.__self__, ModuleType))


class _Started:
    """What there is of a pool once it was used."""

    def __init__(self, pool: _native.ProcessPool, encoder: _codec.Encoder) -> None:
        self.pool = pool
        self.encoder = encoder
        self.output = Output(pool)


class _Engine:
    """The engine's pool, and the thread that completes futures, which holds this while work is pending."""

    def __init__(self, start: _start.Start, options: _start.Options, end_at_exit: bool) -> None:
        self._start = start
        self._options = options
        self._end_at_exit = end_at_exit
        self._lock = threading.Lock()
        self._started: _Started | None = None
        # Why the pool could not go on, once it was let go.
        self._was_broken: tuple[str, bytes | None] | None = None
        self._released = False
        self._completions: _native.Completions | None = None
        self._thread: threading.Thread | None = None
        self._told_broken = False

    def started(self, fn: object = None) -> _Started:
        """The pool, made now if this is the first use; for calls of `fn`, if that is known."""
        started = self._started
        if started is None:
            with self._lock:
                if self._released:
                    raise RuntimeError("cannot schedule new futures after shutdown")
                if self._started is None:
                    pool = self._start.make_pool(self._options, fn)
                    self._started = _Started(pool, _codec.Encoder(self._start.policy))
                started = self._started
        return started

    def completions(self) -> _native.Completions:
        """Where ends of submitted calls go that are more than a result."""
        completions = self._completions
        if completions is None:
            with self._lock:
                completions = self._completions
                if completions is None:
                    completions = self._completions = _native.Completions()
                    self._thread = threading.Thread(
                        name="fanmap-completions", target=_complete_all, args=(completions, self), daemon=True
                    )
                    self._thread.start()
        return completions

    def workers(self, *, wait: bool) -> list[int]:
        """The workers' process ids; with `wait`, once those that were asked for have been started."""
        started = self._started
        return started.pool.workers(wait) if started else []

    def has_worker(self, pid: int) -> bool:
        started = self._started
        return started is not None and started.pool.has_worker(pid)

    def signal_worker(self, pid: int, *, kill: bool) -> None:
        started = self._started
        if started is not None:
            started.pool.signal_worker(pid, kill)

    def await_worker(self, pid: int, timeout: float | None) -> None:
        started = self._started
        if started is not None:
            started.pool.await_worker(pid, timeout)

    def is_started(self) -> bool:
        """Whether the pool was ever used."""
        return self._released or self._started is not None

    def is_finished(self) -> bool:
        """Whether nothing is left of it: no worker, no thread."""
        started = self._started
        return started is None or (started.pool.closed() and started.pool.join(0))

    def queued(self) -> int:
        started = self._started
        return started.pool.queued() if started else 0

    def broken(self) -> tuple[str, bytes | None] | None:
        """Why the pool cannot go on, if so. An initializer's failure that its worker has not logged is logged, once."""
        started = self._started
        broken = started.pool.broken() if started else self._was_broken
        if broken and broken[1] is not None and not self._told_broken:
            self._told_broken = True
            error, logged = decode_refusal(broken[1])
            if not logged:
                logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=error)
        return broken

    def close(self, cancel: bool) -> None:
        started = self._started
        if started is not None:
            started.pool.close(cancel)
        if self._completions is not None:
            self._completions.close()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left; false if `timeout` seconds passed first."""
        started = self._started
        if started is not None and not started.pool.join(timeout):
            return False
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        if started is not None:
            started.output.join()
        self._start.close()
        return True

    def flush_output(self) -> None:
        """Write what workers have written by now."""
        # A caller that held the output itself would, kept by a traceback, keep the pool.
        started = self._started
        if started is not None:
            started.output.flush()

    def release(self) -> None:
        """After `close` and `join`: let go of the pool and its doorbell, even if somebody still holds the executor."""
        with self._lock:
            if self._started is not None:
                self._was_broken = self._started.pool.broken()
            self._started = None
            self._released = True

    def end_workers(self, kill: bool) -> None:
        started = self._started
        if started is not None:
            started.pool.end_workers(kill)

    def finish_at_exit(self) -> None:
        if getattr(sys, "last_type", None) is KeyboardInterrupt:
            self.end_workers(True)  # nobody wants to wait for anything
        elif self._end_at_exit and self._started is not None:
            self._started.pool.abandon()  # it was a map's: nobody can want its results any more
        self.close(False)
        self.join()

    def leave_at_exit(self) -> None:
        self.end_workers(True)
        self.close(True)


def _complete_all(completions: _native.Completions, engine: _Engine) -> None:
    """The thread that completes a pool's futures, until the last of them has ended.

    It holds the engine, so that there is something to join at exit if the executor was dropped with work pending.
    """
    while (ends := completions.take()) is not None:
        engine.flush_output()  # what their tasks wrote comes first
        for future, kind, payload in ends:
            if kind == _outcome.BROKEN:
                engine.broken()  # before anybody hears of it: the reason is in the log then
            try:
                complete(future, kind, payload)
            except BaseException:
                # A callback's SystemExit: `Future` logs an Exception, and lets this pass. Others wait for theirs.
                logging.getLogger("concurrent.futures").exception("exception calling callback for %r", future)
            # Nothing of a result may be kept until the next one comes.
            del future, payload
        del ends
