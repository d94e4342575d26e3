"""One program over threads, processes, Dask and Ray: the same results. The last two need `make test-cluster`."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from _scripts import run

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "anywhere.py"


@functools.cache
def results(executor: str) -> str:
    """What the example says, without the line that says where it ran."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXECUTOR", executor)
        patch.setenv("FANMAP_DEMO", "small")
        ended = run("", command=(str(EXAMPLE),))
    where, _, rest = ended.out.partition("\n")
    assert (ended.status, where) == (0, f"over {executor}:"), ended.err
    return rest


@pytest.mark.parametrize(
    ("executor", "package"), [("processes", "fanmap"), ("dask", "distributed"), ("ray", "ray")], ids=lambda name: name
)
def test_the_same_text_gives_the_same_everywhere(executor: str, package: str) -> None:
    pytest.importorskip(package)
    assert "modules" in results("threads")
    assert results(executor) == results("threads")


def test_an_executor_that_is_none_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXECUTOR", "moon")
    ended = run("", command=(str(EXAMPLE),))
    assert ended.status == 1 and "EXECUTOR=moon" in ended.err
