"""Lines of several processes into one pipe, each whole.

What is written to a pipe in one go stays together up to 4 KiB, and beyond that only as long as the pipe has room: where
it has not, others write in between. So workers take turns: who writes holds a lock on the pipe itself, which the system
gives back should its holder die. In files and on terminals each write stays together anyway.
"""

from __future__ import annotations

import io
import os
import stat
from fcntl import LOCK_EX, LOCK_UN, lockf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["may_mix", "whole", "writes_to"]


def writes_to(stream: Any, descriptor: int) -> bool:
    """Whether a stream is Python's own over this descriptor."""
    try:
        return isinstance(stream, io.TextIOWrapper) and stream.fileno() == descriptor
    except (OSError, ValueError):
        return False  # it is over something else, or closed


def may_mix(descriptor: int) -> bool:
    """Whether what several processes write there at once can be mixed."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False  # it is closed
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def whole(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """The same stream, but that what it writes is not mixed with what other such streams write."""
    raw = io.BufferedWriter(_InTurn(stream.fileno(), stream.name))
    return io.TextIOWrapper(raw, encoding=stream.encoding, errors=stream.errors, newline="\n")


class _InTurn(io.FileIO):
    def __init__(self, descriptor: int, name: str) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.name = name
        self._descriptor = descriptor

    def write(self, data: Any, /) -> int | None:  # type: ignore[override]
        """Write all of it, unless the pipe is one that does not wait."""
        try:
            lockf(self._descriptor, LOCK_EX)
        except OSError:
            return self._write_all(data)  # not everything can be locked
        try:
            return self._write_all(data)
        finally:
            lockf(self._descriptor, LOCK_UN)

    def _write_all(self, data: Any) -> int | None:
        written = _write(self, data)
        while written is not None and written < len(data):
            count = _write(self, data[written:])
            if count is None:
                break
            written += count
        return written


_write = io.FileIO.write
