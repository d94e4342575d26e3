"""The standard library's `Future`, whose state the engine keeps until somebody asks for its Condition."""

from __future__ import annotations

import concurrent.futures
from typing import Any, TypeVar

from . import _native

__all__ = ["Future"]

T = TypeVar("T")


class Future(_native.FutureBase, concurrent.futures.Future[T]):
    """The outcome of a task, now or later: a true `concurrent.futures.Future`.

    Over processes it is RUNNING when a worker really runs the task, so `cancel()` succeeds until then; the standard
    library calls a task running as soon as it is queued to a worker.

    >>> import fanmap
    >>> with fanmap.ThreadPoolExecutor() as pool:
    ...     future = pool.submit(pow, 2, 10)
    >>> future.result()
    1024
    """

    def _decoded(self, kind: int, payload: Any) -> tuple[Any, BaseException | None]:
        """Result and exception of a task over processes. Called once, by the first thread that wants them."""
        from ._errors import decoded

        return decoded(kind, payload)

    def __copy__(self) -> Future[T]:
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        for name in ("_condition", "_waiters", "_done_callbacks", "_result", "_exception", "_state"):
            setattr(copied, name, getattr(self, name))
        return copied
