"""Arguments that cannot be used are refused at the call, in one way for all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "executor_map",
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
    "worker_exit",
    "workers",
]

# A time that no clock of the engine's overflows by: some hundred years.
_LONGEST = 2**32


def workers(max_workers: Any) -> None:
    """A number of workers: an int above 0."""
    if not isinstance(max_workers, int):
        raise TypeError(f"max_workers must be an int or None, not {type(max_workers).__name__}")
    if max_workers <= 0:
        raise ValueError("max_workers must be greater than 0")


def map_workers(value: Any) -> int | None:
    """A number of workers for a map; -1 is all cores."""
    if value == -1:
        from ._cores import cpu_count

        return cpu_count()
    if isinstance(value, int) and value < 1:
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


def positive(name: str, value: Any) -> None:
    """An int above 0, or None."""
    if value is None:
        return
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an integer or None")
    if value < 1:
        raise ValueError(f"{name} must be None or > 0" if name == "buffersize" else f"{name} must be >= 1.")


def not_negative(name: str, value: Any) -> None:
    """An int that may be 0, or None."""
    if value is None:
        return
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an integer or None")
    if value < 0:
        raise ValueError(f"{name} must not be negative, but is {value}")


def memory(most: Any, limit: Any) -> None:
    """`max_memory_per_worker` and `worker_memory_limit`: ints of bytes, or None."""
    for name, value in (("max_memory_per_worker", most), ("worker_memory_limit", limit)):
        if value is None:
            continue
        if not isinstance(value, int):
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
    if not isinstance(timeout, (int, float)):
        raise TypeError("worker_exit_timeout must be a number or None")
    if not 0 <= timeout <= _LONGEST:
        raise ValueError(f"worker_exit_timeout must be at least 0 and at most {_LONGEST} seconds, but is {timeout}")


def task_timeout(value: Any) -> None:
    """How many seconds a task may take, or None."""
    if value is None:
        return
    if not isinstance(value, (int, float)):
        raise TypeError("task_timeout must be a number or None")
    # Less than a millisecond is past before anybody could look.
    if not 0.001 <= value <= _LONGEST:
        raise ValueError(f"task_timeout must be at least 0.001 and at most {_LONGEST} seconds, but is {value}")


def seconds(name: str, value: Any) -> None:
    """A number of seconds, or None."""
    if value is not None and not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds or None, not {type(value).__name__}")


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


def executor_map(fn: Any, chunksize: Any, buffersize: Any, on_error_: Any, progress: Any) -> None:
    """The arguments that the executors' `map` share."""
    from . import _progress

    function(fn)
    on_error(on_error_)
    _progress.check(progress)
    positive("chunksize", chunksize)
    positive("buffersize", buffersize)
