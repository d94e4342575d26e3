"""`Failure`: what stands in the place of an item that failed, where the user asked for that."""

from __future__ import annotations

from typing import Any

__all__ = ["Failure"]


class Failure:
    """An item that failed, in the place of its result: what `fanmap.map(..., on_error="return")` gives for it.

    `index` is its number in the input, `item` the item itself (with several inputs, the tuple of arguments), `error`
    the exception. It is a class of its own and no exception, so that it can be told from whatever a function returns:

    >>> import fanmap
    >>> results = list(fanmap.map(int, ["1", "two", "3"], executor="threads", on_error="return"))
    >>> [result for result in results if not isinstance(result, fanmap.Failure)]
    [1, 3]
    >>> results[1]
    Failure(index=1, item='two', error=ValueError("invalid literal for int() with base 10: 'two'"))
    >>> fanmap.shutdown()
    """

    __slots__ = ("error", "index", "item")
    __match_args__ = ("index", "item", "error")

    def __init__(self, index: int, item: Any, error: BaseException) -> None:
        self.index = index
        self.item = item
        self.error = error

    def __repr__(self) -> str:
        return f"Failure(index={self.index!r}, item={self.item!r}, error={self.error!r})"
