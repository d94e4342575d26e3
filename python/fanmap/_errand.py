"""What runs on a cluster's worker: a batch of calls. It travels by value, so that nothing there imports fanmap.

So it names nothing but the standard library, and `_remote`'s encoding of exceptions, which travels along (`by_value`).

**A batch is somebody's.** Whoever claims it first at the board has it: the worker that begins it, or the program that
takes it back to cancel one of its calls. So a call that was cancelled never runs, and one that runs is not cancelled.

**Nothing waits behind a slow call.** A batch that is not done in time hands back what it has not begun, while the slow
call runs: `end` is moved, under a lock that is held between one call and the next, and the program is told. What it
misses it learns from the batch's own result.
"""

from __future__ import annotations

import pickle
import sys
import threading
from collections import OrderedDict
from time import perf_counter
from types import ModuleType

from ._remote import encode_exception

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    # A pickle and its buffers; a number stands for one of the batch's parts, which are sent apart.
    Packed: TypeAlias = tuple[Any, ...]
    # Whether the call returned, and its packed value or its encoded exception.
    Outcome: TypeAlias = tuple[bool, Any]
    # What became of a batch ("run", "void", "lost"); how many calls it kept; their outcomes; the seconds they took.
    Report: TypeAlias = tuple[str, int, list[Outcome], float]

__all__ = ["ATOMS", "LARGE", "begun", "claim", "kept", "pack", "run", "take_back", "unpack"]

# From how many bytes on a buffer travels apart. Less, and the store is asked for what would fit in the message.
LARGE = 1 << 16
# How much of outcomes a message about a slow call may carry: it goes by way of one process for all.
_MOST_TOLD = 1 << 18
# How many maps' functions a worker keeps. Fewer, and maps side by side load theirs for each batch; more is memory.
_KEPT = 2
# What any pickler pickles alike.
ATOMS = (int, float, str, bool, type(None))


# The board: how many workers have begun each batch; 0 says that it was taken back. Its keeper (an actor, the scheduler)
# calls these from one thread. They are no class: by value, one comes out as itself where it was made.


def claim(board: dict[int, int], batch: int, oldest: int, most: int) -> str:
    """A worker asks whether to run a batch: "run", "void" if it was taken back, "lost" after `most` other workers."""
    for gone in [number for number in board if number < oldest]:
        del board[gone]
    times = board.get(batch)
    if times == 0:
        return "void"
    if times is not None and times >= most:
        return "lost"
    board[batch] = (times or 0) + 1
    return "run"


def take_back(board: dict[int, int], batch: int) -> bool:
    """Whether a batch is now the program's: no worker has begun it, and none will."""
    return board.setdefault(batch, 0) == 0


def begun(board: dict[int, int], batch: int) -> bool:
    """Whether a worker has begun a batch."""
    return board.get(batch, 0) > 0


def run(
    batch: int,
    function: tuple[str | None, Packed],
    calls: list[Packed],
    parts: Sequence[Any],
    patience: float,
    allowed: Callable[[int], str],
    tell: Callable[[bytes], object],
    dumps: Callable[..., bytes],
) -> Report:
    """Run a batch, if it is still `allowed`. `tell` is given what is handed back after `patience` seconds."""
    verdict = allowed(batch)
    if verdict != "run":
        return verdict, 0, [], 0.0
    outcomes: list[Outcome] = []
    end = len(calls)
    between = threading.Lock()

    def hand_back() -> None:
        nonlocal end
        with between:
            if len(outcomes) + 1 >= end:
                return
            end = len(outcomes) + 1
            done = outcomes[:]
        told = pickle.dumps((batch, end, done), protocol=5)
        tell(told if len(told) <= _MOST_TOLD else pickle.dumps((batch, end, []), protocol=5))

    timer = threading.Timer(patience, hand_back)
    timer.daemon = True
    if end > 1:
        timer.start()
    began = perf_counter()
    while True:
        # Not in `hand_back`'s way: this thread alone adds outcomes.
        outcome = _call(function, calls[len(outcomes)], parts, dumps)
        with between:
            outcomes.append(outcome)
            if len(outcomes) >= end:
                break
    seconds = perf_counter() - began
    timer.cancel()
    return verdict, end, outcomes, seconds


def _call(
    function: tuple[str | None, Packed], call: Packed, parts: Sequence[Any], dumps: Callable[..., bytes]
) -> Outcome:
    what = "its function"
    try:
        fn = _load(function, parts)
        what = "its arguments"
        args, named = unpack(call, parts)
        what = ""
        value = fn(*args, **named)
        what = "its result"
        return True, pack(value, dumps)
    except BaseException as error:
        if what:
            verb = "pickled" if what == "its result" else "unpickled in the worker"
            error.add_note(f"(raised when {what} could not be {verb})")
        # Without this frame, which is none of the user's.
        trace = error.__traceback__
        return False, encode_exception(error.with_traceback((trace and trace.tb_next) or trace), dumps)


def _load(function: tuple[str | None, Packed], parts: Sequence[Any]) -> Any:
    """The function: that of a map is loaded once, that of a submitted call for each."""
    key, packed = function
    if key is None:
        return unpack(packed, parts)
    known: OrderedDict[str, Any] = kept().setdefault("functions", OrderedDict())
    try:
        return known[key]
    except KeyError:
        fn = known[key] = unpack(packed, parts)
    if len(known) > _KEPT:
        known.popitem(last=False)
    return fn


def kept() -> dict[str, Any]:
    """What a worker keeps: in a module that is no file's, for this code may itself be loaded anew for each batch."""
    return sys.modules.setdefault("_fanmap_kept", ModuleType("_fanmap_kept")).__dict__


def pack(value: object, dumps: Callable[..., bytes]) -> Packed:
    """A pickle and its large buffers."""
    if type(value) in ATOMS:
        return (pickle.dumps(value, protocol=5),)
    buffers: list[pickle.PickleBuffer] = []

    def in_band(buffer: pickle.PickleBuffer) -> bool:
        with memoryview(buffer) as view:
            small = view.nbytes < LARGE
        if not small:
            buffers.append(buffer)
        return small

    return dumps(value, protocol=5, buffer_callback=in_band), *buffers


def unpack(packed: Packed, parts: Sequence[Any]) -> Any:
    """What was packed."""
    data, *buffers = (parts[part] if type(part) is int else part for part in packed)
    return pickle.loads(data, buffers=buffers)
