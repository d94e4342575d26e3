"""The desk of an executor over a cluster: the calls that wait, the batches that are at the cluster, and their futures.

A cluster runs a few hundred tasks a second for each program, so tiny calls go there together, as many as fill some
milliseconds by their measured time (`_batches`). Each keeps an outcome of its own.

**Who does what.** It has the calls that wait, in the order they came, and hands a few batches more to the cluster than
that has room for, so that no worker waits. One thread of the desk does this, and settles futures, by
events: a call came, a batch ended, a slow call let others go (`_errand`). What else is shared is under `_lock`: the
queue, the batches that are at the cluster, and of each call which of these it is in. Nothing blocks under it.

**Cancelling.** A call in the queue is simply cancelled. For one that is at the cluster the batch is taken back at the
board, which says no if a worker has begun it. A batch that was taken back comes home "void", and its other calls go to
the head of the queue.

**A worker that is lost** took with it what it had not told. If that was one call, this call is lost. Of several
nobody knows which one it ran: each is sent again, alone, and the one that loses its worker once more is it.
"""

from __future__ import annotations

import itertools
import os
import pickle
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, InvalidStateError
from contextlib import suppress
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from . import _lifecycle
from ._batches import Batch, Cluster, Lost, batch_size, inline, size_of
from ._batches import digest as digest_of
from ._errand import ATOMS, LARGE, pack, unpack
from ._errors import WorkerCrashed, undecodable
from ._remote import decode_exception, detach
from ._sketch import sketch

if TYPE_CHECKING:
    from ._errand import Outcome, Packed, Report

__all__ = ["ClusterFuture", "Desk"]

T = TypeVar("T")

# Bytes of calls that make a batch at most, and that a map has under way at most.
_BATCH_BYTES = 1 << 20
_MAP_BYTES = 1 << 28
# Calls that a map has under way at most, for each worker. Fewer, and the tiniest fill no batch.
_AHEAD = 2048
# How much of the mean of a function's times the last batch makes.
_WEIGHT = 0.3
# How many functions and large arguments are remembered at the cluster. Fewer, and those used in turn are sent again and
# again; more is the cluster's memory for what is needed no more.
_REMEMBERED = 16
# Seconds for which the cluster's size is believed.
_SIZE_HOLDS = 1.0
_GONE = "the program has closed its connection to the cluster; make a new executor over a new one"


class Function:
    """A function as it was when it was packed."""

    def __init__(self, key: str | None, packed: Packed, name: str, digest: bytes) -> None:
        self.key = key
        self.packed = packed
        self.name = name
        self.digest = digest


class ClusterFuture(Future[T]):
    """The outcome of a call at a cluster, now or later: a true `concurrent.futures.Future`."""

    def __init__(self, desk: Desk, function: Function, packed: Packed, size: int, item: int | None) -> None:
        super().__init__()
        self._desk = desk
        self._function = function
        self._packed = packed
        self._item = item
        self._bytes = size
        # Cancelled, or about to be.
        self._unwanted = False
        self._retries = desk.retries
        # Not to be put with others: it is suspected of having lost a worker.
        self._alone = False
        # The batch that it is in, at the cluster.
        self._batch: int | None = None

    def cancel(self) -> bool:
        """Cancel the call, unless a worker has begun its batch. Asks the cluster if it is there."""
        return self._desk.cancel(self)

    def running(self) -> bool:
        """Whether a worker has begun its batch. Asks the cluster if it is there."""
        number = self._batch
        cluster = self._desk.cluster
        if number is None or self.done() or not cluster.alive():
            return False
        return cluster.begun(number) and not self.done()

    def _make_cancelled(self) -> bool:
        """Whether it is cancelled now; who waits is told. Not under the desk's lock: callbacks are called."""
        if not super().cancel():
            return False
        with suppress(InvalidStateError, RuntimeError):  # another thread may have said so before
            if self._state == "CANCELLED":
                self.set_running_or_notify_cancel()
        return True


class _Flying:
    """A batch at the cluster."""

    def __init__(self, calls: list[ClusterFuture[Any]]) -> None:
        self.calls = calls
        # How many of them are settled: the first ones.
        self.settled = 0
        # Whether it was taken back or, False, a worker has begun it; None if nobody has asked.
        self.taken_back: bool | None = None


class Desk:
    """Where calls wait, and what is at the cluster. It knows nothing of the executor, which may be dropped."""

    def __init__(self, cluster: Cluster, most: int | None, batches: bool, retries: int) -> None:
        self.cluster = cluster
        self.retries = retries
        self.under_way = 0
        self._most = most
        self._batches = batches
        self._owner = os.getpid()
        # Its holder may take it again: a collection of garbage may drop the executor wherever memory is asked for.
        self._lock = threading.RLock()
        self._waiting: deque[ClusterFuture[Any]] = deque()
        self._flying: dict[int, _Flying] = {}
        self._numbers = itertools.count()
        self._closing = False
        # Whether the thread has been told that there is something in the queue.
        self._woken = False
        self._times: OrderedDict[bytes, float] = OrderedDict()
        self._functions: OrderedDict[bytes, Function] = OrderedDict()
        self._parts: OrderedDict[bytes, Any] = OrderedDict()
        self._size = 1
        self._sized = 0.0
        self._events: SimpleQueue[Any] = SimpleQueue()
        cluster.begin(self._events)
        self.thread = threading.Thread(target=self._serve, name="fanmap-cluster", daemon=True)
        self.thread.start()
        _lifecycle.at_exit(self)

    # What goes there

    def function(self, fn: Callable[..., Any], *, of_map: bool) -> Function:
        """A snapshot of a function. Its large buffers, if they are known there, are not sent again."""
        name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
        try:
            packed = pack(fn, self.cluster.cloudpickle.dumps)
        except Exception as error:
            error.add_note(f"(raised when {name} could not be pickled)")
            raise
        digest = digest_of(packed)
        with self._lock:
            known = self._functions.get(digest)
        if known is None:
            known = Function(None, self._placed(packed, for_all=True), name, digest)
            with self._lock:
                _remember(self._functions, digest, known)
        # A map has copies of its own, whatever another one did to its.
        return Function(os.urandom(8).hex(), known.packed, known.name, digest) if of_map else known

    def submit(
        self, function: Function, args: tuple[Any, ...], named: dict[str, Any], item: int | None = None
    ) -> ClusterFuture[Any]:
        self.check_open()
        trouble = "pickled"
        try:
            plain = not named and all(type(one) in ATOMS for one in args)
            whole = pack((args, named), pickle.dumps if plain else self.cluster.cloudpickle.dumps)
            trouble = "put at the cluster"
            packed = self._placed(whole, for_all=False)
        except Exception as error:
            what = function.name if item is None else f"item {item}, {function.name},"
            error.add_note(f"(raised when the arguments of {what} could not be {trouble})")
            failed: ClusterFuture[Any] = ClusterFuture(self, function, (), 0, item)
            failed.set_exception(detach(error))
            return failed
        future: ClusterFuture[Any] = ClusterFuture(self, function, packed, sum(map(size_of, whole)), item)
        with self._lock:
            if self._closing:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._waiting.append(future)
            self.under_way += future._bytes
            wake = not self._woken and len(self._flying) < 2 * self._size
            self._woken |= wake
        if wake:
            self._events.put(None)
        return future

    def _placed(self, packed: Packed, *, for_all: bool) -> Packed:
        """The same with what is large at the cluster: once, as long as its bytes are the same."""
        return tuple(self._put(part, for_all) if size_of(part) >= LARGE else inline(part) for part in packed)

    def _put(self, part: Any, for_all: bool) -> Any:
        digest = digest_of((part,))
        with self._lock:
            known = self._parts.get(digest)
        if known is None:
            known = self.cluster.put(part, for_all=for_all)
            with self._lock:
                _remember(self._parts, digest, known)
        return known

    # What comes back

    def _serve(self) -> None:
        while True:
            event = self._events.get()
            if event is None:
                with self._lock:
                    self._woken = False
            elif isinstance(event, bytes):
                self._told(*pickle.loads(event))
            else:
                self._ended(*event)
            if self.cluster.alive():
                self._hand_over()
            else:
                self._fail_all()
            with self._lock:
                if self._closing and not self._waiting and not self._flying:
                    break
        self._functions.clear()
        self._parts.clear()
        self.cluster.close()

    def _fail_all(self) -> None:
        with self._lock:
            calls = [call for one in self._flying.values() for call in one.calls[one.settled :]] + [*self._waiting]
            self._flying.clear()
            self._waiting.clear()
        for call in calls:
            self._finish(call, error=BrokenExecutor(_GONE))

    def _hand_over(self) -> None:
        while True:
            now = monotonic()
            if now - self._sized > _SIZE_HOLDS:
                self._sized = now
                with suppress(Exception):  # it is gone for the moment, or `start` will say so
                    self._size = max(1, min(self.cluster.size(), self._most or 2**31))
            with self._lock:
                if len(self._flying) >= 2 * self._size:
                    return
                calls = self._next()
                if not calls:
                    return
                number = next(self._numbers)
                self._flying[number] = _Flying(calls)
                oldest = next(iter(self._flying))
                for call in calls:
                    call._batch = number
            try:
                self.cluster.start(self._batch(number, oldest, calls))
            except BaseException as error:
                self._ended(number, error)

    def _next(self) -> list[ClusterFuture[Any]]:
        """The calls of the next batch: of one function, in their order."""
        waiting = self._waiting
        calls: list[ClusterFuture[Any]] = []
        count, size = 1, 0
        while waiting and len(calls) < count:
            call = waiting[0]
            if call._unwanted:
                waiting.popleft()
                self.under_way -= call._bytes
                continue
            if calls and (call._alone or call._function is not calls[0]._function or size + call._bytes > _BATCH_BYTES):
                break
            calls.append(waiting.popleft())
            size += call._bytes
            if len(calls) == 1 and self._batches and not call._alone:
                count = batch_size(len(waiting) + 1, self._size, self._times.get(call._function.digest))
        return calls

    @staticmethod
    def _batch(number: int, oldest: int, calls: list[ClusterFuture[Any]]) -> Batch:
        parts: list[Any] = []
        places: dict[int, int] = {}

        def with_numbers(packed: Packed) -> Packed:
            return tuple(part if isinstance(part, bytes) else place(part) for part in packed)

        def place(part: Any) -> int:
            at = places.setdefault(id(part), len(parts))
            if at == len(parts):
                parts.append(part)
            return at

        function = calls[0]._function
        retries = calls[0]._retries if len(calls) == 1 else 0
        packed = [with_numbers(call._packed) for call in calls]
        return Batch(number, oldest, (function.key, with_numbers(function.packed)), packed, parts, retries)

    def _told(self, number: int, end: int, outcomes: list[Outcome]) -> None:
        """A batch has handed back its calls from `end` on, and may have told the outcomes of the first ones."""
        with self._lock:
            flying = self._flying.get(number)
            if flying is None or len(flying.calls) <= end:
                return  # it has ended meanwhile
            self._again(flying.calls[end:])
            del flying.calls[end:]
        self._settle(flying, outcomes)

    def _ended(self, number: int, report: Report | Lost | BaseException) -> None:
        with self._lock:
            flying = self._flying.pop(number, None)
            if flying is None:
                return
        if isinstance(report, tuple) and not isinstance(report, Lost):
            verdict, end, outcomes, seconds = report
            if verdict == "run":
                with self._lock:
                    self._again(flying.calls[end:])
                    del flying.calls[end:]
                    self._note(flying.calls[0]._function.digest, seconds / end)
                self._settle(flying, outcomes)
                return
            report = Lost("its worker is gone") if verdict == "lost" else report
        calls = flying.calls[flying.settled :]
        if (isinstance(report, tuple) and not isinstance(report, Lost)) or all(call._unwanted for call in calls):
            # It was taken back, and perhaps dropped, which may be told as an error or a loss.
            with self._lock:
                self._again(calls)
        elif isinstance(report, Lost):
            self._lost(calls, report)
        else:
            for call in calls:
                self._finish(call, error=report)

    def _lost(self, calls: list[ClusterFuture[Any]], lost: Lost) -> None:
        for call in calls:
            if len(calls) == 1 and (call._alone or not call._retries):
                self._finish(call, error=_crash(call, lost))
                return
            # Alone it is the engine that tries again.
            call._retries -= len(calls) == 1
            call._alone = True
        with self._lock:
            self._again(calls)

    def _again(self, calls: list[ClusterFuture[Any]]) -> None:
        """To the head of the queue, in their order. Under the lock."""
        for call in calls:
            call._batch = None
        self._waiting.extendleft(reversed(calls))

    def _note(self, digest: bytes, seconds: float) -> None:
        before = self._times.get(digest)
        mean = seconds if before is None else before + _WEIGHT * (seconds - before)
        _remember(self._times, digest, mean)

    def _settle(self, flying: _Flying, outcomes: list[Outcome]) -> None:
        """Those outcomes of a batch that are not known yet."""
        for call, (good, payload) in zip(flying.calls[flying.settled :], outcomes[flying.settled :], strict=False):
            flying.settled += 1
            if not good:
                self._finish(call, error=decode_exception(payload))
                continue
            try:
                value = unpack(payload, ())
            except Exception as error:
                self._finish(call, error=detach(undecodable("the call's result", error)))
            else:
                self._finish(call, value)

    def _finish(self, call: ClusterFuture[Any], value: Any = None, error: BaseException | None = None) -> None:
        with self._lock:
            self.under_way -= call._bytes
        call._packed = ()
        with suppress(InvalidStateError):  # it was cancelled
            if error is None:
                call.set_result(value)
            else:
                call.set_exception(error)

    # What the user asks

    def cancel(self, call: ClusterFuture[Any]) -> bool:
        if call.done():
            return call.cancelled()
        with self._lock:
            number = call._batch
            flying = None if number is None else self._flying.get(number)
            call._unwanted |= number is None
        if number is not None and self.cluster.alive():
            # Once for a batch, however many of its calls are cancelled.
            taken_back = None if flying is None else flying.taken_back
            if taken_back is None:
                taken_back = self.cluster.take_back(number)
            if flying is not None:
                flying.taken_back = taken_back
            if not taken_back:
                return call.cancelled()
            with self._lock:
                call._unwanted = True
                unwanted = flying is not None and all(one._unwanted for one in flying.calls)
            if unwanted:
                self.cluster.drop(number)
        return call._make_cancelled()

    def close(self, cancel: bool) -> None:
        with self._lock:
            self._closing = True
            calls = list(self._waiting) if cancel else []
            flying = [call for one in self._flying.values() for call in one.calls] if cancel else []
        # Those at the cluster last: or each that goes would make room for the next.
        for call in itertools.chain(calls, flying):
            call.cancel()
        self._events.put(None)

    def is_ours(self) -> bool:
        """Whether this is the process that made it, and not a fork of it, where locks may be held for ever."""
        return os.getpid() == self._owner

    def check_open(self) -> None:
        if not self.is_ours():
            raise RuntimeError(_lifecycle.NOT_OURS)
        if self._closing:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if _lifecycle.exiting():
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        if not self.cluster.alive():
            raise BrokenExecutor(_GONE)

    def finish_at_exit(self) -> None:
        """As the standard library's executors: what was submitted is done."""
        self.close(False)
        self.thread.join()

    def leave_at_exit(self) -> None:
        self.close(True)

    def full(self) -> bool:
        """Whether a map should send no more."""
        return self.under_way > _MAP_BYTES

    def ahead(self) -> int:
        """How many calls a map should have under way at most."""
        return _AHEAD * self._size


def _remember(known: OrderedDict[bytes, Any], digest: bytes, value: Any) -> None:
    """Newest last; the oldest goes when there are too many."""
    known[digest] = value
    known.move_to_end(digest)
    while len(known) > _REMEMBERED:
        known.popitem(last=False)


def _crash(call: ClusterFuture[Any], lost: Lost) -> WorkerCrashed:
    data = call._packed[0] if call._packed else b""
    text = sketch(f"k{call._function.name}", data, None) if isinstance(data, bytes) else f"{call._function.name}(...)"
    what = text if call._item is None else f"item {call._item}, {text}"
    likely = ", out of memory" if lost.out_of_memory else ""
    error = WorkerCrashed(
        f"A worker of the cluster was lost while it ran {what}: {lost.why}{likely}. Only this call is lost; the "
        "executor goes on.",
        item=call._item,
        call=text,
        out_of_memory=lost.out_of_memory,
    )
    error.__cause__ = lost.error
    return error
