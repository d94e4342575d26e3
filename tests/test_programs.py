"""Programs written for `concurrent.futures` give the same output with `fanmap` in its place.

Each file in `programs/` is a program of its own, written for the standard library. It runs as it is, and once more with
the one line that imports it changed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))


def test_there_are_programs() -> None:
    assert len(PROGRAMS) >= 15


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_a_program_gives_the_same_under_both(program: Path, tmp_path: Path) -> None:
    theirs = program.read_text(encoding="utf-8")
    ours, swapped = re.subn(r"^(from|import) concurrent\.futures\b", r"\1 fanmap", theirs, flags=re.MULTILINE)
    assert swapped == 1
    running = [start(tmp_path / name, source) for name, source in (("theirs", theirs), ("ours", ours))]
    try:
        expected, got = [(*process.communicate(timeout=50), process.returncode) for process in running]
    finally:
        for process in running:
            process.kill()
    assert expected[0] and "Traceback" not in expected[1], expected[1]
    assert got == expected


def start(directory: Path, source: str) -> subprocess.Popen[str]:
    directory.mkdir()
    script = directory / "program.py"
    script.write_text(source, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, script.name],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
