"""What a map reads its items from: one input, or several in step."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ._fixed import times

__all__ = ["Source", "in_step", "of_tuples"]

# Inputs whose next item is always at hand.
_PROMPT = (list, tuple, range, str, bytes, bytearray, dict, set, frozenset, itertools.repeat)


class Source(NamedTuple):
    """The items of a map: each a single argument, or a tuple of them."""

    items: Iterator[Any]
    # Whether an item is always at hand, so that many may be read at a time.
    prompt: bool
    # How many there are, as far as the input tells; 0 if it does not.
    length: int


def in_step(iterables: tuple[Iterable[Any], ...], *, strict: bool = False) -> Source:
    """The items of one input, or tuples of those of several: to the shortest, or (`strict`) all of one length."""
    if len(iterables) == 1:
        (only,) = iterables
        return Source(iter(only), _is_prompt(only), operator.length_hint(only, 0))
    items = _all_of_one_length([iter(iterable) for iterable in iterables]) if strict else zip(*iterables, strict=False)
    # What is repeated for ever ends no map, so it does not count. Without any input there is nothing to map: the
    # standard library's executors allow that.
    ending = [one for one in iterables if type(one) is not itertools.repeat or times(one) is not None]
    length = min((operator.length_hint(iterable, 0) for iterable in ending), default=0)
    return Source(items, all(_is_prompt(iterable) for iterable in iterables), length)


def of_tuples(iterable: Iterable[Iterable[Any]]) -> Source:
    """The items of an input that gives all arguments of a call together."""
    return Source(map(tuple, iterable), _is_prompt(iterable), operator.length_hint(iterable, 0))


def _is_prompt(iterable: Iterable[Any]) -> bool:
    return type(iterable) in _PROMPT


def _all_of_one_length(iterators: list[Iterator[Any]]) -> Iterator[tuple[Any, ...]]:
    """As `zip` with `strict`, with the words of the built-in `map`, which knows it since Python 3.14."""
    end = object()
    while True:
        item = []
        for place, iterator in enumerate(iterators):
            value = next(iterator, end)
            if value is end:
                if place > 0:
                    raise ValueError(f"map() argument {place + 1} is shorter than {_those_before(place)}")
                for later, other in enumerate(iterators[1:], 1):
                    if next(other, end) is not end:
                        raise ValueError(f"map() argument {later + 1} is longer than {_those_before(later)}")
                return
            item.append(value)
        yield tuple(item)


def _those_before(place: int) -> str:
    return "argument 1" if place == 1 else f"arguments 1-{place}"
