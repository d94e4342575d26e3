"""The benchmarks' own arithmetic, table and picture, and that workloads run. No test asserts a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from comparison import chart, report
from comparison.driver import ended_within
from comparison.plan import Figure, Workload, in_order, quantile
from comparison.roster import ROSTER, chosen, library
from comparison.summary import Cell, Record, cell, cells, number, ranked
from comparison.targets import BEST, TARGETS, Target, judge, targets_of
from comparison.workloads import WORKLOADS, idle
from comparison.workloads import chosen as workloads_called
from hypothesis import given
from hypothesis import strategies as st

BENCHES = Path(__file__).parent.parent / "benches"


def row(**medians: float) -> dict[str, Cell]:
    """A row of the table; `pool_threads` stands for the peer pool-threads."""
    return {name.replace("_", "-"): Cell(median, median, median) for name, median in medians.items()}


def test_a_round_counts_once_however_often_it_repeated() -> None:
    assert cell([[1.0, 1.0, 1.0, 1.0], [5.0], [9.0]]) == Cell(5.0, 1.0, 9.0)


def test_a_peer_without_a_figure_has_no_cell() -> None:
    peers: dict[str, Record] = {
        "fanmap": {"values": {"rate": [[2.0]]}},
        "joblib": {"values": {}, "not_offered": "submit"},
        "pool": {"values": {}, "failed": "over 60 s"},
    }
    assert cells(peers, "rate") == {"fanmap": Cell(2.0, 2.0, 2.0)}


def test_the_best_comes_first_whichever_way_is_better() -> None:
    assert ranked(row(a=1, b=3, c=2), more_is_better=True) == ["b", "c", "a"]
    assert ranked(row(a=1, b=3, c=2), more_is_better=False) == ["a", "c", "b"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.3456, "0.35"),
        (1.0, "1.00"),
        (12.34, "12.3"),
        (999.6, "1000"),
        (9876, "9876"),
        (12345, "12.3 k"),
        (6.1e6, "6.10 M"),
    ],
)
def test_numbers_have_three_digits(value: float, words: str) -> None:
    assert number(value) == words


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50), st.integers(1, 8))
def test_the_best_schedule_is_no_shorter_than_the_work_and_no_longer_than_a_single_worker(
    durations: list[float], workers: int
) -> None:
    best = in_order(durations, workers)
    assert max(max(durations), sum(durations) / workers) <= best * (1 + 1e-9)
    assert best <= sum(durations) * (1 + 1e-9)


def test_a_long_item_at_the_end_starts_last() -> None:
    assert in_order([1] * 160 + [40], workers=2) == 120
    assert in_order([40] + [1] * 160, workers=2) == 100


@given(st.lists(st.floats(allow_nan=False), min_size=1))
def test_a_quantile_is_one_of_the_values(values: list[float]) -> None:
    assert quantile(values, 0.99) in values
    assert quantile(values, 0) == min(values)


def test_a_ratio_is_judged_in_the_direction_of_its_target() -> None:
    faster = Target("w", "f", "at least", 1.2, "pool")
    assert judge(faster, row(fanmap=13, pool=10), True).met
    assert not judge(faster, row(fanmap=11, pool=10), True).met
    sooner = Target("w", "f", "at most", 0.5, "futures")
    assert judge(sooner, row(fanmap=4, futures=10), False).met
    assert not judge(sooner, row(fanmap=6, futures=10), False).met


def test_a_number_is_judged_by_itself() -> None:
    verdict = judge(Target("w", "f", "at most", 12, None, "MB"), row(fanmap=13, pool=1), False)
    assert (verdict.shown, verdict.met) == (13, False)


def test_the_best_peer_is_no_baseline_and_none_of_ours() -> None:
    best = Target("w", "f", "at least", 1, BEST)
    others = {"plain": 99, "copy": 99, "fanmap_dropin": 99, "joblib": 8.0, "pool": 9.0}
    assert judge(best, row(fanmap=9, **others), True) == judge(
        Target("w", "f", "at least", 1, "pool"), row(fanmap=9, pool=9), True
    )
    assert not judge(best, row(fanmap=8.5, **others), True).met
    # As near as the next run may change.
    assert judge(best, row(fanmap=8.9, **others), True).met


def test_what_was_not_measured_is_not_judged() -> None:
    assert judge(Target("w", "f", "at least", 1, "ray"), row(fanmap=1), True) is None
    assert judge(Target("w", "f", "at least", 1, BEST), row(fanmap=1), True) is None
    assert judge(Target("w", "f", "at least", 1, "pool"), row(pool=1), True) is None


def test_threads_of_ours_are_ours() -> None:
    assert judge(
        Target("w", "f", "at least", 60, "futures-threads"), row(fanmap_threads=70, futures_threads=1), True
    ).met


def test_every_target_names_a_row_and_a_peer_in_it() -> None:
    casts = {(one.name, figure.key): one.cast for one in WORKLOADS for figure in one.figures}
    for target in TARGETS:
        cast = casts[target.workload, target.figure]
        assert target.of in (None, BEST) or target.of in cast, target
        assert target.ours is None or target.ours in cast, target
        assert target in targets_of(target.workload, target.figure)


def test_every_workload_has_ours_and_only_peers_of_the_roster() -> None:
    assert len({one.name for one in WORKLOADS}) == len(WORKLOADS)
    for workload in WORKLOADS:
        assert set(workload.cast) <= set(ROSTER), workload.name
        assert set(workload.short_cast or ()) <= set(workload.cast), workload.name
        assert any(library(name) == "fanmap" for name in workload.cast), workload.name


def test_workloads_and_peers_are_asked_for_by_the_beginning_of_their_names() -> None:
    assert [one.name for one in workloads_called(["storm"])] == ["storm", "storm-threads"]
    assert [one.name for one in workloads_called(["even-1ms"])] == ["even-1ms"]
    with pytest.raises(ValueError, match="no workload is called stor;"):
        workloads_called(["stor"])
    assert chosen(("fanmap", "futures", "futures-fork", "pool"), ["futures", "pool"]) == [
        "futures",
        "futures-fork",
        "pool",
    ]
    assert chosen(("futures", "futures-fork"), ["futures-fork"]) == ["futures-fork"]


TOY = Workload("tiny-map", "a toy", "all of it", (Figure("rate", "", "items/s", True),), (), lambda *_: {})
TAKEN: dict[str, dict[str, Record]] = {
    "tiny-map": {
        "plain": {"values": {"rate": [[9e6]]}},
        "fanmap": {"values": {"rate": [[1.0e6], [3.0e6], [2.0e6]]}},
        "pool": {"values": {"rate": [[1.0e6], [1.0e6]]}},
        "loky": {"values": {}, "failed": "Error: a|b <c>"},
        "joblib": {"values": {}, "not_offered": "map"},
    }
}


def test_a_row_of_the_table_has_the_spread_the_peers_the_target_and_what_is_missing() -> None:
    line = report.table(TAKEN, [TOY]).splitlines()[2]
    work, ours, peers, target, shown = line.strip("| ").split(" | ")
    assert work == "a toy, items/s"
    assert ours == "**2.00 M (1.00 M to 3.00 M)**"
    assert peers == ("built-in map 9.00 M; multiprocessing.Pool 1.00 M; not offered: joblib; loky: Error: a/b &lt;c>")
    assert target.startswith("at least 1.2x multiprocessing.Pool<br>")
    assert shown == "2.00x, met<br>not measured<br>not measured"
    assert report.tally(TAKEN, [TOY]) == (1, 1)


def test_a_peer_that_failed_in_some_rounds_is_named_once() -> None:
    slow: Record = {"values": {"rate": [[1.0e6]]}, "failed": "over 30 s"}
    line = report.table({"tiny-map": {**TAKEN["tiny-map"], "pool": slow}}, [TOY])
    assert "; multiprocessing.Pool 1.00 M, but once over 30 s; not offered: joblib; loky: Error" in line


def test_where_ours_failed_its_targets_are_not_met() -> None:
    taken = {"tiny-map": {**TAKEN["tiny-map"], "fanmap": {"values": {}, "failed": "over 20 s"}}}
    assert report.table(taken, [TOY]).count("no figure, **not met**") == 3
    assert report.tally(taken, [TOY]) == (0, 3)


def test_the_page_says_what_lies_within_the_time() -> None:
    page = report.page(TAKEN, [TOY], "then and there")
    assert "- a toy: all of it.\n" in page
    assert "within\n2% of it" in page, "what level means"


def test_the_picture_has_a_bar_for_each_peer_and_ours_is_set_apart() -> None:
    (panel,) = report.panels(TAKEN, [TOY])
    assert [(bar.label, bar.ours) for bar in panel.bars] == [
        ("built-in map", False),
        ("fanmap", True),
        ("multiprocessing.Pool", False),
    ]
    drawn = ElementTree.fromstring(chart.draw([panel, panel, panel], "then & there"))
    bars = [one for one in drawn.iter("{http://www.w3.org/2000/svg}rect") if one.get("fill") != "#ffffff"]
    assert len(bars) == 9
    assert [one.get("fill") == chart.OURS for one in bars[:3]] == [False, True, False]


@given(st.lists(st.floats(0, 1e9), min_size=1))
def test_bars_fit_their_place_in_the_order_of_their_values(values: list[float]) -> None:
    shares = chart.lengths(values)
    assert all(0 <= share <= 1 for share in shares)
    assert sorted(shares) == [share for _, share in sorted(zip(values, shares, strict=True))]


def test_what_hangs_is_ended_with_its_whole_group() -> None:
    child = "import os, signal; os.fork(); signal.pause()"
    program = subprocess.Popen([sys.executable, "-W", "ignore", "-c", child], start_new_session=True)
    assert not ended_within(program, 0.2)
    assert program.returncode == -signal.SIGKILL


def test_who_reads_no_more_of_the_list_sees_no_traceback() -> None:
    with subprocess.Popen(
        [sys.executable, BENCHES / "speed.py", "--list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        assert program.stdout is not None and program.stderr is not None
        program.stdout.close()
        assert program.stderr.read() == b""


def test_a_worker_that_has_ended_has_no_memory() -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as ended:
        ended.wait()
    (held,) = idle.private([ended.pid, os.getpid()])
    assert held > 0


def measured(tmp_path: Path, *args: str) -> dict[str, dict[str, Record]]:
    """What `speed.py` takes with this interpreter, at a scale at which it measures nothing."""
    command = [sys.executable, BENCHES / "speed.py", "--scale", "0.01", "--rounds", "1", "--save", "--into", tmp_path]
    done = subprocess.run([*command, *args], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "speed.json").read_text())
    assert (tmp_path / "speed.md").read_text() in done.stdout
    assert (tmp_path / "speed.svg").read_text().startswith("<svg")
    taken: dict[str, dict[str, Record]] = figures["workloads"]
    return taken


def test_a_workload_runs_with_ours_and_the_standard_librarys_peers(tmp_path: Path) -> None:
    taken = measured(tmp_path, "--only", "storm", "--peers", "fanmap,futures,pool,joblib")
    assert set(taken) == {"storm", "storm-threads"}
    for name in ("fanmap", "futures-fork", "pool"):
        rate, *_ = taken["storm"][name]["values"]["rate"][0]
        assert rate > 0
    joblib = taken["storm"]["joblib"]
    assert joblib.get("failed") == "not installed" or joblib["not_offered"] == "submit"


def test_what_takes_too_long_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    taken = measured(tmp_path, "--only", "storm-threads,sleeps", "--peers", "fanmap", "--limit", "0.001")
    assert [records["fanmap-threads"]["failed"] for records in taken.values()] == ["over 0.001 s"] * 2
