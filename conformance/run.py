"""Judges fanmap by CPython's own tests of `concurrent.futures`: `make conformance`.

    python conformance/run.py [--python PATH ...] [--with-suite] [--only PATTERN] [--times N]

Without `--python` it looks for every Python of 3.11 or newer on this machine. Each gets an environment of its own, a
build of its own and the substitution of `substitute.py`, and runs the suite that it was installed with, or, if it came
without, one that was found beside another Python. All cases run as they are; those of process pools run once more with
no `mp_context` (`Default` in their names).

The cases that are left out stand in `left_out.txt`, each with its reason. Anything that fails, a line there that fits
no case, and a Python of which a tenth or more is left out make this fail.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from left_out import left_out, version_of
from pythons import Python, find, look_at, suite_for

HERE = Path(__file__).parent
ROOT = HERE.parent
LEFT_OUT = HERE / "left_out.txt"
# What is made: environments, builds, results.
PLACE = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute() / "conformance"
# More than this and the suite would no longer be a judge.
MOST_LEFT_OUT = 0.10
# Both runs of the slowest Python take a few minutes. One that takes longer hangs where no case's own limit sees it.
LONGEST_RUN = 1800


@dataclass(frozen=True)
class Environment:
    """A Python of its own with fanmap in the place of `concurrent.futures`."""

    python: Python
    program: Path
    suite: Path


def make(python: Python, suite: Path) -> Environment:
    """Build fanmap for `python` and install it into an environment, with the substitution."""
    place = PLACE / python.version
    program = place / "env" / "bin" / "python"
    if not program.exists():
        shutil.rmtree(place / "env", ignore_errors=True)
        call(python.path, "-m", "venv", "--without-pip", place / "env")
    wheels = place / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    # A target of its own: PyO3 is built for one interpreter, and for the next one anew.
    call(
        Path(sys.executable).with_name("maturin"),
        *("build", "--release", "--quiet", "--interpreter", program, "--out", wheels),
        env={"CARGO_TARGET_DIR": str(place / "target")},
    )
    (wheel,) = wheels.iterdir()
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", program, "install")
    call(*pip, wheel)
    call(*pip, "--force-reinstall", "--no-deps", wheel)
    (site,) = (place / "env" / "lib").glob("python*/site-packages")
    shutil.copy(HERE / "substitute.py", site / "fanmap_conformance.py")
    borrowed = None if suite == python.suite else str(suite)
    (site / "fanmap_conformance.json").write_text(json.dumps({"suite": borrowed}), encoding="utf-8")
    (site / "fanmap_conformance.pth").write_text("import fanmap_conformance\n", encoding="utf-8")
    return Environment(python, program, suite)


def run(environment: Environment, options: argparse.Namespace, *, default: bool) -> dict[str, Any]:
    """Run the cases in an environment; what became of each."""
    with tempfile.TemporaryDirectory(prefix="fanmap-conformance-") as scratch:
        result = Path(scratch, "result.json")
        command = [environment.program, HERE / "suite.py", LEFT_OUT, result, "--only", options.only]
        command += ["--default"] if default else []
        command += ["--also-left-out"] if options.also_left_out else []
        log = PLACE / environment.python.version / ("default.log" if default else "suite.log")
        with open(log, "w", encoding="utf-8") as output:
            # Not the directory of this program, which the suite must not import from.
            ended = subprocess.run(
                command, cwd=scratch, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=LONGEST_RUN
            )
        if not result.exists():
            tail = "".join(log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[-60:])
            raise SystemExit(f"{tail}\nconformance: the suite ended with code {ended.returncode} before its end: {log}")
        ran: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return ran


def judge(environment: Environment, options: argparse.Namespace, used: set[str]) -> bool:
    """Run everything in an environment and tell what became of it; whether it is as it should be."""
    cases: dict[str, dict[str, Any]] = {}
    processes = 0
    with ThreadPoolExecutor(2) as pool:
        # Side by side: most of the time each waits for something.
        runs = [pool.submit(run, environment, options, default=default) for default in (False, True)]
    for ran in (one.result() for one in runs):
        cases.update(ran["cases"])
        used.update(ran["used"])
        processes += ran["processes"]
    ends = Counter(case["end"] for case in cases.values())
    for name, case in sorted(cases.items()):
        if case["end"] == "failed":
            print(f"--- {name}\n{case['why']}")
        elif case["end"] == "skipped" and options.skipped:
            print(f"    skipped by the suite itself: {name}: {case['why']}")
    if options.slowest:
        for name, case in sorted(cases.items(), key=lambda item: -item[1]["seconds"])[:15]:
            print(f"    {case['seconds']:6.2f} s  {name}")
    judged = ends["passed"] + ends["failed"] + ends["left out"]
    share = ends["left out"] / judged if judged else 0.0
    borrowed = "" if environment.suite == environment.python.suite else f", suite borrowed: {environment.suite}"
    print(
        f"Python {environment.python.version}: {ends['passed']} passed, {ends['failed']} failed, "
        f"{ends['left out']} left out ({share:.1%}), {ends['skipped']} skipped by the suite itself; "
        f"fanmap was in place in {processes} processes{borrowed}",
        flush=True,
    )
    if options.only == "*" and share >= MOST_LEFT_OUT:
        print(f"conformance: {share:.1%} of the cases are left out, and the most allowed is below {MOST_LEFT_OUT:.0%}")
        return False
    return not ends["failed"] and ends["passed"] > 0


def check_lines(used: set[str], suites: list[Path]) -> bool:
    """Whether each line of `left_out.txt` fits a case, as far as it speaks of suites that were run."""
    meant = {pattern for suite in suites for pattern in left_out(LEFT_OUT, version_of(suite))}
    for pattern in sorted(meant - used):
        print(f"conformance: left_out.txt: no case is called {pattern}")
    return meant <= used


def call(*command: object, env: dict[str, str] | None = None) -> None:
    """Run a command that must succeed; what it printed is shown if it does not."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env=os.environ | (env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\nconformance: this failed: {' '.join(str(part) for part in command)}")


def main() -> None:
    """Judge by every Python that was asked for, or that is here."""
    parser = argparse.ArgumentParser(description="CPython's tests of concurrent.futures, run against fanmap")
    parser.add_argument("--python", action="append", help="an interpreter (a path, or a name on PATH); may be repeated")
    parser.add_argument("--with-suite", action="store_true", help="one Python is enough, the newest with its own suite")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="only cases whose name fits this")
    parser.add_argument("--times", type=int, default=1, help="run everything so many times")
    parser.add_argument("--also-left-out", action="store_true", help="run the cases of left_out.txt, too")
    parser.add_argument("--slowest", action="store_true", help="list the slowest cases")
    parser.add_argument("--skipped", action="store_true", help="list the cases that the suite itself skips, and why")
    options = parser.parse_args()

    found = [look_at(name) for name in options.python] if options.python else find()
    everywhere = found if options.with_suite or not options.python else find()
    if options.with_suite:
        found = [python for python in found if python.suite is not None][-1:]
    pairs = []
    for python in found:
        suite = suite_for(python, everywhere)
        if suite is None:
            print(f"conformance: no suite for Python {python.version} ({python.path})")
        else:
            pairs.append((python, suite))
    if not pairs:
        raise SystemExit(
            "conformance: no Python of 3.11 or newer with CPython's test suite was found; "
            "install one that has test/test_concurrent_futures (Debian, Ubuntu: apt install libpython3-testsuite), "
            "or name one: make conformance PYTHONS=/path/to/python3.13"
        )
    good = True
    used: set[str] = set()
    for python, suite in pairs:
        print(f"==> Python {python.version} ({python.path}): building fanmap for it", flush=True)
        environment = make(python, suite)
        for _ in range(options.times):
            good &= judge(environment, options, used)
    if options.only == "*":
        good &= check_lines(used, [suite for _, suite in pairs])
    if not good:
        raise SystemExit("conformance: not as it should be, see above")


if __name__ == "__main__":
    main()
