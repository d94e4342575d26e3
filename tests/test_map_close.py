"""A map may be closed by any thread, whatever the one that asks for its results is doing."""

from __future__ import annotations

import concurrent.futures
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import fanmap
import pytest

# Seconds; for what comes at once unless it never comes.
LIMIT = 30
LANES = ["threads", "processes", "foreign"]
each = pytest.mark.parametrize("lane", LANES)


class Asker(threading.Thread):
    """Asks for one result."""

    def __init__(self, results: Iterator[Any]) -> None:
        super().__init__()
        self.results = results
        self.came: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.came = next(self.results)
        except BaseException as error:
            self.came = error

    def ended(self) -> bool:
        """Whether the answer was that there is nothing more."""
        self.join(LIMIT)
        return type(self.came) is StopIteration


@pytest.fixture
def executor(lane: str) -> Iterator[Any]:
    if lane == "foreign":
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            yield pool
    else:
        yield lane


def fifo(folder: Path, name: str) -> str:
    path = folder / name
    os.mkfifo(path)
    return str(path)


def hold(fifos: tuple[str, str]) -> str:
    """Says that it runs, and waits for leave to return."""
    with open(fifos[0], "wb", 0) as started:
        started.write(b"x")
    with open(fifos[1], "rb") as gate:
        gate.read()
    return "late"


@each
def test_closing_ends_a_next_that_waits_for_a_task(executor: Any, lane: str, tmp_path: Path) -> None:
    started, gate = fifo(tmp_path, "started"), fifo(tmp_path, "gate")
    results = fanmap.map(hold, [(started, gate)], executor=executor)
    asker = Asker(results)
    with open(started, "rb") as file:
        assert file.read() == b"x"
    results.close()
    # A call that runs in somebody else's executor cannot be left.
    assert lane == "foreign" or asker.ended()
    with open(gate, "wb"):
        pass
    assert asker.ended()
    assert list(results) == []


def note(path: str) -> str:
    Path(path).touch()
    return path


@each
def test_an_item_that_was_being_read_is_not_sent(executor: Any, lane: str, tmp_path: Path) -> None:
    reading, leave = threading.Event(), threading.Event()

    def source() -> Iterator[str]:
        reading.set()
        leave.wait(LIMIT)
        yield str(tmp_path / "late")

    results = fanmap.map(note, source(), executor=executor)
    asker = Asker(results)
    assert reading.wait(LIMIT)
    results.close()
    leave.set()
    assert asker.ended()
    assert list(fanmap.map(note, [str(tmp_path / "next")], executor=executor)) == [str(tmp_path / "next")]
    assert os.listdir(tmp_path) == ["next"]


@pytest.mark.parametrize("name", ["threads", "processes"])
def test_an_item_that_was_being_read_is_not_sent_to_a_pool_that_has_gone_with_its_map(name: str) -> None:
    reading, leave = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        reading.set()
        leave.wait(LIMIT)
        yield 1

    results = fanmap.map(abs, source(), executor=name, workers=1)
    asker = Asker(results)
    assert reading.wait(LIMIT)
    results.close()
    leave.set()
    assert asker.ended()


class Closes:
    """Closes a map while an item is encoded for it."""

    def __init__(self, close: Callable[[], None]) -> None:
        self.close = close

    def __reduce__(self) -> Any:
        thread = threading.Thread(target=self.close)
        thread.start()
        thread.join(LIMIT)
        return note, (os.devnull,)


def test_an_item_that_was_being_encoded_is_not_sent(tmp_path: Path) -> None:
    def items() -> Iterator[Any]:
        yield Closes(results.close)

    results = fanmap.map(_noted_by(tmp_path / "one"), items(), workers=1, executor="processes")
    assert list(results) == []
    assert list(fanmap.map(abs, [-1], executor="processes")) == [1]
    assert os.listdir(tmp_path) == []


def _noted_by(path: Path) -> Callable[[Any], None]:
    def call(_: Any) -> None:
        path.touch()

    return call


class Waits(Future[Any]):
    """Tells when somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.awaited = threading.Event()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self.awaited.set()
        return super().exception(timeout)


class Never(Executor):
    """Runs nothing."""

    def __init__(self) -> None:
        self.futures: list[Waits] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.futures.append(Waits())
        return self.futures[-1]


def test_closing_ends_a_next_that_waits_for_a_call_that_has_not_started() -> None:
    pool = Never()
    results = fanmap.map(abs, [1, 2, 3], executor=pool)
    asker = Asker(results)
    assert pool.futures[0].awaited.wait(LIMIT)
    results.close()
    assert asker.ended()
    assert all(future.cancelled() for future in pool.futures)


class ClosesAtSubmit(Executor):
    """Closes the map that submits to it, as another thread might."""

    def __init__(self) -> None:
        self.close: Callable[[], None] = lambda: None
        self.futures: list[Future[Any]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.futures.append(Future())
        self.close()
        return self.futures[-1]


def test_a_call_that_was_being_submitted_is_cancelled() -> None:
    pool = ClosesAtSubmit()
    results = fanmap.map(abs, [1, 2, 3], executor=pool)
    pool.close = results.close
    assert list(results) == []
    assert [future.cancelled() for future in pool.futures] == [True]


@pytest.mark.parametrize("name", ["threads", "processes"])
def test_results_that_came_together_are_none_after_a_close(name: str) -> None:
    for _ in range(20):
        results = fanmap.map(abs, range(2_000), executor=name)
        taken: list[int] = []
        entered = threading.Event()

        def take(results: Iterator[int] = results, taken: list[int] = taken, entered: Any = entered) -> None:
            for result in results:
                taken.append(result)
                entered.set()

        taker = threading.Thread(target=take)
        taker.start()
        assert entered.wait(LIMIT)
        results.close()
        assert list(results) == []
        taker.join(LIMIT)
        assert taken == list(range(len(taken)))
