"""Arguments that cannot be used are refused at the call, in one way for all."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

__all__ = [
    "executor_map",
    "flag",
    "function",
    "initializer",
    "map_workers",
    "memory",
    "not_negative",
    "on_error",
    "options",
    "positive",
    "seconds",
    "task_timeout",
    "tasks_per_child",
    "worker_exit",
    "workers",
]

# A time that no clock of the engine's overflows by: some hundred years.
_LONGEST = 2**32

# What no engine can count beyond; a number that is to say "without end" may be as large.
_MOST = sys.maxsize


def workers(max_workers: Any) -> None:
    """A number of workers: an int above 0."""
    if not isinstance(max_workers, int):
        raise TypeError(f"max_workers must be an int or None, not {type(max_workers).__name__}")
    if max_workers <= 0:
        raise ValueError("max_workers must be greater than 0")
    if max_workers > _MOST:
        raise ValueError(f"max_workers must be at most {_MOST}, but is {max_workers}: leave it out for a good number")


def map_workers(value: Any) -> int | None:
    """A number of workers for a map; -1 is all cores."""
    if _is_int(value) and value < 1:
        if value == -1:
            from ._cores import cpu_count

            return cpu_count()
        raise ValueError(f"workers must be at least 1, or -1 for all cores, but is {value}")
    positive("workers", value)
    return value  # type: ignore[no-any-return]


def initializer(value: Any, arguments: Any) -> tuple[Any, ...]:
    """Something to call in each new worker, or None; and the arguments for it, of which a tuple is made."""
    if value is not None and not callable(value):
        raise TypeError("initializer must be a callable")
    try:
        return tuple(arguments)
    except TypeError:
        raise TypeError(f"initargs must be a tuple, not {type(arguments).__name__}; for one argument: (x,)") from None


def function(fn: Any) -> None:
    """Something to call."""
    if not callable(fn):
        raise TypeError(f"the function to run must be callable, not {type(fn).__name__}")


def _is_int(value: Any) -> bool:
    """Whether it is a number of something. To Python True and False are, and where one is wanted they are mistakes."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def positive(name: str, value: Any) -> None:
    """An int above 0, or None."""
    if value is None:
        return
    if not _is_int(value):
        raise TypeError(f"{name} must be an integer or None, not {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be None or > 0" if name == "buffersize" else f"{name} must be >= 1.")
    _not_too_large(name, value)


def not_negative(name: str, value: Any) -> None:
    """An int that may be 0, or None."""
    if value is None:
        return
    if not _is_int(value):
        raise TypeError(f"{name} must be an integer or None, not {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{name} must not be negative, but is {value}")
    _not_too_large(name, value)


def _not_too_large(name: str, value: int) -> None:
    if value > _MOST:
        raise ValueError(f"{name} must be at most {_MOST}, but is {value}: leave it out for no such number")


def flag(name: str, value: Any) -> None:
    """True or False, or numpy's."""
    kind = type(value)
    if kind is not bool and (kind.__module__, kind.__name__) not in (("numpy", "bool"), ("numpy", "bool_")):
        raise TypeError(f"{name} must be True or False, not {value!r}")


def tasks_per_child(value: Any, method: str) -> None:
    """After how many tasks a worker that is started so is replaced, or None."""
    if value is None:
        return
    if not _is_int(value):
        raise TypeError(f"max_tasks_per_child must be an integer, not {type(value).__name__}")
    if value <= 0:
        raise ValueError("max_tasks_per_child must be >= 1")
    _not_too_large("max_tasks_per_child", value)
    if method == "fork":
        raise ValueError(
            "max_tasks_per_child is incompatible with the 'fork' multiprocessing start method; "
            "supply a different mp_context."
        )


def memory(most: Any, limit: Any) -> None:
    """`max_memory_per_worker` and `worker_memory_limit`: ints of bytes, or None."""
    for name, value in (("max_memory_per_worker", most), ("worker_memory_limit", limit)):
        if value is None:
            continue
        if not _is_int(value):
            raise TypeError(f"{name} must be an int (of bytes) or None, not {type(value).__name__}")
        # No process lives in less: it is most likely a number of megabytes.
        if not 2**20 <= value < 2**63:
            raise ValueError(f"{name} is in bytes, at least 1048576 (1 MiB), and cannot be {value}")
    if most is not None and limit is not None and most > limit:
        raise ValueError(
            f"max_memory_per_worker={most} is never reached where worker_memory_limit={limit} is: make it the smaller"
        )


def worker_exit(value: Any, timeout: Any) -> None:
    """Something to call in each worker that ends, or None; and how many seconds an end may take, or None."""
    if value is not None and not callable(value):
        raise TypeError("worker_exit must be a callable")
    if timeout is None:
        return
    if not _is_number(timeout):
        raise TypeError(f"worker_exit_timeout must be a number or None, not {type(timeout).__name__}")
    if not 0 <= timeout <= _LONGEST:
        raise ValueError(f"worker_exit_timeout must be at least 0 and at most {_LONGEST} seconds, but is {timeout}")


def task_timeout(value: Any) -> None:
    """How many seconds a task may take, or None."""
    if value is None:
        return
    if not _is_number(value):
        raise TypeError(f"task_timeout must be a number or None, not {type(value).__name__}")
    # Less than a millisecond is past before anybody could look.
    if not 0.001 <= value <= _LONGEST:
        raise ValueError(f"task_timeout must be at least 0.001 and at most {_LONGEST} seconds, but is {value}")


def seconds(name: str, value: Any) -> None:
    """A number of seconds, or None."""
    if value is None:
        return
    if not _is_number(value):
        raise TypeError(f"{name} must be a number of seconds or None, not {type(value).__name__}")
    if value != value:
        raise ValueError(f"{name} must be a number of seconds or None, and NaN is none")


def options(name: str, value: Any) -> dict[str, Any]:
    """Options for somebody else, by their names, or None."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict of options or None, not {type(value).__name__}")
    return dict(value)


def on_error(value: Any) -> None:
    """One of three words."""
    if value not in ("raise", "return", "skip"):
        raise ValueError(f"on_error must be 'raise', 'return' or 'skip', not {value!r}")


def executor_map(
    fn: Any, chunksize: Any, buffersize: Any, on_error_: Any, progress: Any, *, ordered: Any, strict: Any
) -> None:
    """The arguments that the executors' `map` share."""
    from . import _progress

    function(fn)
    flag("ordered", ordered)
    flag("strict", strict)
    on_error(on_error_)
    _progress.check(progress)
    positive("chunksize", chunksize)
    positive("buffersize", buffersize)
