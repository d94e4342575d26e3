"""Programs written for `concurrent.futures` give the same output with `fanmap` in its place.

Each file in `programs/` is a program of its own, written for the standard library. It runs as it is, and once more with
that one name replaced.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))


def test_there_are_programs() -> None:
    assert len(PROGRAMS) >= 15


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_a_program_gives_the_same_under_both(program: Path, tmp_path: Path) -> None:
    theirs = program.read_text(encoding="utf-8")
    ours = theirs.replace("concurrent.futures", "fanmap")
    assert "import concurrent.futures" in theirs or "from concurrent.futures import" in theirs
    directories = tmp_path / "theirs", tmp_path / "ours"
    # Side by side, by the library that is not on trial.
    with ThreadPoolExecutor(2) as pool:
        expected, got = pool.map(run, directories, (theirs, ours))
    assert expected[0] and not expected[2].startswith("Traceback"), expected[2]
    assert got == expected


def run(directory: Path, source: str) -> tuple[str, int, str]:
    """What a program prints, its exit code, and what it says on standard error."""
    directory.mkdir()
    script = directory / "program.py"
    script.write_text(source, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script.name], cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    return done.stdout, done.returncode, done.stderr
