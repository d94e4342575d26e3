"""How many cores there are for us."""

from __future__ import annotations

from . import _native

__all__ = ["cpu_count", "default_threads"]


def cpu_count() -> int:
    """How many tasks can compute at the same time here, at least 1.

    It is the number of cores that this process may run on (its affinity), as far as the quota of its cgroup, and of
    those above it, goes: a container that was given two cores of sixty-four gets 2. A fraction of a core is rounded
    down. `os.cpu_count()` tells the machine's cores, and `os.process_cpu_count()` knows no quota.

    >>> import fanmap
    >>> fanmap.cpu_count() >= 1
    True
    """
    return _native.cpu_count()


def default_threads() -> int:
    """The threads of a pool that did not ask for any: a few more than cores, since threads mostly wait."""
    return min(32, cpu_count() + 4)
