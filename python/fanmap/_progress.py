"""How far a map is, shown to whoever waits for it: by a bar of tqdm's, or by a function of the user's.

What counts are items whose results were handed out. The display is told of them a few times a second, and once at the
end: so it costs nothing for each item.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, TypeAlias

__all__ = ["Progress", "Shown", "check", "shown"]

# What a user may ask for.
Shown: TypeAlias = bool | str | Callable[[int, int | None], object]

# Seconds between two looks. Shorter, and a display that is slow (a notebook's, a file's) would be felt; longer, and it
# moves in jerks.
_INTERVAL = 0.1


class Progress:
    """One map's, from its first question for a result to its end."""

    def __init__(self, wish: Shown, length: int) -> None:
        self._wish = wish
        # Where the input does not tell its length, the display knows none.
        self._total = length or None
        self._show: Callable[[int, int | None], object] | None = None
        self._bar: Any = None
        self._next_look = 0.0

    def at(self, done: int) -> None:
        """So many items are done; shown if there was no look for a while."""
        now = monotonic()
        if now >= self._next_look:
            self._next_look = now + _INTERVAL
            self._tell(done)

    def end(self, done: int) -> None:
        """Nothing more comes: shown in any case, and the bar is closed."""
        if self._show is None:
            return  # it never began
        try:
            self._tell(done)
        finally:
            if self._bar is not None:
                self._bar.close()

    def _tell(self, done: int) -> None:
        if self._show is None:
            self._show = self._wish if callable(self._wish) else self._open_bar()
        self._show(done, self._total)

    def _open_bar(self) -> Callable[[int, int | None], object]:
        label = self._wish if isinstance(self._wish, str) else None
        bar = self._bar = _tqdm()(total=self._total, desc=label)
        return lambda done, _: bar.update(done - bar.n)


def shown(wish: Shown, length: int) -> Progress | None:
    """What shows the progress of a map over so many items, if it is to be shown."""
    return Progress(wish, length) if wish or isinstance(wish, str) else None


def check(wish: Any) -> None:
    """That it can be shown: an error at the call, not when the first result comes."""
    if wish is None or callable(wish):
        return
    if not isinstance(wish, (bool, str)):
        raise TypeError(
            f"progress must be True, a label, or a function of the items done and their total or None, "
            f"not {type(wish).__name__}"
        )
    if wish is not False:
        _tqdm()


def _tqdm() -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError(
            "progress=True shows a bar by tqdm, which is not installed: pip install 'fanmap[progress]'. "
            "Or give a function of the items done and their total."
        ) from error
    return tqdm
