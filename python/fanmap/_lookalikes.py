"""What programs reach for behind the standard library's executors, and the engine has in another form.

The engine knows its workers by handles that can never come to mean another process, as a number can.

`_processes`, `_work_queue`, `_call_queue` and `_executor_manager_thread` are private there, and used all the same: to
kill the workers, to look how much waits, to wait until nothing is left. Each class here has those methods alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

__all__ = ["CallQueue", "Manager", "WorkQueue", "Worker", "Workers"]


class _Engine(Protocol):
    def workers(self, *, wait: bool) -> list[int]: ...
    def has_worker(self, pid: int) -> bool: ...
    def signal_worker(self, pid: int, *, kill: bool) -> None: ...
    def await_worker(self, pid: int, timeout: float | None) -> None: ...
    def join(self, timeout: float | None = None) -> bool: ...
    def is_finished(self) -> bool: ...


class Worker:
    """A worker process: what `_processes` has by its id."""

    def __init__(self, pid: int, engine: _Engine) -> None:
        self.pid = pid
        self._engine = engine

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._engine.has_worker(self.pid)

    def terminate(self) -> None:
        """End it by SIGTERM."""
        self._engine.signal_worker(self.pid, kill=False)

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._engine.signal_worker(self.pid, kill=True)

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, for `timeout` seconds at most."""
        self._engine.await_worker(self.pid, timeout)

    def __repr__(self) -> str:
        return f"<Worker pid={self.pid}{'' if self.is_alive() else ' ended'}>"


class Workers(Mapping[int, Worker]):
    """The workers by process id, as they are when one looks. Those that are being started are waited for.

    Shared by all threads that use the executor. A worker is the same object each time, for as long as it lives.
    """

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        # Replaced as a whole, never changed, so that no lock is needed.
        self._known: dict[int, Worker] = {}

    def __getitem__(self, pid: int) -> Worker:
        return self._now(wait=True)[pid]

    def __iter__(self) -> Iterator[int]:
        return iter(self._now(wait=True))

    def __len__(self) -> int:
        return len(self._now(wait=True))

    def __repr__(self) -> str:
        return repr(self._now(wait=False))

    def present(self) -> list[Worker]:
        """Those that are there now; none is waited for."""
        return list(self._now(wait=False).values())

    def _now(self, *, wait: bool) -> dict[int, Worker]:
        pids = self._engine.workers(wait=wait)
        known = self._known
        self._known = now = {pid: known.get(pid) or Worker(pid, self._engine) for pid in pids}
        return now


class WorkQueue:
    """The calls that wait for a worker."""

    def __init__(self, size: Callable[[], int]) -> None:
        self.qsize = size

    def empty(self) -> bool:
        """Whether none waits."""
        return self.qsize() == 0


class CallQueue(WorkQueue):
    """The same calls: what goes to the workers needs no thread that would have to be waited for."""

    def close(self) -> None:
        """Nothing: the executor's `shutdown` closes it."""

    def join_thread(self) -> None:
        """Nothing: there is no thread."""


class Manager:
    """What supervises the workers, seen as a thread."""

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine

    def is_alive(self) -> bool:
        """Whether something is left to supervise."""
        return not self._engine.is_finished()

    def join(self, timeout: float | None = None) -> None:
        """Wait until nothing of the pool is left, for `timeout` seconds at most: after a shutdown, or never."""
        self._engine.join(timeout)
