"""What this process is in a process pool, if anything, and this thread in a pool of threads.

Set by the loops of workers and templates.
"""

from __future__ import annotations

import _thread

__all__ = ["worker_index"]

# Within how many workers, one in a pool of the other, this process works: in any, maps run in place.
depth = 0
# A template: its forks are workers, and not the user's.
template = False
# A worker's share of the cores.
cores: int | None = None
# The variables in its environment that tell libraries so, and are not the user's.
limited: frozenset[str] = frozenset()
# This process's number among the workers of its pool.
index: int | None = None
# `index` of a thread that is a worker, among those of its pool.
thread = _thread._local()


def worker_index() -> int | None:
    """The number of the worker that this runs in: 0, 1, ... up to its pool's `max_workers` - 1; None in no worker.

    No two workers that a pool has at a time have the same, and one that is started in another's place gets that one's:
    good for choosing a GPU, a port, or a line of a progress display.

    >>> import fanmap
    >>> with fanmap.ThreadPoolExecutor(max_workers=1) as pool:
    ...     pool.submit(fanmap.worker_index).result()
    0
    >>> print(fanmap.worker_index())
    None
    """
    number: int | None = getattr(thread, "index", index)
    return number
