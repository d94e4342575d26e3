"""The way that a map goes, as a function of what was measured: a table."""

from __future__ import annotations

from typing import Any

import pytest
from fanmap._choice import COLD, MOST_THREADS, Measured, cap_threads, decide, worth_starting, worth_trying

# Computing in Python code for 5 ms an item, on two cores, with nothing to send to speak of.
PLAIN: dict[str, Any] = dict(wall=5e-3, cpu=5e-3, items=1, left=200, cores=2, copy=0.0, pair=1.0)
WAITING: dict[str, Any] = dict(wall=50e-3, cpu=1e-3, items=1, left=200, cores=2)


@pytest.mark.parametrize(
    ("what", "seen", "way"),
    [
        ("computing", PLAIN, "processes"),
        ("computing, and workers are there", PLAIN | {"start": 0.0}, "processes"),
        ("tiny items", PLAIN | {"wall": 1e-6, "cpu": 1e-6, "left": 10_000}, "serial"),
        ("one item", PLAIN | {"wall": 2.0, "cpu": 2.0, "left": 1, "start": 0.0}, "serial"),
        ("none", PLAIN | {"left": 0}, "serial"),
        ("all of it is over before workers start", PLAIN | {"left": 10}, "serial"),
        ("the same, and workers are there", PLAIN | {"left": 10, "start": 0.0}, "processes"),
        ("three slow items", PLAIN | {"wall": 0.5, "cpu": 0.5, "left": 2}, "processes"),
        ("one core", PLAIN | {"cores": 1}, "serial"),
        ("one worker", PLAIN | {"workers": 1}, "serial"),
        ("it releases the lock", PLAIN | {"pair": 1.9}, "threads"),
        ("it releases the lock and is dear to send", PLAIN | {"pair": 1.9, "copy": 4e-3}, "threads"),
        ("whether it releases the lock is not clear", PLAIN | {"pair": 1.19, "left": 20}, "serial"),
        ("it cannot be sent", PLAIN | {"refusal": "a lock"}, "serial"),
        ("it cannot be sent and releases the lock", PLAIN | {"refusal": "a lock", "pair": 1.9}, "threads"),
        ("arguments are too dear to send", PLAIN | {"copy": 5e-3}, "serial"),
        ("sending was too dear when it was tried", PLAIN | {"dear": True}, "serial"),
        ("no lock", PLAIN | {"locked": False, "pair": None}, "threads"),
        ("it computes in many threads by itself", PLAIN | {"cpu": 10e-3}, "serial"),
        ("waiting", WAITING, "threads"),
        ("waiting on one core", WAITING | {"cores": 1}, "threads"),
        ("waiting, and it cannot be sent", WAITING | {"refusal": "a lock"}, "threads"),
        ("waiting, one item", WAITING | {"left": 1}, "serial"),
        ("an input that does not tell, at its beginning", PLAIN | {"left": None, "items": 2}, "serial"),
        ("an input that does not tell, when many have come", PLAIN | {"left": None, "items": 100}, "processes"),
        ("the calling thread is ruled out, and it waits", WAITING | {"not_here": "timeout", "left": 1}, "threads"),
        ("the calling thread is ruled out, and it computes", PLAIN | {"not_here": "timeout"}, "processes"),
    ],
)
def test_the_way(what: str, seen: dict[str, Any], way: str) -> None:
    choice = decide(Measured(**seen))
    assert choice.way == way, choice
    assert choice.why
    assert (choice.workers == 1) == (way == "serial") or seen.get("workers") == 1


def test_each_way_has_its_cost_unless_it_is_ruled_out() -> None:
    assert set(decide(Measured(**PLAIN)).costs) == {"serial", "threads", "processes"}
    assert set(decide(Measured(**PLAIN | {"refusal": "a lock"})).costs) == {"serial", "threads"}
    assert set(decide(Measured(**PLAIN | {"not_here": "timeout"})).costs) == {"threads", "processes"}
    costs = decide(Measured(**PLAIN)).costs
    assert costs["serial"] == pytest.approx(1.0)
    assert costs["processes"] == pytest.approx(0.5 + COLD, rel=0.01)


def test_a_refusal_is_told() -> None:
    choice = decide(Measured(**PLAIN | {"refusal": "its global 'lock' cannot be pickled"}))
    assert "its global 'lock' cannot be pickled" in choice.why


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (WAITING | {"cores": 1, "workers": 1}, "one worker was asked for"),
        (PLAIN | {"refusal": "a lock", "pair": None, "left": 50}, "one thread at a time runs Python code, and"),
        (PLAIN | {"refusal": "a lock"}, "two threads are no faster than one, and"),
        (PLAIN | {"left": 10}, "less time than workers take to start"),
        (PLAIN | {"left": 10, "refusal": "a lock", "start": 0.0}, "it cannot go to processes: a lock"),
        (PLAIN, "two threads are no faster than one, and"),
        (PLAIN | {"pair": None}, "one thread at a time runs Python code, and"),
        (PLAIN | {"pair": 1.3, "left": 10_000}, "threads wait for each other"),
        (
            dict(wall=2e-6, cpu=2e-6, items=9, left=10**6, cores=2, locked=False, not_here="retries"),
            "items are short, and many of them go to a process together",
        ),
    ],
)
def test_a_reason_is_true_of_what_was_measured(seen: dict[str, Any], why: str) -> None:
    assert why in decide(Measured(**seen)).why


@pytest.mark.parametrize(
    ("seen", "threads"),
    [
        (WAITING, MOST_THREADS),
        (WAITING | {"cpu": 0.0}, MOST_THREADS),
        (WAITING | {"workers": 8}, 8),
        (WAITING | {"cpu": 10e-3}, 10),
        (WAITING | {"cpu": 10e-3, "cores": 4, "locked": False}, 40),
    ],
)
def test_as_many_threads_wait_as_can_be_of_use(seen: dict[str, Any], threads: int) -> None:
    assert cap_threads(Measured(**seen)) == threads
    assert decide(Measured(**seen)).workers == threads


@pytest.mark.parametrize(
    ("seen", "worth"),
    [
        (PLAIN, True),
        (PLAIN | {"left": 20}, False),
        (PLAIN | {"refusal": "a lock"}, False),
        (PLAIN | {"cores": 1}, False),
        (WAITING, False),
    ],
)
def test_processes_are_started_ahead_only_for_what_will_pay(seen: dict[str, Any], worth: bool) -> None:
    assert worth_starting(Measured(**seen)) is worth


@pytest.mark.parametrize(
    ("seen", "worth"),
    [
        (PLAIN | {"pair": None}, True),
        (PLAIN, False),
        (PLAIN | {"pair": None, "left": 10}, False),
        (PLAIN | {"pair": None, "left": 100, "refusal": "a lock"}, True),
        # A trial would be felt.
        (PLAIN | {"pair": None, "left": 400, "wall": 3e-4, "cpu": 3e-4}, False),
        (PLAIN | {"pair": None, "left": 10, "refusal": "a lock"}, False),
        (PLAIN | {"pair": None, "cores": 1}, False),
        (PLAIN | {"pair": None, "locked": False}, False),
        (PLAIN | {"pair": None, "wall": 1e-6, "cpu": 1e-6}, False),
        (WAITING, False),
    ],
)
def test_two_threads_are_tried_where_that_costs_little(seen: dict[str, Any], worth: bool) -> None:
    assert worth_trying(Measured(**seen)) is worth
