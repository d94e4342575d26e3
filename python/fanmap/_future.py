"""The standard library's `Future`, whose state the engine keeps until somebody asks for its Condition."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from . import _native

if TYPE_CHECKING:
    from ._processes import _Engine

__all__ = ["Future", "Submit"]

P = ParamSpec("P")
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

    # What writes the output of its task, if that must be there before somebody has the outcome.
    _engine: _Engine | None = None

    def _decoded(self, kind: int, payload: Any) -> tuple[Any, BaseException | None]:
        """Result and exception of a task over processes. Called once, by the first thread that wants them."""
        from ._errors import decoded

        engine = self._engine
        if engine is not None:
            self._engine = None
            engine.flush_output()
        return decoded(kind, payload)

    def __copy__(self) -> Future[T]:
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        for name in ("_condition", "_waiters", "_done_callbacks", "_result", "_exception", "_state"):
            setattr(copied, name, getattr(self, name))
        return copied


class Submit:
    """What an executor's `submit_with` gives: its `submit` with other options. It may be called any number of times."""

    def __init__(self, submit: Callable[[Callable[..., Any], Any, Any], Future[Any]]) -> None:
        self._submit = submit

    def __call__(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have `fn(*args, **kwargs)` called; returns the future of its outcome, and raises what `submit` raises."""
        return self._submit(fn, args, kwargs)
