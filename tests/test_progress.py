"""`progress`: by a function, by tqdm, and what an unfinished map leaves of a bar."""

from __future__ import annotations

import asyncio
import io
import itertools
import operator
from pathlib import Path
from typing import Any

import fanmap
import pytest
from _scripts import good
from hypothesis import given, settings
from hypothesis import strategies as st

tqdm = pytest.importorskip("tqdm.auto", reason="tqdm is not installed: it is in the test group of pyproject.toml")
both = pytest.mark.parametrize("name", ["threads", "processes"])
ROOT = Path(__file__).resolve().parent.parent


class Seen:
    """What a function of the user's was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int | None]] = []

    def __call__(self, done: int, total: int | None) -> None:
        self.told.append((done, total))

    def is_rising(self) -> bool:
        done = [done for done, _ in self.told]
        return done == sorted(done)


@both
@settings(max_examples=20, deadline=None)
@given(
    items=st.lists(st.integers(-2, 2), max_size=300),
    ordered=st.booleans(),
    live=st.booleans(),
    on_error=st.sampled_from(["skip", "return"]),
)
def test_a_function_is_told_from_none_to_all(
    name: str, items: list[int], ordered: bool, live: bool, on_error: Any
) -> None:
    seen = Seen()
    source: Any = (item for item in items) if live else items
    results = fanmap.map(
        operator.truediv, [1] * len(items), source, executor=name, ordered=ordered, on_error=on_error, progress=seen
    )
    list(results)
    assert seen.is_rising()
    total = None if live else len(items) or None
    assert seen.told[0] == (0, total) and seen.told[-1] == (len(items), total)


def test_it_is_told_by_time_and_not_for_each_item() -> None:
    seen = Seen()
    results = fanmap.map(abs, range(100_000), executor="threads", progress=seen)
    list(results)
    # One look at the start, one at the end, and ten a second between.
    assert len(seen.told) <= 3 + results.stats.wall * 10


@both
def test_an_error_ends_it_where_it_happened(name: str) -> None:
    seen = Seen()
    with pytest.raises(ZeroDivisionError):
        list(fanmap.map(operator.truediv, [1, 1, 1], [1, 0, 1], executor=name, progress=seen))
    assert seen.told[-1] == (2, 3)


@both
def test_a_map_that_is_closed_tells_how_far_it_came(name: str) -> None:
    seen = Seen()
    with fanmap.map(abs, itertools.count(), executor=name, progress=seen) as results:
        assert list(itertools.islice(results, 5)) == [0, 1, 2, 3, 4]
    assert seen.told[-1] == (5, None)
    never = Seen()
    fanmap.map(abs, [1], executor=name, progress=never).close()
    assert never.told == [], "nothing was asked of it"


@pytest.mark.parametrize("kind", [fanmap.ThreadPoolExecutor, fanmap.ProcessPoolExecutor])
def test_an_executors_own_map_shows_what_was_handed_out(kind: Any) -> None:
    with kind(1) as pool:
        seen = Seen()
        assert list(pool.map(abs, [-1, -2, -3], progress=seen)) == [1, 2, 3]
        assert seen.told[0] == (0, 3) and seen.told[-1] == (3, 3) and seen.is_rising()
        never = Seen()
        pool.map(abs, [-1], progress=never)
        assert never.told == [], "nothing was asked of it"
        with pytest.raises(TypeError, match="progress must be"):
            pool.map(abs, [-1], progress=3)


def test_what_a_function_raises_ends_the_map() -> None:
    def refuse(done: int, total: int | None) -> None:
        raise LookupError("no display")

    results = fanmap.map(abs, [1, 2], executor="threads", progress=refuse)
    with pytest.raises(LookupError, match="no display"):
        next(results)
    assert list(results) == []


class Bars(list[Any]):
    """The bars that were opened, each of which writes here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        original = tqdm.tqdm

        def make(**options: Any) -> Any:
            bar = original(**options, file=io.StringIO())
            self.append(bar)
            return bar

        monkeypatch.setattr(tqdm, "tqdm", make)


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> Bars:
    # A thread of tqdm's own, which would outlive the test.
    monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)
    return Bars(monkeypatch)


@both
def test_a_bar_counts_items_up_to_the_inputs_length(name: str, bars: Bars) -> None:
    assert list(fanmap.map(abs, range(5000), executor=name, progress=True)) == list(range(5000))
    (bar,) = bars
    assert (bar.n, bar.total, bar.disable) == (5000, 5000, True)  # a closed bar is a disabled one
    assert "5000/5000" in bar.fp.getvalue()


def test_a_text_is_the_bars_label(bars: Bars) -> None:
    list(fanmap.map(abs, iter([1, 2]), executor="threads", progress="numbers"))
    assert bars[0].fp.getvalue().count("numbers: ") >= 1 and bars[0].n == 2


@both
@pytest.mark.parametrize("how", ["error", "close", "drop"])
def test_a_bar_is_closed_however_the_map_ends(name: str, how: str, bars: Bars) -> None:
    results: Any = fanmap.map(operator.truediv, [1, 1], [1, 0], executor=name, progress=True)
    assert next(results) == 1.0
    if how == "error":
        with pytest.raises(ZeroDivisionError):
            next(results)
    elif how == "close":
        results.close()
    else:
        del results
    assert bars[0].disable and bars[0].n == (2 if how == "error" else 1)


def test_the_family_shows_its_progress_too() -> None:
    for call in (
        lambda seen: list(fanmap.starmap(pow, [(1, 2)] * 9, executor="threads", progress=seen)),
        lambda seen: list(fanmap.filter(None, [0, 1, 2] * 3, executor="threads", progress=seen)),
        lambda seen: fanmap.for_each(abs, range(9), executor="threads", progress=seen),
        lambda seen: fanmap.reduce(operator.add, range(9), executor="threads", progress=seen),
        lambda seen: asyncio.run(drain(fanmap.amap(abs, range(9), executor="threads", progress=seen))),
    ):
        seen = Seen()
        call(seen)
        assert seen.is_rising() and seen.told[0] == (0, 9) and seen.told[-1] == (9, 9)


async def drain(results: Any) -> None:
    async for _ in results:
        pass


def test_without_tqdm_the_call_says_what_to_install() -> None:
    good("""
        import sys
        sys.modules["tqdm"] = None
        import fanmap
        for wish in (True, "label"):
            try:
                fanmap.map(abs, [1], progress=wish, executor="processes")
            except ImportError as error:
                assert "pip install 'fanmap[progress]'" in str(error), error
            else:
                raise AssertionError("it was shown by nothing")
        assert list(fanmap.map(abs, [-1], progress=False, executor="processes")) == [1]
        assert list(fanmap.map(abs, [-1], progress=lambda done, total: None, executor="processes")) == [1]
    """)


@pytest.mark.parametrize("wish", [3, 1.5, []])
def test_what_shows_nothing_is_refused(wish: Any) -> None:
    with pytest.raises(TypeError, match="progress must be True, a label, or a function"):
        fanmap.map(abs, [1], progress=wish, executor="processes")


def test_the_example_runs() -> None:
    said = good(f"""
        import os, runpy, sys
        os.environ["FANMAP_DEMO"] = "small"
        sys.stderr = sys.stdout  # where tqdm writes
        runpy.run_path({str(ROOT / "examples/progress.py")!r}, run_name="__main__")
    """)
    assert "with_a_function found" in said.splitlines()[-1] and "200 of 200" in said
