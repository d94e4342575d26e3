"""What the family puts around a user's function, so that a worker gives back no more than is wanted.

A worker imports this module when it is sent one of them, as it does the module of any class.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Nothing", "Truth"]


class _Around:
    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn
        self.__qualname__ = getattr(fn, "__qualname__", repr(fn))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._fn,)


class Truth(_Around):
    """Whether the function says yes: what it gives may be large, or unable to travel."""

    def __call__(self, item: Any) -> bool:
        return bool(self._fn(item))


class Nothing(_Around):
    """Calls the function, and gives back nothing."""

    def __call__(self, *args: Any) -> None:
        self._fn(*args)
