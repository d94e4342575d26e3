"""Batches of calls: how large they are, what they are made of, and what an engine must be able to do with them.

Decisions are pure functions; `Cluster` is what `fanmap.ray` and `fanmap.dask` implement.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from queue import SimpleQueue
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from . import _errand, _remote

if TYPE_CHECKING:
    from ._errand import Packed

__all__ = [
    "PATIENCE",
    "Batch",
    "Cluster",
    "Lost",
    "batch_size",
    "by_value",
    "digest",
    "inline",
    "size_of",
    "warn_of_waiting",
]

T = TypeVar("T")

# Seconds of work that make a batch. Less, and sending it costs as much as the work; more, and the last batches of a map
# leave workers idle.
_TARGET = 0.02
# Seconds after which a batch hands back what it has not begun. Less, and the batches of every hiccup come back; more,
# and a call waits for longer behind a slow one.
PATIENCE = 0.05


def batch_size(waiting: int, workers: int, seconds: float | None) -> int:
    """How many calls to send together: what fills a batch by the mean time of one, and no more than leaves something
    for every worker. One, as long as no time is known.

    >>> batch_size(10_000, 4, None), batch_size(10_000, 4, 0.0001), batch_size(100, 4, 0.0001), batch_size(100, 4, 1.0)
    (1, 200, 13, 1)
    """
    if seconds is None:
        return 1
    fill = int(_TARGET / max(seconds, 1e-6))
    share = -(-waiting // (2 * workers))
    return max(1, min(fill, share))


class Lost(NamedTuple):
    """Instead of a report: the batch's worker is gone, or what it needed."""

    why: str
    error: BaseException | None = None
    out_of_memory: bool = False


class Batch(NamedTuple):
    """What goes to the cluster."""

    number: int
    # The oldest that is still there: the board forgets those before it.
    oldest: int
    function: tuple[str | None, Packed]
    calls: list[Packed]
    # What the numbers in the packed things stand for.
    parts: list[Any]
    # How many workers may be lost to it.
    retries: int


class Cluster(Protocol):
    """An engine that runs batches. What becomes of one is put in `events`, by its number."""

    # The engine's own cloudpickle.
    cloudpickle: Any

    def begin(self, events: SimpleQueue[Any]) -> None:
        """Called once, before all else."""

    def alive(self) -> bool:
        """Whether there is a connection. Without one no other method is called but `close`."""

    def size(self) -> int:
        """How many batches it can run at a time, now."""

    def put(self, part: Any, *, for_all: bool) -> Any:
        """Keep a large buffer there; `for_all` if every worker will want it. Gives what stands for it."""

    def start(self, batch: Batch) -> None:
        """Hand over a batch."""

    def take_back(self, number: int) -> bool:
        """Whether no worker has begun the batch, and none will."""

    def begun(self, number: int) -> bool:
        """Whether a worker has begun it."""

    def drop(self, number: int) -> None:
        """Nobody wants anything of a batch that was taken back."""

    def close(self) -> None:
        """Let go of all that is there."""


def by_value(thing: T, cloudpickle: Any, *modules: ModuleType) -> T:
    """A copy that any cloudpickle takes for something that cannot be imported: it and what it names of fanmap's modules
    travel by value.
    """
    ours = (_errand, _remote, *modules)
    for module in ours:
        cloudpickle.register_pickle_by_value(module)
    try:
        copy: T = pickle.loads(cloudpickle.dumps(thing))
    finally:
        for module in ours:
            cloudpickle.unregister_pickle_by_value(module)
    return copy


def warn_of_waiting(who: str, wanted: Mapping[str, float]) -> None:
    """Called when an executor is made."""
    asked = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items())
    warnings.warn(
        f"no {who} has what each call asks for ({asked}): calls wait until one joins that has. "
        "They can be cancelled, and timeout= ends a wait for them.",
        RuntimeWarning,
        # The executor's `__init__`, its cluster's, and the look.
        stacklevel=5,
    )


def size_of(part: Any) -> int:
    with memoryview(part) as view:
        return view.nbytes


def inline(part: Any) -> bytes:
    return part if isinstance(part, bytes) else bytes(pickle.PickleBuffer(part).raw())


def digest(packed: Iterable[Any]) -> bytes:
    made = blake2b(digest_size=16)
    for part in packed:
        with pickle.PickleBuffer(part).raw() as view:
            made.update(view.nbytes.to_bytes(8, "little"))
            made.update(view)
    return made.digest()
