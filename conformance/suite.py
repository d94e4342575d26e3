"""Runs CPython's suite for `concurrent.futures` in this interpreter, whose environment has fanmap in its place.

    python suite.py LEFT_OUT RESULT [--default] [--only PATTERN] [--also-left-out]

`run.py` starts this in each environment. It loads `test.test_concurrent_futures` as the interpreter ships it (or as it
was borrowed), leaves out what the file LEFT_OUT names, runs the rest and writes what became of each case to RESULT, as
JSON. With `--default` only the process cases run, once, in pools that are made without an `mp_context`.

It fails where the substitution is not in place: in this process at once, and, by the files that processes leave, in any
script that a case starts.
"""

import argparse
import faulthandler
import fnmatch
import importlib
import json
import os
import pkgutil
import sys
import tempfile
import time
import unittest
from multiprocessing import resource_tracker
from pathlib import Path

from left_out import left_out, version_of
from test import support
from test.support import script_helper

SUITE = "test.test_concurrent_futures"
# The cases of one way of starting serve for the run without a context: its primitives may be used in every pool.
STANDS_FOR_DEFAULT = "Spawn"
# No case takes longer than a few seconds. One that does hangs: the stacks are shown and the run ends.
LONGEST_CASE = 100


def modules():
    """The suite's modules."""
    suite = importlib.import_module(SUITE)
    if not hasattr(suite, "__path__"):
        return [suite]
    names = sorted(one.name for one in pkgutil.iter_modules(suite.__path__) if one.name.startswith("test_"))
    return [importlib.import_module(f"{SUITE}.{name}") for name in names]


def cases(suite):
    """The single cases of a suite of suites."""
    for one in suite:
        if isinstance(one, unittest.TestSuite):
            yield from cases(one)
        else:
            yield one


def name_of(case, default):
    """What a case is called here: without the common beginning, and by how its pool is really made."""
    name = case.id().removeprefix(SUITE + ".")
    return name.replace(STANDS_FOR_DEFAULT, "Default").replace("test_spawn", "test_default") if default else name


def is_chosen(case, default):
    """Whether a case belongs to this run: without a context, those of one way of starting processes stand for all.

    The standard library's pool of interpreters, which fanmap hands on as it is, is not judged.
    """
    if "InterpreterPool" in case.id() or ".test_interpreter_pool." in case.id():
        return False
    return not default or STANDS_FOR_DEFAULT in case.id() or case.id().endswith("ResourcesTest.test_spawn")


class Result(unittest.TextTestResult):
    """Remembers what became of each case, and how long it took."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.told = {}
        self.times = {}
        self._since = 0.0

    def startTest(self, test):
        faulthandler.dump_traceback_later(LONGEST_CASE, exit=True)
        self._since = time.monotonic()
        super().startTest(test)

    def stopTest(self, test):
        super().stopTest(test)
        faulthandler.cancel_dump_traceback_later()
        self.times[test.id()] = time.monotonic() - self._since
        self.told.setdefault(test.id(), ("passed", ""))
        if support.environment_altered and self.told[test.id()][0] == "passed":
            # The suite only warns of it.
            self.told[test.id()] = ("failed", "threads or processes were left when it ended")
        support.environment_altered = False

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.told[test.id()] = ("skipped", reason)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.told[test.id()] = ("failed", self._exc_info_to_string(err, test))

    addError = addFailure

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.told[test.id()] = ("failed", self._exc_info_to_string(err, test))


def watch_scripts(proofs):
    """Have each script that a case starts fail unless the substitution was at work in it."""
    run = script_helper.run_python_until_end

    def run_and_look(*args, **env_vars):
        before = set(os.listdir(proofs))
        result = run(*args, **env_vars)
        if not set(os.listdir(proofs)) - before:
            raise AssertionError("a script ran without fanmap in the place of concurrent.futures")
        return result

    script_helper.run_python_until_end = run_and_look


def lend_exit_code():
    """Have the resource tracker keep how its process ended, as it does since Python 3.13."""
    tracker = resource_tracker._resource_tracker
    if hasattr(tracker, "_exitcode"):
        return
    stop, waitpid = tracker._stop, os.waitpid

    def keep(pid, options):
        ended, status = waitpid(pid, options)
        tracker._exitcode = os.waitstatus_to_exitcode(status)
        return ended, status

    def stop_and_keep():
        with support.swap_attr(os, "waitpid", keep):
            stop()

    tracker._stop = stop_and_keep


def main():
    """Run the cases; the exit code tells nothing, the file RESULT everything."""
    parser = argparse.ArgumentParser()
    parser.add_argument("left_out")
    parser.add_argument("result")
    parser.add_argument("--default", action="store_true")
    parser.add_argument("--only", default="*")
    parser.add_argument("--also-left-out", action="store_true")
    options = parser.parse_args()

    proofs = tempfile.mkdtemp(prefix="proofs-", dir=os.path.dirname(options.result))
    os.environ["FANMAP_CONFORMANCE_PROOFS"] = proofs
    if options.default:
        os.environ["FANMAP_CONFORMANCE_NO_CONTEXT"] = "1"
    import concurrent.futures

    import fanmap

    if concurrent.futures.ProcessPoolExecutor is not fanmap.ProcessPoolExecutor or not os.listdir(proofs):
        raise SystemExit("fanmap is not in the place of concurrent.futures: this is no environment of run.py's")
    watch_scripts(proofs)
    lend_exit_code()

    patterns = left_out(Path(options.left_out), version_of(Path(importlib.import_module(SUITE).__file__)))
    loader = unittest.TestLoader()
    chosen = unittest.TestSuite()
    names, told = {}, {}
    used = set()
    for module in modules():
        for case in cases(loader.loadTestsFromModule(module)):
            name = name_of(case, options.default)
            if not is_chosen(case, options.default) or not fnmatch.fnmatchcase(name, options.only):
                continue
            hits = [pattern for pattern in patterns if fnmatch.fnmatchcase(name, pattern)]
            used.update(hits)
            if hits and not options.also_left_out:
                told[name] = {"end": "left out", "why": patterns[hits[0]], "seconds": 0.0}
            else:
                names[case.id()] = name
                chosen.addTest(case)
    result = unittest.TextTestRunner(verbosity=0, resultclass=Result, stream=sys.stderr).run(chosen)
    for identity, (end, why) in result.told.items():
        # What has no name is no case but what comes before or after all of a module's.
        name = names.get(identity, identity)
        told[name] = {"end": end, "why": why, "seconds": result.times.get(identity, 0.0)}
    missing = set(names.values()) - set(told)
    for name in missing:
        told[name] = {"end": "failed", "why": "it never ran", "seconds": 0.0}
    with open(options.result, "w", encoding="utf-8") as file:
        json.dump({"cases": told, "used": sorted(used), "processes": len(os.listdir(proofs))}, file)


if __name__ == "__main__":
    main()
