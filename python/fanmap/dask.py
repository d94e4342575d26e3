"""`DaskExecutor`: a `concurrent.futures.Executor` over a client of Dask. Needs `pip install 'fanmap[dask]'`.

What a batch is, and who decides when, stands in `_desk`; here is how Dask runs one. The board is kept by Dask's
scheduler, to which every worker has a connection; what a slow batch hands back comes as an event by the same way, and
so does a report that is small: a worker that is lost then takes nothing with it that was done. Neither workers nor the
scheduler import fanmap.
"""

from __future__ import annotations

import os
import pickle
import sys
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from . import _check
from ._batches import PATIENCE, Batch, Lost, by_value, warn_of_waiting
from ._cluster import ClusterExecutor
from ._errand import begun, claim, run, take_back

if TYPE_CHECKING:
    from ._errand import Report

__all__ = ["DaskExecutor"]

# Bytes of a report that goes by way of the scheduler, which keeps the last thousand events.
_MOST_TOLD = 1 << 16


class DaskExecutor(ClusterExecutor):
    """Runs calls as tasks of Dask: on this machine, or on all that its cluster has.

    It uses the `distributed.Client` that it is given, or else the program's current one. Or else it begins one, of the
    scheduler that Dask is configured with (`DASK_SCHEDULER_ADDRESS`) or with worker processes on this machine, and ends
    what it has begun. Workers are Dask's, and need not have fanmap.

    | option | what it does |
    |---|---|
    | `max_workers` | so many batches run at a time, at most; by default as many as the cluster has threads, now and \
later |
    | `max_retries` | how often a call runs again that has lost its worker; 0 by default |
    | `batches` | False: each call is a task of its own. Then no call is ever begun twice without `max_retries` |
    | `task_options` | what `Client.submit` takes for each task: `{"resources": {"GPU": 1}, "priority": 10}`. \
Resources that no worker has are waited for, and a RuntimeWarning says so now |

    Tiny calls go to Dask together, as many as fill some milliseconds. Each has an outcome of its own all the same. A
    call that loses its worker fails with `fanmap.WorkerCrashed`; those that were with it run again.

    >>> from distributed import Client
    >>> from fanmap.dask import DaskExecutor
    >>> with Client(processes=False, dashboard_address=None) as client, DaskExecutor(client) as pool:
    ...     list(pool.map(abs, [-1, -2, -3]))
    [1, 2, 3]

    Raises ImportError without Dask, TypeError for a client that is asynchronous, ValueError if a number is too small.
    """

    def __init__(
        self,
        client: Any = None,
        *,
        max_workers: int | None = None,
        max_retries: int = 0,
        batches: bool = True,
        task_options: dict[str, Any] | None = None,
    ) -> None:
        if max_workers is not None:
            _check.workers(max_workers)
        _check.not_negative("max_retries", max_retries)
        self._open(_Dask(client, _check.options("task_options", task_options)), max_workers, batches, max_retries)


class _Dask:
    def __init__(self, client: Any, task_options: dict[str, Any]) -> None:
        try:
            import cloudpickle
            import distributed
        except ImportError as error:
            raise ImportError("DaskExecutor needs Dask: pip install 'fanmap[dask]'") from error
        self.cloudpickle = cloudpickle
        self._distributed = distributed
        self._options = task_options
        self._ours = False
        if client is None:
            try:
                client = distributed.Client.current()
            except ValueError:
                client = _begun(distributed)
                self._ours = True
        if not isinstance(client, distributed.Client) or client.asynchronous:
            raise TypeError("DaskExecutor needs a distributed.Client that is not asynchronous")
        self._client = client
        self._warn_if_none_can()

    def begin(self, events: SimpleQueue[Any]) -> None:
        """Called once, before all else."""
        here = sys.modules[__name__]
        self._events = events
        # Batches whose end was not told yet. A task may end before `submit` has returned it.
        self._awaited: set[int] = set()
        self._tasks: dict[int, Any] = {}
        self._name = f"fanmap-{os.urandom(8).hex()}"
        self._run = by_value(_run, self.cloudpickle, here)
        self._client.run_on_scheduler(by_value(_keep, self.cloudpickle, here), self._name)
        self._client.subscribe_topic(self._name, self._heard)

    def alive(self) -> bool:
        """Whether there is a connection."""
        alive: bool = self._client.status == "running"
        return alive

    def size(self) -> int:
        """How many batches it can run at a time, now."""
        return sum(self._client.nthreads().values())

    def _warn_if_none_can(self) -> None:
        """As Dask does, its calls wait then: a worker may join that can. One without any has just begun, or grows."""
        wanted = self._options.get("resources") or {}
        workers = (
            [worker["resources"] for worker in self._client.scheduler_info()["workers"].values()] if wanted else []
        )
        if workers and not any(all(one.get(name, 0) >= amount for name, amount in wanted.items()) for one in workers):
            warn_of_waiting("worker of the Dask cluster", wanted)

    def put(self, part: Any, *, for_all: bool) -> Any:
        """Scatter a large buffer. A copy, since workers may be in this very process."""
        part = part if isinstance(part, bytes) else bytes(pickle.PickleBuffer(part).raw())
        return self._client.scatter(part, hash=False, broadcast=for_all)

    def start(self, batch: Batch) -> None:
        """Hand over a batch."""
        # As bytes, into which Dask does not look for tasks of its own.
        what = pickle.dumps((batch.function, batch.calls), protocol=5)
        self._awaited.add(batch.number)
        task = self._client.submit(
            self._run,
            *(self._name, batch.number, batch.oldest, batch.retries + 1, what, PATIENCE, *batch.parts),
            **{"key": f"{self._name}-{batch.number}", "pure": False, **self._options},
        )
        self._tasks[batch.number] = task
        task.add_done_callback(lambda done: self._done(batch.number, done))

    def _heard(self, event: tuple[float, tuple[str, int, bytes]]) -> None:
        what, number, told = event[1]
        if what == "told":
            self._events.put(bytes(told))
        else:
            self._ended(number, pickle.loads(told))

    def _done(self, number: int, task: Any) -> None:
        self._tasks.pop(number, None)
        # Nobody needs an error of a batch whose report has come, and it may be long to tell.
        report = self._report(task) if number in self._awaited else None
        if report is not None:
            self._ended(number, report)

    def _ended(self, number: int, report: Report | Lost | BaseException) -> None:
        """Tell of a batch's end, once: a report may come both ways."""
        try:
            self._awaited.remove(number)
        except KeyError:
            return
        self._events.put((number, report))

    def _report(self, task: Any) -> Report | Lost | BaseException | None:
        """How a batch ended; None if that is told by an event."""
        try:
            report: Report | None = task.result()
            return report
        except (self._distributed.scheduler.KilledWorker, self._distributed.client.FutureCancelledError) as error:
            return Lost(str(error).partition("\n")[0].rstrip("."), error)
        except BaseException as error:
            return error

    def take_back(self, number: int) -> bool:
        """Whether no worker has begun the batch, and none will."""
        return self._ask("take_back", number)

    def begun(self, number: int) -> bool:
        """Whether a worker has begun it."""
        return self._ask("begun", number)

    def _ask(self, what: str, number: int) -> bool:
        ask = getattr(self._client.scheduler, f"{self._name}-{what}")
        answer: bool = self._client.sync(ask, batch=number)
        return answer

    def drop(self, number: int) -> None:
        """Nobody wants anything of a batch that was taken back: it needs no place in Dask's queue."""
        task = self._tasks.get(number)
        if task is not None:
            task.cancel()

    def close(self) -> None:
        """Take the board from the scheduler, and end the cluster if it was begun here."""
        if self.alive():
            self._client.unsubscribe_topic(self._name)
            self._client.run_on_scheduler(by_value(_forget, self.cloudpickle, sys.modules[__name__]), self._name)
        if self._ours:
            cluster = self._client.cluster
            self._client.close()
            if cluster is not None:
                cluster.close()


def _begun(distributed: Any) -> Any:
    """A client of the scheduler that Dask is configured with, or else of workers on this machine."""
    import dask

    if dask.config.get("scheduler-address", None):
        return distributed.Client()
    return distributed.Client(dashboard_address=":0")


def _keep(name: str, dask_scheduler: Any) -> None:
    """Have the scheduler keep a board."""
    board: dict[int, int] = {}

    async def claimed(batch: int, oldest: int, most: int) -> str:
        return claim(board, batch, oldest, most)

    async def taken_back(batch: int) -> bool:
        return take_back(board, batch)

    async def has_begun(batch: int) -> bool:
        return begun(board, batch)

    dask_scheduler.handlers[f"{name}-claim"] = claimed
    dask_scheduler.handlers[f"{name}-take_back"] = taken_back
    dask_scheduler.handlers[f"{name}-begun"] = has_begun


def _forget(name: str, dask_scheduler: Any) -> None:
    for handler in [handler for handler in dask_scheduler.handlers if handler.startswith(f"{name}-")]:
        del dask_scheduler.handlers[handler]


def _run(name: str, batch: int, oldest: int, most: int, what: bytes, patience: float, *parts: Any) -> Report | None:
    """The task. Its report is told as an event, and returned only if it is large."""
    import pickle

    import cloudpickle
    from distributed import get_worker
    from distributed.utils import sync

    worker = get_worker()

    def allowed(number: int) -> str:
        ask = getattr(worker.scheduler, f"{name}-claim")
        verdict: str = sync(worker.loop, ask, batch=number, oldest=oldest, most=most)
        return verdict

    def say(what: str, told: bytes) -> None:
        worker.log_event(name, (what, batch, told))

    function, calls = pickle.loads(what)
    verdict, end, outcomes, seconds = run(
        batch, function, calls, parts, patience, allowed, lambda told: say("told", told), cloudpickle.dumps
    )

    def as_bytes(part: Any) -> bytes:
        # Dask does not take it as it is.
        return bytes(part.raw()) if isinstance(part, pickle.PickleBuffer) else part

    outcomes = [(good, tuple(map(as_bytes, payload)) if good else payload) for good, payload in outcomes]
    report = verdict, end, outcomes, seconds
    if sum(len(part) for good, payload in outcomes for part in (payload if good else [payload])) > _MOST_TOLD:
        return report
    say("report", pickle.dumps(report, protocol=5))
    return None
