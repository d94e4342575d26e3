"""`RayExecutor`: a `concurrent.futures.Executor` over the tasks of Ray. Needs `pip install 'fanmap[ray]'`.

What a batch is, and who decides when, stands in `_desk`; here is how Ray runs one. The board is an actor without a
core of its own, on the program's node; beside keeping it, it passes on what a slow batch hands back: `hear` is always
being asked, and answered when there is something. No worker imports fanmap.
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
from ._errand import begun, claim, kept, run, take_back

if TYPE_CHECKING:
    from ._errand import Report

__all__ = ["RayExecutor"]


class RayExecutor(ClusterExecutor):
    """Runs calls as tasks of Ray: on this machine, or on all that its cluster has.

    It uses the Ray that the program has begun, or else begins one as `ray.init()` does (a cluster that it finds, or one
    on this machine), which it then also ends. Workers are Ray's, and need not have fanmap.

    | option | what it does |
    |---|---|
    | `max_workers` | so many batches run at a time, at most; by default as many as the cluster has room for, now and \
later, or as it has cores, where tasks want none (`num_cpus=0`) |
    | `max_retries` | how often Ray runs a call again that has lost its worker; 0 by default |
    | `batches` | False: each call is a task of its own. Then no call is ever begun twice without `max_retries` |
    | `task_options` | what `ray.remote` takes for each task: `{"num_cpus": 2, "runtime_env": {...}}`. What no node \
has is waited for, and a RuntimeWarning says so now |

    Tiny calls go to Ray together, as many as fill some milliseconds. Each has an outcome of its own all the same. A
    call that loses its worker fails with `fanmap.WorkerCrashed`; those that were with it run again.

    >>> from fanmap.ray import RayExecutor
    >>> with RayExecutor(max_workers=2) as pool:
    ...     list(pool.map(abs, [-1, -2, -3]))
    [1, 2, 3]

    Raises ImportError without Ray, ValueError if a number is too small.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        max_retries: int = 0,
        batches: bool = True,
        task_options: dict[str, Any] | None = None,
    ) -> None:
        if max_workers is not None:
            _check.workers(max_workers)
        _check.not_negative("max_retries", max_retries)
        cluster = _Ray(_check.options("task_options", task_options), max_workers)
        self._open(cluster, max_workers, batches, max_retries)


class _Ray:
    def __init__(self, task_options: dict[str, Any], max_workers: int | None) -> None:
        try:
            import ray
            from ray import cloudpickle
        except ImportError as error:
            raise ImportError("RayExecutor needs Ray: pip install 'fanmap[ray]'") from error
        self._ray = ray
        self.cloudpickle = cloudpickle
        self._options = task_options
        self._max_workers = max_workers
        self._ours = not ray.is_initialized()
        if self._ours:
            ray.init(include_dashboard=False)
        self._warn_if_none_can()

    def begin(self, events: SimpleQueue[Any]) -> None:
        """Called once, before all else."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        ray, here = self._ray, sys.modules[__name__]
        self._events = events
        self._tasks: dict[int, Any] = {}
        self._run = ray.remote(by_value(_run, self.cloudpickle, here))
        # Lost with the program's own node, or not at all.
        place = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        keeper = ray.remote(by_value(_keeper, self.cloudpickle, here)())
        self._name = f"fanmap-{os.urandom(8).hex()}"
        self._keeper = keeper.options(
            name=self._name, namespace="fanmap", num_cpus=0, scheduling_strategy=place
        ).remote()
        self._hear()

    def alive(self) -> bool:
        """Whether there is a connection."""
        alive: bool = self._ray.is_initialized()
        return alive

    def size(self) -> int:
        """How many batches it can run at a time, now."""
        there = self._ray.cluster_resources()
        # Tasks that want nothing, as those that wait may, are bounded by nothing else.
        unbounded = self._max_workers or int(there.get("CPU", 1))
        return min((int(there.get(name, 0) / amount) for name, amount in self._wanted().items()), default=unbounded)

    def _wanted(self) -> dict[str, float]:
        """What a task asks for, as Ray names it."""
        options = self._options
        wanted = {
            "CPU": 1 if options.get("num_cpus") is None else options["num_cpus"],
            "GPU": options.get("num_gpus"),
            "memory": options.get("memory"),
            **(options.get("resources") or {}),
        }
        return {name: amount for name, amount in wanted.items() if amount}

    def _warn_if_none_can(self) -> None:
        """As Ray does, its calls wait then: a node may join that can."""
        wanted = self._wanted()
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes):
            warn_of_waiting("node of the Ray cluster", wanted)

    def put(self, part: Any, *, for_all: bool) -> Any:
        """Keep a large buffer in Ray's store, from where each node fetches it once."""
        return self._ray.put(part if isinstance(part, bytes) else pickle.PickleBuffer(part))

    def start(self, batch: Batch) -> None:
        """Hand over a batch."""
        task = self._run.options(**{**self._options, "max_retries": batch.retries}).remote(
            self._name, batch.number, batch.oldest, batch.function, batch.calls, PATIENCE, *batch.parts
        )
        self._tasks[batch.number] = task
        task.future().add_done_callback(lambda future: self._events.put((batch.number, self._report(batch, future))))

    def _report(self, batch: Batch, future: Any) -> Report | Lost | BaseException:
        self._tasks.pop(batch.number, None)
        wrong = self._ray.exceptions
        error = future.exception()
        if error is None:
            report: Report = future.result()
            return report
        gone = (wrong.WorkerCrashedError, wrong.NodeDiedError, wrong.LocalRayletDiedError, wrong.ObjectLostError)
        if isinstance(error, wrong.OutOfMemoryError):
            return Lost("Ray ended it", error, out_of_memory=True)
        if isinstance(error, gone):
            return Lost(str(error).partition("\n")[0].rstrip("."), error)
        return error if isinstance(error, BaseException) else RuntimeError(repr(error))

    def take_back(self, number: int) -> bool:
        """Whether no worker has begun the batch, and none will."""
        taken: bool = self._ray.get(self._keeper.take_back.remote(number))
        return taken

    def begun(self, number: int) -> bool:
        """Whether a worker has begun it."""
        begun: bool = self._ray.get(self._keeper.begun.remote(number))
        return begun

    def drop(self, number: int) -> None:
        """Nobody wants anything of a batch that was taken back: it needs no place in Ray's queue."""
        task = self._tasks.get(number)
        if task is not None:
            self._ray.cancel(task, force=False)

    def close(self) -> None:
        """End the board's actor, and Ray if it was begun here."""
        if self.alive():
            self._ray.kill(self._keeper)
            if self._ours:
                self._ray.shutdown()

    def _hear(self) -> None:
        heard = self._keeper.hear.remote()
        heard.future().add_done_callback(self._heard)

    def _heard(self, future: Any) -> None:
        if future.exception() is None:  # else the actor is gone: slow batches are then heard of when they end
            for told in future.result():
                self._events.put(told)
            self._hear()


def _keeper() -> type:
    """The actor's class, a local one, for such travel by value: the board, and what workers tell."""

    class Keeper:
        def __init__(self) -> None:
            import asyncio

            self._board: dict[int, int] = {}
            self._told: asyncio.Queue[bytes] = asyncio.Queue()

        async def claim(self, batch: int, oldest: int) -> str:
            # How often it is tried is Ray's to say.
            return claim(self._board, batch, oldest, 1 << 30)

        async def take_back(self, batch: int) -> bool:
            return take_back(self._board, batch)

        async def begun(self, batch: int) -> bool:
            return begun(self._board, batch)

        async def tell(self, told: bytes) -> None:
            self._told.put_nowait(told)

        async def hear(self) -> list[bytes]:
            return [await self._told.get(), *(self._told.get_nowait() for _ in range(self._told.qsize()))]

    return Keeper


def _run(
    name: str,
    batch: int,
    oldest: int,
    function: tuple[str | None, tuple[Any, ...]],
    calls: list[tuple[Any, ...]],
    patience: float,
    *parts: Any,
) -> Report:
    """The task."""
    import ray
    from ray import cloudpickle

    # Kept, for a handle that comes with each task is set up anew each time.
    keepers: dict[str, Any] = kept().setdefault("keepers", {})
    keeper = keepers.get(name)
    if keeper is None:
        keepers.clear()
        keeper = keepers[name] = ray.get_actor(name, namespace="fanmap")

    def allowed(number: int) -> str:
        # Not `ray.get`, for whose time Ray gives the task's core to another one.
        verdict: str = keeper.claim.remote(number, oldest).future().result()
        return verdict

    return run(batch, function, calls, parts, patience, allowed, keeper.tell.remote, cloudpickle.dumps)
