"""The end of a program, however it ends: submitted work is finished, a map is cancelled, and nothing is left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from _scripts import HOLD, Gate, ended, good, run, started

KINDS = ["ThreadPoolExecutor", "ProcessPoolExecutor"]
NAMES = ["threads", "processes"]
both_kinds = pytest.mark.parametrize("kind", KINDS)
both_names = pytest.mark.parametrize("name", NAMES)


@both_kinds
def test_submitted_work_is_finished_before_the_users_handlers(kind: str) -> None:
    out = good(f"""
        import atexit, fanmap
        atexit.register(print, "before")
        def work(x): return x
        pool = fanmap.{kind}(1)
        atexit.register(print, "after")
        for x in range(5):
            pool.submit(work, x).add_done_callback(lambda future: print(future.result()))
    """)
    assert out == "0\n1\n2\n3\n4\nafter\nbefore\n"


@both_kinds
def test_work_under_way_is_finished(tmp_path: Path, kind: str) -> None:
    gate = Gate(tmp_path)
    code = HOLD + (
        "import fanmap, sys\n"
        f"pool = fanmap.{kind}(1)\n"
        "pool.submit(hold, sys.argv[1]).add_done_callback(lambda future: print('done', future.exception()))\n"
    )
    with started(code, gate.name) as program:
        gate.wait()
        gate.open()
        result = ended(program)
    gate.close()
    assert (result.status, result.out, result.err) == (0, "done None\n", "")


@both_kinds
def test_an_executors_map_that_nobody_asked_is_finished(kind: str) -> None:
    out = good(f"""
        import fanmap, os
        def work(x):
            os.write(1, b"x")
        pool = fanmap.{kind}(1)
        results = pool.map(work, range(20))
    """)
    assert out == "x" * 20


@both_kinds
def test_nothing_can_be_submitted_once_the_program_exits(kind: str) -> None:
    out = good(f"""
        import atexit, fanmap
        def late():
            for call in (lambda: pool.submit(abs, -1), lambda: list(pool.map(abs, [-1]))):
                try:
                    call()
                except RuntimeError as error:
                    print(type(error).__name__, "shutdown" in str(error))
        atexit.register(late)
        pool = fanmap.{kind}(1)
        pool.submit(abs, -1).result()
    """)
    assert out == "RuntimeError True\n" * 2


@both_names
def test_a_map_in_a_handler_at_exit_says_that_it_is_too_late(name: str) -> None:
    out = good(f"""
        import atexit, fanmap
        def late():
            try:
                list(fanmap.map(abs, [-1], executor={name!r}))
            except RuntimeError as error:
                print("shutdown" in str(error))
        atexit.register(late)
        list(fanmap.map(abs, [-1], executor={name!r}))
    """)
    assert out == "True\n"


@both_names
def test_an_unfinished_map_is_cancelled(name: str) -> None:
    out = good(f"""
        import atexit, fanmap, itertools, os
        def work(x):
            return x
        atexit.register(print, "handler")
        results = fanmap.map(work, itertools.count(), executor={name!r})
        next(results), next(results)
    """)
    assert out == "handler\n"


def test_a_map_over_processes_does_not_keep_the_program_for_tasks_that_never_end(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    code = HOLD + (
        "import fanmap, sys, threading\n"
        "results = fanmap.map(hold, [sys.argv[1]] * 4, buffersize=4, executor='processes')\n"
        "threading.Thread(target=lambda: next(results, None), daemon=True).start()\n"
        "open(sys.argv[1] + '.go').read()\n"
    )
    go = tmp_path / "started.go"
    os.mkfifo(go)
    with started(code, gate.name) as program:
        gate.wait(2)
        os.close(os.open(go, os.O_WRONLY))
        result = ended(program)
    gate.close()
    assert result.status == 0, result


@both_names
@pytest.mark.parametrize("leave", ["raise ValueError('mine')", "sys.exit(7)"])
def test_an_exit_in_the_midst_of_a_map_is_as_without_it(name: str, leave: str) -> None:
    result = run(f"""
        import fanmap, itertools, sys
        for x in fanmap.map(abs, itertools.count(), executor={name!r}):
            if x == 3:
                {leave}
    """)
    if "exit" in leave:
        assert (result.status, result.err) == (7, "")
    else:
        assert result.status == 1
        assert result.err.count("Traceback") == 1 and result.err.endswith("ValueError: mine\n"), result.err


@both_kinds
def test_an_exception_in_a_with_waits_for_the_work_and_is_raised(kind: str) -> None:
    result = run(f"""
        import fanmap
        with fanmap.{kind}(1) as pool:
            for x in range(5):
                pool.submit(str, x).add_done_callback(lambda future: print(future.result()))
            raise ValueError("mine")
    """)
    assert (result.status, result.out) == (1, "0\n1\n2\n3\n4\n")
    assert result.err.count("Traceback") == 1 and result.err.endswith("ValueError: mine\n"), result.err


@both_kinds
def test_the_programs_hard_exit_leaves_nothing(kind: str) -> None:
    result = run(f"""
        import fanmap, os, threading
        pool = fanmap.{kind}(2)
        for _ in range(4):
            pool.submit(abs, -1).result()
        list(fanmap.map(abs, [-1], executor="processes"))
        os._exit(5)
    """)
    assert (result.status, result.out, result.err) == (5, "", "")


@pytest.mark.parametrize("method", ["", "forkserver", "spawn"])
def test_who_starts_for_a_program_that_has_ended_meanwhile_says_nothing(tmp_path: Path, method: str) -> None:
    # What starts waits until the program is gone. A program that nobody waits for would still be there, as a zombie.
    (tmp_path / "sitecustomize.py").write_text("""
import os, sys
while "fanmap._" in str(sys.orig_argv) and os.path.exists("/proc/" + os.environ["PROGRAM"]):
    pass
""")
    (tmp_path / "program.py").write_text("""
import fanmap, multiprocessing, os, sys
if __name__ == "__main__":
    os.environ.update(PYTHONPATH=sys.argv[1], PROGRAM=str(os.getpid()))
    pool = fanmap.ProcessPoolExecutor(1, multiprocessing.get_context(sys.argv[2]) if sys.argv[2] else None)
    pool.submit(abs, -1)
    while not any(open(f"/proc/self/task/{task}/children").read() for task in os.listdir("/proc/self/task")):
        pass  # it is on its way
    os._exit(0)
""")
    good(
        "import subprocess, sys; sys.exit(subprocess.run([sys.executable, *sys.argv[1:]]).returncode)",
        *(str(tmp_path / "program.py"), str(tmp_path), method),
    )


def test_a_program_that_becomes_another_leaves_nothing() -> None:
    out = good("""
        import fanmap, os, sys
        list(fanmap.map(abs, [-1], executor="processes"))
        pool = fanmap.ProcessPoolExecutor(1)
        pool.submit(abs, -1).result()
        held = "import os; print(*(fd for fd in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{fd}')))"
        os.execv(sys.executable, [sys.executable, "-c", held])
    """)
    assert set(out.split()) == {"0", "1", "2"}


@both_kinds
def test_a_dropped_executor_finishes_its_work_and_its_workers_end(kind: str) -> None:
    good(f"""
        import fanmap, gc, os, threading
        from pathlib import Path
        def family():
            return Path(f"/proc/self/task/{{os.getpid()}}/children").read_text().split()
        done = threading.Semaphore(0)
        pool = fanmap.{kind}(2)
        for x in range(20):
            pool.submit(abs, -x).add_done_callback(lambda _: done.release())
        threads = list(threading.enumerate())
        children = [os.pidfd_open(int(pid)) for pid in family()]
        del pool
        gc.collect()
        for _ in range(20):
            assert done.acquire(timeout=40)
        for thread in threads:
            if thread is not threading.main_thread():
                thread.join(40)
                assert not thread.is_alive(), thread
        import select
        for child in children:
            assert select.select([child], [], [], 40)[0], "a child of a dropped executor lives on"
    """)


@both_names
def test_a_map_of_its_own_pool_leaves_it_when_it_is_dropped_unfinished(name: str) -> None:
    good(f"""
        import fanmap, itertools
        results = fanmap.map(abs, itertools.count(), executor={name!r}, workers=2)
        assert next(results) == 0
        del results
        fanmap.shutdown()
        import os, threading
        assert threading.active_count() == 1
        assert open(f"/proc/self/task/{{os.getpid()}}/children").read() == ""
    """)


@pytest.mark.parametrize("keep", ["", "results = "])
@pytest.mark.parametrize("size", ["", ", buffersize=2"])
def test_a_dropped_executors_map_is_finished_at_exit_before_the_users_handlers(keep: str, size: str) -> None:
    out = good(f"""
        import atexit, time
        from fanmap import ProcessPoolExecutor, ThreadPoolExecutor
        def work(x):
            time.sleep(0.05)
            print(str(x) + chr(10), end="", flush=True)  # in one write, which threads cannot mix
        atexit.register(print, "the user's handler")
        for make in (ThreadPoolExecutor, ProcessPoolExecutor):
            {keep}make(1).map(work, range(2){size})
        print("end" + chr(10), end="", flush=True)
    """)
    said = out.splitlines()
    assert said[-1] == "the user's handler" and sorted(said[:-1]) == ["0", "0", "1", "1", "end"], out


def test_a_hook_registered_after_the_import_runs_before_pools_are_waited_for() -> None:
    good("""
        import fanmap, threading
        fanmap.ThreadPoolExecutor
        stop = threading.Event()
        threading._register_atexit(stop.set)
        pool = fanmap.ThreadPoolExecutor(1)
        pool.submit(stop.wait)
    """)


def test_an_executor_made_when_the_main_thread_has_ended_refuses_work() -> None:
    out = good("""
        import fanmap, threading
        fanmap.ThreadPoolExecutor, fanmap.ProcessPoolExecutor
        def late():
            threading.main_thread().join()
            for make in (fanmap.ThreadPoolExecutor, fanmap.ProcessPoolExecutor):
                try:
                    make(1).submit(abs, -1)
                except RuntimeError as error:
                    print(error)
        threading.Thread(target=late).start()
    """)
    assert out == "cannot schedule new futures after interpreter shutdown\n" * 2


FORKED = """
    import fanmap, os, sys, traceback
    def in_child(act):
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            try:
                act()
            except BaseException:
                traceback.print_exc()
                os._exit(4)
            sys.stdout.flush()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


@both_kinds
def test_a_fork_of_the_program_is_told_that_the_pool_is_not_its_own(kind: str) -> None:
    good(
        FORKED
        + f"""
    pool = fanmap.{kind}(1)
    assert pool.submit(abs, -1).result() == 1
    def act():
        for call in (lambda: pool.submit(abs, -1), lambda: list(pool.map(abs, [-1])),
                     lambda: list(fanmap.map(abs, [-1], executor=pool))):
            try:
                call()
            except fanmap.BrokenExecutor as error:
                assert "fork" in str(error), error
            else:
                raise AssertionError
        pool.shutdown()
        with fanmap.{kind}(1) as own:
            assert own.submit(abs, -2).result(40) == 2
    in_child(act)
    assert pool.submit(abs, -3).result(40) == 3
    in_child(act)
    pool.shutdown()
    """
    )


def test_a_fork_of_the_program_holds_nothing_of_the_engines() -> None:
    """Not the doorbells, not the workers' handles, not their shared memory, not the template's socket."""
    good(
        FORKED
        + """
    import multiprocessing
    def held():
        names = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd.isdigit()
                 and os.path.lexists(f"/proc/self/fd/{fd}")]
        return [name for name in names if name.startswith(("anon_inode", "socket", "/memfd"))]
    before = held()
    template, forked = fanmap.ProcessPoolExecutor(2), fanmap.ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
    for pool in (template, forked):
        assert pool.submit(abs, -1).result(40) == 1
    assert len(held()) > len(before)
    def act():
        assert held() == before, held()
        with open("/proc/self/maps") as maps:
            assert "memfd:fanmap" not in maps.read()
        for way in (None, multiprocessing.get_context("fork")):
            with fanmap.ProcessPoolExecutor(1, way) as own:
                assert own.submit(abs, -2).result(40) == 2
        assert held() == before, held()
    in_child(act)
    for pool in (template, forked):
        assert pool.submit(abs, -3).result(40) == 3
        pool.shutdown()
    assert held() == before
    """
    )


@both_names
def test_a_fork_may_drop_what_the_parents_threads_are_at_work_with(name: str) -> None:
    """Whatever locks they hold at that moment."""
    kind = KINDS[NAMES.index(name)]
    good(
        FORKED
        + f"""
    import functools, gc, itertools, threading
    def drop():
        global pool, results, futures, function, taker
        del pool, results, futures, function, taker
        gc.collect()
    pool = fanmap.{kind}(2)
    function = functools.partial(pow, 2)
    results = fanmap.map(function, itertools.repeat(3), executor=pool)
    def take():
        for _ in results:
            futures[:] = [pool.submit(abs, -1) for _ in range(3)]
    futures = []
    taker = threading.Thread(target=take)
    next(results)
    taker.start()
    for _ in range(60):
        in_child(drop)
    results.close()
    taker.join()
    pool.shutdown()
    """
    )


def test_a_fork_may_shut_down_a_pool_whose_lock_is_held() -> None:
    good(
        FORKED
        + """
    pool = fanmap.ProcessPoolExecutor(1)
    assert pool.submit(abs, -1).result() == 1
    with pool._engine._lock:
        in_child(pool.shutdown)
    pool.shutdown()
    """
    )


def test_a_fork_made_by_a_task_shares_no_memory_of_the_engines() -> None:
    out = good("""
        import os
        import fanmap
        import numpy as np

        def in_a_fork(array):
            kept.append(array)
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    array[0] = 5
                    with open("/proc/self/maps") as maps:
                        shared = [line for line in maps if "memfd:fanmap" in line and line.split()[1].endswith("s")]
                    # The page by which it is told when a fork has ended, which nobody writes to.
                    shared = [line for line in shared if "fanmap-fork" not in line]
                    fds = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                           if os.path.lexists(f"/proc/self/fd/{fd}")]
                    open_ = [fd for fd in fds if "memfd:fanmap" in fd or "eventfd" in fd or "socket" in fd]
                    os.write(write, repr((shared, open_)).encode())
                    code = 0
                finally:
                    os._exit(code)
            os.close(write)
            with open(read, "rb") as told:
                said = told.read().decode()
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            return said, float(array[0])

        kept = []
        import multiprocessing
        for way in (None, multiprocessing.get_context("fork")):
            with fanmap.ProcessPoolExecutor(1, way) as pool:
                print(*pool.submit(in_a_fork, np.ones(200_000)).result(40))
    """)
    assert out == "([], []) 1.0\n" * 2


def test_a_result_that_a_hook_takes_before_a_fork_is_there_in_the_fork() -> None:
    good("""
        import os

        def hook():
            if futures:
                late.append(futures.pop().result())

        futures, late = [], []
        # Hooks before a fork run in reverse: fanmap's first.
        os.register_at_fork(before=hook)

        import fanmap
        import numpy as np

        with fanmap.ProcessPoolExecutor(1) as pool:
            futures.append(pool.submit(np.full, 200_000, 3.0))
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    os.close(write)
                    late[0][0] = 5
                    os.read(read, 1)
                    code = 0 if late[0].sum() == 600_002 else 2
                finally:
                    os._exit(code)
            os.close(read)
            assert (late[0] == 3).all()
            del late[0]
            for n in range(10):
                assert pool.submit(np.full, 200_000, float(n)).result().sum() == n * 200_000
            os.close(write)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    """)


@both_names
def test_a_fork_of_the_program_maps_with_pools_of_its_own(name: str) -> None:
    good(
        FORKED
        + f"""
    assert list(fanmap.map(abs, [-1], executor={name!r})) == [1]
    def act():
        assert list(fanmap.map(abs, [-2], executor={name!r})) == [2]
        fanmap.shutdown()
    in_child(act)
    assert list(fanmap.map(abs, [-3], executor={name!r})) == [3]
    """
    )


@both_kinds
def test_a_fork_that_exits_as_a_program_does_neither_hangs_nor_hurts_the_parents_pool(kind: str) -> None:
    out = good(f"""
        import fanmap, os, sys
        pool = fanmap.{kind}(1)
        assert pool.submit(abs, -1).result() == 1
        pid = os.fork()
        if pid == 0:
            del pool
            sys.exit(6)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 6
        print(pool.submit(abs, -2).result(40))
    """)
    assert out == "2\n"


@both_kinds
def test_a_future_of_the_parents_is_not_waited_for_for_ever_in_a_fork(tmp_path: Path, kind: str) -> None:
    # The child can never hear of it; that it is pending there is true, so only a wait with an end makes sense.
    gate = Gate(tmp_path)
    code = HOLD + FORKED.replace("\n    ", "\n") + (
        f"pool = fanmap.{kind}(1)\n"
        "future = pool.submit(hold, sys.argv[1])\n"
        "def act():\n"
        "    try:\n"
        "        future.result(0.01)\n"
        "    except (TimeoutError, fanmap.BrokenExecutor):\n"
        "        pass\n"
        "    future.cancel(), future.running(), repr(pool), pool.shutdown(wait=True)\n"
        "open(sys.argv[1] + '.go').read()\n"
        "in_child(act)\n"
        "print('parent', flush=True)\n"
        "future.result(40)\n"
        "pool.shutdown()\n"
    )  # fmt: skip
    go = tmp_path / "started.go"
    os.mkfifo(go)
    with started(code, gate.name) as program:
        gate.wait()
        os.close(os.open(go, os.O_WRONLY))
        assert program.stdout is not None and program.stdout.readline() == "parent\n"
        gate.open()
        result = ended(program)
    gate.close()
    assert (result.status, result.err) == (0, ""), result


def test_multiprocessings_own_children_of_fork_are_not_disturbed_by_our_pools() -> None:
    out = good("""
        import fanmap, multiprocessing
        list(fanmap.map(abs, [-1], executor="processes"))
        def child(queue):
            queue.put(list(fanmap.map(abs, [-5], executor="processes")))
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        process = context.Process(target=child, args=(queue,))
        process.start()
        print(queue.get())
        process.join(40)
        print(process.exitcode, list(fanmap.map(abs, [-2], executor="processes")))
    """)
    assert out == "[5]\n0 [2]\n"


def test_what_workers_wrote_is_flushed_and_their_handlers_run() -> None:
    out = good("""
        import fanmap
        def work():
            import atexit, sys
            atexit.register(sys.stdout.write, "bye\\n")
            sys.stdout.write("hello\\n")
        with fanmap.ProcessPoolExecutor(1) as pool:
            pool.submit(work).result()
    """)
    assert out == "hello\nbye\n"


def test_unflushed_output_of_the_parent_is_written_once() -> None:
    for method in ("fork", "forkserver"):
        result = run(f"""
            import fanmap, multiprocessing, sys
            sys.stdout.write("once\\n")
            with fanmap.ProcessPoolExecutor(2, multiprocessing.get_context({method!r})) as pool:
                list(pool.map(abs, range(5)))
        """)
        assert result.out == "once\n", result


@both_kinds
def test_a_shutdown_without_waiting_still_finishes_the_work(kind: str) -> None:
    out = good(f"""
        import fanmap
        pool = fanmap.{kind}(1)
        for x in range(5):
            pool.submit(str, x).add_done_callback(lambda future: print(future.result()))
        pool.shutdown(wait=False)
    """)
    assert out == "0\n1\n2\n3\n4\n"


@both_kinds
def test_a_thread_of_the_users_may_use_a_pool_while_the_main_thread_has_ended(kind: str) -> None:
    # Exit finishes what was submitted by then; later the thread is refused in words, and neither hangs.
    out = good(f"""
        import fanmap, threading
        pool = fanmap.{kind}(1)
        def rest():
            threading.main_thread().join()
            try:
                print(pool.submit(abs, -1).result(40))
            except RuntimeError as error:
                print("refused")
        threading.Thread(target=rest).start()
        pool.submit(abs, -1).result()
    """)
    assert out in ("1\n", "refused\n")


def test_no_pool_needs_the_collector_to_let_go_of_its_descriptors() -> None:
    good("""
        import asyncio, contextlib, fanmap, gc, io, os

        def work(x):
            print(x)
            if x == 2:
                os._exit(3)
            return [x][x // 4]  # of 4 an IndexError

        def mapped(**options):
            return list(fanmap.map(work, range(5), executor="processes", workers=2, on_error="return", **options))

        def submitted(**options):
            with fanmap.ProcessPoolExecutor(2, **options) as pool:
                for future in [pool.submit(work, x) for x in range(5)]:
                    future.exception(40)

        def mapped_by_the_pool():
            with fanmap.ProcessPoolExecutor(2) as pool:
                list(pool.map(work, range(5), on_error="return"))

        def broken():
            with fanmap.ProcessPoolExecutor(2, initializer=int, initargs=("x",)) as pool:
                assert pool.submit(abs, -1).exception(40)

        ways = [
            mapped, lambda: mapped(tag_output=True, forward_logging=True, retries=1), mapped_by_the_pool,
            submitted, lambda: submitted(cancel_running=True, retries=1, task_timeout=60), broken,
        ]
        gc.collect()
        gc.disable()
        for piped in (False, True):
            for way in ways:
                for _ in range(2):
                    with contextlib.redirect_stdout(io.StringIO()) if piped else contextlib.nullcontext():
                        with contextlib.redirect_stderr(io.StringIO()):
                            way()
                    held = set(os.listdir("/proc/self/fd"))
                    if _ == 0:
                        before = held
                assert held == before, (way, piped, held - before)
    """)
