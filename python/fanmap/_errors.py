"""The exceptions that only a parent raises. What travels between processes is in `_remote`."""

from __future__ import annotations

import math
import pickle
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from . import _native, _outcome
from ._codec import decode_result
from ._remote import decode_exception, decode_refusal, detach, remote_traceback, say, summary
from ._retry import note
from ._sketch import sketch

__all__ = [
    "BrokenProcessPool",
    "MemoryLimitExceeded",
    "TaskTimeout",
    "UndecodableError",
    "WorkerCrashed",
    "broken_pool",
    "complete",
    "failure",
    "undecodable",
]


class WorkerCrashed(BrokenProcessPool):
    """The worker process that ran this task ended before the task did. The pool lives on.

    | attribute | what it is |
    |---|---|
    | `item` | the index of the item in the input of a map; None for `submit` |
    | `call` | the call, shortened: `"work(3, 'a')"`. Objects show what they were pickled as; no code of theirs is run |
    | `pid` | the worker's process id |
    | `exitcode` | how it ended: negative for a signal, as in `multiprocessing`; None if nobody could tell |
    | `signal` | the signal's name, `"SIGSEGV"`; None if it was none |
    | `out_of_memory` | whether the system has likely killed it because memory ran out: by SIGKILL, and its cgroup has \
counted such a kill |
    | `peak_memory` | the most memory that the worker had, in bytes (resident); None if that is not known |
    | `memory_limit` | the pool's `worker_memory_limit`, in bytes, if it has one |

    >>> import os, fanmap
    >>> with fanmap.ProcessPoolExecutor() as pool:
    ...     crash = pool.submit(os._exit, 3).exception()
    >>> type(crash).__name__, crash.call, crash.exitcode
    ('WorkerCrashed', '_exit(3)', 3)
    """

    def __init__(
        self,
        message: str,
        *,
        item: int | None = None,
        call: str = "",
        pid: int = 0,
        exitcode: int | None = None,
        out_of_memory: bool = False,
        peak_memory: int | None = None,
        memory_limit: int | None = None,
    ) -> None:
        super().__init__(message)
        self.item = item
        self.call = call
        self.pid = pid
        self.exitcode = exitcode
        self.signal = _signal_name(exitcode)
        self.out_of_memory = out_of_memory
        self.peak_memory = peak_memory
        self.memory_limit = memory_limit

    def __reduce__(self) -> tuple[Any, ...]:
        known = {name: value for name, value in vars(self).items() if name in _KNOWN}
        return _crashed, (type(self), str(self), known)


class MemoryLimitExceeded(WorkerCrashed, MemoryError):
    """This task went past `worker_memory_limit`: it raised MemoryError. Its worker was replaced. The pool lives on.

    The attributes are those of `WorkerCrashed`; `exitcode` is None. Its `__cause__` is the MemoryError.

    >>> import fanmap
    >>> with fanmap.ProcessPoolExecutor(worker_memory_limit=200 * 2**20) as pool:
    ...     error = pool.submit(bytes, 300 * 2**20).exception()
    >>> type(error).__name__, error.call, error.memory_limit
    ('MemoryLimitExceeded', 'bytes(314572800)', 209715200)
    """


class TaskTimeout(TimeoutError):
    """This task ran for longer than `task_timeout` and was ended, with its worker process. The pool lives on.

    | attribute | what it is |
    |---|---|
    | `item` | the index of the item in the input of a map; None for `submit` |
    | `call` | the call, shortened, as in `WorkerCrashed` |
    | `pid` | the process id of the worker that was ended |
    | `seconds` | how long the task might run |

    >>> import fanmap, time
    >>> with fanmap.ProcessPoolExecutor(task_timeout=0.1) as pool:
    ...     late = pool.submit(time.sleep, 60).exception()
    >>> type(late).__name__, late.call, late.seconds
    ('TaskTimeout', 'sleep(60)', 0.1)
    """

    def __init__(
        self, message: str, *, item: int | None = None, call: str = "", pid: int = 0, seconds: float = 0.0
    ) -> None:
        super().__init__(message)
        self.item = item
        self.call = call
        self.pid = pid
        self.seconds = seconds

    def __reduce__(self) -> tuple[Any, ...]:
        return _timed_out, (str(self), self.item, self.call, self.pid, self.seconds)


def _timed_out(message: str, item: int | None, call: str, pid: int, seconds: float) -> TaskTimeout:
    return TaskTimeout(message, item=item, call=call, pid=pid, seconds=seconds)


class UndecodableError(pickle.UnpicklingError, BrokenProcessPool):
    """A task's arguments could not be unpickled in its worker, or its result not here. The pool lives on.

    It is a `BrokenProcessPool`, for that is what the standard library's pool becomes then, and `except` clauses written
    for it go on catching. Its `__cause__` says what went wrong and where.

    >>> import fanmap
    >>> class Strange:
    ...     def __reduce__(self):
    ...         return int, ("no number",)  # what is called when it is unpickled
    >>> with fanmap.ProcessPoolExecutor() as pool:
    ...     error = pool.submit(type, Strange()).exception()
    >>> type(error).__name__, "no number" in str(error)
    ('UndecodableError', True)
    """


def undecodable(what: str, error: BaseException) -> UndecodableError:
    """The exception for a result that could not be unpickled here because of `error`."""
    made = UndecodableError(f"{what} could not be unpickled: {type(error).__name__}: {error}")
    made.__cause__ = error
    return made


_KNOWN = ("item", "call", "pid", "exitcode", "out_of_memory", "peak_memory", "memory_limit")


def _crashed(kind: type[WorkerCrashed], message: str, known: dict[str, Any]) -> WorkerCrashed:
    return kind(message, **known)


def failure(kind: int, payload: Any, item: int | None = None) -> BaseException:
    """The exception for an outcome over processes that is no value and no cancellation."""
    if isinstance(payload, _native.Tried):
        error_of_last = failure(kind, payload.payload, item)
        note(error_of_last, [_said(*outcome, item) for outcome in payload.earlier])
        return error_of_last
    if kind == _outcome.RAISED:
        return decode_exception(payload)
    if kind == _outcome.LOST:
        pid, code, peak, out_of_memory, limit, refused, corrupt, (name, arguments, place) = payload
        call = sketch(name, arguments, place)
        what = call if item is None else f"item {item}, {call}"
        memory = "" if peak is None else f"; it had used up to {_say_size(peak)} of memory"
        if refused is not None:
            kind_of_error: type[WorkerCrashed] = MemoryLimitExceeded
            message = (
                f"{what}, went past the memory limit of its worker process (pid {pid}), "
                f"worker_memory_limit={limit} ({_say_size(limit)}){memory}. "
                "The worker was replaced. Only this task failed; the pool lives on."
            )
        else:
            kind_of_error = WorkerCrashed
            why = ", likely out of memory" if out_of_memory else ""
            if corrupt:
                why = ", since it had written nonsense into the memory that it shares with its parent"
            limited = "" if limit is None else f"; its worker_memory_limit was {_say_size(limit)}"
            message = (
                f"A worker process (pid {pid}) was terminated abruptly while it ran {what}: "
                f"{_say_exit(code)}{why}{memory}{limited}. Only this task is lost; the pool lives on."
            )
        error = kind_of_error(
            message,
            item=item,
            call=call,
            pid=pid,
            exitcode=code,
            out_of_memory=out_of_memory,
            peak_memory=peak,
            memory_limit=limit,
        )
        if refused is not None:
            error.__cause__ = decode_exception(refused)
        elif code is not None:
            # Where the standard library says it, since Python 3.15.
            error.__cause__ = remote_traceback(f"Process {pid} terminated abruptly with exit code {code}")
        return error
    if kind == _outcome.TIMED_OUT:
        pid, seconds, (name, arguments, place) = payload
        call = sketch(name, arguments, place)
        what = call if item is None else f"item {item}, {call},"
        message = (
            f"{what} ran for longer than task_timeout={seconds:g} seconds, so it was ended with its worker process "
            f"(pid {pid}). Only this task failed; the pool lives on."
        )
        return TaskTimeout(message, item=item, call=call, pid=pid, seconds=seconds)
    if kind == _outcome.BROKEN:
        return broken_pool(*payload)
    raise AssertionError(f"outcome {kind} is no failure")


def _said(kind: int, payload: Any, item: int | None) -> str:
    """The failure of an attempt, in a line."""
    return summary(payload) if kind == _outcome.RAISED else say(failure(kind, payload, item))


def broken_pool(reason: str, refusal: bytes | None) -> BrokenProcessPool:
    """The exception of every task of a process pool that cannot go on."""
    if refusal is None:
        return BrokenProcessPool(f"The process pool is not usable anymore: {reason}.")
    cause, _ = decode_refusal(refusal)
    error = BrokenProcessPool(
        "A worker process could not get ready, so the pool is not usable anymore: "
        f"{type(cause).__name__}: {cause} (raised by the pool's initializer, or while it was prepared)."
    )
    error.__cause__ = cause
    return error


def decoded(kind: int, payload: Any) -> tuple[Any, BaseException | None]:
    """Result and exception of a task over processes that returned or raised.

    KeyboardInterrupt passes: it is that of the thread that asks.
    """
    if kind == _outcome.RAISED:
        return None, failure(kind, payload)
    try:
        return decode_result(payload), None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return None, detach(undecodable("the task's result", error))


def complete(future: Future[Any], kind: int, payload: Any) -> None:
    """Give a future the outcome of its task over processes."""
    if kind == _outcome.CANCELLED:
        # `cancel` may have been called on the pool and not on the future.
        Future.cancel(future)
        future.set_running_or_notify_cancel()
        return
    if not future.set_running_or_notify_cancel():
        return
    if kind in (_outcome.VALUE, _outcome.RAISED):
        try:
            value, error = decoded(kind, payload)
        except KeyboardInterrupt as own:
            # No signal's handler runs in the pool's thread, which is to go on.
            value, error = None, detach(undecodable("the task's result", own))
    else:
        value, error = None, failure(kind, payload)
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


def _say_size(size: int) -> str:
    return f"{math.ceil(size / 2**20)} MiB"


def _say_exit(code: int | None) -> str:
    if code is None:
        return "how it ended is not known"
    if code >= 0:
        return f"it exited with code {code}"
    name = _signal_name(code)
    return f"by signal {-code} ({name})" if name else f"by signal {-code}"


def _signal_name(code: int | None) -> str | None:
    """The name of the signal that an exit code tells of."""
    if code is None or code >= 0:
        return None
    import signal

    try:
        return signal.Signals(-code).name
    except ValueError:
        return None  # a real-time signal
