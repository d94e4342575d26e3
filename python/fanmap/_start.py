"""How a pool's worker processes are started, for each start method.

| `mp_context` | workers are | the user's `__main__` |
|---|---|---|
| none | forked by a template process that imports only what a worker needs | travels by value |
| `forkserver` | forked by such a template | imported again, as `__mp_main__` |
| `spawn` | fresh interpreters | imported again, as `__mp_main__` |
| `fork` | forked by a child that this process forks when the pool is first used | inherited, as it was then |

Whatever the method, a worker is told first what the parent's surroundings are (`surroundings`): its working directory,
environment, `sys.path`, arguments and warning filters, as they are when the worker is asked for.
"""

from __future__ import annotations

import _thread
import os
import pickle
import signal
import sys
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _budget, _inherit, _native, _place
from ._codec import BY_VALUE, IMPORTED, Encoder, Forked

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

    from ._reference import Policy

__all__ = ["EXIT_TIME", "Hooks", "Options", "Start", "choose"]

# How many seconds a worker has to end when it is told to. Fewer, and a slow disk loses what handlers write at exit;
# more, and a handler that hangs holds up a program's end for longer than people wait.
EXIT_TIME = 10.0


class Hooks(NamedTuple):
    """What of the user's is called in each worker beside the tasks."""

    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    worker_exit: Callable[[], object] | None = None


class Options(NamedTuple):
    """What was asked of a pool, whatever starts its workers."""

    workers: int
    max_tasks: int | None = None
    # In seconds.
    idle: float | None = None
    exit_time: float | None = None
    # In bytes.
    buffer_memory: int | None = None
    cancel_running: bool = False
    # In bytes, of each worker.
    max_memory: int | None = None
    memory_limit: int | None = None


class Start:
    """One start method: the policy by which `__main__` travels, and the engine's pool that starts workers so."""

    method = ""
    # Each worker's share of them.
    cores = 1
    # What was asked for in the place of that share, and of the user's variables.
    inner_threads: int | None = None
    # How the worker comes by the user's `__main__`, in `_worker`'s words.
    main = "by value"

    def __init__(self) -> None:
        self.policy: Policy = BY_VALUE

    def make_pool(self, options: Options, fn: object) -> _native.ProcessPool:
        """The engine's pool. Called once, when the first task comes; `fn` is its function, if that is known."""
        raise NotImplementedError

    def surroundings(self, encoder: Encoder, hooks: Hooks, behavior: bytes) -> tuple[bytes, list[int]]:
        """What a new worker is told first, how it is to behave at first among it, and the descriptors that it gets."""
        fds: list[int] = []
        environ, limited = _budget.environment(self.cores, always=self.inner_threads is not None)
        told: dict[str, Any] = {
            "main": self.main,
            "package": getattr(sys.modules.get("__main__"), "__package__", None),
            "cwd": _cwd(),
            "environ": environ,
            "limited": limited,
            "cores": self.cores,
            "depth": _place.depth + 1,
            "path": list(sys.path),
            "argv": list(getattr(sys, "argv", ())),
            "filters": _warning_filters(),
            "behavior": behavior,
        }
        if hooks.initializer is not None:
            # The initializer first: its globals must be there before anything that its arguments bring.
            function = encoder.encode_function(hooks.initializer)
            with _inherit.Inheriting() as inheriting:
                told["initializer"] = (function, encoder.encode(hooks.initargs, "the pool's initargs"))
            fds = inheriting.fds
        if hooks.worker_exit is not None:
            told["worker_exit"] = encoder.encode_function(hooks.worker_exit)
        told["multiprocessing"] = _inherit.told(fds)
        told.update(self.extra())
        return pickle.dumps(told, 5), fds

    def extra(self) -> dict[str, Any]:
        """What else this method tells a worker."""
        return {}

    def close(self) -> None:
        """The pool is gone."""


class Template(Start):
    """The default: a template process."""

    method = "template"

    def make_pool(self, options: Options, fn: object) -> _native.ProcessPool:
        by_value = isinstance(fn, FunctionType) and self.policy.reference(fn) is None
        command = _command(f"from fanmap._template import main; main({os.getpid()}, {by_value})")
        pool = _pool(options, "template", command=command)
        pool.warm_up()
        return pool


class _Imports(Start):
    """Workers that import the user's `__main__` again."""

    main = "imported"

    def __init__(self) -> None:
        super().__init__()
        self.policy = IMPORTED

    def extra(self) -> dict[str, Any]:
        import multiprocessing.spawn

        preparation = multiprocessing.spawn.get_preparation_data("fanmap-worker")
        # A key that only travels while multiprocessing itself starts a process; the bytes of it do.
        preparation["authkey"] = bytes(preparation["authkey"])
        return {"preparation": preparation}


class ForkServer(_Imports):
    """A template whose workers import the user's `__main__` again."""

    method = "forkserver"
    make_pool = Template.make_pool


class Spawn(_Imports):
    """A fresh interpreter for each worker."""

    method = "spawn"

    def make_pool(self, options: Options, fn: object) -> _native.ProcessPool:
        command = _command("from fanmap._worker import main; main()")
        return _pool(options, "direct", command=command)


class Fork(Start):
    """This process forks a template of itself, once, before the pool has a thread."""

    method = "fork"
    main = "inherited"

    def __init__(self, hooks: Hooks) -> None:
        super().__init__()
        self._hooks = hooks

    def make_pool(self, options: Options, fn: object) -> _native.ProcessPool:
        from . import _template

        self.policy = Forked()
        ours, theirs = _native.control_pair()
        parent = os.getpid()
        bound = _thread.get_native_id() == parent
        for stream in (sys.stdout, sys.stderr):
            # What they hold would be written again by every worker.
            if stream is not None and not stream.closed:
                stream.flush()
        # No Ctrl-C may come to the child before it ignores them, nor here while nothing would end the child.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            pid = os.fork()
            if pid == 0:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                os.close(ours)
                _template.main_of_fork(theirs, parent, bound, self._hooks)
            os.close(theirs)
            # One that had to end its workers for idleness could not have them back as they were.
            return _pool(options._replace(idle=None), "forked", pid=pid, fd=ours, at_once=True)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def surroundings(self, encoder: Encoder, hooks: Hooks, behavior: bytes) -> tuple[bytes, list[int]]:
        # They were inherited: they need not be able to travel.
        return super().surroundings(encoder, Hooks(), behavior)

    def close(self) -> None:
        if isinstance(self.policy, Forked):
            self.policy.close()


def choose(mp_context: BaseContext | None, hooks: Hooks) -> Start:
    """The start method that a context asks for."""
    if mp_context is None:
        return Template()
    if not hasattr(mp_context, "get_start_method"):
        wish = repr(mp_context) if isinstance(mp_context, str) else ""
        raise TypeError(f"mp_context must be a context: multiprocessing.get_context({wish}), not {mp_context!r}")
    method = mp_context.get_start_method()
    if method == "fork":
        return Fork(hooks)
    return ForkServer() if method == "forkserver" else Spawn()


def _pool(options: Options, start: str, **how: Any) -> _native.ProcessPool:
    return _native.ProcessPool(
        options.workers,
        start,
        max_tasks=options.max_tasks,
        idle=options.idle,
        exit_time=options.exit_time,
        blob_bytes=options.buffer_memory,
        cancel_running=options.cancel_running,
        max_memory=options.max_memory,
        memory_limit=options.memory_limit,
        **how,
    )


def _command(code: str) -> list[str]:
    """This interpreter, with its flags and its path, running `code`."""
    import subprocess

    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    if _cwd() is None:
        # The directory is no part of the path anyhow; where it is gone, Python 3.13 fails to import `_native` over it.
        flags = [*flags, "-P"]
    # The path first: without it fanmap itself might not be found.
    return [sys.executable, *flags, "-c", f"import sys; sys.path[:] = {list(sys.path)!r}; {code}"]


def _cwd() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None  # it was removed: workers stay in theirs


def _warning_filters() -> list[tuple[str, bytes]]:
    """The filters, each pickled, with the module of its category: a worker need not import that for their sake."""
    import warnings

    travelling = []
    for one in warnings.filters:
        try:
            travelling.append((one[2].__module__, pickle.dumps(one, 5)))
        except Exception:
            continue  # of a category that only exists here
    return travelling
