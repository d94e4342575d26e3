"""multiprocessing's things in a pool's workers: what is inherited from the parent, and how.

A queue, lock or event of multiprocessing pickles only while multiprocessing itself starts a process. In `initargs`,
which every new worker gets, they may be used all the same: `Inheriting` stands in for the process that is being
started, and the descriptors that such things hold go with the invitation. (Those of a fork context exist only in
processes forked from this one: they need `mp_context=get_context("fork")`.)

A worker does not import multiprocessing. If a task does, it finds what it would find in a process that multiprocessing
started: the parent's key and resource tracker, a name, and `parent_process()`; `tell` sees to that.
"""

from __future__ import annotations

import os
import sys

from ._late import when_imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Inherited", "Inheriting", "leave_to_parent", "tell", "told"]

# In a worker: the descriptors that came with the invitation.
_came: list[int] = []


class Inherited:
    """A descriptor of the parent's, by its place in the invitation."""

    def __init__(self, place: int) -> None:
        self._place = place

    def detach(self) -> int:
        """The descriptor, here."""
        return _came[self._place]


class Inheriting:
    """While entered, multiprocessing's things can be pickled on this thread; their descriptors gather in `fds`."""

    # multiprocessing calls this class by the name that its own have.
    DupFd = Inherited

    def __init__(self) -> None:
        self.fds: list[int] = []

    def duplicate_for_child(self, fd: int) -> int:
        """The descriptor's place; called while something that holds it is pickled."""
        self.fds.append(fd)
        return len(self.fds) - 1

    def __enter__(self) -> Inheriting:
        from multiprocessing import context

        context.set_spawning_popen(self)  # type: ignore[arg-type]
        return self

    def __exit__(self, *_: object) -> None:
        from multiprocessing import context

        context.set_spawning_popen(None)


def told(fds: list[int]) -> dict[str, Any] | None:
    """What a worker's multiprocessing must know, if this process has loaded it; descriptors are added to `fds`."""
    process = sys.modules.get("multiprocessing.process")
    if process is None:
        return None
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    place = None
    if tracker is not None:
        if "multiprocessing.shared_memory" in sys.modules:
            # A worker that attached a segment with a tracker of its own would destroy it at its exit.
            tracker.ensure_running()
        fd = tracker._resource_tracker._fd
        if fd is not None:
            place = len(fds)
            fds.append(fd)
    here = process.current_process()
    return {"authkey": bytes(here.authkey), "parent": (here.name, os.getpid()), "tracker": place}


def leave_to_parent() -> None:
    """In a child that the user's program forked for us: multiprocessing's children and finalizers are the parent's.

    What multiprocessing does in the processes that it forks itself.
    """
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        process._children = set()  # type: ignore[attr-defined]
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._finalizer_registry.clear()
        util._run_after_forkers()


def tell(facts: dict[str, Any], fds: list[int]) -> None:
    """In a worker: have multiprocessing told `facts`, now or when something imports it."""
    _came[:] = fds

    def tell_process(process: Any) -> None:
        name, pid = facts["parent"]
        current = process.current_process()
        current.authkey = facts["authkey"]
        current._name = f"fanmap-worker-{os.getpid()}"
        process._parent_process = process._ParentProcess(name, pid, os.pidfd_open(pid))

    def tell_tracker(tracker: Any) -> None:
        if facts["tracker"] is not None:
            tracker._resource_tracker._fd = _came[facts["tracker"]]

    when_imported("multiprocessing.process", tell_process)
    when_imported("multiprocessing.resource_tracker", tell_tracker)
