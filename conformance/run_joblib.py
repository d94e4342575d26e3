"""Judges fanmap's backends by joblib's own tests of `Parallel`: `make conformance-joblib`.

    python conformance/run_joblib.py [--only EXPRESSION] [--also-left-out]

joblib ships its tests. `joblib.test.test_parallel` is run as it is, by this interpreter, with `joblib_substitute.py` at
work in every process: what the cases ask of `"loky"` and `"threading"` is then done by fanmap. Cases of joblib's other
backends do not judge us and are not run. Those that are left out beside them stand in `joblib_left_out.txt`, each with
its reason. Anything that fails, and a line there that fits no case, make this fail.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
import tempfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

HERE = Path(__file__).parent
LEFT_OUT = HERE / "joblib_left_out.txt"
# Words in the names of cases that are of multiprocessing's backend, or of a context of its.
OTHERS = ("multiprocessing", "spawn", "backend9", "default_mp_context")
# Seconds. No case takes longer than some; one that does hangs.
LONGEST_CASE = 100
SETTINGS = f"""[pytest]
markers =
    no_cover
    thread_unsafe
    timeout
faulthandler_timeout = {LONGEST_CASE}
faulthandler_exit_on_timeout = true
"""


class Judge:
    """A plugin of pytest's: chooses the cases, and counts what became of them."""

    def __init__(self, left_out: dict[str, str], *, also_left_out: bool) -> None:
        self.left_out = left_out
        self.also_left_out = also_left_out
        self.unused = set(left_out)
        self.ends: Counter[str] = Counter()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = []
        for item in items:
            if any(word in item.name for word in OTHERS):
                continue
            hits = [pattern for pattern in self.left_out if fnmatch.fnmatchcase(item.name, pattern)]
            self.unused -= set(hits)
            if hits and not self.also_left_out:
                self.ends["left out"] += 1
            else:
                chosen.append(item)
        items[:] = chosen

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self.ends[report.outcome] += 1


def read_left_out() -> dict[str, str]:
    """The patterns of names, each with its reason. fnmatch's brackets are none here: names are full of them."""
    lines = (line for line in LEFT_OUT.read_text(encoding="utf-8").splitlines() if line and line[0] != "#")
    return {pattern.replace("[", "[[]"): reason for pattern, reason in (line.split(None, 1) for line in lines)}


def main() -> None:
    """Run the cases in this interpreter, which was started with the substitution."""
    parser = argparse.ArgumentParser(description="joblib's tests of Parallel, run against fanmap")
    parser.add_argument("--only", default="", metavar="EXPRESSION", help="only these cases: pytest's -k")
    parser.add_argument("--also-left-out", action="store_true", help="run the cases of joblib_left_out.txt, too")
    options = parser.parse_args()
    if "FANMAP_CONFORMANCE_JOBLIB" not in os.environ:
        with tempfile.TemporaryDirectory(prefix="fanmap-conformance-") as scratch:
            Path(scratch, "sitecustomize.py").write_text("import joblib_substitute; joblib_substitute.install()\n")
            Path(scratch, "pytest.ini").write_text(SETTINGS)
            environment = {"PYTHONPATH": f"{scratch}{os.pathsep}{HERE}", "FANMAP_CONFORMANCE_JOBLIB": scratch}
            program = [sys.executable, __file__, *sys.argv[1:]]
            ended = os.spawnve(os.P_WAIT, sys.executable, program, os.environ | environment)
        sys.exit(ended)
    sys.path.remove(str(HERE))
    import pytest

    tests = find_spec("joblib.test.test_parallel")
    if tests is None or tests.origin is None:
        raise SystemExit("conformance: this joblib was installed without its tests")
    from joblib.parallel import BACKENDS

    if not all(BACKENDS[name].__module__ == "fanmap.joblib" for name in ("loky", "threading")):
        raise SystemExit("conformance: fanmap is not in the place of joblib's backends")
    judge = Judge(read_left_out(), also_left_out=options.also_left_out)
    settings = Path(os.environ["FANMAP_CONFORMANCE_JOBLIB"], "pytest.ini")
    arguments = ["-q", "-c", str(settings), "-p", "no:cacheprovider", "-k", options.only, tests.origin]
    ended = pytest.main(arguments, [judge])
    print("joblib:", ", ".join(f"{count} {end}" for end, count in sorted(judge.ends.items())))
    if judge.unused and not options.only:
        raise SystemExit(f"conformance: joblib_left_out.txt: no case is called {', '.join(sorted(judge.unused))}")
    if ended or not judge.ends["passed"]:
        raise SystemExit("conformance: not as it should be, see above")


if __name__ == "__main__":
    main()
