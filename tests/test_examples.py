"""The examples, each run as a user runs it: as a script, on a small part of its input."""

import os
import subprocess
import sys
from pathlib import Path

import fanmap
import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
# The rows of each example's table: the ways to run its job.
WAYS = {
    "scientists.py": {"serial", "threads", "processes"},
    "crunch.py": {"serial", "fanmap.map"},
    "scrape.py": {"serial", "fanmap.map"},
}
# The way that a map goes in it with no executor named.
CHOSEN = {"crunch.py": "processes", "scrape.py": "threads"}


def run(example: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run the example from elsewhere than its own folder, and look that it leaves no process.

    It and all that it starts are a process group of their own, so the group's end is theirs.
    """
    with subprocess.Popen(
        [sys.executable, EXAMPLES / example],
        cwd=directory,
        env={**os.environ, "FANMAP_DEMO": "small"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=50)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            raise
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def cells(output: str) -> dict[str, list[str]]:
    """The table in an example's output: for each way to run the job the cells to the right of its name."""
    lines = output.splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("how "))
    width = lines[first].index("workers") - 1
    table = lines[first + 1 : lines.index("", first)]
    return {line[:width].strip(): line[width:].split() for line in table}


@pytest.mark.parametrize("example", WAYS)
def test_an_example_runs_shows_its_table_and_leaves_nothing(example: str, tmp_path: Path) -> None:
    done = run(example, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
    table = cells(done.stdout)
    assert set(table) == WAYS[example]
    assert table["serial"][0] == "1"


@pytest.mark.skipif(fanmap.cpu_count() < 2, reason="one core")
@pytest.mark.parametrize(("example", "way"), CHOSEN.items())
def test_an_example_that_names_no_executor_goes_the_right_way(example: str, way: str, tmp_path: Path) -> None:
    # What is measured depends on what else this machine does, so one run of several must show it.
    assert any(f"fanmap.map: went over {way}\n" in run(example, tmp_path).stdout for _ in range(4))


def test_the_first_lesson_says_who_handled_which_record(tmp_path: Path) -> None:
    done = run("scientists.py", tmp_path)
    assert done.returncode == 0, done.stderr
    said = [line.split(": ") for line in done.stdout.splitlines() if line.startswith("  process ")]
    names = [name for _, name in said]
    assert len(names) == 24
    assert all(names.count(name) == 3 for name in names), "each record once serially, over threads and over processes"
    assert len({who.split()[1] for who, _ in said}) > 1, "worker processes are other processes"


def test_every_example_has_its_place_in_the_page() -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [example for example in WAYS if f"({example})" not in page] == []
