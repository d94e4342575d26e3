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
        """Cancel or end what is left, and wait for nothing: the user has interrupted that."""


_live: weakref.WeakSet[Exits] = weakref.WeakSet()
_exiting = False


def at_exit(pool: Exits) -> None:
    """Have `pool.finish_at_exit()` called at exit, if it is still there."""
    _live.add(pool)


def exiting() -> bool:
    """Whether the interpreter is exiting, so that no work can be taken any more."""
    return _exiting


def _run() -> None:
    global _exiting
    _exiting = True
    pools = list(_live)
    for at, pool in enumerate(pools):
        try:
            pool.finish_at_exit()
        except KeyboardInterrupt:
            for left in pools[at:]:
                left.leave_at_exit()
            raise


def _forked() -> None:
    # In a child that the user's program forked: what lives is the parent's to finish, and what it holds to hold.
    _live.clear()
    if not _place.template:
        _native.forsake_all()


os.register_at_fork(before=_native.before_fork, after_in_parent=_native.after_fork, after_in_child=_forked)
# At import, as the standard library does: what a program registers after it runs before pools are waited for.
try:
    threading._register_atexit(_run)  # type: ignore[attr-defined]
except RuntimeError:
    # The main thread has ended already, so that nothing would be waited for.
    _exiting = True
