"""Takes the measurements: rounds in which the peers take turns, each measurement in a process of its own.

A fresh process each time, so that no peer's threads, memory or idle workers are with another's measurement, and turns
(A B C A B C), so that a busy minute of the machine hits all alike. A measurement that hangs is ended by its time limit,
with every process of its session's group.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from .plan import Settings, Workload
from .roster import ROSTER
from .summary import Record, cell, number

BENCHES = Path(__file__).resolve().parent.parent
# What takes longer than this is not repeated: a time so long has its ups and downs within itself.
SLOW = 60.0
# The same in the short mode, in which what takes longer than the limit is given up.
SHORT_SLOW = 4.0
SHORT_LIMIT = 20.0


def measure(workload: Workload, peer: str, settings: Settings, limit: float) -> dict[str, Any]:
    """One measurement: `values`, `not_offered` or `failed`."""
    with tempfile.TemporaryDirectory(prefix="fanmap-bench-") as scratch:
        result, log = Path(scratch, "result.json"), Path(scratch, "log")
        program = "comparison.computing" if workload.computing else "comparison.runner"
        command = [sys.executable, "-m", program, workload.name, peer, str(result)]
        # Users' interpreters keep compiled modules.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        # To files, not through pipes: a worker that is left behind would keep a pipe open.
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [*command, json.dumps(asdict(settings))],
                cwd=BENCHES,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        in_time = ended_within(process, limit)
        if not in_time:
            return {"failed": f"over {limit:g} s"}
        if process.returncode == 0 and result.exists():
            said: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
            return said
        words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return {"failed": words[-1][:200] if words else f"exit code {process.returncode}"}


def ended_within(process: subprocess.Popen[bytes], limit: float) -> bool:
    """Waits for the end of a session's leader, and sees to it that nothing of its group is left."""
    handle = os.pidfd_open(process.pid)
    try:
        in_time = bool(select.select([handle], [], [], limit)[0])
    finally:
        os.close(handle)
        # The leader is not waited for yet, so the number still means this group and no other.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return in_time


def take(
    plan: Sequence[tuple[Workload, Sequence[str], int]],
    settings: Settings,
    *,
    short: bool = False,
    limit: float | None = None,
    tell: Callable[[str], None],
) -> Mapping[str, dict[str, Record]]:
    """Measure each workload of the plan with its peers, in so many rounds; `limit` in place of the workload's own."""
    taken: dict[str, dict[str, Record]] = {}
    for workload, names, rounds in plan:
        told = settings if workload.workers is None else replace(settings, workers=workload.workers)
        records: dict[str, Record] = {name: {"values": {}} for name in names}
        taken[workload.name] = records
        tell(f"\n{workload.name}: {workload.title}")
        finished = set()
        for name in names:
            if not ROSTER[name].installed():
                records[name]["failed"] = "not installed"
                finished.add(name)
        for index in range(rounds):
            for name in names:
                if name in finished:
                    continue
                started = time.perf_counter()
                said = measure(workload, name, told, limit or (SHORT_LIMIT if short else workload.limit))
                lasted = time.perf_counter() - started
                tell(f"  {index + 1}/{rounds}  {name:22} {in_words(workload, said)}  ({lasted:.1f} s)")
                values = said.pop("values", {})
                for figure, repetitions in values.items():
                    kept = records[name]["values"].setdefault(figure, [])
                    kept.append([float(f"{value:.6g}") for value in repetitions])
                records[name].update(said)
                if said or lasted > (SHORT_SLOW if short else SLOW):
                    finished.add(name)
    return taken


def in_words(workload: Workload, said: Mapping[str, Any]) -> str:
    """A measurement on one line."""
    if "values" not in said:
        return f"not offered: {said['not_offered']}" if "not_offered" in said else f"FAILED: {said['failed']}"
    return ", ".join(
        f"{figure.key} {number(cell([said['values'][figure.key]]).median)} {figure.unit}"
        for figure in workload.figures
        if said["values"].get(figure.key)
    )
