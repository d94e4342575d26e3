"""Sending functions and classes by value, over cloudpickle's reducers.

Imported when the first such thing is met, for cloudpickle takes its time to import. What cloudpickle does stays as it
is, but for three things: functions of `__main__` share one namespace (`_main`), classes are keyed by identity and
described apart (`_classes`), and cells are objects of their own, so closures that share a variable go on sharing it.
"""

from __future__ import annotations

import builtins
import dis
import enum
import functools
import os
import typing
import weakref
from collections.abc import Callable, Iterator
from hashlib import blake2b
from io import BytesIO
from pickle import PickleBuffer
from types import CellType, CodeType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from cloudpickle import Pickler, cloudpickle  # type: ignore[import-untyped, unused-ignore]

from . import _classes, _main
from ._raw import is_partial, raw, reduce_partial
from ._reference import CachedFunction, dispatch_table, named_kind
from ._unchanged import Look
from ._versions import ABSENT, Versions, reduce_cell

if TYPE_CHECKING:
    from ._reference import Policy

__all__ = ["Sender", "global_names"]

# The place of a code object's file name among the arguments that it is made from.
_FILENAME = 10
# How many functions' pickles are kept. Fewer, and programs that submit a handful in turn pickle them again and again;
# more is memory for functions that are gone.
_KEPT_FUNCTIONS = 16
# A worker's `__main__` has its own.
_NEVER_SENT = frozenset({"__name__", "__builtins__", "__loader__", "__spec__"})
# Made by the interpreter for each class; not ours to set.
_NOT_ATTRIBUTES = ("__weakref__", "__dict__", "__annotations_cache__", "__annotate_func__")
# What an enum's metaclass makes from the members.
_OF_ENUM = (
    *("_generate_next_value_", "_member_names_", "_member_map_", "_member_type_", "_value2member_map_"),
    *("_unhashable_values_", "_unhashable_values_map_", "_hashable_values_"),
)
_OF_MEMBER = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_"})
# Opcodes that read or write a global; a class body within a function reads its globals by LOAD_NAME.
_GLOBAL_OPCODES = frozenset({"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_names_of_code: weakref.WeakKeyDictionary[CodeType, tuple[str, ...]] = weakref.WeakKeyDictionary()


def global_names(code: CodeType) -> tuple[str, ...]:
    """The global names that a code object and the code within it mention, in order."""
    names = _names_of_code.get(code)
    if names is None:
        names = _names_of_code[code] = tuple(dict.fromkeys(_walk(code)))
    return names


def _walk(code: CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in _GLOBAL_OPCODES:
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _walk(constant)


class Sender:
    """What one side remembers of what it sent by value.

    Any number of threads may use it at once: `versions` has a lock, `_definitions` is a cache whose entries are all
    right, and is replaced as a whole, `_functions` is one whose entries are looked at before they are used; nothing
    else changes.
    """

    def __init__(self, policy: Policy, reference: Callable[[Any], Any], *, to_parent: bool) -> None:
        self.policy = policy
        self.reference = reference
        self.to_parent = to_parent
        self.origin = _main.TO_PARENT if to_parent else os.urandom(16).hex()
        self.versions = Versions(reference)
        self._definitions: dict[int, tuple[type, bytes]] = {}
        self._functions: dict[FunctionType, tuple[Look, int, bytes]] = {}

    def dumps(self, obj: object, buffer_callback: Callable[[PickleBuffer], bool] | None = None) -> bytes:
        """A pickle of `obj`, preceded by the definitions of the classes it mentions."""
        if self.to_parent:
            self.new_call()  # each result is as it is when it is returned
        elif type(obj) is FunctionType:
            return self._function(obj, buffer_callback)
        return self._dumps(obj, buffer_callback)

    def _dumps(self, obj: object, buffer_callback: Callable[[PickleBuffer], bool] | None) -> bytes:
        file = BytesIO()
        pickler = _Pickler(file, self, buffer_callback)
        pickler.dump(obj)
        if not pickler.mentioned:
            return file.getvalue()
        return b"".join([*map(self._definition, pickler.mentioned.values()), file.getvalue()])

    def unchanged(self, function: FunctionType) -> bytes | None:
        """The last pickle of a function, if that of today can be seen to be the same."""
        known = self._functions.get(function)
        if known is None or known[1] != self.versions.changes or not known[0].still_holds():
            return None
        return known[2]

    def _function(self, function: FunctionType, buffer_callback: Callable[[PickleBuffer], bool] | None) -> bytes:
        changes = self.versions.changes
        look = Look.at(function, global_names, self.reference)
        beside = False

        def call_back(buffer: PickleBuffer) -> bool:
            nonlocal beside
            in_band = buffer_callback is None or buffer_callback(buffer)
            beside |= not in_band
            return in_band

        made = self._dumps(function, call_back)
        if beside:
            return made  # it is not whole without its buffers
        # Not if another thread has changed something in between, nor if versions went up, which will be the next one's.
        if look is not None and self.versions.changes == changes and look.still_holds():
            if len(self._functions) >= _KEPT_FUNCTIONS:
                self._functions = {}
            self._functions[function] = (look, changes, made)
        return made

    def new_call(self) -> None:
        """Look anew at the classes sent: a call runs with things as they are when it is made.

        Within one call their definitions are made once, however many of its items are instances of them.
        """
        self._definitions = {}

    def _definition(self, cls: type) -> bytes:
        made = self._definitions.get(id(cls))
        if made is None:
            file = BytesIO()
            _Pickler(file, self, None, defining=True).dump(cls)
            blob = file.getvalue()
            made = (cls, _classes.definition(blake2b(blob, digest_size=16).digest(), blob))
            self._definitions[id(cls)] = made
        return made[1]


class _Pickler(Pickler):  # type: ignore[misc]
    """One pickle. `defining`: classes are written out; else they are mentioned, and collected in `mentioned`."""

    def __init__(
        self,
        file: BytesIO,
        sender: Sender,
        buffer_callback: Callable[[PickleBuffer], bool] | None,
        *,
        defining: bool = False,
    ) -> None:
        self.dispatch_table = dispatch_table(Pickler._dispatch_table)
        self.mentioned: dict[int, type] = {}
        self._sender = sender
        self._defining = defining
        # One version for each name in one pickle: a value is looked at once, however many functions mention it.
        self._names: dict[str, tuple[int] | tuple[int, Any] | None] = {}
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if named_kind(kind):
            if issubclass(kind, type) and obj.__module__ == "builtins":
                return cloudpickle._class_reduce(obj)
            named = self._sender.reference(obj)
            if named is not None:
                return named
            if kind is FunctionType:
                return self._function(obj)
            if kind is CachedFunction:
                parameters = obj.cache_parameters()
                return _main.make_cached, (obj.__wrapped__, parameters["maxsize"], parameters["typed"])
            return self._class(obj)
        if kind is CellType:
            return reduce_cell(obj)
        if is_partial(kind):
            return reduce_partial(obj)
        if kind is CodeType:
            # cloudpickle 3.1.3 leaves out where the code is from, which tracebacks are to say.
            make, arguments = cloudpickle._code_reduce(obj)
            return make, (*arguments[:_FILENAME], obj.co_filename, *arguments[_FILENAME + 1 :])
        if kind is functools.cached_property:
            return _main.make_cached_property, (obj.func, obj.attrname)
        if kind is MethodType:
            # By name, so that it is the method of the class over there, not a copy.
            name, owner = obj.__func__.__name__, obj.__self__
            found = getattr(type(owner) if not isinstance(owner, type) else owner, name, None)
            if getattr(found, "__func__", found) is obj.__func__:
                return getattr, (owner, name)
        return NotImplemented

    # Functions

    def _function(self, function: FunctionType) -> Any:
        if function.__globals__ is not _main.namespace():
            return self._dynamic_function_reduce(function)
        attributes, slots = cloudpickle._function_getstate(function)
        for name in ("__globals__", "__closure__"):
            slots.pop(name)
        # Sent so that these modules are imported when the pickle is loaded.
        submodules = slots.pop("_cloudpickle_submodules")
        names = {name: sent for name in global_names(function.__code__) if (sent := self._name(name)) is not None}
        return (
            _main.make_function,
            (function.__code__, function.__closure__),
            (self._sender.origin, names, attributes, slots, submodules),
            None,
            None,
            _main.set_function,
        )

    def _name(self, name: str) -> tuple[int] | tuple[int, Any] | None:
        """What to send for a global of `__main__`: `(version, value)`, `(version,)` if unbound, None for nothing."""
        if name not in self._names:
            self._names[name] = self._look_up(name)
        return self._names[name]

    def _look_up(self, name: str) -> tuple[int] | tuple[int, Any] | None:
        sender = self._sender
        if name in _NEVER_SENT:
            return None
        value = _main.namespace().get(name, ABSENT)
        if sender.to_parent:
            return None if value is ABSENT or _main.given(name) else (1, value)
        if not sender.versions.seen(name) and (
            (value is ABSENT and hasattr(builtins, name)) or sender.policy.inherited(name, value)
        ):
            return None
        # What the worker started with counts as version 1 there.
        version = sender.versions.of(name, value, first=2 if sender.policy.preset(name) else 1)
        return (version,) if value is ABSENT else (version, raw(value))

    # Classes

    def _class(self, cls: type) -> Any:
        ident = _classes.identity(cls)
        if not self._defining:
            self.mentioned[id(cls)] = cls
            return _classes.find, (ident,)
        attributes = _attributes(cls)
        members: dict[str, dict[str, Any]] = {}
        if issubclass(cls, enum.Enum):
            made_of: tuple[Any, ...] = (
                cls.__bases__,
                cls.__name__,
                cls.__qualname__,
                {name: member.value for name, member in cls.__members__.items()},
                cls.__module__,
            )
            for name in (*_OF_ENUM, *cls.__members__):
                attributes.pop(name, None)
            for name, member in cls.__members__.items():
                extra = {key: value for key, value in vars(member).items() if key not in _OF_MEMBER}
                if extra:
                    members[name] = extra
        else:
            made_of = _made_of(cls)
            attributes.pop("__slots__", None)
        state = (self._sender.origin, self._versions(ident, attributes), members)
        return _classes.make_class, (ident, issubclass(cls, enum.Enum), made_of), state, None, None, _classes.set_class

    def _versions(self, ident: str, attributes: dict[str, Any]) -> dict[str, tuple[int, Any]]:
        versions = self._sender.versions
        return {
            name: (versions.of((ident, name), value, by_identity=_is_fixed(name, value)), value)
            for name, value in attributes.items()
        }


def _made_of(cls: type) -> tuple[Any, ...]:
    """What a bare class is made of: metaclass, name, bases, and what must be in its body from the start."""
    metaclass, name, bases, body = cloudpickle._class_getnewargs(cls)[:4]
    # typing.NamedTuple as a base would make another named tuple, without fields.
    bases = tuple(tuple if base is typing.NamedTuple else base for base in bases)
    body["__qualname__"] = cls.__qualname__
    if "__slots__" in vars(cls):
        body["__slots__"] = vars(cls)["__slots__"]
    return metaclass, name, bases, body


def _attributes(cls: type) -> dict[str, Any]:
    """The attributes that a class defines itself, and that can be set on another."""
    attributes: dict[str, Any] = cloudpickle._class_getstate(cls)[0]
    for name in _NOT_ATTRIBUTES:
        attributes.pop(name, None)
    return attributes


def _is_fixed(name: str, value: object) -> bool:
    """Whether an attribute is taken for changed only when bound anew: dunders, and descriptors other than functions."""
    dunder = name.startswith("__") and name.endswith("__")
    return dunder or (hasattr(type(value), "__get__") and type(value) is not FunctionType)
