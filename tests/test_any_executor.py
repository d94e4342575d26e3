"""`executor=` takes any `concurrent.futures.Executor`: our order, our bounds and our outcomes over its `submit`."""

from __future__ import annotations

import concurrent.futures
import importlib.util
import itertools
import multiprocessing
import operator
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fanmap
import pytest
from _scripts import good, run


def inverse(x: int) -> float:
    return 1 / x


class Counting(concurrent.futures.ThreadPoolExecutor):
    """Knows how many of its calls are under way, at most."""

    def __init__(self) -> None:
        super().__init__(4)
        self.lock = threading.Lock()
        self.under_way = self.most = self.all = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        with self.lock:
            self.under_way += 1
            self.all += 1
            self.most = max(self.most, self.under_way)
        return super().submit(fn, *args, **kwargs)

    def taken(self) -> None:
        with self.lock:
            self.under_way -= 1


def threads() -> concurrent.futures.Executor:
    return concurrent.futures.ThreadPoolExecutor(2)


def processes() -> concurrent.futures.Executor:
    return concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("fork"))


def interpreters() -> concurrent.futures.Executor:
    if sys.version_info < (3, 14):
        pytest.skip("Python 3.14 is the first with an InterpreterPoolExecutor")
    executor: concurrent.futures.Executor = concurrent.futures.InterpreterPoolExecutor(1)  # type: ignore[attr-defined]
    return executor


@contextmanager
def made(make: Any) -> Iterator[Any]:
    with make() as executor:
        yield executor


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of a fork while there are threads
@pytest.mark.parametrize("make", [threads, processes, interpreters])
@pytest.mark.parametrize("ordered", [True, False])
def test_the_standard_librarys_pools_will_do(make: Any, ordered: bool) -> None:
    with made(make) as pool:
        results = fanmap.map(operator.truediv, [1] * 4, [1, 0, 2, 4], executor=pool, ordered=ordered, on_error="return")
        came = [repr(result.error) if isinstance(result, fanmap.Failure) else result for result in results]
        wanted = [1.0, "ZeroDivisionError('division by zero')", 0.5, 0.25]
        assert came == wanted if ordered else sorted(map(str, came)) == sorted(map(str, wanted))
        assert results.stats[:3] == (4, 4, 1)
        endless = fanmap.map(abs, itertools.count(), executor=pool, ordered=ordered, buffersize=3)
        assert len(list(itertools.islice(endless, 50))) == 50
        endless.close()
        with pytest.raises(ZeroDivisionError):
            list(fanmap.map(operator.truediv, [1, 1], [0, 1], executor=pool, ordered=ordered))


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(("buffersize", "chunksize"), [(1, 1), (3, 1), (7, 3)])
def test_no_more_calls_are_under_way_than_the_buffer_holds(ordered: bool, buffersize: int, chunksize: int) -> None:
    with Counting() as pool:
        results = fanmap.map(
            abs, iter(range(60)), executor=pool, ordered=ordered, buffersize=buffersize, chunksize=chunksize
        )
        for _ in results:
            pool.taken()
        assert (pool.all, pool.under_way) == (60, 0) and pool.most <= buffersize


def test_without_a_buffer_the_bound_is_ours() -> None:
    with Counting() as pool:
        results = fanmap.map(abs, itertools.count(), executor=pool)
        assert next(results) == 0
        assert 1 <= pool.all <= 256
        results.close()


@pytest.mark.parametrize("ordered", [True, False])
def test_what_was_not_begun_is_cancelled_when_the_map_ends(ordered: bool) -> None:
    gate, begun = threading.Event(), []

    def work(x: int) -> int:
        begun.append(x)
        if x:
            gate.wait(60)
        return x

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        results = fanmap.map(work, range(10), executor=pool, ordered=ordered, buffersize=5)
        assert next(results) == 0
        results.close()
        gate.set()
    assert set(begun) <= {0, 1}, "the one that ran, at most, was not cancelled"


@pytest.mark.parametrize("ordered", [True, False])
def test_an_executor_that_cannot_cancel_will_do(ordered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> bool:
        raise NotImplementedError("Cancel not implemented")

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(concurrent.futures.Future, "cancel", refuse)
        with fanmap.map(abs, itertools.count(), executor=pool, ordered=ordered, buffersize=3) as results:
            assert next(results) == 0
        with pytest.raises(ZeroDivisionError):
            list(fanmap.map(inverse, [1, 0, 2], executor=pool, ordered=ordered))


@pytest.mark.parametrize("ordered", [True, False])
def test_a_call_that_the_executor_cancels_is_a_cancelled_error(ordered: bool) -> None:
    gate = threading.Event()
    pool = concurrent.futures.ThreadPoolExecutor(1)
    results = fanmap.map(lambda x: x or gate.wait(60), [1, 0, 1, 1], executor=pool, ordered=ordered, buffersize=4)
    assert next(results) == 1
    pool.shutdown(wait=False, cancel_futures=True)
    gate.set()
    with pytest.raises(concurrent.futures.CancelledError):
        list(results)
    pool.shutdown()


@pytest.mark.parametrize("ordered", [True, False])
def test_in_time_or_not_at_all(ordered: bool) -> None:
    gate = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        results = fanmap.map(lambda _: gate.wait(60), [1], executor=pool, ordered=ordered, timeout=0.05)
        with pytest.raises(fanmap.TimeoutError):
            next(results)
        gate.set()


@pytest.mark.parametrize("ordered", [True, False])
def test_another_thread_can_close_a_map_that_waits(ordered: bool) -> None:
    gate = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        results = fanmap.map(lambda _: gate.wait(60), [1, 2], executor=pool, ordered=ordered)
        came: list[Any] = []
        consumer = threading.Thread(target=lambda: came.extend(results))
        consumer.start()
        results.close()
        gate.set()
        consumer.join(60)
        assert not consumer.is_alive()


def test_its_workers_need_not_have_fanmap() -> None:
    good("""
        if __name__ == "__main__":
            import concurrent.futures, multiprocessing
            import fanmap
            context = multiprocessing.get_context("spawn")
            # None there makes any import of it fail.
            hide = "__import__('sys').modules['fanmap'] = None"
            with concurrent.futures.ProcessPoolExecutor(1, context, exec, (hide,)) as pool:
                code = ["any(name.startswith('fanmap.') for name in __import__('sys').modules)"] * 3
                for ordered in (True, False):
                    results = fanmap.map(eval, code, executor=pool, ordered=ordered, on_error="return", chunksize=2)
                    assert list(results) == [False] * 3
                assert fanmap.reduce(max, range(100), executor=pool) == 99
                assert list(fanmap.filter(abs, [0, 1], executor=pool)) == [1]
                assert list(fanmap.starmap(pow, [(2, 3)], executor=pool)) == [8]
                fanmap.for_each(abs, [1], executor=pool)
                failed = fanmap.map(int, ["one"], executor=pool, on_error="return")
                assert [type(failure.error) for failure in failed] == [ValueError]
    """)


@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="Dask is not installed: make test-cluster")
def test_dasks_executor_will_do() -> None:
    good("""
        import itertools, logging, operator
        import fanmap
        from distributed import Client

        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # Dask tells of each error
        with Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None) as client:
            executor = client.get_executor()
            for ordered in (True, False):
                results = fanmap.map(operator.neg, range(50), executor=executor, ordered=ordered, buffersize=7)
                assert sorted(results) == sorted(range(0, -50, -1))
                results = fanmap.map(
                    operator.truediv, [1] * 3, [1, 0, 2], executor=executor, ordered=ordered, on_error="return"
                )
                failed = [result for result in results if isinstance(result, fanmap.Failure)]
                assert [(one.index, one.item, type(one.error)) for one in failed] == [(1, (1, 0), ZeroDivisionError)]
            assert list(fanmap.map(operator.neg, range(50), executor=executor)) == list(range(0, -50, -1))
            endless = fanmap.map(abs, itertools.count(), executor=executor, buffersize=4)
            assert list(itertools.islice(endless, 20)) == list(range(20))
            endless.close()
            seen = []
            list(fanmap.map(abs, range(9), executor=executor, progress=lambda *told: seen.append(told)))
            assert seen[-1] == (9, 9)
    """)


# What is tried of each, in a program of its own.
TRIED = """\
        for ordered in (True, False):
            results = fanmap.map(operator.neg, range(20), executor=pool, ordered=ordered)
            assert sorted(results) == list(range(-19, 1))
            results = fanmap.map(operator.truediv, [1, 1], [0, 2], executor=pool, ordered=ordered, on_error="return")
            failed = [result for result in results if isinstance(result, fanmap.Failure)]
            assert [(one.index, type(one.error)) for one in failed] == [(0, ZeroDivisionError)]
            with fanmap.map(operator.neg, itertools.count(), executor=pool, ordered=ordered, buffersize=4) as endless:
                assert sorted(itertools.islice(endless, 8)) == list(range(-7, 1))"""

PARSL = """
import itertools, operator, os, sys
import fanmap, parsl
from parsl.concurrent import ParslPoolExecutor
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

def root(x):
    import math  # what is around a function of this program does not go along
    return math.sqrt(x)

if __name__ == "__main__":
    worker = HighThroughputExecutor(
        max_workers_per_node=1, address="127.0.0.1", loopback_address="127.0.0.1", provider=LocalProvider(max_blocks=1)
    )
    config = parsl.Config(executors=[worker], run_dir=sys.argv[1], usage_tracking=0)
    with ParslPoolExecutor(config) as pool:
{TRIED}
        assert list(fanmap.map(root, [4, 9], executor=pool)) == [2, 3]
"""


@pytest.mark.skipif(importlib.util.find_spec("parsl") is None, reason="parsl is not installed: make test-cluster")
def test_parsls_executor_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "program.py"
    program.write_text(PARSL.replace("{TRIED}", TRIED))
    # It finds its own programs by it.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    ended = run("", str(tmp_path / "parsl"), command=(str(program),))
    assert ended.status == 0, ended.err


MPI = """
import itertools, operator
from mpi4py.futures import MPIPoolExecutor

if __name__ == "__main__":
    import fanmap
    with MPIPoolExecutor() as pool:
{TRIED}
        assert fanmap.reduce(operator.add, range(9), executor=pool) == 36
    print("well")
"""


@pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="mpi4py is not installed: make test-cluster")
def test_mpi4pys_executor_will_do(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(MPI.replace("{TRIED}", TRIED))
    # That of the environment, with which mpi4py goes.
    mpiexec = Path(sys.executable).parent / "mpiexec"
    command = [mpiexec, "-n", "2", sys.executable, "-m", "mpi4py.futures", program]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr
