"""fanmap's backends for joblib, and scikit-learn on them: the oracle is joblib's own backend, or the plain loop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import fanmap
import pytest
from _scripts import good

joblib = pytest.importorskip("joblib", reason="joblib is not installed")

import fanmap.joblib  # noqa: E402
from joblib import Parallel, delayed, parallel_config  # noqa: E402

BACKENDS = ["fanmap", "fanmap-threads"]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joblib.parallel, "BACKENDS", dict(joblib.parallel.BACKENDS))
    monkeypatch.setattr(joblib.parallel, "DEFAULT_BACKEND", joblib.parallel.DEFAULT_BACKEND)
    fanmap.joblib.register()


def square(x: int) -> int:
    return x * x


def fail_at_three(x: int) -> int:
    if x == 3:
        raise KeyError(x)
    return x


# ---- joblib ----


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n_jobs", [1, 2, -1])
def test_results_are_the_loops_in_its_order(backend: str, n_jobs: int) -> None:
    with parallel_config(backend):
        assert Parallel(n_jobs)(delayed(square)(x) for x in range(50)) == [x * x for x in range(50)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_generator_gives_results_as_they_are_wanted_and_another_may_run_beside_it(backend: str) -> None:
    with parallel_config(backend, n_jobs=2):
        one = Parallel(return_as="generator")(delayed(square)(x) for x in range(20))
        other = Parallel(return_as="generator_unordered")(delayed(square)(x) for x in range(20))
        assert [next(one), next(one)] == [0, 1]
        assert sorted(other) == sorted(x * x for x in range(20))
        assert list(one) == [x * x for x in range(2, 20)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_error_is_the_functions_own_and_the_next_call_works(backend: str) -> None:
    with Parallel(2, backend=backend) as parallel:
        with pytest.raises(KeyError) as raised:
            parallel(delayed(fail_at_three)(x) for x in range(4))
        assert raised.value.args == (3,)
        assert parallel(delayed(square)(x) for x in range(4)) == [0, 1, 4, 9]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("return_as", ["list", "generator_unordered"])
@pytest.mark.parametrize("at", [1, 30])
@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_what_the_input_raises_is_raised_whoever_reads_it(
    backend: str, return_as: str, at: int, error: type[BaseException]
) -> None:
    def calls() -> Iterator[Any]:
        for x in range(at):
            yield delayed(square)(x)
        raise error("no more")

    with Parallel(2, backend=backend, batch_size=1, return_as=return_as) as parallel:
        with pytest.raises(error, match="no more"):
            list(parallel(calls()))
        assert sorted(parallel(delayed(square)(x) for x in range(4))) == [0, 1, 4, 9]


def test_a_pool_that_is_closed_meanwhile_is_an_error_and_no_hang() -> None:
    good("""
        import fanmap.joblib
        from concurrent.futures import CancelledError
        from joblib import Parallel, delayed
        fanmap.joblib.register()
        def calls():
            for x in range(9):
                if x == 4:
                    fanmap.shutdown()
                yield delayed(abs)(x)
        try:
            Parallel(2, backend="fanmap", batch_size=1, pre_dispatch=2)(calls())
        except (RuntimeError, CancelledError):
            pass
        else:
            raise AssertionError("no error")
    """)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_initializer_is_looked_at_before_any_worker_starts(backend: str) -> None:
    with pytest.raises(TypeError, match="initializer must be a callable"):
        Parallel(2, backend=backend, initializer=3)(delayed(square)(x) for x in range(4))
    with pytest.raises(TypeError, match="initargs must be a tuple"):
        Parallel(2, backend=backend, initializer=print, initargs=3)(delayed(square)(x) for x in range(4))


def test_a_time_out_ends_what_runs_and_the_pool_lives_on() -> None:
    # The task waits until somebody opens the FIFO, which nobody does.
    good("""
        import os, tempfile, fanmap.joblib
        from multiprocessing import TimeoutError
        from joblib import Parallel, delayed
        fanmap.joblib.register()
        fifo = os.path.join(tempfile.mkdtemp(), "fifo")
        os.mkfifo(fifo)
        def hold(x):
            with open(fifo) as gate:
                gate.read()
        try:
            Parallel(2, backend="fanmap", timeout=0.05)(delayed(hold)(x) for x in range(4))
        except TimeoutError:
            pass
        else:
            raise AssertionError("no time-out")
        assert Parallel(2, backend="fanmap", timeout=30)(delayed(abs)(-x) for x in range(4)) == [0, 1, 2, 3]
    """)


def test_a_dropped_generator_cancels_its_own_work_and_no_others() -> None:
    # If the first one's calls that hold a worker each were not ended, the second would never get one.
    good("""
        import os, tempfile, warnings, fanmap.joblib
        from joblib import Parallel, delayed
        fanmap.joblib.register()
        fifo = os.path.join(tempfile.mkdtemp(), "fifo")
        os.mkfifo(fifo)
        def hold(x):
            with open(fifo) as gate:
                gate.read()
        warnings.simplefilter("ignore")  # joblib's, of work that was done for nothing
        one = Parallel(2, backend="fanmap", return_as="generator")(delayed(hold)(x) for x in range(10))
        other = Parallel(2, backend="fanmap", return_as="generator")(delayed(abs)(-x) for x in range(10))
        del one
        assert list(other) == list(range(10))
    """)


def test_functions_classes_and_globals_of_main_go_to_processes() -> None:
    good("""
        import fanmap.joblib
        from joblib import Parallel, delayed
        fanmap.joblib.register(make_default=True)
        class Point:
            def __init__(self, x):
                self.x = x
        FACTOR = 3
        def scale(point, by=lambda x: x * FACTOR):
            return Point(by(point.x))
        points = Parallel(n_jobs=2)(delayed(scale)(Point(x)) for x in range(5))
        assert [point.x for point in points] == [0, 3, 6, 9, 12] and type(points[0]) is Point
    """)


def die(x: int) -> int:
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def test_a_worker_that_dies_is_a_crash_and_the_next_call_works() -> None:
    with pytest.raises(fanmap.WorkerCrashed, match="SIGKILL") as raised:
        Parallel(2, backend="fanmap", batch_size=1)(delayed(die)(x) for x in range(50))
    assert raised.value.call == "die(3)"
    # Another Parallel: one that is used again after an error may give results of the call before, on any backend.
    assert Parallel(2, backend="fanmap")(delayed(square)(x) for x in range(4)) == [0, 1, 4, 9]


def nested(x: int) -> tuple[list[int], str, bool]:
    backend, _ = joblib.parallel.get_active_backend()
    inner = Parallel(n_jobs=2)(delayed(threading.get_ident)() for _ in range(2))
    by_name = Parallel(n_jobs=2, backend="fanmap-threads")(delayed(square)(x) for x in range(3))
    return by_name, type(backend).__name__, threading.get_ident() in inner


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_call_in_a_worker_uses_threads_of_its_own(backend: str) -> None:
    for inner, name, here in Parallel(n_jobs=2, backend=backend)(delayed(nested)(x) for x in range(6)):
        assert (inner, name, here) == ([0, 1, 4], "FanmapThreadsBackend", False)


def inner_processes(x: int) -> list[int]:
    result: list[int] = Parallel(n_jobs=2, backend="fanmap")(delayed(square)(x) for x in range(x))
    return result


@pytest.mark.parametrize("backend", BACKENDS)
def test_processes_in_a_worker_may_be_asked_for(backend: str) -> None:
    assert Parallel(n_jobs=2, backend=backend)(delayed(inner_processes)(x) for x in (2, 3)) == [[0, 1], [0, 1, 4]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_input_may_itself_make_calls(backend: str) -> None:
    def numbers() -> Iterator[Any]:
        for _ in range(20):
            # The later ones are read while a callback runs.
            yield delayed(square)(sum(Parallel(2, backend=backend)(delayed(abs)(-x) for x in range(3))))

    assert Parallel(n_jobs=2, backend=backend)(numbers()) == [9] * 20


def test_shared_memory_may_be_required_of_threads_alone() -> None:
    seen: list[int] = []
    Parallel(n_jobs=2, backend="fanmap-threads", require="sharedmem")(delayed(seen.append)(x) for x in range(10))
    assert sorted(seen) == list(range(10))
    with pytest.raises(ValueError, match="shared memory"):
        Parallel(n_jobs=2, backend="fanmap", require="sharedmem")


def worker_and_variable() -> tuple[int, str | None]:
    return os.getpid(), os.environ.get("OMP_NUM_THREADS")


def workers_of_a_call(**options: Any) -> tuple[set[int], set[str | None]]:
    with parallel_config("fanmap", n_jobs=2, **options):
        pids, variables = zip(*Parallel()(delayed(worker_and_variable)() for _ in range(30)), strict=True)
    return set(pids), set(variables)


def test_inner_max_num_threads_wins_over_the_users_variable_and_the_share_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    shared, variables = workers_of_a_call()
    assert variables == {str(max(1, fanmap.cpu_count() // 2))}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    limited, variables = workers_of_a_call(inner_max_num_threads=3)
    assert variables == {"3"} and not limited & shared
    _, variables = workers_of_a_call()
    assert variables == {"5"}


def test_a_crash_names_the_calls_of_its_batch_and_functions_of_main_too() -> None:
    good("""
        import os, fanmap.joblib
        from joblib import Parallel, delayed
        fanmap.joblib.register()
        def leave(code, *, by="_exit"):
            getattr(os, by)(code)
        try:
            ends = [delayed(leave)(code, by="_exit") for code in (3, 4)]
            Parallel(2, backend="fanmap", batch_size=2)([*ends, delayed(abs)(5), delayed(abs)(6)])
        except fanmap.WorkerCrashed as crash:
            assert crash.call == "leave(3, by='_exit'), leave(4, by='_exit')", crash.call
        else:
            raise AssertionError("no crash")
    """)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("number", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)])
def test_inner_max_num_threads_is_a_number_above_0(backend: str, number: Any, error: type[Exception]) -> None:
    with (
        parallel_config(backend, n_jobs=2, inner_max_num_threads=number),
        pytest.raises(error, match="inner_max_num_threads"),
    ):
        Parallel()(delayed(square)(x) for x in range(4))


def test_workers_stay_for_the_next_call_that_wants_as_many() -> None:
    initargs = (1,)
    first, _ = workers_of_a_call(initializer=abs, initargs=initargs)
    again, _ = workers_of_a_call(initializer=abs, initargs=initargs)
    assert len(first | again) <= 2
    other, _ = workers_of_a_call(initializer=abs, initargs=(2,))
    assert not other & first


def test_an_option_that_is_not_known_is_refused_by_name() -> None:
    for backend in BACKENDS:
        with pytest.raises(TypeError, match="no option idle_worker"):
            Parallel(n_jobs=2, backend=backend, idle_worker=3)([delayed(abs)(1)])
        with parallel_config(backend, n_jobs=2, idle_worker=3), pytest.raises(TypeError, match="no option idle_worker"):
            Parallel()([delayed(abs)(1)])


def describe(array: Any) -> tuple[float, bool, bool]:
    return float(array.sum()), array.flags.writeable, array.flags.owndata


def test_large_arrays_travel_beside_the_pickle_and_are_the_tasks_own() -> None:
    numpy = pytest.importorskip("numpy", reason="numpy is not installed")
    array = numpy.ones(1 << 18)
    for total, writeable, owns in Parallel(2, backend="fanmap")(delayed(describe)(array) for _ in range(4)):
        assert (total, writeable, owns) == (1 << 18, True, False)


def test_joblib_is_imported_only_by_its_adapter() -> None:
    assert (
        good("""
        import fanmap, sys
        [getattr(fanmap, name) for name in fanmap.__all__]
        list(fanmap.map(abs, [-1], executor="processes"))
        assert "joblib" not in sys.modules
        sys.modules["joblib.parallel"] = None
        try:
            import fanmap.joblib
        except ImportError as error:
            print(error)
    """)
        == "fanmap.joblib needs joblib: pip install 'fanmap[joblib]'\n"
    )


# ---- scikit-learn ----


def grid_search() -> Any:
    from sklearn.datasets import load_iris
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    x, y = load_iris(return_X_y=True)
    found = GridSearchCV(SVC(), {"C": [0.1, 1, 10], "gamma": [0.01, 0.1]}, cv=3, n_jobs=2).fit(x, y)
    return found.best_params_, found.cv_results_["mean_test_score"].tolist(), found.predict(x).tolist()


def random_forest() -> Any:
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier

    x, y = load_digits(return_X_y=True)
    forest = RandomForestClassifier(12, random_state=0, n_jobs=2).fit(x, y)
    return forest.predict_proba(x).tolist(), forest.feature_importances_.tolist()


def cross_validation() -> Any:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import RidgeClassifier
    from sklearn.model_selection import cross_val_score

    x, y = load_digits(return_X_y=True)
    return cross_val_score(RidgeClassifier(), x, y, cv=4, n_jobs=2).tolist()


def test_scikit_learn_gives_what_it_gives_on_loky() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    # Of its own: loky leaves a process behind until the program ends.
    done = subprocess.run([sys.executable, __file__], stdin=subprocess.DEVNULL, capture_output=True, timeout=55)
    assert done.returncode == 0, done.stderr.decode()


if __name__ == "__main__":
    # One after the other in the same workers, which take seconds to import scikit-learn.
    work = (grid_search, random_forest, cross_validation)
    with parallel_config("loky"):
        expected = [one() for one in work]
    fanmap.joblib.register()
    for backend in BACKENDS:
        with parallel_config(backend):
            assert [one() for one in work] == expected, backend
