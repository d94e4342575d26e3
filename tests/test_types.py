"""Type checkers know the results: mypy and pyright read `typed.py`, in which each line says what its type is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def checked(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=55
    )


def test_mypy_knows_the_results() -> None:
    pytest.importorskip("mypy", reason="mypy is not installed")
    done = checked("mypy", "tests/typed.py")
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_knows_the_results() -> None:
    pytest.importorskip("pyright", reason="pyright is not installed")
    if checked("pyright", "--version").returncode:
        pytest.skip("pyright cannot be run: it fetches its program, and node, when it is first used")
    done = checked("pyright")
    assert done.returncode == 0, done.stdout + done.stderr
