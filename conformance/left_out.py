"""Reads `left_out.txt`: the cases that are left out of a suite, each with its reason."""

import re
from pathlib import Path


def version_of(suite: Path) -> tuple[int, ...]:
    """The Python that a suite was made for, by the folder of the library that it lies in."""
    found = re.search(r"/python(3\.\d+)/", str(suite))
    if found is None:
        raise ValueError(f"{suite} does not say which Python it was made for")
    return _version(found.group(1))


def left_out(path: Path, version: tuple[int, ...]) -> dict[str, str]:
    """The patterns that apply to the suite of this version, each with its reason."""
    patterns = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            pattern, suites, reason = line.split(None, 2)
            since, _, until = suites.partition("-")
            if _version(since) <= version and (not until or version <= _version(until)):
                patterns[pattern] = reason
    return patterns


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))
