"""`breakpoint()` in a worker: pdb on the terminal that the program runs on."""

from __future__ import annotations

import os
import pdb
import sys
from types import FrameType
from typing import Any

__all__ = ["stop"]


def stop(frame: FrameType | None, *args: Any, **named: Any) -> Any:
    """What `breakpoint(*args, **named)` does, called in `frame`.

    A worker's standard input is empty, so pdb asks the terminal itself, if there is one.
    """
    if os.environ.get("PYTHONBREAKPOINT"):
        return sys.__breakpointhook__(*args, **named)
    try:
        terminal = open("/dev/tty"), open("/dev/tty", "w")  # noqa: SIM115 - pdb has them for as long as it wants
    except OSError:
        return sys.__breakpointhook__(*args, **named)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    # As `pdb.set_trace` does, but for the streams.
    debugger = pdb.Pdb(stdin=terminal[0], stdout=terminal[1])
    debugger.prompt = f"(Pdb in worker {os.getpid()}) "
    debugger.set_trace(frame)
    return None
