"""An argument that is the same for every item, as part of the function.

`map(f, items, itertools.repeat(x))` would send `x` with each item. It is taken out of the input instead, and travels
once to each worker, as what a `functools.partial` holds does.
"""

from __future__ import annotations

import itertools

from ._raw import raw

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

__all__ = ["Fixed", "fix", "times"]


class Fixed:
    """A function with some of its positional arguments set, by their places."""

    def __init__(self, fn: Callable[..., Any], arguments: tuple[tuple[int, Any], ...]) -> None:
        self._fn = fn
        self._arguments = arguments
        self.__qualname__ = getattr(fn, "__qualname__", repr(fn))

    def __call__(self, *args: Any) -> Any:
        whole = list(args)
        for place, value in self._arguments:
            whole.insert(place, value)
        return self._fn(*whole)

    def over(self, items: Iterable[Any]) -> Iterator[Any]:
        """The built-in `map` over items that are one argument each: faster than a call of this for each."""
        inputs: list[Iterable[Any]] = [items]
        for place, value in self._arguments:
            inputs.insert(place, itertools.repeat(value))
        return map(self._fn, *inputs)

    def __reduce__(self) -> tuple[Any, ...]:
        made: dict[int, Any] = {}
        return Fixed, (self._fn, tuple((place, raw(value, made)) for place, value in self._arguments))


def fix(
    fn: Callable[..., Any], iterables: tuple[Iterable[Any], ...]
) -> tuple[Callable[..., Any], tuple[Iterable[Any], ...]]:
    """The same map with what `itertools.repeat` gives for every item made part of the function."""
    repeats = [place for place, iterable in enumerate(iterables) if type(iterable) is itertools.repeat]
    if not repeats or len(repeats) == len(iterables):
        return fn, iterables
    others = [iterable for place, iterable in enumerate(iterables) if place not in repeats]
    lengths = [times(iterables[place]) for place in repeats]
    finite = [length for length in lengths if length is not None]
    if 0 in finite:
        return fn, iterables  # the map is empty, and there is nothing to take
    arguments = tuple((place, next(iter(iterables[place]))) for place in repeats)
    if finite:
        others[0] = itertools.islice(others[0], min(finite))
    return Fixed(fn, arguments), tuple(others)


def times(repeat: Any) -> int | None:
    """How often an `itertools.repeat` gives what it gives; None is for ever."""
    try:
        left: int = repeat.__length_hint__()  # `operator.length_hint` takes its TypeError for 0
    except TypeError:
        return None
    return left
