"""Threads that still run when the interpreter ends: by a second Ctrl-C, or since they are the program's own daemons.

They ask for the interpreter's lock while it goes, from within calls that the engine made. Nothing may come of that: no
crash, no hang, no word.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from _scripts import LIMIT, Ended, ended, good, started

# A task that says that it runs, and once the interpreter ends asks for its lock again and again. What is written when
# the program hears Ctrl-C comes before the KeyboardInterrupt.
HEAD = """
import atexit, fanmap, os, signal, sys, threading
awake, wake = os.pipe()
atexit.register(os.write, wake, b"0123456789")
def stay(x):
    os.write(1, b"runs\\n")
    os.read(awake, 1)
    while True:
        pass
def hear(number, frame):
    os.write(1, b"heard\\n")
    raise KeyboardInterrupt
signal.signal(signal.SIGINT, hear)
"""
# What waits for a task that runs on a thread: first for its result, then, interrupted, for its end.
WAYS = {
    "map": "list(fanmap.map(stay, [1], executor='threads'))",
    "map, with workers of its own": "list(fanmap.map(stay, [1], executor='threads', workers=1))",
    "map of an executor": "with fanmap.ThreadPoolExecutor(1) as pool: list(pool.map(stay, [1, 2]))",
    "starmap": "list(fanmap.starmap(lambda x: stay(x), [(1,)], executor='threads'))",
    "map in a map": "list(fanmap.map(lambda x: [*fanmap.map(stay, [x], executor='threads')], [1], executor='threads'))",
    "map_async": "fanmap.map_async(stay, [1], executor='threads').result()",
    "map_async, in its own thread": "fanmap.map_async(stay, [1], executor='serial').result()",
    "result": "with fanmap.ThreadPoolExecutor(1) as pool: pool.submit(stay, 1).result()",
    "result, at exit": "pool = fanmap.ThreadPoolExecutor(1); pool.submit(stay, 1).result()",
    "result of a dropped executor": "fanmap.ThreadPoolExecutor(1).submit(stay, 1).result()",
    "wait": "with fanmap.ThreadPoolExecutor(1) as pool: fanmap.wait([pool.submit(stay, 1)])",
    "shutdown": "pool = fanmap.ThreadPoolExecutor(1); pool.submit(stay, 1); pool.shutdown()",
}


def asleep(program: subprocess.Popen[str]) -> None:
    """Returns once the program's main thread waits for something: there is no event for it, so it is looked at."""
    status = Path(f"/proc/{program.pid}/task/{program.pid}/stat")
    end = time.monotonic() + LIMIT
    while status.read_text().rpartition(")")[2].split()[0] != "S":
        assert time.monotonic() < end, "the main thread does not come to rest"
        time.sleep(0.001)


def interrupt(program: subprocess.Popen[str]) -> None:
    """Ctrl-C, when the program waits; returns when that was heard."""
    asleep(program)
    os.killpg(program.pid, signal.SIGINT)
    assert program.stdout is not None and program.stdout.readline() == "heard\n"


@pytest.mark.parametrize("way", WAYS)
def test_a_second_ctrl_c_leaves_what_runs_on_threads(way: str) -> None:
    with started(HEAD + WAYS[way]) as program:
        assert program.stdout is not None and program.stdout.readline() == "runs\n"
        interrupt(program)
        interrupt(program)
        result = ended(program)
    assert (result.status, result.out) == (-signal.SIGINT, ""), result
    assert result.err.count("\nKeyboardInterrupt") <= 2 and "FATAL" not in result.err, result.err


def test_ctrl_c_at_exit_leaves_what_runs_on_threads() -> None:
    code = """
other = fanmap.ThreadPoolExecutor(1)
pool = fanmap.ThreadPoolExecutor(1)
for name in (pool, other):
    name.submit(stay, 1)
    later = name.submit(print, "never")
os.write(1, b"end\\n")
"""
    with started(HEAD + code) as program:
        assert program.stdout is not None
        assert sorted(program.stdout.readline() for _ in range(3)) == ["end\n", "runs\n", "runs\n"]
        interrupt(program)
        result = ended(program)
    # The program itself had ended well.
    assert (result.status, result.out) == (0, ""), result
    assert result.err.count("Traceback") == 1, result.err


def test_a_first_ctrl_c_leaves_nothing() -> None:
    code = """
def last():
    print("runs", flush=True)
    os.read(awake, 1)
    print("done", file=sys.stderr)
pool = fanmap.ThreadPoolExecutor(1)
future = pool.submit(last)
try:
    future.result()
except KeyboardInterrupt:
    os.write(wake, b"x")
"""
    with started(HEAD + code) as program:
        assert program.stdout is not None and program.stdout.readline() == "runs\n"
        interrupt(program)
        assert ended(program) == Ended(0, "", "done\n")


def test_a_pool_that_nobody_holds_is_waited_for_at_exit() -> None:
    out = good("""
        import atexit, os, threading
        from fanmap import ThreadPoolExecutor
        awake, wake = os.pipe()
        atexit.register(print, "handlers of the program come later")
        threading._register_atexit(os.write, wake, b"x")  # before the pools are waited for
        def last():
            os.read(awake, 1)
            print("done")
        ThreadPoolExecutor(1).submit(last)
    """)
    assert out == "done\nhandlers of the program come later\n"


def test_threads_of_pools_are_no_daemons_to_tasks() -> None:
    out = good("""
        import fanmap, threading
        def look(_):
            return threading.current_thread().daemon, threading.Thread().daemon
        with fanmap.ThreadPoolExecutor(1) as pool:
            print(pool.submit(look, 1).result(), *fanmap.map(look, [1], executor="threads"))
    """)
    assert out == "(False, False) (False, False)\n"


# What a daemon thread of the program's does for ever, in calls that the engine makes or waits in.
DAEMONS = {
    "map over threads": "for _ in fanmap.map(work, count(), executor='threads'): pass",
    "map in the thread itself": "for _ in fanmap.map(work, count(), executor='serial'): pass",
    "map that chooses": "for _ in fanmap.map(work, count()): pass",
    "map over processes": "for _ in fanmap.map(abs, map(work, count()), executor='processes'): pass",
    "submit": "for _ in count(): threads.submit(work, 1).result()",
    "submit to processes": "for _ in count(): threads.submit(work, processes.submit(abs, -1).result()).result()",
    "wait": "for _ in count(): fanmap.wait([threads.submit(work, 1)])",
    "a result that never comes": "work(1); fanmap.Future().result()",
}


@pytest.mark.parametrize("way", DAEMONS)
def test_a_daemon_thread_in_a_call_of_ours_does_not_disturb_the_end(way: str) -> None:
    # It may say that the pools have ended, as it does in the standard library.
    code = f"""
import fanmap, os, sys, threading
from itertools import count
ready = threading.Event()
def work(x):
    ready.set()
    os.sched_yield()
    return x
threads, processes = fanmap.ThreadPoolExecutor(2), fanmap.ProcessPoolExecutor(1)
def go():
    {DAEMONS[way]}
threading.Thread(target=go, daemon=True).start()
ready.wait()
"""
    with started(code) as program:
        result = ended(program)
    assert (result.status, result.out) == (0, ""), result
    assert "FATAL" not in result.err and "panicked" not in result.err, result.err
