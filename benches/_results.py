"""What the benchmarks share: a table to read, and figures to keep with their date, machine and versions."""

import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


# How many processes ran, on average, in the minute before the benchmark did: a figure from a busy machine says less.
LOAD_BEFORE = round(os.getloadavg()[0], 2)


def table(rows: Sequence[Sequence[str]]) -> str:
    """The rows as lines with columns of one width: the first to the left, the others, numbers, to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])]).rstrip() for cells in rows
    )


def save(name: str, figures: dict[str, object], place: Path = RESULTS) -> None:
    """Keep the figures as `<name>.json` in that place, over those of the last time: history is git's."""
    place.mkdir(exist_ok=True)
    path = place / f"{name}.json"
    text = json.dumps({**circumstances(), **figures}, indent=2)
    # A list of numbers on one line: thousands of lines of one number each would be read by nobody.
    text = re.sub(r"\[[^][{}\"]*\]", lambda numbers: " ".join(numbers[0].split()), text)
    path.write_text(text + "\n", encoding="utf-8")
    print(f"saved as {path}")


def circumstances() -> dict[str, object]:
    """When, on what machine and with what versions the figures were taken."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "system": f"{platform.system()} {platform.release()}",
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        },
        "load_before": LOAD_BEFORE,
        "versions": {"python": sys.version, "fanmap": version("fanmap"), "cloudpickle": version("cloudpickle")},
    }


def headline(fanmap: str | None) -> str:
    """The circumstances in a line, for people."""
    where: Any = circumstances()
    machine = where["machine"]
    return (
        f"{where['date'][:10]}, {machine['processor']}, {machine['cores']} cores, {machine['system']}, "
        f"Python {platform.python_version()}, fanmap {fanmap}"
    )


def version(package: str) -> str | None:
    """The installed version of a package; none if it is imported from a tree that is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """The processor's name for people, where the system tells it."""
    try:
        with open("/proc/cpuinfo") as info:
            return next(line.partition(":")[2].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
