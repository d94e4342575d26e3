"""`fanmap.explain` tells what was measured, what each way costs, what is chosen and why, and what would change it."""

from __future__ import annotations

import os
import threading
import time

import fanmap
import pytest
from conftest import children
from fanmap._choice import Measured
from fanmap._explain import account

lock = threading.Lock()


def compute(rounds: int) -> int:
    total = 0
    for k in range(rounds):
        total += k & 3
    return total


def wait(seconds: float) -> None:
    time.sleep(seconds)


def guarded(rounds: int) -> int:
    with lock:
        return compute(rounds)


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    lines = capsys.readouterr().out.splitlines()
    return {"": lines[0]} | {line[2:16].strip(): line[16:] for line in reversed(lines[1:])}


@pytest.mark.skipif(fanmap.cpu_count() < 2, reason="one core")
def test_it_tells_of_computing(capsys: pytest.CaptureFixture[str]) -> None:
    fanmap.explain(compute, [50_000] * 1000)
    said = told(capsys)
    assert said[""] == "fanmap.map(compute, ...) over 1,000 items"
    assert said["chosen"].partition(",")[0] in ("processes", "threads")
    assert all(way in said["would take"] for way in ("serial", "threads", "processes"))
    assert {"looked at", "an item", "two threads", "sending", "here"} <= set(said)


def test_it_tells_of_waiting(capsys: pytest.CaptureFixture[str]) -> None:
    fanmap.explain(wait, [0.01] * 200)
    said = told(capsys)
    assert said["chosen"].startswith("threads, up to ")
    assert "waiting" in said["an item"]


def test_an_account_is_of_the_measurements_alone() -> None:
    seen = Measured(wall=5e-3, cpu=5e-3, items=16, left=1000, cores=2, copy=1e-5, bytes=16, pair=1.0)
    said = account("compute", 1000, seen)
    assert "would take    processes 2.58 s, serial 5 s, threads 5.01 s\n" in said
    assert "chosen        processes, 2: it computes" in said
    said = account("compute", 1000, seen._replace(refusal="it holds a lock"))
    assert "sending       impossible: it holds a lock\n" in said
    assert "chosen        serial: two threads are no faster than one, and it cannot go to processes" in said
    assert "would change  if it could be sent: processes" in said
    said = account("compute", 1000, seen._replace(refusal="it holds a lock", pair=1.9))
    assert "chosen        threads, 2: it releases the interpreter's lock" in said
    assert "looked at     16 of them, in the calling thread and in two threads\n" in said
    said = account("compute", 1, seen._replace(left=1, items=1, cores=1, pair=None, not_here="retries"))
    assert said.startswith("fanmap.map(compute, ...) over 1 item\n")
    assert "looked at     1 of them, in the calling thread\n" in said
    assert "here          1 core; " in said
    assert "ruled out     the calling thread, by retries=\n" in said


def test_it_tells_what_would_change_the_choice(capsys: pytest.CaptureFixture[str]) -> None:
    fanmap.explain(wait, [0.01])
    said = told(capsys)
    assert said["chosen"] == "serial: there is one item at most"
    assert said["would change"] == "with 10 items: threads"


@pytest.mark.skipif(fanmap.cpu_count() < 2, reason="one core")
def test_it_tells_why_a_function_cannot_be_sent(capsys: pytest.CaptureFixture[str]) -> None:
    def closure(rounds: int) -> int:
        return (mine and compute(rounds)) or 0

    mine = threading.Lock()
    fanmap.explain(closure, [50_000] * 1000)
    said = told(capsys)
    assert said["sending"].startswith("impossible: cannot send the function")
    assert "processes" not in said["would take"]
    assert "would change" in said or said["chosen"].startswith("threads")


def test_an_input_that_does_not_tell_its_length_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    fanmap.explain(abs, (x for x in [-1, -2]))
    assert told(capsys)[""] == "fanmap.map(abs, ...) over an input that does not tell its length"


def test_of_an_empty_input_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    for empty in ([], iter([]), (x for x in [])):
        fanmap.explain(abs, empty)
        said = told(capsys)
        assert said[""] == "fanmap.map(abs, ...) over an empty input" and said["looked at"] == "nothing"


def test_no_process_is_started_for_it() -> None:
    before = children(os.getpid())
    fanmap.explain(compute, [50_000] * 1000)
    assert children(os.getpid()) <= before


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"task_timeout": 3.0}, "task_timeout= is for worker processes."),
        ({"initializer": os.getpid}, "initializer= is for worker processes."),
        ({"initializer": os.getpid, "executor": "threads"}, "executor='threads' was named"),
        ({"max_memory_per_worker": 2**30}, "max_memory_per_worker= is for worker processes."),
        ({"worker_memory_limit": 2**30}, "worker_memory_limit= is for worker processes."),
        ({"tag_output": True}, "tag_output= is for worker processes."),
        ({"executor": "serial"}, "executor='serial' was named"),
    ],
)
def test_where_there_is_no_choice_nothing_is_measured(
    options: dict[str, object], match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fanmap.explain(compute, iter(lambda: pytest.fail("the input was read"), None), **options)  # type: ignore[arg-type]
    out = capsys.readouterr().out
    assert match in out
    assert "Nothing was measured." in out


def test_what_the_function_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        fanmap.explain(lambda x: 1 // x, [0])
