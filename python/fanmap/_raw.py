"""Large exact `bytes` and `bytearray`, which pickle itself takes in band, as buffers that travel beside the pickle.

They are replaced where they are likely to be: an item or a result itself, the arguments of a call, and what a function
carries in a `functools.partial`, a cell, a global of `__main__` or an `itertools.repeat` of a map. Elsewhere (in a
list, say) pickle meets them alone, and they are copied with the rest.
"""

from __future__ import annotations

import pickle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["LARGE", "is_partial", "raw", "reduce_partial"]

# A buffer smaller than this goes in band: its copy costs less than a blob's bookkeeping. One larger would be copied
# twice more than it need be.
LARGE = 64 * 1024
# Longer tuples than this are sooner pickled than looked through.
_SHORT = 8


class Raw:
    """Bytes whose copying is to be left to the other side: pickle itself takes exact `bytes` in band."""

    __slots__ = ("raw",)

    def __init__(self, raw: bytes | bytearray) -> None:
        self.raw = raw

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self.raw), (pickle.PickleBuffer(self.raw),)


def raw(obj: Any, made: dict[int, Any] | None = None) -> Any:
    """The same, with large exact `bytes` at its top, or among the arguments of a call, to be sent out of band.

    What was put in the place of an object is in `made`, by identity: one that occurs twice arrives as one. Only one
    that occurs inside of something else as well (a list, keyword arguments), where pickle meets it alone, arrives as
    two. The objects must live for as long as `made` does.
    """
    if made is None:
        made = {}
    kind = type(obj)
    if kind is bytes or kind is bytearray:
        if len(obj) < LARGE:
            return obj
        new = made.get(id(obj))
        if new is None:
            new = made[id(obj)] = Raw(obj)
        return new
    if kind is tuple and len(obj) <= _SHORT:
        new = made.get(id(obj))
        if new is None:
            new = tuple([raw(one, made) for one in obj])
            if all(one is other for one, other in zip(new, obj, strict=True)):
                return obj
            made[id(obj)] = new
        return new
    return obj


def is_partial(kind: type) -> bool:
    """Whether it is `functools.partial`, which need not be imported for that."""
    return kind.__name__ == "partial" and kind.__module__ == "functools"


def reduce_partial(partial: Any) -> tuple[Any, ...]:
    """Its own reduction, with large `bytes` among its arguments to be sent out of band."""
    make, called, (function, args, named, rest) = partial.__reduce__()
    made: dict[int, Any] = {}
    named = {name: raw(value, made) for name, value in named.items()}
    return make, called, (function, tuple([raw(one, made) for one in args]), named, rest)
