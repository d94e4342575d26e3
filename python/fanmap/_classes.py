"""Classes that travel by value, keyed by identity.

A class has one identity for all processes, given when it is first sent. Where that identity is already known, the class
found under it *is* the class: a second arrival gives the same object, and an instance that comes back to the process
that owns the class is of that very class. A re-run notebook cell makes another class, here as there.

A class is described by a *definition*: a self-contained pickle of the class and all it needs. A pickle that mentions
the class names its identity only, and begins with an instruction to load the definition unless these very bytes were
loaded before. So an item that is an instance of a class of `__main__` costs its receiver a look-up, not a new class.

Attributes carry versions as globals do (see `_main`): what a worker changed on the class stays, until the owner changes
that attribute itself.
"""

from __future__ import annotations

import os
import pickle
from struct import pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["definition", "find", "identity", "received"]

_PROTOCOL = b"\x80\x05"


class _Record:
    """What this process knows of one class: its identity, whose it is, and the versions of its attributes."""

    __slots__ = ("cls", "ident", "known", "received")

    def __init__(self, ident: str, cls: type, received: bool) -> None:
        self.ident = ident
        self.cls = cls
        self.received = received
        self.known: dict[tuple[str, str], int] = {}


# Both hold the class, so its id is not reused. By id, because a metaclass may define equality as it likes.
_by_ident: dict[str, _Record] = {}
_by_id: dict[int, _Record] = {}
# Digests of the definitions loaded: the same bytes need not be loaded twice.
_loaded: set[bytes] = set()


def identity(cls: type) -> str:
    """The identity of a class, given now if it had none."""
    record = _by_id.get(id(cls))
    if record is None:
        made = _Record(os.urandom(16).hex(), cls, received=False)
        # To be found before anybody can send it.
        _by_ident[made.ident] = made
        # setdefault is one step, so two threads that send a class at the same time agree.
        record = _by_id.setdefault(id(cls), made)
        if record is not made:
            del _by_ident[made.ident]
    return record.ident


def received(cls: type) -> str | None:
    """The identity of a class that came from another process; None for one of our own."""
    record = _by_id.get(id(cls))
    return record.ident if record is not None and record.received else None


def find(ident: str) -> type:
    """The class of this identity. Named in pickles, after the instruction to load its definition."""
    try:
        return _by_ident[ident].cls
    except KeyError:
        raise pickle.UnpicklingError(f"no class of identity {ident} arrived in this process") from None


def definition(digest: bytes, blob: bytes) -> bytes:
    """Pickle instructions that call `load(digest, blob)` and leave the stack as it was.

    They go before an ordinary pickle, which stays loadable by `pickle.loads`. Nothing is memoized, so the memo numbers
    of what follows hold.
    """
    return b"".join(
        [
            _PROTOCOL,
            pickle.GLOBAL + f"{__name__}\nload\n".encode(),
            pickle.SHORT_BINBYTES + pack("<B", len(digest)) + digest,
            pickle.BINBYTES8 + pack("<Q", len(blob)),
            blob,
            pickle.TUPLE2 + pickle.REDUCE + pickle.POP,
        ]
    )


def load(digest: bytes, blob: bytes) -> None:
    """Load a definition, unless these bytes were loaded before."""
    if digest not in _loaded:
        pickle.loads(blob)
        _loaded.add(digest)


def make_class(ident: str, is_enum: bool, args: tuple[Any, ...]) -> type:
    """The class of this identity, made bare if it is new here; `set_class` brings the rest."""
    record = _by_ident.get(ident)
    if record is None:
        from cloudpickle import cloudpickle  # type: ignore[import-untyped, unused-ignore]

        make = cloudpickle._make_skeleton_enum if is_enum else cloudpickle._make_skeleton_class
        record = _by_ident.setdefault(ident, _Record(ident, make(*args, None, None), received=True))
        _by_id[id(record.cls)] = record
    return record.cls


def set_class(cls: type, state: tuple[str, dict[str, tuple[int, Any]], dict[str, dict[str, Any]]]) -> None:
    """Set those attributes of a class that are new here or were changed by its owner since.

    `members` are the attributes of an enum's members, which its `__init__` may have set.
    """
    from cloudpickle import cloudpickle

    origin, attributes, members = state
    record = _by_id[id(cls)]
    if not record.received:
        return  # our own class, come back: ours is the truth
    fresh: dict[str, Any] = {}
    for name, (version, value) in attributes.items():
        if version > record.known.get((origin, name), 0):
            record.known[origin, name] = version
            fresh[name] = value
    cloudpickle._class_setstate(cls, (fresh, {}))
    for name, values in members.items():
        vars(cls.__members__[name]).update(values)  # type: ignore[attr-defined]
