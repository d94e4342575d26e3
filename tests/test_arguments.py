"""Arguments that cannot be used are refused at the call."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import fanmap
import pytest

THREADS, PROCESSES = fanmap.ThreadPoolExecutor, fanmap.ProcessPoolExecutor


@pytest.mark.parametrize("make", [THREADS, PROCESSES])
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_workers": 0}, ValueError),
        ({"max_workers": -1}, ValueError),
        ({"max_workers": "2"}, TypeError),
        ({"initializer": 3}, TypeError),
        ({"initializer": print, "initargs": 3}, TypeError),
    ],
)
def test_an_executor_refuses(make: Callable[..., Any], options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        make(**options)


def test_a_fraction_of_a_thread_is_one_more() -> None:
    with THREADS(max_workers=3 / 2) as pool:  # type: ignore[arg-type]
        assert pool._max_workers == 2 and pool.submit(abs, -1).result() == 1


def test_a_process_pool_refuses_what_is_no_context() -> None:
    with pytest.raises(TypeError, match=r"get_context\('spawn'\)"):
        PROCESSES(mp_context="spawn")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a context"):
        PROCESSES(mp_context=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("operation", ["", "stop", None])
def test_a_process_pool_is_ended_by_force_in_two_ways(operation: Any) -> None:
    with PROCESSES(1) as pool, pytest.raises(ValueError, match="operation"):
        pool._force_shutdown(operation=operation)


def test_a_process_pool_refuses_max_tasks_per_child() -> None:
    for bad, error in ((0, ValueError), (-1, ValueError), ("1", TypeError)):
        with pytest.raises(error):
            PROCESSES(max_tasks_per_child=bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fork"):
        PROCESSES(mp_context=multiprocessing.get_context("fork"), max_tasks_per_child=1)


@pytest.mark.parametrize("make", [THREADS, PROCESSES])
def test_submit_and_map_refuse(make: Callable[..., Any]) -> None:
    with make(1) as pool:
        for call in (pool.submit, pool.map):
            with pytest.raises(TypeError, match="callable"):
                call(None, [1])
        if make is THREADS:  # where it has no effect, as in the standard library
            assert list(pool.map(abs, [-1], chunksize=0)) == [1]
        for name in ("chunksize", "buffersize") if make is PROCESSES else ("buffersize",):
            for bad in (0, -1):
                with pytest.raises(ValueError, match=name):
                    pool.map(abs, [1], **{name: bad})
            with pytest.raises(TypeError, match=name):
                pool.map(abs, [1], **{name: "1"})
        with pytest.raises(TypeError):
            pool.map(abs, 3)


def test_map_refuses() -> None:
    with pytest.raises(TypeError, match="callable"):
        fanmap.map(None, [1], executor="processes")  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        fanmap.map(abs, executor="processes")
    with pytest.raises(TypeError):
        fanmap.map(abs, 3, executor="processes")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="unknown executor 'green'"):
        fanmap.map(abs, [1], executor="green")
    with pytest.raises(ValueError, match=r"unknown executor 'ray': .* such as fanmap.ray.RayExecutor\(\)"):
        fanmap.map(abs, [1], executor="ray")
    with pytest.raises(TypeError, match="executor must be"):
        fanmap.map(abs, [1], executor=object())  # type: ignore[call-overload]
    for executor, what in ((None, "not NoneType"), (THREADS, "not the class ThreadPoolExecutor")):
        with pytest.raises(TypeError, match=f"executor must be .*{what}"):
            fanmap.map(abs, [1], executor=executor)  # type: ignore[call-overload]
    for name in ("workers", "buffersize"):
        with pytest.raises(TypeError, match=name):
            fanmap.map(abs, [1], **{name: "2"})
    for bad in ({"workers": 0}, {"buffersize": 0}, {"workers": -2}):
        with pytest.raises(ValueError, match=r"must be"):
            fanmap.map(abs, [1], **bad)
    with pytest.raises(ValueError, match="workers must be at least 1, or -1 for all cores, but is -2"):
        fanmap.map(abs, [1], workers=-2)
    with THREADS(1) as pool, pytest.raises(ValueError, match="workers"):
        fanmap.map(abs, [1], executor=pool, workers=2)
