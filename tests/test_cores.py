"""How many cores are ours, who is told, and `python -m fanmap doctor`."""

from __future__ import annotations

import os
import re

import fanmap
import pytest
from _scripts import good, run

# What a program starts with that may use one core only.
ONE_CORE = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
DOCTOR = (
    ONE_CORE + "import runpy, sys; sys.argv = ['fanmap', 'doctor']; runpy.run_module('fanmap', run_name='__main__')"
)


def test_no_more_cores_are_ours_than_affinity_allows() -> None:
    assert 1 <= fanmap.cpu_count() <= len(os.sched_getaffinity(0))
    good(ONE_CORE + "import fanmap; assert fanmap.cpu_count() == 1")


def test_pools_have_as_many_workers_as_there_are_cores() -> None:
    good(f"""
        {ONE_CORE}
        import fanmap
        assert fanmap.ProcessPoolExecutor()._max_workers == 1
        assert fanmap.ThreadPoolExecutor()._max_workers == 5  # a few more, since threads mostly wait
    """)


def _parent_and_self(_: int) -> tuple[int, int]:
    return os.getppid(), os.getpid()


@pytest.mark.parametrize("name", ["threads", "processes"])
def test_minus_one_worker_is_as_many_as_cores(name: str) -> None:
    results = fanmap.map(_parent_and_self, range(200), executor=name, workers=-1)
    pool = fanmap._default._own[-1]
    assert pool._max_workers == fanmap.cpu_count()
    assert len(set(results)) <= fanmap.cpu_count()


def _section(text: str, name: str) -> dict[str, str]:
    """The lines of one part of the report, by their names."""
    lines = text.split(f"\n{name}", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    return {line[2:26].strip(): line[26:] for line in lines}


def test_the_doctor_tells_what_it_found() -> None:
    text = good("", command=("-m", "fanmap", "doctor"))
    assert text.startswith(f"fanmap {fanmap.__version__}\n")
    cores = _section(text, "cores")
    assert cores["of the machine"] == str(os.cpu_count())
    assert cores["by affinity"].startswith(f"{len(os.sched_getaffinity(0))} (")
    assert cores["fanmap.cpu_count()"] == str(fanmap.cpu_count())
    assert re.fullmatch(r"no limit|[\d.]+", cores["by the cgroup's quota"])
    memory = _section(text, "memory")
    assert all(re.fullmatch(r"no limit|[\d.]+ GiB", value) for value in memory.values()) and len(memory) == 3
    methods = _section(text, "start methods")
    assert list(methods) == ["fork", "forkserver", "spawn", "the default"]
    assert all(re.match(r"\d+($| )", value) for value in methods.values()), methods
    assert _section(text, "defaults")['executor="threads"'] == f"{min(32, fanmap.cpu_count() + 4)} workers"
    for word in ("A core ", "A process ", "A thread ", "A pool "):
        assert word in " ".join(text.split())


def test_the_doctor_knows_that_one_core_is_ours() -> None:
    text = good(DOCTOR)
    assert _section(text, "cores")["by affinity"].startswith("1 (")
    assert _section(text, "cores")["fanmap.cpu_count()"] == "1"
    assert _section(text, "defaults")['executor="processes"'] == "1 worker"
    assert "Of these one is yours" in " ".join(text.split())


def test_a_start_method_that_does_not_work_is_told_and_the_report_goes_on() -> None:
    text = good("import sys; sys.executable = '/nowhere/python'\n" + DOCTOR)
    methods = _section(text, "start methods")
    assert methods["spawn"].startswith("does not work here: ")
    assert methods["fork"].isdigit()
    assert "A pool is" in " ".join(text.split())


@pytest.mark.parametrize("arguments", [(), ("nurse",), ("doctor", "now")])
def test_a_command_line_that_makes_no_sense_is_said_so_with_code_2(arguments: tuple[str, ...]) -> None:
    ended = run("", *arguments, command=("-m", "fanmap"))
    assert (ended.status, ended.out) == (2, "")
    assert "usage: python -m fanmap" in ended.err and "error: " in ended.err
    if arguments == ("nurse",):
        assert "'nurse'" in ended.err and "doctor" in ended.err
