"""What a call looked like, from its pickle, without running anything of it.

When a worker died, the parent has of the call what it sent: bytes. To unpickle them here would call code of the user's,
perhaps the very code that killed the worker. So every class and function that the pickle names is replaced by a
stand-in, which remembers what it was made from: plain data comes out as it is, `Point(x=1, y=2)` as it was written, an
array by its shape.
"""

from __future__ import annotations

import itertools
import pickle
from io import BytesIO
from reprlib import Repr, recursive_repr
from typing import Any

from . import _classes, _native

__all__ = ["sketch"]

# Longer, and an error's message is about the item and not about what happened.
_LONGEST = 80
# Larger pickles are not looked into: in some hundredths of a second this much is.
_LARGEST = 4 << 20
# Stands for every buffer that travelled apart.
_BUFFER = b"..."

# The place of a code object's name among the arguments that it is made from.
_CODE_NAME = 11

_repr = Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 60
_repr.maxlevel = 4


def sketch(name: str, arguments: bytes, place: int | None) -> str:
    """The call of a function: `f(1, 'a')`. `name` is preceded by how it is called, as in `_worker`; `place` says which
    argument of a run it is.
    """
    how, name = name[:1], name[1:]
    if len(arguments) > _LARGEST:
        return f"{name}(...)"
    try:
        numbers = None if place is None else _native.unpack_numbers(arguments)
        # An endless supply of buffers, whose contents do not matter.
        given = numbers or _Unpickler(BytesIO(arguments), buffers=itertools.repeat(_BUFFER)).load()
        if place is not None:
            given = given[place]
        args, named = given if how == "k" else (given if how == "*" else (given,), {})
        text = _batch(args) or f"{name}({_list(args, named)})"
    except Exception:
        return f"{name}(...)"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _list(args: Any, named: dict[str, Any]) -> str:
    words = [_repr.repr(one) for one in itertools.islice(args, _LONGEST)]
    words += [f"{name}={_repr.repr(one)}" for name, one in itertools.islice(named.items(), _LONGEST)]
    return ", ".join(words)


def _batch(args: Any) -> str:
    """The calls of a batch of joblib's, if that is what was sent; else nothing."""
    if len(args) != 1 or type(args[0]).__name__ != "BatchedCalls":
        return ""
    calls = itertools.islice(args[0]._args[0], _LONGEST)
    return ", ".join(f"{_name(function)}({_list(args, named)})" for function, args, named in calls)


def _name(function: Any) -> str:
    """What a function is called by: that of `__main__` by the name in its code."""
    if type(function).__name__ == "make_function":
        return str(function._args[0]._args[_CODE_NAME])
    return repr(function)


class _Named(type):
    """A class or function that is not there."""

    def __repr__(cls) -> str:
        return cls.__name__


class _StandIn(metaclass=_Named):
    """What a call of such a class or function gave: the call itself, and what was done to it then."""

    _args: tuple[Any, ...]
    _named: dict[str, Any]

    def __new__(cls, *args: Any, **named: Any) -> _StandIn:
        made = super().__new__(cls)
        made._args, made._named = args, named
        return made

    def __init__(self, *args: Any, **named: Any) -> None:
        pass

    def __call__(self, *args: Any, **named: Any) -> _StandIn:
        return type(self)(*args, **named)

    def __setstate__(self, state: Any) -> None:
        slots: Any = None
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
            state, slots = state
        for part in (state, slots):
            if isinstance(part, dict):
                self._named = {**self._named, **{str(name): value for name, value in part.items()}}
            elif part is not None:
                self._args = (*self._args, part)

    def append(self, item: Any) -> None:
        """What a pickle does to a subclass of list; the contents of those do not matter."""

    extend = add = update = append

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    @recursive_repr()
    def __repr__(self) -> str:
        name, args = type(self).__name__, self._args
        if name == "_frombuffer" and len(args) >= 4:  # an array of numpy's
            return f"array(shape={args[2]!r}, dtype={args[1]._args[0]!r})"
        if name == "make_function":  # of `__main__`, from its code
            return f"<function {_name(self)}>"
        return f"{name}({_list(args, self._named)})"


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == _classes.__name__:
            return {"find": _class_by_identity, "load": _nothing}[name]
        return _Named(name, (_StandIn,), {})


def _class_by_identity(ident: str) -> Any:
    return _Named(type.__getattribute__(_classes.find(ident), "__name__"), (_StandIn,), {})


def _nothing(*_: Any) -> None:
    """What the definition of a class does here: it is known."""
