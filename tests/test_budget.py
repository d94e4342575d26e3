"""One budget of cores: inner thread pools get cores / workers, unless the user has set them."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fanmap
import pytest
from _scripts import good

VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "RAYON_NUM_THREADS",
    "POLARS_MAX_THREADS",
)


@pytest.fixture(autouse=True)
def nothing_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    from fanmap import _budget

    for name in (*_budget._VARIABLES, "GOTO_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


def variables(_: int = 0) -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in VARIABLES}


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_worker_is_told_its_share_of_the_cores(workers: int) -> None:
    share = str(max(1, fanmap.cpu_count() // workers))
    with fanmap.ProcessPoolExecutor(workers) as pool:
        assert pool.submit(variables).result(60) == dict.fromkeys(VARIABLES, share)
    (told,) = fanmap.map(variables, [0], workers=workers, executor="processes")
    assert told == dict.fromkeys(VARIABLES, share)
    assert set(variables().values()) == {None}, "this process is as it was"


def test_what_the_user_has_set_wins_for_all_that_look_there(monkeypatch: pytest.MonkeyPatch) -> None:
    share = str(max(1, fanmap.cpu_count() // 2))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with fanmap.ProcessPoolExecutor(2) as pool:
        told = pool.submit(variables).result(60)
    rust = {"RAYON_NUM_THREADS": share, "POLARS_MAX_THREADS": share}
    assert told == {**dict.fromkeys(VARIABLES), "OMP_NUM_THREADS": "7", **rust}
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("NUMEXPR_MAX_THREADS", "64")
    with fanmap.ProcessPoolExecutor(2) as pool:
        told = pool.submit(variables).result(60)
    assert told["NUMEXPR_NUM_THREADS"] is None and told["NUMEXPR_MAX_THREADS"] == "64"
    assert told["OMP_NUM_THREADS"] == share


def inner_share(workers: int) -> tuple[str | None, str | None]:
    with fanmap.ProcessPoolExecutor(workers) as pool:
        return os.environ.get("OMP_NUM_THREADS"), pool.submit(variables).result(60)["OMP_NUM_THREADS"]


def test_a_pool_in_a_worker_shares_out_that_workers_part() -> None:
    from fanmap import _budget

    with fanmap.ProcessPoolExecutor(1) as pool:
        outer, inner = pool.submit(inner_share, 2).result(60)
    assert (outer, inner) == (str(_budget.share(1)), str(max(1, _budget.share(1) // 2)))


def threads_of_inner_map(executor: str) -> set[tuple[int, int]]:
    return {_thread(0), *fanmap.map(_thread, range(20), executor=executor)}


def _thread(_: int) -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


@pytest.mark.parametrize("inner", ["auto", "threads", "processes"])
@pytest.mark.parametrize("outer", ["threads", "processes"])
def test_a_map_in_a_worker_takes_no_further_core(outer: str, inner: str) -> None:
    assert all(len(threads) == 1 for threads in fanmap.map(threads_of_inner_map, [inner] * 4, executor=outer))


def openmp() -> int:
    import ctypes

    threads: int = ctypes.CDLL("libgomp.so.1").omp_get_max_threads()
    return threads


def polars() -> int:
    import polars

    return polars.thread_pool_size()


def torch() -> int:
    import torch  # type: ignore[import-not-found, unused-ignore]

    threads: int = torch.get_num_threads()
    return threads


def numexpr() -> int:
    import numexpr  # type: ignore[import-not-found, unused-ignore]

    threads: int = numexpr.nthreads
    return threads


@pytest.mark.parametrize("library", [openmp, polars, torch, numexpr], ids=lambda library: library.__name__)
def test_a_library_that_a_worker_loads_has_the_workers_share_of_the_cores(library: Callable[[], int]) -> None:
    there = find_library("gomp") if library is openmp else find_spec(library.__name__)
    if there is None:
        pytest.skip(f"{library.__name__} is not installed")
    for workers in {1, fanmap.cpu_count()}:
        with fanmap.ProcessPoolExecutor(workers) as pool:
            assert pool.submit(library).result(60) == fanmap.cpu_count() // workers


def blas_threads(_: object = None) -> int:
    """How many threads numpy's BLAS may use here: 0 if it is one that nobody can tell."""
    import numpy  # noqa: F401
    import threadpoolctl

    return max((one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"), default=0)


@pytest.fixture
def free() -> int:
    """How many threads BLAS has in this process."""
    pytest.importorskip("numpy", reason="numpy is not installed")
    pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    if blas_threads() < 2:
        pytest.skip("numpy's BLAS has one thread anyway")
    return blas_threads()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of a fork while there are threads
@pytest.mark.parametrize("method", ["template", "fork", "forkserver", "spawn"])
def test_blas_in_a_worker_keeps_to_its_share(method: str, free: int) -> None:
    context = None if method == "template" else multiprocessing.get_context(method)
    workers = fanmap.cpu_count()
    with fanmap.ProcessPoolExecutor(workers, context) as pool:
        assert pool.submit(blas_threads).result(60) == 1
    assert blas_threads() == free


@pytest.mark.parametrize("how", ["whole", "error", "close", "drop"])
def test_beside_a_map_over_threads_blas_has_its_share_until_the_map_is_over(how: str, free: int) -> None:
    options: Any = dict(executor="threads", workers=fanmap.cpu_count(), buffersize=1)
    results = fanmap.map(lambda x: (1 // x, blas_threads())[1], [1, 1, 0] if how == "error" else [1, 1], **options)
    assert blas_threads() == free, "nothing was asked of it"
    assert next(results) == 1
    assert blas_threads() == 1
    other = fanmap.map(blas_threads, [0, 0], **options)
    assert next(other) == 1
    if how == "whole":
        assert list(results) == [1]
    elif how == "error":
        with pytest.raises(ZeroDivisionError):
            list(results)
    elif how == "close":
        results.close()
    else:
        del results
    assert blas_threads() == 1, "the other one goes on"
    other.close()
    assert blas_threads() == free


def test_blas_has_its_threads_back_when_another_thread_ends_the_map(free: int) -> None:
    results = fanmap.map(blas_threads, [0, 0], executor="threads", workers=fanmap.cpu_count(), buffersize=1)
    assert next(results) == 1
    ending = threading.Thread(target=results.close)
    ending.start()
    ending.join()
    assert blas_threads() == free


def test_what_is_over_before_it_begins_limits_nothing(free: int) -> None:
    from fanmap._budget import Quiet

    quiet = Quiet(fanmap.cpu_count())
    quiet.end()  # by a thread that closes the map
    quiet.begin()  # by the one that was about to ask it for a result
    assert blas_threads() == free


def test_beside_a_map_over_threads_what_the_user_has_set_wins(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    assert list(fanmap.map(blas_threads, [0], executor="threads", workers=fanmap.cpu_count())) == [free]


def test_a_map_that_goes_on_with_more_threads_than_its_trial_had_gives_each_less(
    free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fanmap import _budget
    from fanmap._auto import AutoLane
    from fanmap._lane import Flow

    monkeypatch.setattr(_budget, "cpu_count", lambda: 2 * free)
    lane = AutoLane(abs, Flow(False, None), 0, None, "")
    lane._be_quiet(2)
    assert blas_threads() == free
    lane._be_quiet(2 * free)
    assert blas_threads() == 1
    lane.close(interrupted=False, kill=False)
    assert blas_threads() == free
    lane._be_quiet(2 * free)  # by a thread that does not know of the end yet
    assert blas_threads() == free


def test_without_threadpoolctl_nothing_is_missed() -> None:
    good("""
        import sys
        sys.modules["threadpoolctl"] = None
        import numpy, multiprocessing, fanmap
        with fanmap.ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
            assert pool.submit(abs, -1).result(60) == 1
        assert list(fanmap.map(abs, [-1], executor="threads")) == [1]
    """)


def test_a_library_that_refuses_its_limit_is_heard_and_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from fanmap import _budget

    class Refuses:
        ThreadpoolController = type("Controller", (), {"limit": lambda self, limits: 1 // 0, "lib_controllers": ()})

    with monkeypatch.context() as there:
        there.setattr(_budget, "threadpoolctl", Refuses)
        there.setattr(_budget.Quiet, "_loaded", 0)
        with pytest.raises(ZeroDivisionError):
            list(fanmap.map(abs, [-1], executor="threads"))
    monkeypatch.setattr(_budget.Quiet, "_loaded", 0)
    assert list(fanmap.map(abs, [-1], executor="threads")) == [1]


TEAM = """
#include <omp.h>
#include <time.h>

/* How many threads a parallel region has here. Each of them computes for so many seconds. */
int team(double seconds) {
    int threads = 0;
    #pragma omp parallel reduction(+:threads)
    {
        struct timespec now;
        double begin = omp_get_wtime();
        threads = 1;
        do clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now); while (omp_get_wtime() - begin < seconds);
    }
    return threads;
}
"""

WITH_A_TEAM = """
import ctypes, fanmap, itertools, numpy, sys, threading
library = ctypes.CDLL(sys.argv[1])
library.team.argtypes = [ctypes.c_double]
def team(seconds=0.0):
    return library.team(seconds)
cores = fanmap.cpu_count()
free = team()
assert free >= cores > 1, (free, cores)
"""


@pytest.fixture
def with_a_team(tmp_path: Path) -> Callable[[str], str]:
    """Runs a program in which `team()` tells how many threads OpenMP has where it is called."""
    pytest.importorskip("numpy", reason="numpy is not installed")
    pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no gcc to compile a library with OpenMP")
    if fanmap.cpu_count() < 2:
        pytest.skip("there is one core, and a share of it is all of it")
    (tmp_path / "team.c").write_text(TEAM)
    library = str(tmp_path / "libteam.so")
    built = subprocess.run(
        [compiler, "-shared", "-fPIC", "-fopenmp", "-O1", "-o", library, str(tmp_path / "team.c")], capture_output=True
    )
    if built.returncode:
        pytest.skip("gcc has no OpenMP")
    return lambda code: good(WITH_A_TEAM + code, library)


def test_in_the_threads_of_a_map_openmp_has_its_share_and_nowhere_else(with_a_team: Callable[[str], str]) -> None:
    with_a_team("""
def work(x):
    if x == 3:
        raise ValueError(x)
    return team()
for options in ({"workers": cores}, {}, {"workers": cores, "retries": 1}):
    results = fanmap.map(work, range(8), executor="threads", on_error="return", **options)
    first = next(results)
    assert team() == free, "the calling thread"
    assert [first, *(result for result in results if not isinstance(result, fanmap.Failure))] == [1] * 7
# The threads that did so go on without a limit.
_, pool = fanmap._default._warm["threads"]
assert {pool.submit(team).result() for _ in range(50)} == {free}
assert list(fanmap.map(lambda _: team(), range(4), executor="threads", workers=1)) == [min(free, cores)] * 4
with fanmap.ThreadPoolExecutor(2) as own:
    assert set(fanmap.map(lambda _: team(), range(4), executor=own)) == {free}, "an executor's threads are its own"
""")


def test_a_thread_that_has_fewer_of_its_own_keeps_them(with_a_team: Callable[[str], str]) -> None:
    with_a_team("""
gomp = ctypes.CDLL("libgomp.so.1")
def work(_):
    return team()
assert set(fanmap.map(work, range(4), executor="threads", workers=1, initializer=gomp.omp_set_num_threads,
                      initargs=(1,))) == {1}
""")


def test_with_no_executor_named_openmp_has_its_share_in_threads_too(with_a_team: Callable[[str], str]) -> None:
    with_a_team("""
def work(_):
    return threading.current_thread() is threading.main_thread(), team(0.003)
seen = set(itertools.islice(fanmap.map(work, itertools.count()), 200))
assert (True, free) in seen and len(seen) > 1
assert {threads for here, threads in seen if not here} <= {cores // 2, 1}, seen
""")


def test_in_threads_what_the_user_has_set_for_openmp_wins(
    with_a_team: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with_a_team("""
assert set(fanmap.map(lambda _: team(), range(8), executor="threads", workers=cores)) == {free} == {3}
""")


def test_joblibs_threads_have_their_share_of_openmp(with_a_team: Callable[[str], str]) -> None:
    pytest.importorskip("joblib", reason="joblib is not installed")
    with_a_team("""
import fanmap.joblib, joblib
fanmap.joblib.register()
with joblib.parallel_config("fanmap-threads", n_jobs=cores):
    assert joblib.Parallel()(joblib.delayed(team)() for _ in range(8)) == [1] * 8
assert team() == free
""")
