"""The peers by name. A name is a library's, or a library's with a word for the kind: `pool`, `pool-threads`."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .peers.peer import Peer


@dataclass(frozen=True)
class Entry:
    """Who a peer is, and where its pool is made."""

    title: str
    # What to install for it, and to name with its version; none for the standard library.
    package: str | None
    # A module of `peers` and a class in it.
    place: tuple[str, str]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    # What is imported, where it is not the package's name.
    imported: str | None = None

    def load(self) -> type[Peer]:
        """Its class; the library is imported if it was not yet."""
        module = importlib.import_module(f"{__package__}.peers.{self.place[0]}")
        peer: type[Peer] = getattr(module, self.place[1])
        return peer

    def open(self, workers: int) -> Peer:
        """A pool of it."""
        return self.load()(workers, **self.arguments)

    def installed(self) -> bool:
        """Whether it can be imported here."""
        name = self.imported or self.package
        return name is None or importlib.util.find_spec(name) is not None


ROSTER: Mapping[str, Entry] = {
    "plain": Entry("built-in map", None, ("plain", "Plain")),
    "copy": Entry("one plain memory copy", None, ("plain", "Copy")),
    "fanmap": Entry("fanmap", "fanmap", ("ours", "Processes")),
    "fanmap-fork": Entry("fanmap (fork)", "fanmap", ("ours", "Processes"), {"method": "fork"}),
    "fanmap-spawn": Entry("fanmap (spawn)", "fanmap", ("ours", "Processes"), {"method": "spawn"}),
    "fanmap-dropin": Entry("fanmap's executor.map", "fanmap", ("ours", "DropInProcesses")),
    "fanmap-threads": Entry("fanmap", "fanmap", ("ours", "Threads")),
    "fanmap-threads-dropin": Entry("fanmap's executor.map", "fanmap", ("ours", "DropInThreads")),
    "futures": Entry("ProcessPoolExecutor", None, ("futures", "Processes")),
    "futures-chunked": Entry("ProcessPoolExecutor, best chunk size", None, ("futures", "ChunkedProcesses")),
    "futures-fork": Entry("ProcessPoolExecutor (fork)", None, ("futures", "Processes"), {"method": "fork"}),
    "futures-forkserver": Entry(
        "ProcessPoolExecutor (forkserver)", None, ("futures", "Processes"), {"method": "forkserver"}
    ),
    "futures-spawn": Entry("ProcessPoolExecutor (spawn)", None, ("futures", "Processes"), {"method": "spawn"}),
    "futures-threads": Entry("ThreadPoolExecutor", None, ("futures", "Threads")),
    "pool": Entry("multiprocessing.Pool", None, ("pool", "Processes")),
    "pool-threads": Entry("ThreadPool", None, ("pool", "Threads")),
    "joblib": Entry("joblib", "joblib", ("joblib", "Processes")),
    "joblib-threads": Entry("joblib", "joblib", ("joblib", "Threads")),
    "loky": Entry("loky", "loky", ("loky", "Processes")),
    "mpire": Entry("mpire", "mpire", ("mpire", "Processes")),
    "mpire-threads": Entry("mpire", "mpire", ("mpire", "Threads")),
    "pebble": Entry("pebble", "pebble", ("pebble", "Processes")),
    "pebble-threads": Entry("pebble", "pebble", ("pebble", "Threads")),
    "pathos": Entry("pathos", "pathos", ("pathos", "Processes")),
    "pathos-threads": Entry("pathos", "pathos", ("pathos", "Threads")),
    "ray": Entry("Ray", "ray", ("ray", "Processes")),
    "dask": Entry("Dask", "distributed", ("dask", "Processes")),
}

# Measured only if asked for: they are large to install, and slow to start.
ON_REQUEST = ("ray", "dask")
# Those that `--short` keeps.
NEAREST = ("plain", "copy", "fanmap", "futures", "pool")

PROCESSES = ("fanmap", "futures", "pool", "joblib", "loky", "mpire", "pebble", "pathos", "ray", "dask")
# The same, with the standard library's pool by the start method that is its quickest, whatever its default is.
FORKED = tuple("futures-fork" if name == "futures" else name for name in PROCESSES)
THREADS = tuple(f"{name}-threads" for name in ("fanmap", "futures", "pool", "joblib", "mpire", "pebble", "pathos"))


def library(name: str) -> str:
    """The first word of a peer's name."""
    return name.partition("-")[0]


def chosen(cast: tuple[str, ...], words: list[str]) -> list[str]:
    """Those of a cast that the words ask for: a peer's name, or a library's for all of its peers."""
    return [name for name in cast if name in words or library(name) in words]
