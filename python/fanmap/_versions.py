"""Versions: whether a value of the user's `__main__` changed since it was last sent.

Each global name, and each attribute of a class sent by value, has a number that goes up when its value is found
changed. The receiver compares numbers, never values (`_main.adopt`, `_classes.set_class`).

Values are compared by *fingerprints*. Immutable atoms by type and equality; modules, classes and plain functions by
identity; everything else by a digest of its own pickle. In that pickle a function counts as its identity, its code and
what it holds itself (defaults, closure, attributes), not as its globals, which have versions of their own; a class
counts as its identity. Whatever was identified by its address is kept alive, so that no address is used twice.

A value that cannot be pickled has no fingerprint: its version goes up each time, and sending it says what is wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from hashlib import blake2b
from pickle import PickleBuffer
from types import CellType, FunctionType, ModuleType
from typing import Any

from cloudpickle import Pickler  # type: ignore[import-untyped, unused-ignore]

from . import _main
from ._raw import raw
from ._reference import CachedFunction, dispatch_table

__all__ = ["ABSENT", "Versions"]

ABSENT: Any = type("Absent", (), {"__doc__": "Stands for an unbound name."})

_ATOMS = frozenset({int, bool, str, bytes, type(None)})


@dataclass(frozen=True, slots=True)
class _Entry:
    version: int
    key: object
    keep: object


class Versions:
    """The versions of one sender. Numbers only go up, so they hold for workers that start later."""

    def __init__(self, reference: Callable[[Any], Any]) -> None:
        self._reference = reference
        self._entries: dict[Hashable, _Entry] = {}
        # How often any version went up, or was the first. Written under the lock.
        self.changes = 0
        self._lock = threading.Lock()

    def seen(self, slot: Hashable) -> bool:
        """Whether this slot ever had a version."""
        return slot in self._entries

    def of(self, slot: Hashable, value: object, *, first: int = 1, by_identity: bool = False) -> int:
        """The version of `value` in this slot: the last one if it did not change, else one more."""
        if by_identity:
            key, keep = ("is", id(value)), value
        else:
            # Outside the lock: this runs the user's code.
            key, keep = self._fingerprint(value)
        with self._lock:
            entry = self._entries.get(slot)
            if entry is not None and key is not None and entry.key == key:
                return entry.version
            version = first if entry is None else entry.version + 1
            self._entries[slot] = _Entry(version, key, keep)
            self.changes += 1
            return version

    def _fingerprint(self, value: Any) -> tuple[Any, object]:
        kind = type(value)
        if kind in _ATOMS:
            return (kind, value), None
        if kind is float:
            # Told apart by bits: -0.0 equals 0.0, and nan equals nothing.
            return (kind, value.hex()), None
        if kind is ModuleType or issubclass(kind, type):
            return ("is", id(value)), value
        if kind is FunctionType and (_is_plain(value) or self._reference(value) is not None):
            return ("is", id(value), id(value.__code__)), (value, value.__code__)
        pickler = _Fingerprint(self._reference)
        try:
            pickler.dump(value)
        except Exception:
            return None, None
        return ("digest", pickler.digest.digest()), pickler.kept


def _is_plain(function: FunctionType) -> bool:
    """Whether a function holds nothing but its code."""
    held = function.__defaults__ or function.__kwdefaults__ or function.__closure__ or function.__dict__
    return not held


class _Hash:
    """A file that only hashes what is written to it."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)
        self.write = self._hash.update
        self.digest = self._hash.digest


class _Fingerprint(Pickler):  # type: ignore[misc]
    """Pickles into a hash. Nothing ever loads what it writes, so marks need not be reductions that work."""

    def __init__(self, reference: Callable[[Any], Any]) -> None:
        self.dispatch_table = dispatch_table(Pickler._dispatch_table)
        self.digest = _Hash()
        self.kept: list[object] = []
        self._reference = reference
        super().__init__(self.digest, protocol=5, buffer_callback=self._buffer)

    def _buffer(self, buffer: PickleBuffer) -> None:
        # Out of band, so an array is hashed where it lies.
        with buffer.raw() as raw:
            self.digest.write(raw)

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is FunctionType:
            named = self._reference(obj)
            if named is not None:
                return named
            self.kept.append((obj, obj.__code__))
            holds = (obj.__defaults__, obj.__kwdefaults__, obj.__closure__, obj.__dict__)
            return _mark, (id(obj), id(obj.__code__)), holds
        if kind is CachedFunction:
            # Its cache is not sent, so what fills it is no change.
            return _mark, (id(obj),), (obj.__wrapped__,)
        if issubclass(kind, type):
            if self._reference(obj) is NotImplemented:
                return NotImplemented
            self.kept.append(obj)
            return _mark, (id(obj),)
        if kind is CellType:
            return reduce_cell(obj)
        return NotImplemented


def _mark(*parts: object) -> None:
    """Named in fingerprints, never called."""


def reduce_cell(cell: CellType) -> tuple[Any, ...]:
    """A cell as an object of its own: shared by the closures that share it, and free to hold its own function."""
    try:
        contents = cell.cell_contents
    except ValueError:
        return _main.make_cell, ()
    return _main.make_cell, (), (raw(contents),), None, None, _main.set_cell
