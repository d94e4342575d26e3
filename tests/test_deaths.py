"""Deaths: a worker that dies costs its own task, a template what ran, and nothing outlives the parent."""

from __future__ import annotations

import datetime
import multiprocessing
import os
import pickle
import resource
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fanmap
import numpy
import pytest
from _scripts import HOLD, LIMIT, Gate, good, started
from conftest import children

LARGE = 50_000_000


def die(how: str) -> None:
    """Ends this process in one of the ways of `WAYS_TO_DIE`."""
    if how == "exit":
        os._exit(3)
    if how == "stack":
        # No more of it than there is now, whatever the interpreter was told: any deeper call goes past its end.
        resource.setrlimit(resource.RLIMIT_STACK, (4096, resource.getrlimit(resource.RLIMIT_STACK)[1]))
        deeper(0)
    os.kill(os.getpid(), getattr(signal, how))


def deeper(x: int) -> int:
    return max([x], key=deeper)


def die_at(x: int, at: int, how: str) -> int:
    if x == at:
        die(how)
    return x


def die_unless_first(x: int, how: str) -> int:
    if x:
        die(how)
    return x


def hold(name: str) -> str:
    """As in `_scripts`."""
    with open(name, "wb", 0) as started:
        started.write(b"x")
    with open(name + ".gate", "rb") as gate:
        gate.read()
    return name


def die_at_gate(gate: str) -> None:
    with open(gate, "rb"):
        die("SIGKILL")


WAYS_TO_DIE = [("SIGKILL", -9), ("SIGSEGV", -11), ("SIGTERM", -15), ("exit", 3), ("stack", -11)]


@pytest.fixture(params=["template", "fork", "forkserver", "spawn"])
def context(request: pytest.FixtureRequest) -> multiprocessing.context.BaseContext | None:
    return None if request.param == "template" else multiprocessing.get_context(request.param)


def crash(error: BaseException | None) -> fanmap.WorkerCrashed:
    assert type(error) is fanmap.WorkerCrashed, repr(error)
    return error


@pytest.mark.parametrize(("how", "code"), WAYS_TO_DIE)
def test_of_two_hundred_tasks_only_the_one_that_died_is_lost(how: str, code: int) -> None:
    with fanmap.ProcessPoolExecutor(2) as pool:
        futures = [pool.submit(die_at, x, 77, how) for x in range(200)]
        errors = {x: error for x, future in enumerate(futures) if (error := future.exception(LIMIT)) is not None}
        assert list(errors) == [77]
        lost = crash(errors.pop(77))
        assert (lost.item, lost.exitcode, lost.call) == (None, code, f"die_at(77, 77, {how!r})")
        assert lost.call in str(lost) and str(lost.pid) in str(lost)
        assert lost.signal is None if code > 0 else lost.signal in str(lost)
        assert not lost.out_of_memory
        assert [future.result(LIMIT) for x, future in enumerate(futures) if x != 77] == [
            x for x in range(200) if x != 77
        ]
        assert lost.pid not in pool._processes
        assert pool.submit(abs, -1).result(LIMIT) == 1


def test_a_death_is_one_by_each_start_method(context: multiprocessing.context.BaseContext | None) -> None:
    with fanmap.ProcessPoolExecutor(2, context) as pool:
        pid = pool.submit(os.getpid).result(LIMIT)
        assert pid in pool._processes
        lost = crash(pool.submit(die, "SIGKILL").exception(LIMIT))
        assert lost.exitcode == -signal.SIGKILL and lost.pid != os.getpid()
        assert pool.submit(abs, -1).result(LIMIT) == 1


def test_a_pool_that_was_shut_down_ends_though_its_last_worker_dies(
    context: multiprocessing.context.BaseContext | None, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    pool = fanmap.ProcessPoolExecutor(1, context)
    future = pool.submit(die_at_gate, str(gate))
    pool.shutdown(wait=False)
    gate.write_bytes(b"")  # waits until the task is there
    pool.shutdown(wait=True)
    crash(future.exception(0))


def stop(pids: set[int]) -> None:
    """Stops processes; returns once they stand still."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            pass


def descendants(pid: int) -> set[int]:
    below = children(pid)
    return below.union(*map(descendants, below))


@pytest.mark.parametrize("end", ["shutdown", "terminate_workers", "kill_workers"])
def test_processes_that_were_stopped_do_not_keep_a_pool_from_ending(
    context: multiprocessing.context.BaseContext | None, end: str, tmp_path: Path
) -> None:
    before = descendants(os.getpid())
    gate = Gate(tmp_path)
    # No worker is killed for taking too long to end.
    pool = fanmap.ProcessPoolExecutor(2, context, worker_exit_timeout=None)
    held = pool.submit(hold, gate.name)
    gate.wait()
    assert pool.submit(abs, -1).result(LIMIT) == 1
    stop(descendants(os.getpid()) - before)
    if end == "shutdown":
        pool.shutdown(wait=False)
        gate.open()
        assert held.result(LIMIT) == gate.name
    else:
        getattr(pool, end)()
        assert isinstance(held.exception(LIMIT), fanmap.BrokenProcessPool)
    pool.shutdown()
    assert descendants(os.getpid()) == before
    gate.close()


def test_processes_that_were_stopped_do_not_keep_the_warm_pool_from_ending() -> None:
    before = descendants(os.getpid())
    list(fanmap.map(abs, range(100), executor="processes"))
    stop(descendants(os.getpid()) - before)
    fanmap.shutdown()
    assert descendants(os.getpid()) == before


@pytest.mark.parametrize(("how", "code"), WAYS_TO_DIE)
def test_a_map_gives_what_came_before_and_names_the_item(how: str, code: int) -> None:
    results = fanmap.map(die_at, range(20), [13] * 20, [how] * 20, executor="processes")
    seen = []
    with pytest.raises(fanmap.WorkerCrashed, match="item 13") as caught:
        seen.extend(results)
    assert seen == [] or seen == list(range(13))
    assert (caught.value.item, caught.value.exitcode) == (13, code)
    assert caught.value.call == f"die_at(13, 13, {how!r})"
    assert list(fanmap.map(abs, range(5), executor="processes")) == list(range(5))


def test_a_crash_keeps_what_it_knows_when_it_is_pickled() -> None:
    with fanmap.ProcessPoolExecutor(1) as pool:
        lost = crash(pool.submit(die, "SIGKILL").exception(LIMIT))
    copied = pickle.loads(pickle.dumps(lost))
    assert (vars(copied), str(copied)) == (vars(lost), str(lost))


@pytest.mark.parametrize("method", ["template", "fork", "forkserver", "spawn"])
def test_a_crash_tells_the_most_memory_that_its_worker_had(method: str) -> None:
    # In a program of its own: what started a worker by exec must have had less, or nobody can tell.
    good(
        """
        import fanmap, multiprocessing, sys
        if __name__ == "__main__":
            method = sys.argv[1]
            context = None if method == "template" else multiprocessing.get_context(method)
            with fanmap.ProcessPoolExecutor(1, context) as pool:
                lost = pool.submit(
                    exec, "import os; kept = b'x' * (300 << 20); os.kill(os.getpid(), 9)"
                ).exception(40)
            assert 300 << 20 < lost.peak_memory < 500 << 20, lost.peak_memory
            assert "MiB of memory" in str(lost), str(lost)
        """,
        method,
    )


def test_a_worker_that_memory_ran_out_for_is_told_from_one_that_was_killed(tmp_path: Path) -> None:
    with memory_limit(200 << 20) as join:
        good(
            """
            import fanmap, os, sys
            exec(sys.argv[1])  # joins the cgroup
            def grow():
                return len(b"x" * (400 << 20))
            with fanmap.ProcessPoolExecutor(2) as pool:
                for _ in range(2):
                    lost = pool.submit(grow).exception(40)
                    assert lost.out_of_memory and "likely out of memory" in str(lost), str(lost)
                    lost = pool.submit(lambda: os.kill(os.getpid(), 9)).exception(40)
                    assert lost.signal == "SIGKILL" and not lost.out_of_memory, str(lost)
                assert pool.submit(abs, -1).result(40) == 1
            """,
            join,
        )


@contextmanager
def memory_limit(limit: int) -> Iterator[str]:
    """A cgroup that may have so many bytes, and the code by which a program joins it. Skips where it is not allowed."""
    for own in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = own.split(":", 2)
        if "memory" in controllers.split(","):
            directory, name = Path(f"/sys/fs/cgroup/memory{path}"), "memory.limit_in_bytes"
            break
        if not controllers:
            directory, name = Path(f"/sys/fs/cgroup{path}"), "memory.max"
    group = directory / f"fanmap-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        try:
            (group / name).write_text(str(limit))
        except OSError as error:
            pytest.skip(f"memory cannot be limited here: {error}")
        yield f"open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))"
    finally:
        group.rmdir()


@pytest.mark.parametrize("items", [range(100), [float(x) for x in range(100)], [str(x) for x in range(100)]])
def test_a_crash_in_a_run_shows_its_own_item(items: Any) -> None:
    with pytest.raises(fanmap.WorkerCrashed) as caught:
        list(fanmap.map(die_if_77, items, executor="processes"))
    assert (caught.value.item, caught.value.call) == (77, f"die_if_77({items[77]!r})")


def die_if_77(x: object) -> None:
    if str(x)[:2] == "77":
        die("SIGKILL")


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def __repr__(self) -> str:
        raise AssertionError("asked for its repr")


CALLS = [
    ((3, "a", None), {}, "die_of(3, 'a', None)"),
    ((), {"y": (1.5, [b"z"])}, "die_of(y=(1.5, [b'z']))"),
    ((Point(1),), {}, "die_of(Point(x=1))"),
    ((datetime.timedelta(1),), {}, "die_of(timedelta(1, 0, 0))"),
    ((Path("/x"), {1, 2}), {}, "die_of(PosixPath("),
    ((numpy.zeros((1000, 1000)),), {}, "die_of(array(shape=(1000, 1000), dtype='f8'))"),
    ((bytes(1_000_000),), {}, "die_of(bytes(b'...'))"),
    ((list(range(100_000)),), {}, "die_of([0, 1, 2, 3, 4, 5, ...])"),
    (("x" * 1000, "y" * 1000), {}, "..."),
    ((bytearray(b"x") * 60_000, "z" * 9_000_000), {}, "die_of(...)"),
]


def die_of(*args: object, **named: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("args", "named", "shown"), CALLS, ids=range(len(CALLS)))
def test_a_crash_shows_its_call_without_running_code_of_its_arguments(
    args: tuple[object, ...], named: dict[str, object], shown: str
) -> None:
    with fanmap.ProcessPoolExecutor(1) as pool:
        lost = crash(pool.submit(die_of, *args, **named).exception(LIMIT))
    assert shown in lost.call and len(lost.call) <= 80
    assert lost.call.startswith("die_of(") and lost.call in str(lost)


def test_an_argument_that_kills_who_unpickles_it_kills_no_more_than_the_worker() -> None:
    good("""
        import fanmap, functools, os
        class Deadly:
            def __reduce__(self):
                return exec, ("import os; os.kill(os.getpid(), 9)",)
        class Mine:
            def __init__(self):
                self.deadly = Deadly()
        with fanmap.ProcessPoolExecutor(1) as pool:
            lost = pool.submit(print, Mine()).exception(40)
            assert lost.call.startswith("print(Mine(deadly=exec("), lost.call
            lost = pool.submit(functools.partial(lambda x, y: None, 1), Deadly()).exception(40)
            assert lost.call.startswith("<lambda>(exec("), lost.call
            try:
                list(fanmap.map(print, [1, Mine(), 2], executor=pool))
            except fanmap.WorkerCrashed as crash:
                assert (crash.item, crash.call[:11]) == (1, "print(Mine("), crash
            assert pool.submit(abs, -1).result(40) == 1
    """)


def test_every_result_before_the_death_is_handed_out() -> None:
    results = fanmap.map(die_at, range(20), [13] * 20, ["SIGKILL"] * 20, executor="processes")
    assert [next(results) for _ in range(13)] == list(range(13))
    with pytest.raises(fanmap.WorkerCrashed):
        next(results)
    assert list(results) == []


def test_many_deaths_in_a_row_are_each_their_own() -> None:
    with fanmap.ProcessPoolExecutor(2) as pool:
        futures = [pool.submit(die_unless_first, x % 4, "SIGKILL") for x in range(24)]
        for x, future in enumerate(futures):
            if x % 4:
                crash(future.exception(LIMIT))
            else:
                assert future.result(LIMIT) == 0
        assert pool.submit(abs, -1).result(LIMIT) == 1


def close_descriptors(which: int | None) -> int | None:
    """Closes one of the eventfds that this worker has, if it has so many, or all but the streams."""
    if which is None:
        os.closerange(3, 1000)
        return None
    numbers = (int(name) for name in os.listdir("/proc/self/fd"))
    bells = [number for number in sorted(numbers) if _shows(number) == "anon_inode:[eventfd]"]
    for number in bells[which : which + 1]:
        os.close(number)
    return which


def _shows(number: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except FileNotFoundError:  # of the listing itself
        return ""


@pytest.mark.parametrize("which", [None, 0, 1])
def test_a_task_that_closes_descriptors_of_the_engines_keeps_nobody_waiting(which: int | None) -> None:
    with fanmap.ProcessPoolExecutor(max_workers=1) as pool:
        for _ in range(3):
            assert pool.submit(close_descriptors, which).result(LIMIT) == which
            assert pool.submit(abs, -1).result(LIMIT) == 1
        assert list(pool.map(abs, range(100), timeout=LIMIT)) == list(range(100))


def test_sys_exit_and_keyboard_interrupt_in_a_task_are_exceptions_and_not_deaths() -> None:
    with fanmap.ProcessPoolExecutor(1) as pool:
        pid = pool.submit(os.getpid).result(LIMIT)
        error = pool.submit(eval, "__import__('sys').exit(3)").exception(LIMIT)
        assert type(error) is SystemExit and error.code == 3
        error = pool.submit(exec, "raise KeyboardInterrupt").exception(LIMIT)
        assert type(error) is KeyboardInterrupt
        assert pool.submit(os.getpid).result(LIMIT) == pid


def recurse(x: int) -> int:
    return recurse(x + 1)


def test_endless_recursion_is_an_exception_and_not_a_death() -> None:
    with fanmap.ProcessPoolExecutor(1) as pool:
        assert type(pool.submit(recurse, 0).exception(LIMIT)) is RecursionError
        assert pool.submit(abs, -1).result(LIMIT) == 1


def nest(depth: int) -> list[object]:
    outer: list[object] = []
    for _ in range(depth):
        outer = [outer]
    return outer


def test_what_is_nested_too_deeply_to_pickle_fails_alone() -> None:
    with fanmap.ProcessPoolExecutor(1) as pool:
        as_result = pool.submit(nest, 100_000)
        as_argument = pool.submit(len, nest(100_000))
        for future in (as_result, as_argument):
            assert isinstance(future.exception(LIMIT), Exception)
            assert not isinstance(future.exception(LIMIT), fanmap.BrokenExecutor)
        assert pool.submit(abs, -1).result(LIMIT) == 1
        del as_result, as_argument, future


def note(path: str, x: int, first: str) -> int:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, f"{x}\n".encode())
    os.close(descriptor)
    if x == 0:
        with open(first, "wb", 0) as file:
            file.write(b"x")
        signal.pause()
    return x


def test_what_a_dead_worker_had_not_started_runs_elsewhere_exactly_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    gate = Gate(tmp_path)
    with fanmap.ProcessPoolExecutor(1) as pool:
        futures = [pool.submit(note, str(log), x, gate.name) for x in range(50)]
        gate.wait()
        (victim,) = pool._processes
        os.kill(victim, signal.SIGKILL)
        lost = crash(futures[0].exception(LIMIT))
        assert (lost.pid, lost.exitcode) == (victim, -signal.SIGKILL)
        assert [future.result(LIMIT) for future in futures[1:]] == list(range(1, 50))
    gate.close()
    assert sorted(map(int, log.read_text().split())) == list(range(50))


def test_an_idle_worker_that_is_killed_is_replaced_and_nothing_is_lost() -> None:
    with fanmap.ProcessPoolExecutor(1) as pool:
        for _ in range(5):
            pid = pool.submit(os.getpid).result(LIMIT)
            handle = os.pidfd_open(pid)
            os.kill(pid, signal.SIGKILL)
            assert select.select([handle], [], [], LIMIT)[0]
            os.close(handle)
            assert pool.submit(os.getpid).result(LIMIT) != pid


def test_a_worker_killed_as_it_goes_idle_loses_at_most_its_own_task() -> None:
    # No wait between the kill and the next submit: the task may meet the dying worker, or its successor.
    with fanmap.ProcessPoolExecutor(1) as pool:
        for _ in range(10):
            pid = pool.submit(os.getpid).result(LIMIT)
            os.kill(pid, signal.SIGKILL)
            future = pool.submit(os.getpid)
            error = future.exception(LIMIT)
            if error is not None:
                assert crash(error).pid == pid
            else:
                assert future.result() != pid
        del error


class SendsThenDies:
    """Its pickle is large; the bytes that come before its last part are on their way when it kills its process."""

    def __reduce__(self) -> tuple[object, ...]:
        return list, ([bytes(LARGE), Killer()],)


class Killer:
    def __reduce__(self) -> tuple[object, ...]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def large_after_start(name: str) -> bytes:
    with open(name, "wb", 0) as started:
        started.write(b"x")
    return bytes(LARGE)


def test_a_worker_that_dies_while_its_result_is_pickled_loses_that_task() -> None:
    with fanmap.ProcessPoolExecutor(1) as pool:
        assert crash(pool.submit(SendsThenDies).exception(LIMIT)).exitcode == -signal.SIGKILL
        assert pool.submit(abs, -1).result(LIMIT) == 1


def test_a_worker_killed_about_when_it_sends_a_large_result_gives_all_of_it_or_none(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with fanmap.ProcessPoolExecutor(1) as pool:
        for _ in range(4):
            future = pool.submit(large_after_start, gate.name)
            gate.wait()
            for pid in pool._processes:
                os.kill(pid, signal.SIGKILL)
            if (error := future.exception(LIMIT)) is not None:
                crash(error)
            else:
                assert len(future.result()) == LARGE
            assert pool.submit(abs, -1).result(LIMIT) == 1
        del error, future
    gate.close()


def test_fifty_megabytes_pass_both_ways() -> None:
    data = os.urandom(1000) * (LARGE // 1000)
    with fanmap.ProcessPoolExecutor(2) as pool:
        assert pool.submit(bytes, data).result(LIMIT) == data
        assert [len(back) for back in pool.map(bytearray, [data] * 3)] == [LARGE] * 3


def test_a_worker_killed_while_it_is_given_a_large_argument_gets_nothing_confused(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with fanmap.ProcessPoolExecutor(1) as pool:
        running = pool.submit(note, os.devnull, 0, gate.name)
        gate.wait()
        large = pool.submit(len, bytes(LARGE))
        small = pool.submit(abs, -2)
        (victim,) = pool._processes
        os.kill(victim, signal.SIGKILL)
        crash(running.exception(LIMIT))
        assert (large.result(LIMIT), small.result(LIMIT)) == (LARGE, 2)
    gate.close()


def test_all_workers_killed_at_once_lose_only_what_ran(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with fanmap.ProcessPoolExecutor(3) as pool:
        running = [pool.submit(note, os.devnull, 0, gate.name) for _ in range(3)]
        queued = [pool.submit(abs, -x) for x in range(20)]
        gate.wait(3)
        workers = set(pool._processes)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        assert {crash(future.exception(LIMIT)).pid for future in running} == workers
        assert [future.result(LIMIT) for future in queued] == list(range(20))
    gate.close()


def test_a_killed_template_costs_what_ran_and_the_rest_goes_on(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    before = children(os.getpid())
    with fanmap.ProcessPoolExecutor(2) as pool:
        running = [pool.submit(note, os.devnull, 0, gate.name) for _ in range(2)]
        queued = [pool.submit(abs, -x) for x in range(20)]
        gate.wait(2)
        (template,) = children(os.getpid()) - before
        os.kill(template, signal.SIGKILL)
        for future in running:
            crash(future.exception(LIMIT))
        assert [future.result(LIMIT) for future in queued] == list(range(20))
        assert template not in children(os.getpid())
    gate.close()


def test_a_killed_fork_template_breaks_its_pool_with_a_reason(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    before = children(os.getpid())
    pool = fanmap.ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
    running = pool.submit(note, os.devnull, 0, gate.name)
    queued = pool.submit(abs, -1)
    gate.wait()
    (template,) = children(os.getpid()) - before
    os.kill(template, signal.SIGKILL)
    for future in (running, queued):
        error = future.exception(LIMIT)
        assert isinstance(error, fanmap.BrokenProcessPool) and len(str(error)) > 20
    assert type(queued.exception(LIMIT)) is fanmap.BrokenProcessPool
    with pytest.raises(fanmap.BrokenProcessPool):
        pool.submit(abs, -1)
    pool.shutdown()
    gate.close()
    del error


@pytest.mark.parametrize(("how", "says"), [("exit", "exit code 3"), ("SIGKILL", "SIGKILL")])
def test_a_worker_that_dies_in_its_initializer_breaks_the_pool_and_does_not_start_for_ever(
    context: multiprocessing.context.BaseContext | None, how: str, says: str
) -> None:
    with fanmap.ProcessPoolExecutor(2, context, initializer=die, initargs=(how,)) as pool:
        error = pool.submit(abs, -1).exception(LIMIT)
        assert type(error) is fanmap.BrokenProcessPool and says in str(error), error
        with pytest.raises(fanmap.BrokenProcessPool):
            pool.submit(abs, -1)
        del error


def test_an_executable_that_is_gone_breaks_the_pool_and_is_named(
    context: multiprocessing.context.BaseContext | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if context is not None and context.get_start_method() == "fork":
        pytest.skip("it runs no executable")
    executable = tmp_path / "python"
    executable.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(executable))
    before = children(os.getpid())
    with fanmap.ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        assert pool.submit(abs, -1).result(LIMIT) == 1
        executable.unlink()
        for pid in children(os.getpid()) - before:
            os.kill(pid, signal.SIGKILL)  # the template, or the worker, is to be started again
        error = pool.submit(abs, -1).exception(LIMIT)
        assert type(error) is fanmap.BrokenProcessPool and f"{executable}: No such file" in str(error), error
        with pytest.raises(fanmap.BrokenProcessPool, match=str(executable)):
            pool.submit(abs, -1)
        del error


@pytest.mark.parametrize("how", ["terminate_workers", "kill_workers"])
def test_ending_the_workers_ends_the_pool_at_once(tmp_path: Path, how: str) -> None:
    gate = Gate(tmp_path)
    pool = fanmap.ProcessPoolExecutor(1)
    running, queued = pool.submit(note, os.devnull, 0, gate.name), pool.submit(abs, -1)
    gate.wait()
    getattr(pool, how)()
    assert isinstance(running.exception(LIMIT), fanmap.BrokenProcessPool)
    assert queued.cancelled() or isinstance(queued.exception(LIMIT), fanmap.BrokenProcessPool)
    pool.shutdown()
    gate.close()


PARENT = """
import fanmap, multiprocessing, sys
exec(sys.argv[2])
if __name__ == "__main__":
    method = sys.argv[3]
    context = multiprocessing.get_context(method) if method else None
    pool = fanmap.ProcessPoolExecutor(2, context)
    futures = [pool.submit(hold, sys.argv[1]) for _ in range(2)]
    FINALLY
"""


@pytest.mark.parametrize("method", ["", "fork"])
def test_processes_that_were_stopped_do_not_outlive_a_parent_that_is_killed(tmp_path: Path, method: str) -> None:
    gate = Gate(tmp_path)
    path = tmp_path / "program.py"
    path.write_text(PARENT.replace("FINALLY", "input()"))
    # What it has for standard input is never written to.
    with started("", gate.name, HOLD, method, command=(str(path),)) as program:
        gate.wait(2)
        family = _descendants(program.pid)
        assert len(family) == 3
        handles = [os.pidfd_open(pid) for pid in family]
        for pid in family:
            os.kill(pid, signal.SIGSTOP)
        program.kill()
        for handle in handles:
            assert select.select([handle], [], [], LIMIT)[0], "a process outlived its parent"
            os.close(handle)
        program.communicate(timeout=LIMIT)
    gate.close()


@pytest.mark.parametrize("method", ["", "fork", "forkserver", "spawn"])
@pytest.mark.parametrize("end", ["SIGKILL", "SIGTERM", "os._exit"])
def test_no_process_outlives_its_parent(tmp_path: Path, method: str, end: str) -> None:
    gate = Gate(tmp_path)
    leave = "input()" if end != "os._exit" else "import os; os.read(0, 1); os._exit(3)"
    path = tmp_path / "program.py"
    # Standard input is a FIFO that somebody writes to, or that the program waits for until it is killed.
    stdin = tmp_path / "stdin"
    os.mkfifo(stdin)
    path.write_text(PARENT.replace("FINALLY", f"import os; os.dup2(os.open({str(stdin)!r}, os.O_RDWR), 0); {leave}"))
    with started("", gate.name, HOLD, method, command=(str(path),)) as program:
        gate.wait(2)
        family = _descendants(program.pid)
        assert len(family) >= 2
        handles = [os.pidfd_open(pid) for pid in family]
        if end == "os._exit":
            writer = os.open(stdin, os.O_WRONLY)
            os.write(writer, b"x")
            os.close(writer)
        else:
            program.send_signal(getattr(signal, end))
        for handle in handles:
            assert select.select([handle], [], [], LIMIT)[0], "a process outlived its parent"
            os.close(handle)
        program.communicate(timeout=LIMIT)
        assert program.returncode == (3 if end == "os._exit" else -getattr(signal, end))
    gate.close()


def _descendants(pid: int) -> set[int]:
    found = set(children(pid))
    for child in children(pid):
        found |= _descendants(child)
    return found


def test_a_worker_of_a_worker_does_not_outlive_the_parent_either(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    code = HOLD + (
        "import fanmap, sys\n"
        "def outer(name):\n"
        "    with fanmap.ProcessPoolExecutor(1) as inner:\n"
        "        inner.submit(hold, name).result()\n"
        "with fanmap.ProcessPoolExecutor(1) as pool:\n"
        "    pool.submit(outer, sys.argv[1]).result()\n"
    )
    with started(code, gate.name) as program:
        gate.wait()
        handles = [os.pidfd_open(pid) for pid in _descendants(program.pid)]
        assert len(handles) == 4
        program.kill()
        for handle in handles:
            assert select.select([handle], [], [], LIMIT)[0], "a process outlived its parent"
            os.close(handle)
    gate.close()


def test_a_thread_pools_tasks_may_exit_without_harm() -> None:
    good("""
        import fanmap, sys
        with fanmap.ThreadPoolExecutor(1) as pool:
            error = pool.submit(sys.exit, 3).exception(60)
            assert type(error) is SystemExit and error.code == 3
            assert pool.submit(abs, -1).result(60) == 1
    """)
