"""Exceptions across processes.

Called at a worker's end for whatever a task raised, and at the parent's to get it back. Neither ever fails: what
travels is an envelope of strings and bytes alone, and within it, for each exception of the chain, a pickle of its own.
Where a pickle cannot be made, or cannot be loaded, a `RemoteError` stands in for that one exception, with its name, its
message and its notes.

The traceback travels as text. At the parent it is the exception's `__cause__`, as with the standard library, but the
original cause is not lost: it is the cause of that. Lines of source that a worker cannot read, those of a notebook's
cells, the parent adds.
"""

from __future__ import annotations

import os
import pickle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, TypedDict

    class _Link(TypedDict):
        """One exception of a chain. `cause` and `context` are places in the list of links."""

        type_name: str
        message: str
        notes: list[str]
        payload: bytes | None
        reason: str
        cause: int | None
        context: int | None
        suppress: bool


__all__ = [
    "RemoteError",
    "Undecodable",
    "decode_exception",
    "decode_refusal",
    "detach",
    "encode_exception",
    "refusal",
    "remote_traceback",
    "say",
    "summary",
]

_OWN_FILES = os.path.dirname(__file__) + os.sep
# A chain longer than this is cut: the traceback's text tells of the rest as far as Python prints it.
_LONGEST_CHAIN = 100


class RemoteError(Exception):
    """Stands in for an exception that could not be pickled in the worker, or not be unpickled here.

    `type_name` is the full name of its type, `message` its `str`, `reason` what went wrong with the pickle.

    >>> import fanmap
    >>> str(fanmap.RemoteError("package.Oops", "it broke"))
    'package.Oops: it broke (this exception could not be pickled)'
    """

    def __init__(self, type_name: str, message: str, reason: str = "this exception could not be pickled") -> None:
        super().__init__(type_name, message, reason)
        self.type_name = type_name
        self.message = message
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message} ({self.reason})"


class Undecodable(Exception):
    """Raised in a worker that could not unpickle what it was sent; at the parent it is `fanmap.UndecodableError`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _undecodable_error, self.args


def _undecodable_error(message: str) -> BaseException:
    from ._errors import UndecodableError

    return UndecodableError(message)


def encode_exception(exc: BaseException, encode: Callable[[object], bytes] | None = None) -> bytes:
    """Encode an exception with its chain and traceback; never fails.

    `encode` is how the worker pickles what it sends to its parent.
    """
    try:
        if encode is None:
            from ._codec import Encoder

            return Encoder(to_parent=True).encode_exception(exc)
        links = _encode_chain(exc, encode)
    except Exception as error:
        links = [_bare_link(exc, f"this exception could not be pickled: {say(error)}")]
    return pickle.dumps((_format(exc), links), protocol=5)


def remote_traceback(text: str) -> BaseException:
    """An exception that shows `text`: the standard library's own, so that who knows it knows ours."""
    # Only a parent comes here, and it has loaded this already.
    from concurrent.futures.process import _RemoteTraceback

    return _RemoteTraceback(f'\n"""\n{text}"""')  # type: ignore[arg-type]  # typeshed has it otherwise


def detach(exc: BaseException) -> BaseException:
    """The same exception without the frames that it went through, whose text becomes its `__cause__`.

    For one that is kept and not raised: its frames hold their callers', and so what keeps it, in a circle.
    """
    text = _format(exc)
    links, seen = [exc], {id(exc)}
    for link in links:
        link.__traceback__ = None
        for linked in (link.__cause__, link.__context__):
            if linked is not None and id(linked) not in seen:
                seen.add(id(linked))
                links.append(linked)
    _set_cause(exc, remote_traceback(text))
    return exc


def _set_cause(exc: BaseException, remote: BaseException) -> None:
    """Make `remote` the exception's cause, and the cause that it had the cause of that."""
    suppress = exc.__suppress_context__
    remote.__cause__ = exc.__cause__
    exc.__cause__ = remote
    exc.__suppress_context__ = suppress


def refusal(encoded: bytes, *, logged: bool) -> bytes:
    """Why a worker could not get ready, as it tells its parent: an encoded exception, and whether it was logged."""
    return (b"!" if logged else b"?") + encoded


def decode_refusal(data: bytes) -> tuple[BaseException, bool]:
    """The exception, and whether the worker has logged it."""
    return decode_exception(data[1:]), data[:1] == b"!"


def decode_exception(data: bytes) -> BaseException:
    """The exception, its `__cause__` the remote traceback whose own `__cause__` is the original one; never fails."""
    try:
        text, links = pickle.loads(data)
        chain = [_decode_link(link) for link in links]
    except Exception as error:
        reason = f"its report could not be read: {say(error)}"
        return RemoteError("unknown", "an exception was raised in a worker", reason)
    for exc, link in zip(chain, links, strict=True):
        exc.__cause__ = None if link["cause"] is None else chain[link["cause"]]
        exc.__context__ = None if link["context"] is None else chain[link["context"]]
        exc.__suppress_context__ = link["suppress"]
    _set_cause(chain[0], remote_traceback(_with_source(text)))
    return chain[0]


def _with_source(text: str) -> str:
    """A worker's traceback, with the lines that only this process knows: of cells, of what was typed at a prompt."""
    import linecache
    import re

    def shown(place: re.Match[str]) -> str:
        whole, margin, file, number = place[0], place[1], place[2], int(place[3])
        # Code made by exec has this name too, in a worker, and `-c` has it here.
        line = "" if file == "<string>" else linecache.getline(file, number).strip()
        return f"{whole}{margin}  {line}\n" if line else whole

    try:
        return re.sub(r'^([ |]+)File "(.+)", line (\d+), in .*\n(?!\1  )', shown, text, flags=re.MULTILINE)
    except Exception:  # of a loader that is asked for the source
        return text


def summary(data: bytes) -> str:
    """What `say` says of an encoded exception, which is not decoded for it; never fails."""
    try:
        _, links = pickle.loads(data)
        return f"{links[0]['type_name'].rpartition('.')[2]}: {links[0]['message']}"
    except Exception:
        return "an exception whose report could not be read"


def _encode_chain(exc: BaseException, encode: Callable[[object], bytes]) -> list[_Link]:
    # A flat list with places, not nested envelopes: a chain may be long, and may even be a circle.
    chain = [exc]
    places = {id(exc): 0}

    def place(linked: BaseException | None) -> int | None:
        if linked is None or (id(linked) not in places and len(chain) >= _LONGEST_CHAIN):
            return None
        if id(linked) not in places:
            places[id(linked)] = len(chain)
            chain.append(linked)
        return places[id(linked)]

    links = []
    for link_exc in chain:
        link = _encode_one(link_exc, encode)
        link["cause"] = place(link_exc.__cause__)
        link["context"] = place(link_exc.__context__)
        link["suppress"] = link_exc.__suppress_context__
        links.append(link)
    return links


def _encode_one(exc: BaseException, encode: Callable[[object], bytes]) -> _Link:
    link = _bare_link(exc, "")
    try:
        # With its args beside it: an `__init__` that makes the message from its argument would make it twice.
        link["payload"] = encode((exc, exc.args))
    except Exception as error:
        link["reason"] = f"this exception could not be pickled: {say(error)}"
    return link


def _bare_link(exc: BaseException, reason: str) -> _Link:
    kind = type(exc)
    notes = getattr(exc, "__notes__", ())
    return {
        "type_name": f"{kind.__module__}.{kind.__qualname__}",
        "message": _text(exc),
        "notes": [_text(note) for note in notes] if isinstance(notes, (list, tuple)) else [],
        "payload": None,
        "reason": reason,
        "cause": None,
        "context": None,
        "suppress": False,
    }


def _decode_link(link: _Link) -> BaseException:
    exc: BaseException | None = None
    reason = link["reason"]
    if link["payload"] is not None:
        try:
            loaded, args = pickle.loads(link["payload"])
            if isinstance(loaded, BaseException):
                exc = loaded
                exc.args = args
            else:
                reason = f"this exception could not be unpickled: it became a {type(loaded).__qualname__}"
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            reason = f"this exception could not be unpickled: {say(error)}"
    if exc is None:
        exc = RemoteError(link["type_name"], link["message"], reason)
    if link["notes"] and getattr(exc, "__notes__", None) != link["notes"]:
        exc.__notes__ = list(link["notes"])
    return exc


def _format(exc: BaseException) -> str:
    """The traceback as text, without the frames of our own that lead to the user's function."""
    import traceback

    try:
        return "".join(traceback.format_exception(type(exc), exc, _user_part(exc.__traceback__)))
    except Exception as error:
        return f"{type(exc).__qualname__} (its traceback could not be formatted: {say(error)})\n"


def _user_part(tb: TracebackType | None) -> TracebackType | None:
    first = tb
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(_OWN_FILES):
        tb = tb.tb_next
    # All of it our own: an error of ours, and its place is what matters.
    return tb or first


def say(error: BaseException) -> str:
    """An exception in a line."""
    return f"{type(error).__name__}: {_text(error)}"


def _text(obj: Any) -> str:
    try:
        # str.__str__ of a subclass may be anything; what travels is a plain str.
        return "".join(str(obj))
    except Exception:
        return f"<{type(obj).__qualname__} without a text>"
