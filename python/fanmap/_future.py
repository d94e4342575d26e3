"""The standard library's `Future`, for tasks whose state is kept by the engine."""

from __future__ import annotations

import concurrent.futures
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from ._native import Ticket

__all__ = ["Future"]

T = TypeVar("T")


class Future(concurrent.futures.Future[T]):
    """The outcome of a task, now or later: a true `concurrent.futures.Future`.

    Over processes it is RUNNING when a worker really runs the task, so `cancel()` succeeds until then; the standard
    library calls a task running as soon as it is queued to a worker.

    >>> import fanmap
    >>> with fanmap.ThreadPoolExecutor() as pool:
    ...     future = pool.submit(pow, 2, 10)
    >>> future.result()
    1024
    """

    # The task's place in a process pool, until its outcome is here. Set by the executor.
    _ticket: Ticket | None = None

    def cancel(self) -> bool:
        """Cancel the task if it has not started. True if it never runs."""
        ticket = self._ticket
        if ticket is not None and not self.cancelled() and not ticket.cancel():
            return False
        return super().cancel()

    def running(self) -> bool:
        """Whether a worker runs the task right now."""
        ticket = self._ticket
        if ticket is not None and not self.done():
            return ticket.is_running()
        return super().running()
