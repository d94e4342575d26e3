"""The end of a worker: `worker_exit`, `atexit` in workers, and ends that take too long."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import threading
from pathlib import Path
from typing import Any

import fanmap
import pytest
from _scripts import LIMIT, good, run

WAYS = ["processes", "fork", "forkserver", "spawn"]
each_way = pytest.mark.parametrize("way", WAYS)


def make(way: str, workers: int = 1, **options: Any) -> fanmap.ProcessPoolExecutor:
    context = None if way == "processes" else multiprocessing.get_context(way)
    return fanmap.ProcessPoolExecutor(workers, context, **options)


def note(path: str, what: str) -> None:
    with open(path, "a") as file:
        file.write(f"{what} {os.getpid()}\n")


class NoteAtExit:
    """To be called at exit: notes that, and the process."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self) -> None:
        note(self.path, "hook")


def register(path: str) -> int:
    atexit.register(note, path, "atexit")
    return os.getpid()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


@each_way
def test_the_hook_and_then_the_handlers_of_atexit_run_when_the_pool_is_shut_down(way: str, log: Path) -> None:
    with make(way, worker_exit=NoteAtExit(str(log))) as pool:
        pid = pool.submit(register, str(log)).result(LIMIT)
        assert log.read_text() == ""
    assert log.read_text() == f"hook {pid}\natexit {pid}\n"


@pytest.mark.parametrize("way", ["processes", "forkserver", "spawn"])
def test_they_run_in_each_worker_that_is_replaced_before_its_successor_starts(way: str, log: Path) -> None:
    with make(way, worker_exit=NoteAtExit(str(log)), max_tasks_per_child=1) as pool:
        pids = [future.result(LIMIT) for future in [pool.submit(register, str(log)) for _ in range(4)]]
    assert log.read_text() == "".join(f"hook {pid}\natexit {pid}\n" for pid in pids)


def test_they_run_when_an_idle_pool_gives_its_workers_up(log: Path) -> None:
    pool = fanmap.ProcessPoolExecutor._for_map(1, 0.001)
    pid = pool.submit(register, str(log)).result(LIMIT)
    assert pool._native_pool().join(LIMIT)
    assert log.read_text() == f"atexit {pid}\n"
    pool.shutdown()


def test_they_run_at_the_end_of_a_program_that_never_shut_its_map_down(log: Path) -> None:
    good(
        """
        import atexit, fanmap, sys
        def work(x):
            atexit.register(lambda: print("handler", file=open(sys.argv[1], "a")))
        list(fanmap.map(work, [1], executor="processes"))
        """,
        str(log),
    )
    assert log.read_text() == "handler\n"


@pytest.mark.parametrize("end", ["kill_workers", "terminate_workers", "crash"])
def test_they_do_not_run_in_a_worker_that_is_killed_or_crashes(end: str, log: Path) -> None:
    pool = make("processes", worker_exit=NoteAtExit(str(log)))
    pid = pool.submit(register, str(log)).result(LIMIT)
    if end == "crash":
        assert isinstance(pool.submit(os.kill, pid, signal.SIGKILL).exception(LIMIT), fanmap.WorkerCrashed)
    else:
        getattr(pool, end)()
    pool.shutdown()
    assert str(pid) not in log.read_text()


def test_the_hook_is_not_called_where_the_initializer_failed(log: Path) -> None:
    with make("processes", initializer=int, initargs=("x",), worker_exit=NoteAtExit(str(log))) as pool:
        assert isinstance(pool.submit(abs, 1).exception(LIMIT), fanmap.BrokenProcessPool)
    assert log.read_text() == ""


def test_a_hook_of_main_sees_what_the_initializer_set_and_may_fail() -> None:
    result = run("""
        import atexit, fanmap
        model = None
        def init():
            global model
            model = "a model"
        def end():
            print("closing", model, flush=True)
            raise OSError("not closed")
        def work(x):
            atexit.register(print, "atexit")
        with fanmap.ProcessPoolExecutor(1, initializer=init, worker_exit=end) as pool:
            pool.submit(work, 1).result()
    """)
    assert (result.status, result.out) == (0, "closing a model\natexit\n")
    assert result.err.endswith("OSError: not closed\n")


def hang() -> None:
    while True:
        signal.pause()


def hang_at_exit(how: str) -> None:
    if how == "atexit":
        atexit.register(hang)
    elif how == "thread":
        threading.Thread(target=threading.Event().wait).start()


@each_way
@pytest.mark.parametrize("how", ["atexit", "thread", "worker_exit"])
def test_an_end_that_hangs_holds_shutdown_up_no_longer_than_it_may(way: str, how: str) -> None:
    hook = hang if how == "worker_exit" else None
    pool = make(way, 2, worker_exit=hook, worker_exit_timeout=0.01)
    for future in [pool.submit(hang_at_exit, how) for _ in range(4)]:
        future.result(LIMIT)
    pool.shutdown()


class StopThenNote(NoteAtExit):
    """Stops its process first, as somebody with SIGSTOP may at any time."""

    def __call__(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)
        super().__call__()


@each_way
@pytest.mark.parametrize("timeout", [None, 10_000])
def test_a_worker_that_is_stopped_while_it_ends_goes_on(way: str, timeout: float | None, log: Path) -> None:
    pool = make(way, worker_exit=StopThenNote(str(log)), worker_exit_timeout=timeout)
    pid = pool.submit(os.getpid).result(LIMIT)
    pool.shutdown()
    assert log.read_text() == f"hook {pid}\n"


def test_a_worker_whose_end_hangs_is_replaced_all_the_same() -> None:
    with make("processes", worker_exit=hang, worker_exit_timeout=0, max_tasks_per_child=1) as pool:
        assert [pool.submit(abs, -x).result(LIMIT) for x in range(3)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"worker_exit": 3}, TypeError),
        ({"worker_exit_timeout": "1"}, TypeError),
        ({"worker_exit_timeout": -1}, ValueError),
        ({"worker_exit_timeout": float("nan")}, ValueError),
        ({"worker_exit_timeout": float("inf")}, ValueError),
    ],
)
def test_what_cannot_be_used_is_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="worker_exit"):
        fanmap.ProcessPoolExecutor(1, **options)
    fanmap.ProcessPoolExecutor(1, worker_exit=print, worker_exit_timeout=None).shutdown()
