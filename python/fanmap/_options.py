"""The options of `fanmap.map` and its family: what they are, and which exclude each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from operator import is_
from typing import Any, Literal, NamedTuple, TypeAlias, TypedDict

from . import _check, _progress, _retry
from ._progress import Progress, Shown
from ._retry import Retry

__all__ = ["ExecutorOptions", "OnError", "Options", "ProcessOptions", "Wanted", "sends_copies"]

OnError: TypeAlias = Literal["raise", "return", "skip"]

_NAMES = ("auto", "serial", "threads", "processes")
# What is no name, but may well be taken for one.
_CLUSTERS = {"dask": "fanmap.dask.DaskExecutor()", "ray": "fanmap.ray.RayExecutor()"}


class Options(TypedDict, total=False):
    """All but `on_error`, by which the type of the results changes."""

    executor: str | Executor
    workers: int | None
    buffersize: int | None
    ordered: bool
    chunksize: int
    timeout: float | None
    task_timeout: float | None
    retries: int | Retry | None
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    strict: bool
    progress: Shown
    max_memory_per_worker: int | None
    worker_memory_limit: int | None
    tag_output: bool
    forward_logging: bool


class ExecutorOptions(TypedDict, total=False):
    """The same of an executor's own `map`."""

    timeout: float | None
    chunksize: int
    buffersize: int | None
    ordered: bool
    strict: bool
    retries: int | Retry | None
    progress: Shown


class ProcessOptions(ExecutorOptions, total=False):
    """The same of the `map` of processes."""

    task_timeout: float | None


class Wanted(NamedTuple):
    """What a user asked of one map."""

    executor: str | Executor = "auto"
    workers: int | None = None
    buffersize: int | None = None
    ordered: bool = True
    chunksize: int = 1
    timeout: float | None = None
    on_error: OnError = "raise"
    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    strict: bool = False
    progress: Shown = False
    task_timeout: float | None = None
    max_memory_per_worker: int | None = None
    worker_memory_limit: int | None = None
    retries: int | Retry | None = None
    tag_output: bool = False
    forward_logging: bool = False

    @property
    def retry(self) -> Retry | None:
        """When a task is tried again, once that was checked."""
        return _retry.wanted(self.retries)

    @property
    def not_here(self) -> str:
        """The option that rules out the calling thread, where there is a choice: it could not be left in time, and
        others would wait while it rests between two tries."""
        if self.timeout is not None:
            return "timeout"
        retry = self.retry
        return "" if retry is None or not retry.count else "retries"

    @property
    def means_processes(self) -> str:
        """The option that is for workers which are nothing but workers, so that there is no choice."""
        given = {
            "initializer": self.initializer is not None,
            "task_timeout": self.task_timeout is not None,
            "max_memory_per_worker": self.max_memory_per_worker is not None,
            "worker_memory_limit": self.worker_memory_limit is not None,
            "tag_output": self.tag_output,
            "forward_logging": self.forward_logging,
        }
        return next((option for option, is_given in given.items() if is_given), "")

    @property
    def limits_memory(self) -> bool:
        """Whether the memory of its workers is limited in some way."""
        return self.max_memory_per_worker is not None or self.worker_memory_limit is not None

    @property
    def speaks(self) -> bool:
        """Whether what its workers write or log is to come in a way of its own."""
        return self.tag_output or self.forward_logging

    def shown(self, length: int) -> Progress | None:
        """What shows the progress of a map over so many items, if it is to be shown."""
        return _progress.shown(self.progress, length)

    @classmethod
    def by(cls, function: str, options: Mapping[str, Any]) -> Wanted:
        """What the keyword arguments of a public function ask for."""
        for name in options:
            if name not in cls._fields:
                raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")
        return cls(**options)

    def checked(self) -> Wanted:
        """The same with every value in its final form; an error if one is of no use, or two exclude each other."""
        if self.executor == "auto" and asks_nothing(self[1:]):
            return self  # as most maps are, and short ones would feel the rest
        workers = _check.map_workers(self.workers)
        for name in ("ordered", "strict", "tag_output", "forward_logging"):
            _check.flag(name, getattr(self, name))
        _check.positive("buffersize", self.buffersize)
        _check.positive("chunksize", self.chunksize)
        _check.seconds("timeout", self.timeout)
        _check.task_timeout(self.task_timeout)
        _check.memory(self.max_memory_per_worker, self.worker_memory_limit)
        _check.on_error(self.on_error)
        _progress.check(self.progress)
        retries = _retry.wanted(self.retries)
        initargs = _check.initializer(self.initializer, self.initargs)
        if initargs and self.initializer is None:
            raise ValueError("initargs are what an initializer is called with, and there is none: give initializer=")
        if self.buffersize is not None and self.chunksize is not None and self.chunksize > self.buffersize:
            raise ValueError(
                f"chunksize={self.chunksize} items cannot go together when only buffersize={self.buffersize} may be "
                "under way"
            )
        if isinstance(self.executor, str):
            if self.executor not in _NAMES:
                names = ", ".join(repr(name) for name in _NAMES)
                example = _CLUSTERS.get(self.executor)
                such = f", such as {example}" if example else ""
                raise ValueError(
                    f"unknown executor {self.executor!r}: use {names}, or a concurrent.futures.Executor{such}"
                )
            if self.executor == "serial" and (workers is not None or self.initializer is not None):
                raise ValueError("executor='serial' has no workers, so neither workers= nor initializer= make sense")
        elif not isinstance(self.executor, Executor):
            given = self.executor if isinstance(self.executor, type) else type(self.executor)
            kind = "the class " if given is self.executor else ""
            raise TypeError(
                "executor must be 'auto', 'serial', 'threads', 'processes' or a concurrent.futures.Executor, "
                f"not {kind}{given.__name__}"
            )
        elif workers is not None:
            raise ValueError("workers= makes a pool for this map; an executor that is given has its own number")
        elif self.initializer is not None:
            raise ValueError("initializer= makes a pool for this map; an executor that is given has workers already")
        executor = "processes" if self.executor == "auto" and self.means_processes else self.executor
        if self.limits_memory and executor != "processes":
            raise ValueError(
                "max_memory_per_worker= and worker_memory_limit= are for the processes of a pool that this map makes, "
                "so only for executor='processes': give them to a ProcessPoolExecutor if you have one; threads share "
                "one memory"
            )
        if self.task_timeout is not None and not sends_copies(executor):
            raise ValueError(
                "task_timeout= ends a task with its worker process, so it is only for executor='processes' or fanmap's "
                "ProcessPoolExecutor: a thread cannot be ended, and another executor's workers are its own"
            )
        if self.speaks and not sends_copies(executor):
            raise ValueError(
                "tag_output= and forward_logging= are for worker processes, so only for executor='processes' or "
                "fanmap's ProcessPoolExecutor: threads write and log where the program does, and another executor's "
                "workers are its own"
            )
        return self._replace(
            executor=executor, workers=workers, initargs=initargs, chunksize=self.chunksize or 1, retries=retries
        )


# What most maps ask for.
USUAL = Wanted()
_NOTHING = USUAL[1:]


def asks_nothing(options: tuple[Any, ...]) -> bool:
    """Whether no option beside the executor is given; they come in the order of `Wanted`."""
    return all(map(is_, options, _NOTHING))


def sends_copies(executor: str | Executor) -> bool:
    """Whether a map over it encodes its function and items. Asking it, rather than its type, imports nothing."""
    return executor == "processes" or bool(getattr(executor, "_sends_copies", False))
