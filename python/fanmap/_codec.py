"""How Python objects become bytes for another process, and objects again.

An `Encoder` at each end: the parent's, one for each pool, encodes functions and items; a worker's, with
`to_parent=True`, encodes results. `decode` is the same at both ends.

Most of what travels goes by name or is plain data, and costs a C pickle and a look at each class it meets. Only when
something must go by value is `_byvalue`, and with it cloudpickle, imported; a worker that never meets such a thing
never loads it.

What cannot be pickled raises `pickle.PicklingError` for that one object, saying what it is and where it sits.
"""

from __future__ import annotations

import functools
import pickle
from io import BytesIO
from types import BuiltinFunctionType, FunctionType

from . import _classes
from ._native import is_atom
from ._raw import LARGE, is_partial, raw, reduce_partial
from ._reference import BY_VALUE, IMPORTED, Forked, dispatch_table, named_kind
from ._remote import decode_exception, encode_exception

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pickle import PickleBuffer
    from typing import Any

    from ._byvalue import Sender
    from ._reference import Policy

    BufferCallback = Callable[[PickleBuffer], bool]

__all__ = ["BY_VALUE", "IMPORTED", "Encoder", "Forked", "decode", "decode_exception", "decode_result"]

PROTOCOL = 5
_ATOMS = frozenset({int, float, str, bytes, bool, type(None)})
_NAMED = frozenset({FunctionType, BuiltinFunctionType, type})
# How many functions an encoder remembers the names of.
_KEPT_NAMES = 256
# Longer tuples than this are sooner pickled than looked through.
_SHORT = 8

_dumps = pickle.dumps


def decode(data: bytes | bytearray | memoryview, buffers: Iterable[Any] | None = None) -> Any:
    """The object. Whatever its own unpickling raises is raised here."""
    return pickle.loads(data, buffers=buffers)


def decode_result(payload: bytes | tuple[bytes, list[Any]]) -> Any:
    """The value of a task: from its bytes, or from these and the buffers that came beside them."""
    if isinstance(payload, tuple):
        return pickle.loads(payload[0], buffers=payload[1])
    return pickle.loads(payload)


class Encoder:
    """Encodes what one process sends to others of one pool, or to its parent.

    Any number of threads may use it at once. Three fields change: `_sender` is made once, by one step that the first of
    two threads wins, and has locks of its own where it needs them; `_items_by_value` is only ever set, and is a hint;
    `_names` is a cache, in which all threads write the same.
    """

    def __init__(self, policy: Policy = BY_VALUE, *, to_parent: bool = False) -> None:
        self._policy = policy
        self._to_parent = to_parent
        # How to name a function or class. No method of this: the sender has it, too, and that would be a cycle.
        self._reference = functools.partial(_back_to_parent, policy) if to_parent else policy.reference
        self._sender: Sender | None = None
        # The pickles of functions that went by name, by module and qualified name.
        self._names: dict[tuple[str, str], bytes] = {}
        # Whether an item so far had to go by value: then the next ones are not tried by name first.
        self._items_by_value = False

    def encode_function(self, function: Any, buffers: list[PickleBuffer] | None = None) -> bytes:
        """Encode the function of one call, as it is now; `buffers` as for `encode`.

        To be called for each `submit` and each `map`, before their arguments are encoded: it also starts a new call,
        for which changed classes and globals are looked at anew.
        """
        kind = type(function)
        sender = self._sender
        if sender is not None:
            sender.new_call()
            same = sender.unchanged(function) if kind is FunctionType else None
            if same is not None:
                return same
        if kind in _NAMED and self._reference(function) is NotImplemented:
            return self._name(function)
        return self._encode(function, None, buffers, by_value=kind is FunctionType)

    def _name(self, function: Any) -> bytes:
        """The pickle of what goes by name, which is the same as long as it does."""
        name = function.__module__, function.__qualname__
        made = self._names.get(name)
        if made is None:
            made = _dumps(function, PROTOCOL)
            if len(self._names) >= _KEPT_NAMES:
                self._names = {}
            self._names[name] = made
        return made

    def encode(
        self, obj: object, what: str = "the task's argument", buffers: list[PickleBuffer] | None = None
    ) -> bytes:
        """Encode an item, the arguments of a call, or a result; `what` is how an error names it.

        With `buffers`, large ones are appended to it instead of being copied into the bytes; `decode` wants them back.
        """
        if is_atom(obj):
            # Nothing in it can need more than the C pickle, which is ten times as fast.
            return _dumps(obj, PROTOCOL)
        if buffers is not None:
            obj = raw(obj)
        kind = type(obj)
        if kind in _ATOMS or (kind is tuple and _is_atoms(obj)):
            return _dumps(obj, PROTOCOL)  # the same, but long
        return self._encode(obj, what, buffers, by_value=self._items_by_value)

    def encode_atoms(self, items: list[Any]) -> bytes:
        """Encode several items at once, which `_native.are_atoms` has looked at: nothing in them can fail."""
        return _dumps(items, PROTOCOL)

    def encode_exception(self, exc: BaseException) -> bytes:
        """Encode what a task raised, for `decode_exception` at the parent; never fails."""
        return encode_exception(exc, lambda obj: self._dumps(obj, None, by_value=False)[0])

    def _encode(self, obj: Any, what: str | None, buffers: list[PickleBuffer] | None, *, by_value: bool) -> bytes:
        """Pickle something; `what` is None for a function."""
        try:
            data, went_by_value = self._dumps(obj, buffers, by_value=by_value)
        except MemoryError:
            raise  # nothing is wrong with the object
        except Exception as error:
            raise self._explain(obj, what, error) from error
        self._items_by_value |= went_by_value and what is not None
        return data

    def _dumps(self, obj: Any, buffers: list[PickleBuffer] | None, *, by_value: bool) -> tuple[bytes, bool]:
        """The bytes, and whether something in them went by value; fails as pickle does."""
        if not by_value:
            try:
                return self._dumps_by_name(obj, buffers), False
            except Exception:
                # Perhaps cloudpickle can. If not, what it says is as good.
                if buffers is not None:
                    buffers.clear()
        return self._by_value().dumps(obj, _callback(buffers)), True

    def _dumps_by_name(self, obj: Any, buffers: list[PickleBuffer] | None) -> bytes:
        file = BytesIO()
        _ByName(file, self._reference, _callback(buffers)).dump(obj)
        return file.getvalue()

    def _by_value(self) -> Sender:
        sender = self._sender
        if sender is None:
            from ._byvalue import Sender

            # Two would number the same changes apart, so all threads must get the one that came first.
            made = Sender(self._policy, self._reference, to_parent=self._to_parent)
            sender = self.__dict__.setdefault("_made_sender", made)
            self._sender = sender
        return sender

    def _explain(self, obj: object, what: str | None, error: Exception) -> Exception:
        from . import _culprit

        name = _culprit.function_name(obj) if what is None else what
        return _culprit.explain(name, obj, error, self._by_value().dumps, to_parent=self._to_parent)


def _back_to_parent(policy: Policy, obj: Any) -> Any:
    """How a worker names a function or class: the policy's answer, but for classes that came from the parent."""
    ident = _classes.received(obj) if isinstance(obj, type) else None
    return policy.reference(obj) if ident is None else (_classes.find, (ident,))


def _callback(buffers: list[PickleBuffer] | None) -> BufferCallback | None:
    """Pickle's `buffer_callback`, which sorts buffers: into `buffers`, or in band if it returns true."""
    if buffers is None:
        return None

    def in_band(buffer: PickleBuffer) -> bool:
        try:
            with buffer.raw() as raw:
                small = raw.nbytes < LARGE
        except BufferError:
            return True  # not contiguous: only a copy of it can be sent
        if not small:
            buffers.append(buffer)
        return small

    return in_band


def _is_atoms(values: Any) -> bool:
    return len(values) <= _SHORT and all(type(value) in _ATOMS for value in values)


class _NeedsValue(Exception):
    """Something met that does not go by name."""


class _ByName(pickle.Pickler):
    """The C pickler, but for what goes by value: there it gives up, and the whole is pickled by `_byvalue`.

    It must look, for the C pickler writes a class of `__main__` as a name, and only the worker would find it missing.
    """

    def __init__(self, file: BytesIO, reference: Callable[[Any], Any], buffer_callback: BufferCallback | None) -> None:
        self.dispatch_table = dispatch_table()
        self._reference = reference
        super().__init__(file, protocol=PROTOCOL, buffer_callback=buffer_callback)

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if named_kind(kind):
            named = self._reference(obj)
            if named is None:
                raise _NeedsValue
            return named
        if is_partial(kind):
            return reduce_partial(obj)
        if kind.__module__ == "typing" and getattr(obj, "__module__", None) == "__main__":
            raise _NeedsValue  # a TypeVar of `__main__` pickles as a name
        return NotImplemented
