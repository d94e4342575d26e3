"""`Retry`: which failures are worth another try, and when. And the tries themselves, where they are made in Python.

Over processes the engine tries again (its `supervisor` has the protocol): a task that rests holds no worker. In
threads, and in place, it is `Trying`, around the function: the thread rests, at `Rests`, which whoever does not want
the task any more brings to an end. Over any other executor the lane submits again.

What threads share: `Rests._over` is only ever set, under the Condition that all within one executor have in common.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from ._remote import say

__all__ = ["Rests", "Retry", "Trying", "note", "wanted"]

# As long as a time that no clock of the engine's overflows by, and as often as it can count.
_LONGEST = 2**32
_MOST = 2**32 - 1


class Retry:
    """Whether and when a task that failed is tried again: for `retries=`, where a number is not enough.

    | attribute | what it is |
    |---|---|
    | `count` | how often at most, after the first time |
    | `wait` | seconds before the first of these tries; 0 is at once |
    | `factor` | by how much each wait is longer than the one before |
    | `max_wait` | the longest wait, in seconds |
    | `on` | the exceptions that are worth another try: a class, or a tuple of them |

    `on` is asked as `except` is. So `Exception`, the default, takes in a worker that crashed (`fanmap.WorkerCrashed`)
    and a task whose time was up (`fanmap.TaskTimeout`); `OSError` takes in the latter; and SystemExit and
    KeyboardInterrupt must be named.

    >>> import fanmap
    >>> patient = fanmap.Retry(5, wait=0.1, on=(ConnectionError, fanmap.TaskTimeout))
    >>> list(fanmap.map(abs, [-1, -2], retries=patient))
    [1, 2]
    >>> fanmap.shutdown()

    Raises ValueError for a number that is negative or too large, or a factor below 1; TypeError for what is no number,
    and an `on` that holds anything but exception classes.
    """

    __slots__ = ("count", "factor", "max_wait", "on", "wait")

    def __init__(
        self,
        count: int,
        *,
        wait: float = 0.0,
        factor: float = 2.0,
        max_wait: float = 60.0,
        on: type[BaseException] | tuple[type[BaseException], ...] = Exception,
    ) -> None:
        if isinstance(count, bool) or not isinstance(count, int):
            raise TypeError(f"the number of retries must be an int, not {type(count).__name__}")
        if not 0 <= count <= _MOST:
            raise ValueError(f"the number of retries must be at least 0 and at most {_MOST}, but is {count}")
        self.count = count
        self.wait = _number("wait", wait, 0)
        self.factor = _number("factor", factor, 1)
        self.max_wait = _number("max_wait", max_wait, 0)
        classes = on if isinstance(on, tuple) else (on,)
        for one in classes:
            if not (isinstance(one, type) and issubclass(one, BaseException)):
                raise TypeError(f"on must be an exception class or a tuple of them, and {one!r} is none")
        if not classes:
            raise ValueError("on must name at least one exception class: for no retries, give a count of 0")
        self.on = classes

    def __repr__(self) -> str:
        on = ", ".join(one.__qualname__ for one in self.on)
        return f"Retry({self.count}, wait={self.wait}, factor={self.factor}, max_wait={self.max_wait}, on=({on},))"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Retry):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __hash__(self) -> int:
        return hash((self.count, self.wait, self.factor, self.max_wait, self.on))

    def rest(self, tries: int) -> float | None:
        """How many seconds to rest, after a task was tried again so often; None if it is not any more."""
        if tries >= self.count:
            return None
        try:
            return min(self.wait * self.factor**tries, self.max_wait)
        except OverflowError:
            return self.max_wait if self.wait else 0.0


def _number(name: str, value: Any, least: int) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if not least <= value <= _LONGEST:
        raise ValueError(f"{name} must be at least {least} and at most {_LONGEST}, but is {value}")
    return float(value)


def wanted(retries: Any) -> Retry | None:
    """What was asked for by `retries=`: None if nothing was."""
    if retries is None or isinstance(retries, Retry):
        return retries
    if isinstance(retries, bool) or not isinstance(retries, int):
        raise TypeError(f"retries must be an int, a fanmap.Retry or None, not {type(retries).__name__}")
    return Retry(retries)


class Rests:
    """Where threads rest before they try again, until nobody wants that; `within` those of a whole executor."""

    def __init__(self, within: Rests | None = None) -> None:
        self._within = within
        self._condition: threading.Condition = threading.Condition() if within is None else within._condition
        self._over = False

    def rest(self, seconds: float) -> bool:
        """Rest for so long; false if there is to be no further try."""
        with self._condition:
            return not self._condition.wait_for(self._is_over, seconds)

    def end(self) -> None:
        """Nobody rests here any more: what failed has failed."""
        with self._condition:
            self._over = True
            self._condition.notify_all()

    def _is_over(self) -> bool:
        return self._over or (self._within is not None and self._within._is_over())


class Trying:
    """A function that is called again if it fails, on the thread that calls it."""

    def __init__(self, fn: Callable[..., Any], retry: Retry, rests: Rests) -> None:
        self._fn = fn
        self._retry = retry
        self._rests = rests

    def __call__(self, *args: Any, **named: Any) -> Any:
        earlier: list[str] = []
        while True:
            try:
                return self._fn(*args, **named)
            except self._retry.on as error:
                rest = self._retry.rest(len(earlier))
                if rest is None or not self._rests.rest(rest):
                    note(error, earlier)
                    raise
                earlier.append(say(error))


def note(error: BaseException, earlier: Iterable[str]) -> None:
    """Have the last error say what the attempts before came to."""
    with suppress(TypeError):  # somebody has put something else in the place of its notes
        for at, said in enumerate(earlier, 1):
            error.add_note(f"attempt {at} failed: {said}")
