"""What workers write, where the program's own output goes.

Workers inherit the program's standard streams and write whole lines to them, each in one write: nothing is in between.
That is not enough where `sys.stdout` or `sys.stderr` is not that stream (Jupyter, a test's capture, `redirect_stdout`),
where lines are to say who wrote them (`tag_output`), and for log records (`forward_logging`). Then a call asks for
another *behavior* of the worker that runs it, which goes along with its function; `_channels` is what it means there.

The protocol:

- Each worker has three channels to the engine's outlet from its start, used or not: a stream in place of standard
  output, one in place of standard error, and the pool's for messages. A behavior says which of them are used, so a warm
  pool suits a redirect that came after its start. It is looked at for each call of `submit` and `map`, and holds until
  the worker runs one that wants another.
- The engine reads the channels in a thread that never needs the interpreter. What has come waits there, some MiB of it
  at most, and is taken by one thread at a time (`_lock`): the pool's output thread, which waits for it, or one that has
  just got a task's outcome and calls `flush` before it hands that on. The streams are those that `sys` has then.
- So what a task wrote before it ended is in the program's stream before its outcome is, and what a worker that died
  wrote last before its `WorkerCrashed`; but for a line that was not ended, which comes when it is or when the worker
  ends. And should the stream be stuck, outcomes wait a second for it, and what is written when the outlet was full for
  ten seconds is dropped; that it was is said.
- The output thread ends when the pool was closed and its last worker is gone.
"""

from __future__ import annotations

import contextvars
import os
import pickle
import re
import sys
import threading
import traceback
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from . import _codec
from ._lines import writes_to

if TYPE_CHECKING:
    from . import _native

__all__ = ["Output"]

_MESSAGE = 0

# No stream; one that is `None` is inherited.
_UNKNOWN = object()

# How many seconds an outcome waits for a stream that another thread writes to. Shorter, and results overtake output
# where the stream is slow; longer, and one that is stuck holds up the program.
_PATIENCE = 1.0

# How often an outcome's `flush` takes something at most, of tens of KiB: more than can have been waiting.
_TURNS = 256

# How many seconds the end of a pool waits for a stream that is stuck.
_LAST = 10.0


class Output:
    """The output of one pool's workers."""

    def __init__(self, pool: _native.ProcessPool) -> None:
        self._pool = pool
        self._owner = os.getpid()
        # What the last call asked for.
        self.behavior = b""
        self._tagged = False
        # The streams that were found to be those that workers have: they remain so.
        self._inherited: tuple[Any, Any] = (_UNKNOWN, _UNKNOWN)
        self._context = contextvars.Context()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        # Taken and not yet written: whoever is interrupted in between leaves it to the next.
        self._taken: deque[tuple[int, int, bytes]] = deque()
        # Whether another thread is known to be stuck in writing.
        self._slow = False

    def behave(self, *, tag: bool, logs: bool, keeper: object) -> bytes:
        """How workers are to behave for a call that is made now. `keeper` is held as long as output may come."""
        out, err = self._inherited
        if out is sys.stdout and err is sys.stderr and not tag and not logs:
            self.behavior = b""
            return b""
        piped = 0
        for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
            if tag or not _is_inherited(stream, descriptor):
                piped |= descriptor
        if not piped:
            self._inherited = sys.stdout, sys.stderr
        behavior = b""
        if piped or logs:
            self._tagged = tag
            # Notebooks know by it which cell something belongs to.
            self._context = contextvars.copy_context()
            if self._thread is None:
                self._watch(keeper)
            behavior = pickle.dumps((piped, _levels() if logs else None), 5)
        # At once, and what this call asked for is what comes back: others may ask meanwhile for something else.
        self.behavior = behavior
        return behavior

    def _watch(self, keeper: object) -> None:
        with self._lock:
            if self._thread is None and self._pool.watch_output():
                thread = threading.Thread(name="fanmap-output", target=_write, args=(self, keeper), daemon=True)
                thread.start()
                self._thread = thread

    def flush(self) -> None:
        """Write all that workers have written by now."""
        if self._thread is None or os.getpid() != self._owner:
            return  # in a fork the lock may be held by a thread that is not there
        if not self._lock.acquire(timeout=0 if self._slow else _PATIENCE):
            self._slow = True
            return
        try:
            self._pool.drain_output()
            for _ in range(_TURNS):
                if not self._write_some():
                    break
        finally:
            self._lock.release()

    def join(self) -> None:
        """After the pool's end: wait until all is written."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_LAST)

    def _write_some(self) -> bool:
        """Write what is there, or some of it. False if there was nothing."""
        written, dropped = self._pool.take_output()
        self._taken.extend(written)
        if dropped:
            text = f"fanmap: {dropped} bytes that workers wrote were dropped, since nobody took them for 10 seconds\n"
            _print(2, text)
        while self._taken:
            channel, worker, data = self._taken.popleft()
            try:
                if channel == _MESSAGE:
                    _handle(data)
                else:
                    self._print(channel, worker, data)
            except Exception:
                traceback.print_exc()
        return bool(written)

    def _print(self, channel: int, worker: int, data: bytes) -> None:
        original = sys.__stdout__ if channel == 1 else sys.__stderr__
        # Workers find the encoding of theirs as this process did.
        text = data.decode(getattr(original, "encoding", None) or "utf-8", "backslashreplace")
        if self._tagged:
            text = re.sub(r"(?m)^(?!\Z)", f"[worker {worker}] ", text)
        _print(channel, text)

    def _write_in_context(self) -> None:
        with self._lock:
            self._context.run(self._write_some)
        self._slow = False


def _write(output: Output, keeper: object) -> None:
    """The thread that writes output as it comes. It holds the engine, which at exit is then waited for."""
    while output._pool.await_output():
        output._write_in_context()


def _print(channel: int, text: str) -> None:
    stream, original = (sys.stdout, sys.__stdout__) if channel == 1 else (sys.stderr, sys.__stderr__)
    if stream is None:
        return
    try:
        stream.write(text)
        stream.flush()
    except Exception:
        # Closed, most likely, by a program that ends: better there than nowhere.
        if original is not None and original is not stream:
            with suppress(Exception):
                original.write(text)
                original.flush()


def _is_inherited(stream: Any, descriptor: int) -> bool:
    """Whether a worker that writes to this descriptor writes to the stream."""
    return stream is None or getattr(stream, "closed", False) or writes_to(stream, descriptor)


def _levels() -> tuple[int, int, dict[str, int]]:
    """What decides here which log records are made: the root's level, what is disabled, and the loggers' own levels."""
    import logging

    root = logging.getLogger()
    loggers = list(root.manager.loggerDict.items())
    levels = {name: logger.level for name, logger in loggers if isinstance(logger, logging.Logger) and logger.level}
    return root.level, root.manager.disable, levels


def _handle(data: bytes) -> None:
    """Have a worker's log record handled by the logger of its name here."""
    import logging

    fields, encoded = pickle.loads(data)
    try:
        fields.update((name, _codec.decode(value)) for name, value in encoded.items())
    except Exception:
        # What it says is known all the same.
        fields.update(msg=fields["message"], args=None)
    record = logging.makeLogRecord(fields)
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
