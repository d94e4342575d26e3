"""What a map with no executor named makes of what was measured."""

from __future__ import annotations

import time
from typing import Any

import fanmap
import pytest
from fanmap import _measure
from fanmap._choice import Measured
from fanmap._gauge import Gauge


def work(x: int) -> int:
    return x


def gauge(length: int = 1000, **what: Any) -> Gauge:
    made = Gauge(work, length, None, "", recalls=False)
    made.learn(cores=2, **what)
    return made


def after(made: Gauge, *times: tuple[float, float]) -> Gauge:
    for wall, cpu in times:
        made.index += 1
        made.note(wall, cpu)
    made.is_worth_a_thought()
    return made


def test_the_mean_is_of_the_last_items() -> None:
    made = after(gauge(), *[(0.01, 0.01)] * 5)
    assert made.seen.wall == pytest.approx(0.01) and made.seen.cpu == pytest.approx(0.01)
    assert (made.seen.items, made.seen.left) == (5, 995)
    after(made, *[(0.03, 0.01)] * 50)
    assert made.seen.wall == pytest.approx(0.03, rel=0.02)


def test_what_only_the_first_call_does_is_no_measure_of_the_others() -> None:
    made = after(gauge(), (1.0, 0.5), (0.01, 0.01))
    assert made.seen.wall == pytest.approx(0.01)


def test_what_is_forgotten_does_not_count() -> None:
    made = after(gauge(), *[(0.05, 0.0)] * 9)
    # They wait no more, they compute.
    made.learn(wall=0.01, cpu=0.01)
    made.forget_times()
    assert not made.has_timed
    after(made, (0.012, 0.012))
    assert made.seen.wall == made.seen.cpu == pytest.approx(0.012)


def test_one_tiny_item_tells_nothing_and_some_do() -> None:
    assert not after(gauge(length=10**9), (5e-4, 5e-4)).is_worth_a_thought()
    assert after(gauge(length=10**9), *[(5e-4, 5e-4)] * 4).is_worth_a_thought()
    assert not after(gauge(length=4), *[(5e-4, 5e-4)] * 4).is_worth_a_thought(), "it is over before a thought would pay"


def test_a_decision_is_of_what_is_left() -> None:
    made = after(gauge(copy=0.0, pair=1.0), *[(0.01, 0.01)] * 4)
    assert made.decide(warm=True).way == "processes"
    made.index = 999
    assert made.decide(warm=True).way == "serial"
    assert made.may_be_plain()


def test_what_is_kept_is_of_the_function_and_not_of_the_call() -> None:
    made = Gauge(work, 10, 3, "retries", recalls=True)
    assert not made.is_known
    after(made, (0.01, 0.01)).keep()
    try:
        again = Gauge(work, 0, None, "", recalls=True)
        assert again.is_known and again.seen.wall == pytest.approx(0.01)
        assert (again.seen.workers, again.seen.not_here, again.seen.items) == (None, "", 1)
        assert not Gauge(work, 0, None, "", recalls=False).is_known
    finally:
        _measure._kept.clear()


def test_whether_the_function_can_be_sent_matters_only_where_processes_would_pay() -> None:
    made = after(gauge(), *[(0.01, 0.01)] * 5)
    made.learn(copy=0.02)
    assert not made.wants_refusal(for_an_account=False)
    assert made.wants_refusal(for_an_account=True)
    made.learn(copy=0.0)
    assert made.wants_refusal(for_an_account=False)
    made.ask()
    assert not made.wants_refusal(for_an_account=True), "it was looked at"


def test_what_only_the_first_encoding_takes_is_not_what_sending_costs() -> None:
    class Slow:
        encoded = 0

        def __reduce__(self) -> tuple[Any, ...]:
            Slow.encoded += 1
            if Slow.encoded == 1:
                time.sleep(0.2)
            return int, ()

    assert _measure.sending(Slow(), None).seconds < 0.2
    assert Slow.encoded == 2


def test_a_known_map_that_does_not_begin_as_a_plain_one_may_become_one() -> None:
    def tiny(x: int) -> int:
        return x

    # It is said to be slow and not to be sent, of an input too short for a thought.
    _measure.keep(tiny, Measured(wall=2e-3, cpu=2e-3, items=100, refusal="it is said so"))
    results = fanmap.map(tiny, range(2))
    assert results._plain is not None and results._plain.begins is None
    assert list(results) == [0, 1]
