"""A worker's channels to its pool: where it writes to, and how its log records travel. `_output` has the protocol.

Imported by a worker once it is to behave in another way than it begins with.
"""

from __future__ import annotations

import os
import pickle
import sys

from ._codec import Encoder
from ._lines import writes_to

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from typing import Any

__all__ = ["Channels"]

_ATOMS = (int, float, str, bool, type(None))

# How long a log record may be, in bytes: what the engine reads at a time. Of one that is longer, texts are cut to so
# many characters, of up to four bytes.
_LONGEST = 64 * 1024
_CUT = 2000


class Channels:
    """The ends that this worker writes to; and the streams that it began with, where they are not in use."""

    def __init__(self, fds: list[int]) -> None:
        self._ends = {1: fds[0], 2: fds[1]}
        self._messages = fds[2]
        self._own: dict[int, int | None] = {}
        self._levels: set[str] = set()
        self._call_handlers: Any = None
        self._encoder = Encoder(to_parent=True)

    def behave(self, behavior: bytes, *, new: bool = False) -> None:
        """Write and log as this asks for. In a `new` worker nothing of the user's has run yet."""
        piped, levels = pickle.loads(behavior) if behavior else (0, None)
        for descriptor in (1, 2):
            self._route(descriptor, bool(piped & descriptor))
            if new and piped & descriptor:
                _stand_in(descriptor)
        if levels is not None:
            self._forward(*levels)
        else:
            self.stop_forwarding()

    def stop_forwarding(self) -> None:
        """Have log records handled here again."""
        if self._call_handlers is not None:
            sys.modules["logging"].Logger.callHandlers = self._call_handlers
            self._call_handlers = None

    def _route(self, descriptor: int, piped: bool) -> None:
        """Have a descriptor mean the channel, or what it meant at first."""
        if piped == (descriptor in self._own):
            return
        stream = sys.stdout if descriptor == 1 else sys.stderr
        try:  # noqa: SIM105 - contextlib would be one more thing to import
            stream.flush()
        except Exception:
            pass  # it could not have been written before either
        if piped:
            try:
                self._own[descriptor] = os.dup(descriptor)
            except OSError:
                self._own[descriptor] = None  # it was closed
            os.dup2(self._ends[descriptor], descriptor)
            return
        own = self._own.pop(descriptor)
        if own is None:
            os.close(descriptor)
        else:
            os.dup2(own, descriptor)
            os.close(own)

    def _forward(self, root_level: int, disabled: int, levels: dict[str, int]) -> None:
        """Make the log records that the parent would pass on, and send them to it instead of handling them here."""
        import logging

        if self._call_handlers is None:
            self._call_handlers = logging.Logger.callHandlers
            send = self._send

            def call_handlers(self: logging.Logger, record: logging.LogRecord) -> None:
                send(record)

            logging.Logger.callHandlers = call_handlers  # type: ignore[method-assign]
        logging.getLogger().setLevel(root_level)
        logging.disable(disabled)
        for name in self._levels.difference(levels):
            logging.getLogger(name).setLevel(logging.NOTSET)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        self._levels = set(levels)

    def _send(self, record: logging.LogRecord) -> None:
        fields = dict(record.__dict__)
        try:
            message = record.getMessage()
        except Exception:
            message = f"{record.msg!r} with arguments that do not fit"
        if record.exc_info:
            import logging

            fields["exc_text"] = record.exc_text or logging.Formatter().formatException(record.exc_info)
        fields["exc_info"] = None
        if fields.get("processName") == "MainProcess":
            # The name that multiprocessing would have for it.
            fields["processName"] = f"fanmap-worker-{os.getpid()}"
        encoded: dict[str, bytes] = {}
        for name, value in list(fields.items()):
            if type(value) in _ATOMS:
                continue
            try:
                encoded[name] = self._encoder.encode(value, f"{name} of a log record")
                del fields[name]
            except Exception:
                fields[name] = _text(value)
        if "args" not in encoded:
            fields["msg"], fields["args"] = message, None
            encoded.pop("msg", None)
        fields["message"] = message
        data = pickle.dumps((fields, encoded), 5)
        if len(data) > _LONGEST:
            import logging

            known = logging.makeLogRecord({}).__dict__.keys() | {"message"}
            fields.update(msg=message, args=None)
            fields = {name: _cut(value) for name, value in fields.items() if name in known}
            data = pickle.dumps((fields, {}), 5)
        try:  # noqa: SIM105 - as above
            os.write(self._messages, data)
        except OSError:
            pass  # the parent takes no more


def _stand_in(descriptor: int) -> None:
    """Where a fork brought along a stream of another kind (a test's capture), put the descriptor's own in its place."""
    name = "stdout" if descriptor == 1 else "stderr"
    stream = getattr(sys, name)
    if stream is None or writes_to(stream, descriptor):
        return
    setattr(sys, name, open(descriptor, "w", 1, errors="backslashreplace", closefd=False))  # noqa: SIM115


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"


def _cut(value: Any) -> Any:
    return value[:_CUT] + "..." if isinstance(value, str) and len(value) > _CUT else value
