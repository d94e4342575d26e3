"""The template: a process of one thread that forks workers on request, and does nothing else.

It imports nothing of the user's, so a fork of it is cheap and holds no lock that some thread was holding. It ends when
its parent does, and its workers end with it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # see `_worker`
import os

from . import _inherit, _native, _place, _worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ._start import Hooks


def main(parent: int, by_value: bool) -> None:
    """The whole life of a template that `parent` started as a program; its workers may meet what goes `by_value`."""
    # Before `adopt`, which unblocks it. Ctrl-C goes to the whole process group: the parent decides what it means.
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    _worker.close_inherited()
    template = _native.Template.adopt(parent)
    if template is None:
        os._exit(0)
    if by_value:
        # Once, and while the parent encodes: each worker would have to.
        from . import _byvalue  # noqa: F401
    _serve(template, None)
    # At once: the parent, which wants nothing of it any more, kills it where it is.
    os._exit(0)


def main_of_fork(fd: int, parent: int, bound: bool, hooks: Hooks) -> NoReturn:
    """The whole life of a template that `parent` forked: nothing of the parent's program may run on in it.

    It is `bound` if the thread that forked it was its process's first, which ends with that.
    """
    code = 1
    try:
        import atexit

        from . import _budget

        # The parent's to run, not ours.
        atexit._clear()
        _place.template = True
        _inherit.leave_to_parent()
        template = _native.Template.over(fd, parent, bound)
        if template is not None:
            # Once, and while the parent encodes: each worker would have to.
            _budget.threadpoolctl()
            _serve(template, hooks)
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _serve(template: _native.Template, inherited: Hooks | None) -> None:
    own = os.getpid()
    while (invitation := template.wait()) is not None:
        key = invitation.key
        try:
            pid = os.fork()
        except OSError as error:
            template.forked(key, errno=error.errno or 0)
            continue
        if pid == 0:
            template.leave()
            _worker.main_of_fork(invitation, own, inherited)
        # The child has its own copy of the descriptors that came with it.
        del invitation
        template.forked(key, pid=pid)
