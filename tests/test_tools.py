"""Tools that look into workers: faulthandler, coverage, pdb."""

from __future__ import annotations

import os
from pathlib import Path

import coverage
import pytest
from _scripts import Terminal, run

WAYS = ["template", "fork", "forkserver", "spawn"]
each_way = pytest.mark.parametrize("way", WAYS)

PROGRAM = """\
import fanmap, multiprocessing, os, sys
def work(x):
    y = x + 1
    return y
if __name__ == "__main__":
    context = None if sys.argv[1] == "template" else multiprocessing.get_context(sys.argv[1])
    with fanmap.ProcessPoolExecutor(2, context) as pool:
        list(pool.map(work, range(3)))
"""
BODY = {3, 4}


@each_way
def test_a_crash_in_c_writes_the_stack_of_its_worker(way: str) -> None:
    result = run(
        """
        import fanmap, multiprocessing, signal, sys
        if __name__ == "__main__":
            context = None if sys.argv[1] == "template" else multiprocessing.get_context(sys.argv[1])
            with fanmap.ProcessPoolExecutor(1, context) as pool:
                print(pool.submit(signal.raise_signal, signal.SIGSEGV).exception(60).signal)
        """,
        way,
    )
    assert (result.status, result.out) == (0, "SIGSEGV\n")
    assert result.err.startswith("Fatal Python error: Segmentation fault")
    assert "_worker.py" in result.err


def test_a_faulthandler_that_the_program_has_set_up_stays(tmp_path: Path) -> None:
    result = run(
        """
        import fanmap, faulthandler, multiprocessing, signal, sys
        faulthandler.enable(open(sys.argv[1], "w"))
        with fanmap.ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
            print(pool.submit(signal.raise_signal, signal.SIGSEGV).exception(60).signal)
        """,
        str(tmp_path / "fault"),
    )
    assert (result.status, result.out, result.err) == (0, "SIGSEGV\n", "")
    assert "Segmentation fault" in (tmp_path / "fault").read_text()


def covered(directory: Path, way: str, program: str) -> set[int]:
    """The lines that ran, of a program under coverage: in its own process and in its workers."""
    script = directory / "program.py"
    script.write_text(program)
    settings = directory / "coveragerc"
    # A forked process has its data apart, if it is told to.
    patch = "patch = fork\n" if way == "fork" else ""
    settings.write_text(f"[run]\nparallel = true\ndata_file = {directory}/data\n{patch}")
    os.environ["COVERAGE_PROCESS_START"] = str(settings)
    try:
        result = run("", way, command=(str(script),))
    finally:
        del os.environ["COVERAGE_PROCESS_START"]
    assert (result.status, result.err) == (0, "")
    lines: set[int] = set()
    for file in directory.glob("data.*"):
        data = coverage.CoverageData(basename=str(file))
        data.read()
        lines.update(data.lines(str(script)) or ())
        data.close()
    return lines


@each_way
def test_coverage_sees_what_runs_in_workers(way: str, tmp_path: Path) -> None:
    lines = covered(tmp_path, way, PROGRAM)
    assert lines >= {1, 2, 5, 8} | BODY


def test_coverage_sees_what_runs_in_the_workers_of_a_map(tmp_path: Path) -> None:
    lines = covered(
        tmp_path,
        "",
        PROGRAM[: PROGRAM.index("    context")] + "    list(fanmap.map(work, range(3), executor='processes'))\n",
    )
    assert lines >= {1, 2, 5, 6} | BODY


@each_way
def test_a_breakpoint_in_a_worker_asks_the_terminal(way: str, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.replace("    y = x + 1\n", "    y = x + 40\n    if x == 2: breakpoint()\n"))
    with Terminal(str(script), way) as terminal:
        terminal.until("(Pdb in worker ")
        terminal.until(") ")
        terminal.type("p 'y', y")
        terminal.until("('y', 42)")
        terminal.until(") ")
        terminal.type("continue")
        terminal.rest()
        assert terminal.program.returncode == 0


def test_a_breakpoint_without_a_terminal_is_its_tasks_error() -> None:
    result = run("""
        import fanmap
        def work(x):
            breakpoint()
        with fanmap.ProcessPoolExecutor(1) as pool:
            print(type(pool.submit(work, 1).exception(60)).__name__)
            print(pool.submit(abs, -1).result(60))
    """)
    assert result.status == 0 and result.out.endswith("BdbQuit\n1\n"), result


def test_a_breakpoint_hook_of_the_environment_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONBREAKPOINT", "builtins.print")
    result = run("""
        import fanmap
        with fanmap.ProcessPoolExecutor(1) as pool:
            pool.submit(breakpoint, "hooked").result(60)
    """)
    assert (result.status, result.out, result.err) == (0, "hooked\n", "")
