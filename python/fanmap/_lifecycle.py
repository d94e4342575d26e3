"""What must happen when the interpreter exits, in the standard library's order.

`threading._register_atexit` runs before the threads are joined and before the user's own `atexit` handlers, which may
therefore rely on submitted work being finished: `concurrent.futures` does the same.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

from . import _native, _place

__all__ = ["NOT_OURS", "at_exit", "exiting"]

NOT_OURS = "this executor belongs to the process that made it, not to this fork of it; make a new one here"


class Exits(Protocol):
    """Something that has to finish before the interpreter is gone."""

    def finish_at_exit(self) -> None:
        """Finish or cancel what is left, and wait until nothing is."""

    def leave_at_exit(self) -> None:
        """Cancel or end what is left, and wait for nothing: the user has interrupted that, or it comes later."""


_live: weakref.WeakSet[Exits] = weakref.WeakSet()
# Those that give work to the others.
_givers: weakref.WeakSet[Exits] = weakref.WeakSet()
_exiting = False


def at_exit(pool: Exits, *, gives_work: bool = False) -> None:
    """Have `pool.finish_at_exit()` called at exit, if it is still there.

    What gives work to pools is cancelled before they are told that it is over, and would refuse its work.
    """
    (_givers if gives_work else _live).add(pool)


def exiting() -> bool:
    """Whether the interpreter is exiting, so that no work can be taken any more."""
    return _exiting


def _run() -> None:
    global _exiting
    givers = list(_givers)
    left = [*givers, *_live]
    try:
        for giver in givers:
            giver.leave_at_exit()
        _exiting = True
        while left:
            left[0].finish_at_exit()
            del left[0]
    except KeyboardInterrupt:
        _exiting = True
        for one in left:
            one.leave_at_exit()
        raise


def _forked() -> None:
    # In a child that the user's program forked: what lives is the parent's to finish, and what it holds to hold.
    _live.clear()
    _givers.clear()
    if not _place.template:
        _native.forsake_all()


os.register_at_fork(before=_native.before_fork, after_in_parent=_native.after_fork, after_in_child=_forked)
# At import, as the standard library does: what a program registers after it runs before pools are waited for.
try:
    threading._register_atexit(_run)  # type: ignore[attr-defined]
except RuntimeError:
    # The main thread has ended already, so that nothing would be waited for.
    _exiting = True
