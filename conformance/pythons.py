"""The Pythons on this machine, and where CPython's tests of `concurrent.futures` lie."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

OLDEST = (3, 11)
# Where interpreters are installed: what is on PATH, pyenv's, uv's, and those that were unpacked by hand.
PLACES = (
    *(f"{folder}/python3.*" for folder in os.environ.get("PATH", "").split(os.pathsep) if folder),
    f"{os.environ.get('PYENV_ROOT', os.path.expanduser('~/.pyenv'))}/versions/*/bin/python3",
    os.path.expanduser("~/.local/share/uv/python/*/bin/python3"),
    "/opt/python*/*/bin/python3",
    "/opt/python*/*/usr/bin/python3.*",
)
_LOOK = """
import json, os, platform, sys, sysconfig
import venv
print(json.dumps([platform.python_version(), sys.version_info[:2], os.path.realpath(sys.executable),
    sysconfig.get_path("stdlib"), platform.python_implementation()]))
"""
# Without one, a Python's tests may lie where Debian's package puts them.
_BESIDE = "/usr/lib/python{}.{}/test"


@dataclass(frozen=True, order=True)
class Python:
    """An interpreter: its version, its program, and its own suite if it was installed with one."""

    minor: tuple[int, int]
    version: str
    path: Path
    suite: Path | None


def look_at(program: str) -> Python:
    """The interpreter behind a path, or a name on PATH. SystemExit if it cannot be used."""
    python = _look(shutil.which(program) or program)
    if python is None:
        raise SystemExit(f"conformance: {program} is no CPython 3.11 or newer that can make a venv")
    return python


def find() -> list[Python]:
    """Every CPython of 3.11 or newer here, the oldest first; one of each version, with a suite if any has."""
    best: dict[str, Python] = {}
    for place in PLACES:
        for program in sorted(glob.glob(place)):
            if not re.fullmatch(r"python3(\.\d+)?", os.path.basename(program)):
                continue
            python = _look(program)
            if python is not None and (python.version not in best or best[python.version].suite is None):
                best[python.version] = python
    return sorted(best.values(), key=lambda python: (python.minor, python.version))


def suite_for(python: Python, others: list[Python]) -> Path | None:
    """A suite for `python`: its own, its version's that lies elsewhere, or the next newer one's."""
    if python.suite is not None:
        return python.suite
    beside = _suite_in(Path(_BESIDE.format(*python.minor)))
    if beside is not None:
        return beside
    newer = [other.suite for other in others if other.suite is not None and other.minor >= python.minor]
    return newer[0] if newer else None


def _look(program: str) -> Python | None:
    try:
        # A shim of an inactive version fails here, as does what is no Python at all.
        said = subprocess.run([program, "-I", "-c", _LOOK], capture_output=True, text=True, timeout=30, check=True)
        version, minor, real, library, kind = json.loads(said.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    if kind != "CPython" or tuple(minor) < OLDEST:
        return None
    return Python(tuple(minor), version, Path(real), _suite_in(Path(library, "test")))


def _suite_in(tests: Path) -> Path | None:
    for name in ("test_concurrent_futures", "test_concurrent_futures.py"):
        # An installation without the tests may have left the folder's cache.
        if (tests / name / "__init__.py").exists() or (tests / name).is_file():
            return tests / name
    return None
