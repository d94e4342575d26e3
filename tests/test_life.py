"""Whole programs: `__main__`, Ctrl-C, deaths, exits. Each runs in a session of its own, and leaves nothing in it."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from _scripts import QUIET_FORKS

LIMIT = 60


def start(code: str, *args: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *QUIET_FORKS, "-c", textwrap.dedent(code), *args],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **options,
    )  # fmt: skip


def session(leader: int) -> set[int]:
    """The processes of a session that still run (zombies that nobody has reaped yet do not)."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[3]) == leader and fields[0] not in "ZX":
                found.add(int(name))
    return found


def run(code: str, *args: str) -> tuple[int, str, str]:
    program = start(code, *args)
    out, err = program.communicate(timeout=LIMIT)
    assert session(program.pid) == set(), "processes are left"
    return program.returncode, out, err


def good(code: str, *args: str) -> str:
    status, out, err = run(code, *args)
    assert (status, err) == (0, ""), err
    return out


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "program.py"


def test_importing_starts_nothing_and_loads_little() -> None:
    out = good("""
        import os, sys, threading
        before = set(os.listdir("/proc/self/fd"))
        import fanmap
        assert set(os.listdir("/proc/self/fd")) == before
        assert threading.active_count() == 1 and len(os.listdir("/proc/self/task")) == 1
        assert open("/proc/self/task/%d/children" % os.getpid()).read() == ""
        assert not {"multiprocessing", "cloudpickle", "concurrent.futures", "fanmap._native"} & set(sys.modules)
        for name in fanmap.__all__:
            assert getattr(fanmap, name) is not None and name in dir(fanmap)
        print("fine")
    """)
    assert out == "fine\n"


def test_a_fresh_worker_has_loaded_only_its_loop() -> None:
    out = good("""
        import fanmap, sys
        with fanmap.ProcessPoolExecutor(1) as pool:
            loaded = set(pool.submit(eval, "list(__import__('sys').modules)").result())
        print(sorted(loaded & {
            "multiprocessing", "concurrent.futures", "cloudpickle", "logging", "subprocess", "threading", "asyncio",
            "typing", "socket", "random", "inspect", "fanmap._map", "fanmap._result", "fanmap._processes",
            "fanmap._start",
        }))
    """)
    assert out == "[]\n"


MAIN = """
    import fanmap, functools, enum, dataclasses

    model = None
    def init():
        global model
        model = 10
    def work(x):
        return model * helper(x)
    def helper(x):
        return x + offset
    offset = 1

    @dataclasses.dataclass
    class Point:
        x: int
        def moved(self, by):
            return Point(self.x + by)

    with fanmap.ProcessPoolExecutor(2, initializer=init) as pool:
        assert list(pool.map(work, range(3))) == [10, 20, 30]
        offset = 2  # changed between two calls
        assert list(pool.map(work, range(3))) == [20, 30, 40]
        here = 5
        def closure(x):
            def inner(y):
                return y + x + here
            return inner
        adder = closure(1)
        assert pool.submit(adder, 1).result() == 7
        here = 6
        assert pool.submit(adder, 1).result() == 8
        assert pool.submit(lambda x: x * 2, 4).result() == 8
        assert pool.submit(functools.partial(lambda x, y: x - y, 9), 4).result() == 5
        point = Point(1)
        moved = pool.submit(point.moved, 2).result()
        assert type(moved) is Point and moved == Point(3)
        point.x = 10  # so was `self`
        assert pool.submit(point.moved, 2).result() == Point(12)
    assert model is None
    assert list(fanmap.map(helper, range(3), executor="processes")) == [2, 3, 4]
    print("done")
"""


def test_main_needs_no_guard_in_a_script_a_command_or_standard_input(script: Path) -> None:
    script.write_text(textwrap.dedent(MAIN))
    assert good(MAIN) == "done\n"
    for command in ([sys.executable, str(script)], [sys.executable, "-"]):
        with script.open() as source:
            done = subprocess.run(command, stdin=source, capture_output=True, text=True, timeout=LIMIT, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_main_works_in_the_prompt() -> None:
    primary, secondary = pty.openpty()
    prompt = subprocess.Popen([sys.executable, "-q", "-i"], stdin=subprocess.PIPE, stdout=secondary, stderr=secondary,
                              text=True, start_new_session=True)  # fmt: skip
    os.close(secondary)
    assert prompt.stdin is not None
    lines = ["import fanmap", "def f(x): return x + k", "", "k = 1",
             "list(fanmap.map(f, range(3), executor='processes'))", "k = 41",
             "list(fanmap.map(f, range(3), executor='processes'))", "fanmap.shutdown()"]  # fmt: skip
    prompt.stdin.write("\n".join(lines) + "\n")
    prompt.stdin.close()
    said = b""
    try:
        while piece := os.read(primary, 4096):
            said += piece
    except OSError:
        pass  # the other end is closed: it has ended
    os.close(primary)
    assert prompt.wait(LIMIT) == 0
    assert b"[1, 2, 3]" in said and b"[41, 42, 43]" in said, said
    assert session(prompt.pid) == set()


def test_spawn_and_forkserver_import_main_and_fork_inherits_it(script: Path) -> None:
    script.write_text(
        textwrap.dedent("""
        import fanmap, multiprocessing, sys
        state = "imported"
        def look(_):
            return __name__, state
        if __name__ == "__main__":
            state = "run"
            for method in ("spawn", "forkserver", "fork"):
                with fanmap.ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
                    print(method, *pool.submit(look, 0).result())
    """)
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.stderr == ""
    assert done.stdout == "spawn __mp_main__ imported\nforkserver __mp_main__ imported\nfork __main__ run\n"


def test_workers_start_with_the_parents_surroundings_as_they_are_then(tmp_path: Path) -> None:
    good("""
        import fanmap, os, random, sys
        def look(_):
            return os.getcwd(), os.environ.get("FRESH"), "/a/path" in sys.path, sys.argv[1:], random.random()
        with fanmap.ProcessPoolExecutor(2) as pool:
            os.chdir(sys.argv[1]); os.environ["FRESH"] = "yes"; sys.path.append("/a/path"); sys.argv[1:] = ["x"]
            seen = list(pool.map(look, range(8)))
            assert {one[:3] + (one[3][0],) for one in seen} == {(os.getcwd(), "yes", True, "x")}, seen
            assert len({one[4] for one in seen}) == 8
    """, str(tmp_path))  # fmt: skip


WAITING = """
    import fanmap, os, sys, threading, time
    def hold(name):
        with open(name, "wb") as started:
            started.write(b"x")
        threading.Event().wait(KIND)
        return name
    KIND = float(sys.argv[2])
"""


def interrupted(tmp_path: Path, code: str, kind: str, seconds: str) -> tuple[int, str, str]:
    """Sends Ctrl-C to the whole group once a task runs."""
    fifo = str(tmp_path / "started")
    os.mkfifo(fifo)
    program = start(textwrap.dedent(WAITING) + textwrap.dedent(code), fifo, seconds, kind)
    with open(fifo, "rb") as started:
        assert started.read(1) == b"x"
    os.killpg(program.pid, signal.SIGINT)
    out, err = program.communicate(timeout=LIMIT)
    assert session(program.pid) == set(), "processes are left"
    return program.returncode, out, err


@pytest.mark.parametrize(("kind", "seconds"), [("processes", "600"), ("threads", "0.2")])
def test_ctrl_c_ends_a_map_with_one_keyboard_interrupt(tmp_path: Path, kind: str, seconds: str) -> None:
    code = "list(fanmap.map(hold, [sys.argv[1]] * 8, executor=sys.argv[3], buffersize=1))"
    status, out, err = interrupted(tmp_path, code, kind, seconds)
    assert status == -signal.SIGINT and out == ""
    assert err.count("KeyboardInterrupt") == 1 and err.count("Traceback") == 1, err


def test_after_ctrl_c_the_pool_is_usable(tmp_path: Path) -> None:
    code = """
    try:
        list(fanmap.map(hold, [sys.argv[1]], executor="processes"))
    except KeyboardInterrupt:
        print(list(fanmap.map(abs, [-1, -2], executor="processes")))
    """
    assert interrupted(tmp_path, code, "", "600") == (0, "[1, 2]\n", "")


def test_no_worker_outlives_a_killed_parent(tmp_path: Path) -> None:
    fifo = str(tmp_path / "started")
    os.mkfifo(fifo)
    code = "list(fanmap.map(hold, [sys.argv[1]] * 8, buffersize=1, executor='processes'))"
    program = start(textwrap.dedent(WAITING) + code, fifo, "600")
    with open(fifo, "rb") as started:
        assert started.read(1) == b"x"
    family = [os.pidfd_open(pid) for pid in session(program.pid)]
    assert len(family) == 3  # the program, its template and a worker
    program.kill()
    import select

    for member in family:
        assert select.select([member], [], [], LIMIT)[0], "a process outlived its parent"
        os.close(member)
    program.communicate(timeout=LIMIT)


@pytest.mark.parametrize(
    ("how", "code"), [("os.kill(os.getpid(), 9)", -9), ("os.kill(os.getpid(), 11)", -11), ("os._exit(4)", 4)]
)
def test_of_two_hundred_tasks_one_that_dies_is_alone(how: str, code: int) -> None:
    status, out, err = run(f"""
        import fanmap, os
        def work(x):
            if x == 77:
                {how}
            return x
        with fanmap.ProcessPoolExecutor(2) as pool:
            futures = [pool.submit(work, x) for x in range(200)]
            lost = [(x, f.exception()) for x, f in enumerate(futures) if f.exception()]
            assert sum(f.exception() is None and f.result() == x for x, f in enumerate(futures)) == 199
            (x, error), = lost
            assert x == 77 and type(error) is fanmap.WorkerCrashed and error.exitcode == {code}, repr(error)
            assert pool.submit(work, 1).result() == 1
        print("fine")
    """)
    assert (status, out) == (0, "fine\n"), err
    assert ("Segmentation fault" in err) if code == -11 else err == ""


def test_a_killed_template_is_started_again() -> None:
    out = good("""
        import fanmap, os, signal
        def kill(template):
            os.kill(template, 9)
            signal.pause()  # the worker's own end follows
        with fanmap.ProcessPoolExecutor(1) as pool:
            template = pool.submit(os.getppid).result()
            assert template != os.getpid()
            crash = pool.submit(kill, template).exception()
            assert type(crash) is fanmap.WorkerCrashed, repr(crash)
            assert pool.submit(os.getppid).result() != template
        print("fine")
    """)
    assert out == "fine\n"


def test_large_arguments_and_results_pass_both_ways() -> None:
    good("""
        import fanmap
        data = bytes(range(256)) * 200_000
        with fanmap.ProcessPoolExecutor(2) as pool:
            assert all(back == data for back in pool.map(bytearray, [data] * 3))
    """)


@pytest.mark.parametrize("kind", ["ThreadPoolExecutor", "ProcessPoolExecutor"])
def test_work_submitted_is_finished_at_exit_before_the_users_handlers(kind: str) -> None:
    out = good(f"""
        import atexit, fanmap
        atexit.register(print, "handler")
        def work(x):
            return x
        pool = fanmap.{kind}(1)
        for x in range(3):
            pool.submit(work, x).add_done_callback(lambda future: print(future.result()))
        del pool
    """)
    assert out == "0\n1\n2\nhandler\n"


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_a_map_left_unfinished_is_cancelled_at_exit(kind: str) -> None:
    good(f"""
        import fanmap, itertools
        results = fanmap.map(abs, itertools.count(), executor={kind!r})
        next(results)
    """)


def test_a_forked_child_is_told_that_the_pool_is_its_parents() -> None:
    out = good("""
        import fanmap, os, sys
        pools = fanmap.ProcessPoolExecutor(1), fanmap.ThreadPoolExecutor(1)
        for pool in pools:
            assert pool.submit(abs, -1).result() == 1
        pid = os.fork()
        if pid == 0:
            try:
                for pool, error in zip(pools, (fanmap.BrokenProcessPool, fanmap.BrokenThreadPool)):
                    try:
                        pool.submit(abs, -1)
                    except error as told:
                        assert "make a new one" in str(told)
                    else:
                        os._exit(3)
                    pool.shutdown()
                assert list(fanmap.map(abs, [-3], executor="processes")) == [3]
                fanmap.shutdown()
            except BaseException:
                import traceback; traceback.print_exc()
                os._exit(4)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        for pool in pools:
            assert pool.submit(abs, -2).result() == 2
            pool.shutdown()
        print("fine")
    """)
    assert out == "fine\n"


def test_a_dropped_executor_finishes_its_work_and_frees_its_workers() -> None:
    good("""
        import fanmap, threading
        for make in (fanmap.ThreadPoolExecutor, fanmap.ProcessPoolExecutor):
            futures = [make(1).submit(abs, -k) for k in range(4)]
            assert [f.result(60) for f in futures] == [0, 1, 2, 3]
    """)


def test_a_dropped_executor_goes_on_replacing_its_workers() -> None:
    good("""
        import fanmap, os
        pool = fanmap.ProcessPoolExecutor(1, max_tasks_per_child=1)
        futures = [pool.submit(os.getpid) for _ in range(4)]
        del pool
        assert len({f.result(60) for f in futures}) == 4
    """)


def test_a_dropped_executor_ends_while_somebody_holds_its_results() -> None:
    good("""
        import fanmap
        pool = fanmap.ThreadPoolExecutor(2)
        results, threads = pool.map(abs, range(-5, 0)), list(pool._threads)
        del pool
        for thread in threads:
            thread.join()
        assert list(results) == [5, 4, 3, 2, 1]

        pool = fanmap.ProcessPoolExecutor(2)
        results, manager = pool.map(abs, range(-5, 0)), pool._executor_manager_thread
        workers = list(pool._processes.values())
        assert manager.is_alive() and workers
        del pool
        manager.join()
        assert not manager.is_alive() and not any(worker.is_alive() for worker in workers)
        assert list(results) == [5, 4, 3, 2, 1]
    """)
