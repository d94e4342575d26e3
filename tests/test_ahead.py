"""A map over processes of which none is there yet: the calling thread does what waits for the first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import fanmap
import pytest
from _scripts import Gate
from fanmap import _default, _measure
from fanmap._ahead import AheadLane
from fanmap._choice import Measured
from fanmap._lane import Flow, Lane, lane_over_processes
from fanmap._result import Manner, MapResult
from fanmap._source import in_step


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = Gate(tmp_path)
    yield made
    made.close()


def come_in(name: str) -> None:
    """A worker's first act: it waits at the gate."""
    with open(name, "wb") as started:
        started.write(b"x")
    with open(name + ".gate", "rb") as file:
        file.read()


def refuse() -> None:
    raise OSError("there is no work for this one")


def where(x: int) -> tuple[int, int]:
    if x % 7 == 5:
        raise ValueError(x)
    return x, os.getpid()


def known(fn: Any) -> None:
    """As if such items had been worth a process before."""
    _measure.keep(fn, Measured(wall=5e-3, cpu=5e-3, items=100, copy=0.0, pair=1.0))


def mapped(executor: fanmap.ProcessPoolExecutor, items: Any, flow: Flow) -> tuple[MapResult[Any], AheadLane]:
    lane = lane_over_processes(executor, where, flow, gives_back=True, expected=1e-3)
    ahead = AheadLane(lane, where, False, lambda wall, cpu: None)
    held: Lane = ahead
    return MapResult(held, in_step((items,)), Manner(on_error="return", ordered=flow.ordered, keeps_items=True)), ahead


def seen(result: Any) -> int:
    """Of which item it is."""
    return result.item if isinstance(result, fanmap.Failure) else result[0]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("window", [None, 3])
def test_items_are_done_here_until_a_worker_is_there_and_by_workers_from_then_on(
    gate: Gate, ordered: bool, window: int | None
) -> None:
    with fanmap.ProcessPoolExecutor(1, initializer=come_in, initargs=(gate.name,)) as executor:
        results, ahead = mapped(executor, range(400), Flow(False, window, ordered=ordered))
        came = list(islice(results, 20))
        gate.wait()
        came += islice(results, 20)
        assert not ahead.has_worker
        gate.open()
        came += results
        assert ahead.has_worker
    indices = list(map(seen, came))
    assert sorted(indices) == list(range(400))
    assert indices == list(range(400)) or not ordered
    here = [result[1] == os.getpid() for result in came if not isinstance(result, fanmap.Failure)]
    assert all(here[:30])
    assert not any(here[-30:])
    assert {type(result.error) for result in came if isinstance(result, fanmap.Failure)} == {ValueError}


def test_a_map_whose_processes_cannot_start_stays_here(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = fanmap.ProcessPoolExecutor(1, initializer=refuse)
    monkeypatch.setattr(_default, "pool", lambda name, wanted: (executor, None))
    known(where)
    with fanmap.map(where, count(), on_error="skip") as results:
        while not executor._broken:
            next(results)
        came = list(islice(results, 500))
    assert {pid for _, pid in came} == {os.getpid()}
    assert results.stats.way == "serial"
    executor.shutdown()


def test_a_slow_source_is_done_here_as_it_comes(gate: Gate) -> None:
    read = 0

    def source() -> Iterator[int]:
        nonlocal read
        for k in range(5):
            read += 1
            yield k

    with fanmap.ProcessPoolExecutor(1, initializer=come_in, initargs=(gate.name,)) as executor:
        results, _ = mapped(executor, source(), Flow(False, None))
        for k in range(5):
            assert seen(next(results)) == k
            assert read == k + 1, "no item is read before the one that is there was done"
        assert list(results) == []
