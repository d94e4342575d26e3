"""`executor="auto"`: whatever way a map goes, and however often that changes, it is the map.

What is measured depends on what else this machine does. So where a way is asked for, the input goes on until then.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import itertools
import operator
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import fanmap
import pytest
from fanmap import _default, _measure
from fanmap._choice import Measured
from hypothesis import given, settings
from hypothesis import strategies as st

LIMIT = 60


def compute(rounds: int) -> int:
    """About 3 ms for 30,000."""
    total = 0
    for k in range(rounds):
        total += k & 3
    return total


def wait(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def digest(size: int) -> str:
    """It releases the interpreter's lock."""
    return hashlib.sha256(bytes(size)).hexdigest()


def where(rounds: int) -> tuple[int, int]:
    compute(rounds)
    return os.getpid(), threading.get_ident()


def inverse(x: int) -> float:
    return 1 / x


def known(fn: Callable[..., Any], **what: Any) -> None:
    """As if this had been measured of it before."""
    usual: dict[str, Any] = dict(wall=5e-3, cpu=5e-3, items=100, copy=0.0, pair=1.0)
    _measure.keep(fn, Measured(**usual | what))


# What makes a map go each way, whatever its items really are.
WAYS: dict[str, dict[str, Any]] = {
    "serial": dict(wall=1e-6, cpu=1e-6),
    "threads": dict(cpu=1e-4),
    "processes": dict(),
}


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=20, deadline=None)
@given(
    items=st.lists(st.integers(-3, 50), max_size=60),
    buffersize=st.one_of(st.none(), st.integers(1, 20)),
    live=st.booleans(),
)
def test_a_map_that_goes_that_way_is_the_map(way: str, items: list[int], buffersize: int | None, live: bool) -> None:
    known(inverse, **WAYS[way])
    source: Any = iter(items) if live else items
    results = fanmap.map(inverse, source, buffersize=buffersize)
    came: list[float] = []
    try:
        came.extend(results)
    except ZeroDivisionError:
        assert 0 in items
        came.append(0.0)
    expected = [1 / x for x in itertools.takewhile(bool, items)]
    assert came == expected + ([0.0] if 0 in items else [])


@pytest.mark.parametrize("way", WAYS)
def test_what_was_measured_is_kept_for_the_next_map(way: str) -> None:
    known(inverse, **WAYS[way])
    results = fanmap.map(inverse, range(1, 1000))
    assert len(list(results)) == 999
    assert results.stats.way == way


def test_a_tiny_function_is_known_by_what_a_plain_map_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its first items took is the clocks', and would have the next map think about more than it has to do."""

    def tiny(x: int) -> int:
        return x

    monkeypatch.setattr(_measure.Clocks, "read", lambda self, **_: (5e-4, 5e-4))
    assert len(list(fanmap.map(tiny, range(10**6)))) == 10**6
    known = _measure.recall(tiny)
    assert known is not None and max(known.wall, known.cpu) < 4e-4


def test_of_a_short_map_of_tiny_items_nothing_is_kept() -> None:
    def tiny(x: int) -> int:
        return x

    assert list(fanmap.map(tiny, range(3))) == [0, 1, 2]
    assert _measure.recall(tiny) is None, "the next one knows as much after its first item"


@pytest.mark.parametrize("star", [False, True])
def test_the_first_item_is_done_and_counted_once(star: bool) -> None:
    called: list[int] = []

    def note(x: int, y: int = 0) -> int:
        called.append(x)
        return x + y

    results = fanmap.map(note, range(5), *([range(5)] if star else []))
    assert called == [], "nothing runs before it is asked for"
    assert next(results) == 0 and called == [0]
    assert (results.stats.read, results.stats.done) == (1, 1)
    assert list(results) == [x * (2 if star else 1) for x in range(1, 5)] and called == [0, 1, 2, 3, 4]
    assert (results.stats.read, results.stats.done, results.stats.failed) == (5, 5, 0)


@pytest.mark.parametrize("error", [ValueError, StopIteration, KeyboardInterrupt])
def test_what_the_first_item_raises_ends_the_map(error: type[BaseException]) -> None:
    def fail(x: int) -> int:
        raise error("here")

    results = fanmap.map(fail, [1, 2])
    with pytest.raises(error):
        next(results)
    assert list(results) == []
    failing = fanmap.map(abs, (1 // x for x in [0, 1]))
    with pytest.raises(ZeroDivisionError):
        next(failing)
    assert list(failing) == [] == list(fanmap.map(fail, []))


def until(results: fanmap.MapResult[Any], way: str) -> list[Any]:
    """Results, until one has come after the map went that way."""
    with results:
        return [next(results), *itertools.takewhile(lambda _: results.stats.way != way, results), next(results)]


@pytest.mark.skipif(fanmap.cpu_count() < 2, reason="one core")
def test_computing_goes_to_processes() -> None:
    came = until(fanmap.map(where, itertools.repeat(30_000)), "processes")
    assert came[0][0] == os.getpid(), "the first ones are measured here"


@pytest.mark.skipif(fanmap.cpu_count() < 2, reason="one core")
def test_after_a_first_slow_item_no_other_is_done_here() -> None:
    def slow(_: int) -> int:
        until = time.thread_time() + 0.25
        while time.thread_time() < until:
            pass
        return os.getpid()

    first, *others = fanmap.map(slow, range(3))
    assert first == os.getpid()
    assert os.getpid() not in others


def test_waiting_goes_to_threads_that_become_more() -> None:
    with fanmap.map(wait, itertools.repeat(0.005)) as results:
        for _ in results:
            if results.stats.workers > 8:
                break
        assert results.stats.way == "threads"


@pytest.mark.skipif(fanmap.cpu_count() < 2, reason="one core")
def test_computing_that_was_said_to_release_the_lock_leaves_the_threads() -> None:
    known(where, pair=2.0)
    with fanmap.map(where, itertools.repeat(30_000)) as results:
        for _ in results:
            if results.stats.way == "processes":
                break


def test_what_other_threads_compute_is_not_taken_for_the_items() -> None:
    known(wait, wall=0.01, cpu=1e-4)
    over = threading.Event()

    def compute_on() -> None:
        while not over.is_set():
            compute(1000)

    other = threading.Thread(target=compute_on)
    other.start()
    try:
        results = fanmap.map(wait, [0.01] * 1000)
        assert len(list(results)) == 1000
        assert results.stats.way == "threads"
    finally:
        over.set()
        other.join()


def test_no_worker_is_started_for_what_one_tiny_call_took() -> None:
    fanmap.shutdown()
    with fanmap.map(compute, [3000] * 100_000) as results:
        next(results)
        assert "processes" not in _default._warm


def test_slow_items_that_stay_here_are_not_all_timed() -> None:
    def caller(rounds: int) -> str:
        compute(rounds)
        return sys._getframe(1).f_code.co_filename

    known(caller, refusal="it is said that it cannot be sent")
    callers = list(fanmap.map(caller, [100_000] * 20))
    assert callers.count(__file__) >= 5, "a plain map has no Python code of ours between its caller and the function"


def test_nothing_runs_twice_and_nothing_is_left_out_whichever_way_it_goes(tmp_path: Any) -> None:
    def note(k: int) -> int:
        compute(20_000)
        with open(tmp_path / str(k), "x"):
            return k

    results = fanmap.map(note, range(200))
    assert list(results) == list(range(200))
    assert results.stats.read == results.stats.done == len(os.listdir(tmp_path)) == 200
    assert results.stats.speedup > 0


@pytest.mark.skipif(fanmap.cpu_count() < 2, reason="one core")
def test_what_cannot_be_sent_stays_in_this_process() -> None:
    lock = threading.Lock()

    def guarded(rounds: int) -> int:
        with lock:
            return where(rounds)[0]

    assert set(fanmap.map(guarded, [30_000] * 100)) == {os.getpid()}


def test_an_item_that_cannot_be_sent_is_done_here_in_its_place() -> None:
    known(repr)
    items: list[Any] = [1, threading.Lock(), 2, (x for x in "abc"), *range(100)]
    results = fanmap.map(repr, items)
    assert list(results) == [repr(item) for item in items]
    assert results.stats.way == "processes"


def test_tiny_items_run_here_and_one_by_one_as_they_are_asked_for() -> None:
    ran: list[int] = []
    results = fanmap.map(ran.append, itertools.count())
    for _ in range(1000):
        next(results)
    assert ran == list(range(1000))
    assert results.stats.read == results.stats.done == 1000
    assert results.stats.way == "serial"
    results.close()
    assert list(results) == []


def test_tiny_items_that_become_slow_leave_the_calling_thread() -> None:
    until(fanmap.map(wait, itertools.chain([0] * 5000, itertools.repeat(0.01))), "threads")


@pytest.mark.skipif(fanmap.cpu_count() < 2, reason="one core")
@pytest.mark.parametrize("ordered", [True, False])
def test_a_way_that_was_wrong_is_left_once_and_order_is_kept(ordered: bool) -> None:
    # It is said to be cheap to send, and is not.
    known(len)
    sizes = [50_000 + k for k in range(10)]
    came: list[int] = []
    with fanmap.map(len, itertools.cycle([[0.5] * size for size in sizes]), ordered=ordered) as results:
        for size in results:
            came.append(size)
            if results.stats.way != "processes":
                break
        came.extend(itertools.islice(results, 300))
    assert results.stats.way == "serial"
    assert not ordered or came == list(itertools.islice(itertools.cycle(sizes), len(came)))


held, let_go = threading.Lock(), threading.Event()


def compute_or_be_held(parent: int) -> None:
    """Computes; but one that two threads of the program are tried with is held there."""
    if os.getpid() == parent and threading.current_thread() is not threading.main_thread() and held.acquire(False):
        let_go.wait(LIMIT)
    compute(30_000)


@pytest.mark.skipif(fanmap.cpu_count() < 2, reason="one core")
@pytest.mark.parametrize("workers_are_there", [True, False])
def test_as_they_come_nothing_waits_for_an_item_that_two_threads_were_tried_with(workers_are_there: bool) -> None:
    _measure._kept.clear()
    if workers_are_there:
        list(fanmap.map(abs, [-1], executor="processes"))
    else:
        fanmap.shutdown()
    try:
        with fanmap.map(compute_or_be_held, [os.getpid()] * 100_000, ordered=False) as results:
            for _ in results:
                if held.locked() and results.stats.way == "processes":
                    break
            assert len(list(itertools.islice(results, 300))) == 300
    finally:
        let_go.set()
        let_go.clear()
        held.release()


@pytest.mark.parametrize("options", [{"timeout": LIMIT}, {"retries": 1}])
def test_a_timeout_and_retries_rule_out_the_calling_thread(options: Any) -> None:
    came = list(fanmap.map(where, [30_000] * 20, **options))
    assert (os.getpid(), threading.get_ident()) not in came


def test_a_result_that_is_late_is_an_error() -> None:
    until = threading.Event()

    def hold(_: int) -> None:
        until.wait(LIMIT)

    try:
        with pytest.raises(TimeoutError):
            list(fanmap.map(hold, [1, 2], timeout=0.05))
    finally:
        until.set()


@pytest.mark.parametrize("options", [{"task_timeout": 30.0}, {"initializer": print}])
def test_what_only_workers_can_do_means_processes(options: Any) -> None:
    with fanmap.map(abs, [-1], **options) as results:
        assert list(results) == [1]
        assert results.stats.way == "processes"


@pytest.mark.parametrize("executor", ["auto", "serial"])
def test_an_exception_of_a_plain_map_ends_it_and_is_counted(executor: str) -> None:
    results = fanmap.map(lambda x: 1 / x, [1] * 100 + [0, 1], executor=executor)
    assert list(itertools.islice(results, 100)) == [1.0] * 100
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []
    assert (results.stats.read, results.stats.done, results.stats.failed) == (101, 101, 1)


@pytest.mark.parametrize("executor", ["auto", "serial"])
def test_another_thread_that_asks_a_plain_map_meanwhile_is_refused(executor: str) -> None:
    asked: list[Exception] = []

    def ask(x: int) -> int:
        if x == 50:
            with pytest.raises(ValueError, match="already being asked for") as caught:
                next(results)
            asked.append(caught.value)
        return x

    results = fanmap.map(ask, range(100), executor=executor)
    assert list(results) == list(range(100))
    assert len(asked) == 1


@pytest.mark.parametrize("executor", ["auto", "serial"])
def test_a_plain_map_that_is_closed_by_its_own_function_ends(executor: str) -> None:
    def close(x: int) -> int:
        if x == 50:
            results.close()
        return x

    results = fanmap.map(close, range(100), executor=executor)
    assert list(results) == list(range(50))


def test_a_plain_map_keeps_nothing_of_what_it_handed_out() -> None:
    class Big:
        pass

    results = fanmap.map(lambda _: Big(), range(100), executor="serial")
    first = next(results)
    seen = _weak(first)
    del first
    next(results)
    gc.collect()
    assert seen() is None


def _weak(thing: object) -> Callable[[], object]:
    import weakref

    return weakref.ref(thing)


def test_repeated_arguments_are_the_maps() -> None:
    assert list(fanmap.map(pow, range(100), itertools.repeat(2))) == [x * x for x in range(100)]
    assert list(fanmap.map(pow, itertools.repeat(2), range(100), itertools.repeat(7))) == [
        pow(2, x, 7) for x in range(100)
    ]


def test_workers_bound_a_pool_of_its_own() -> None:
    results = fanmap.map(wait, [0.01] * 30, workers=3)
    assert len(list(results)) == 30
    assert results.stats.workers == 3


def make() -> Callable[[int], int]:
    def fn(x: int) -> int:
        return x

    return fn


def test_a_function_is_recalled_as_long_as_it_lives() -> None:
    fn = make()
    known(fn)
    assert _measure.recall(fn) is not None
    assert _measure.recall(make()) is None
    kept = len(_measure._kept)
    del fn
    gc.collect()
    assert len(_measure._kept) == kept - 1


class Counter:
    def count(self, x: int) -> int:
        return x


def test_partials_and_methods_are_recalled_by_what_they_are() -> None:
    known(functools.partial(pow, 2))
    assert _measure.recall(functools.partial(pow, 3)) is not None
    known(Counter().count)
    assert _measure.recall(Counter().count) is not None
    known(functools.partial(functools.reduce, inverse))
    assert _measure.recall(functools.partial(functools.reduce, make())) is None


def test_what_is_recalled_is_bounded() -> None:
    many = [make() for _ in range(3 * _measure._KEPT)]
    for fn in many:
        known(fn)
    assert len(_measure._kept) == _measure._KEPT


def sizes() -> str:
    """How many workers computing and waiting get, as said by a program that may run on one core."""
    return textwrap.dedent("""
        import fanmap, time
        def compute(x):
            return sum(range(100_000))
        def wait(x):
            time.sleep(0.01)
        if __name__ == "__main__":
            results = fanmap.map(compute, [0] * 300)
            list(results)
            waiting = fanmap.map(wait, [0] * 30)
            list(waiting)
            print(fanmap.cpu_count(), results.stats.way, results.stats.workers, waiting.stats.way)
            with fanmap.ProcessPoolExecutor() as pool:
                print(pool._max_workers)
            fanmap.shutdown()
    """)


def test_on_one_core_of_affinity_the_sizes_follow() -> None:
    core = min(os.sched_getaffinity(0))
    out = subprocess.run(
        [sys.executable, "-c", sizes()],
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    assert out.stdout.split() == ["1", "serial", "1", "threads", "1"]


@pytest.fixture
def one_core_of_quota() -> Iterator[str]:
    """A cgroup with a quota of one core, if this machine lets us make one."""
    for root in ("/sys/fs/cgroup/cpu", "/sys/fs/cgroup"):
        place = f"{root}/fanmap-test-{os.getpid()}"
        files = {"cpu.cfs_quota_us": "100000"} if root.endswith("/cpu") else {"cpu.max": "100000 100000"}
        try:
            os.mkdir(place)
        except OSError:
            continue
        try:
            for name, value in files.items():
                with open(f"{place}/{name}", "r+") as file:
                    file.write(value)
        except OSError:
            os.rmdir(place)
            continue
        yield place
        os.rmdir(place)
        return
    pytest.skip("no cgroup can be made here")


def test_with_a_quota_of_one_core_the_sizes_follow(one_core_of_quota: str) -> None:
    move = f"import os; open({one_core_of_quota + '/cgroup.procs'!r}, 'w').write(str(os.getpid()))\n"
    out = subprocess.run(
        [sys.executable, "-c", move + sizes()], capture_output=True, text=True, timeout=LIMIT, check=True
    )
    assert out.stdout.split() == ["1", "serial", "1", "threads", "1"]


@pytest.mark.parametrize("executor", ["auto", "serial"])
def test_a_map_that_ends_as_a_plain_one_tells_of_itself_and_keeps_nothing(executor: str) -> None:
    class Input:
        def __iter__(self) -> Iterator[int]:
            return iter(self.items)

        def __init__(self) -> None:
            self.items = [1, 2, 3]

    source = Input()
    gone = weakref.ref(source)

    def over(source: Input) -> Iterator[int]:
        yield from source

    results = fanmap.map(abs, over(source), executor=executor)
    del source
    assert results.stats.wall == 0
    assert next(results) == 1
    before = results.stats
    assert (before.read, before.done) == (1, 1) and before.wall > 0
    assert list(results) == [2, 3]
    stats = results.stats
    assert (stats.read, stats.done, stats.failed, stats.way, stats.workers) == (3, 3, 0, "serial", 1)
    assert stats == results.stats, "it has ended, and stays so"
    assert stats.busy == stats.alone and before.wall < stats.wall
    assert 0 < stats.busy <= stats.wall
    gc.collect()
    assert gone() is None
    results.close()
    assert list(results) == [] and operator.length_hint(results) == 0


def test_another_thread_cannot_get_between_the_first_item_and_the_rest() -> None:
    running, release = threading.Event(), threading.Event()

    def first(x: int) -> int:
        if x == 0:
            running.set()
            assert release.wait(LIMIT)
        return x

    results = fanmap.map(first, range(5))
    came: list[int] = []
    thread = threading.Thread(target=lambda: came.append(next(results)))
    thread.start()
    assert running.wait(LIMIT)
    with pytest.raises(ValueError, match="already being asked for"):
        next(results)
    assert results.stats.done == 0
    release.set()
    thread.join()
    assert came + list(results) == [0, 1, 2, 3, 4]


def test_a_map_that_is_closed_during_its_first_item_gives_nothing() -> None:
    results: Any = fanmap.map(lambda x: results.close(), range(5))
    assert list(results) == []
    assert results.stats.way == "serial"
