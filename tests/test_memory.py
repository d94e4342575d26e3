"""Limits of memory: a worker that has too much between tasks is replaced, a task that takes too much fails by name."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import fanmap
import numpy
import pytest
from _growing import keep, leave_garbage, make_zeros, note_and_keep, take, take_and_catch, take_and_raise
from _scripts import good

MIB = 2**20
LIMIT = 60


@pytest.fixture(params=["template", "fork", "forkserver", "spawn"])
def context(request: pytest.FixtureRequest) -> multiprocessing.context.BaseContext | None:
    return None if request.param == "template" else multiprocessing.get_context(request.param)


def test_a_worker_that_has_too_much_between_tasks_is_replaced(
    context: multiprocessing.context.BaseContext | None,
) -> None:
    with fanmap.ProcessPoolExecutor(1, context, max_memory_per_worker=64 * MIB) as pool:
        pids = [pool.submit(keep, 100 * MIB).result(LIMIT)[1] for _ in range(3)]
        assert len(set(pids)) == 3
        assert pool.submit(keep, 1).result(LIMIT)[1] == pool.submit(keep, 1).result(LIMIT)[1]


def test_the_system_is_asked_to_end_workers_first(context: multiprocessing.context.BaseContext | None) -> None:
    with fanmap.ProcessPoolExecutor(1, context) as pool:
        assert int(pool.submit(Path("/proc/self/oom_score_adj").read_text).result(LIMIT)) == 1000


def test_what_a_replaced_worker_had_not_started_is_done_once_by_others(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    items = range(100)
    results = fanmap.map(
        note_and_keep,
        items,
        [str(notes)] * 100,
        workers=2,
        chunksize=10,
        max_memory_per_worker=64 * MIB,
        executor="processes",
    )
    values, pids = zip(*results, strict=True)
    assert list(values) == list(items)
    assert len(set(pids)) >= 5
    assert Counter(map(int, notes.read_text().split())) == Counter(items)


def test_a_replaced_worker_ends_in_order(tmp_path: Path) -> None:
    def note_end() -> None:
        (tmp_path / str(os.getpid())).touch()

    with fanmap.ProcessPoolExecutor(1, worker_exit=note_end, max_memory_per_worker=64 * MIB) as pool:
        pids = {pool.submit(keep, 100 * MIB).result(LIMIT)[1] for _ in range(3)}
    assert {int(path.name) for path in tmp_path.iterdir()} == pids


def test_garbage_is_collected_before_a_worker_is_replaced_for_it() -> None:
    with fanmap.ProcessPoolExecutor(1, max_memory_per_worker=64 * MIB) as pool:
        assert len({pool.submit(leave_garbage, 100 * MIB).result(LIMIT) for _ in range(3)}) == 1


def test_a_task_that_goes_past_the_limit_fails_alone_and_is_named() -> None:
    sizes = [MIB, 400 * MIB, MIB, 401 * MIB, MIB]
    results = list(fanmap.map(take, sizes, worker_memory_limit=200 * MIB, on_error="return", executor="processes"))
    assert [one for one in results if isinstance(one, int)] == [MIB] * 3
    for index in (1, 3):
        failure = results[index]
        assert isinstance(failure, fanmap.Failure)
        error = failure.error
        assert type(error) is fanmap.MemoryLimitExceeded and isinstance(error, MemoryError)
        assert isinstance(error, fanmap.WorkerCrashed)
        assert (error.item, error.call) == (index, f"take({sizes[index]})")
        assert (error.memory_limit, error.exitcode, error.out_of_memory) == (200 * MIB, None, False)
        assert error.peak_memory is not None and error.peak_memory > MIB
        for told in (f"item {index}, take(", f"worker_memory_limit={200 * MIB} (200 MiB)", str(error.pid)):
            assert told in str(error), str(error)
        assert type(error.__cause__) is MemoryError
        assert 'return len(b"x" * size)' in str(error.__cause__.__cause__)
        copied = pickle.loads(pickle.dumps(error))
        assert type(copied) is type(error) and vars(copied) == vars(error)


def test_what_is_left_of_a_task_past_the_limit_is_nobody_elses(
    context: multiprocessing.context.BaseContext | None,
) -> None:
    with fanmap.ProcessPoolExecutor(1, context, worker_memory_limit=300 * MIB) as pool:
        _, full = pool.submit(keep, 170 * MIB).result(LIMIT)
        error = pool.submit(take, 170 * MIB).exception(LIMIT)
        assert type(error) is fanmap.MemoryLimitExceeded and error.pid == full and error.item is None
        assert pool.submit(take, 170 * MIB).result(LIMIT) == 170 * MIB


def test_a_task_may_do_with_less_than_it_asked_for() -> None:
    with fanmap.ProcessPoolExecutor(1, worker_memory_limit=200 * MIB) as pool:
        outcomes = [pool.submit(take_and_catch, 400 * MIB).result(LIMIT) for _ in range(2)]
        assert outcomes[0] == outcomes[1] and outcomes[0][0] == "caught"


def test_an_array_past_the_limit_says_how_large_it_would_be() -> None:
    with fanmap.ProcessPoolExecutor(1, worker_memory_limit=400 * MIB) as pool:
        error = pool.submit(make_zeros, 100 * MIB).exception(LIMIT)
        assert type(error) is fanmap.MemoryLimitExceeded and "800. MiB" in str(error.__cause__)
        assert pool.submit(len, numpy.ones(MIB)).result(LIMIT) == MIB


def test_a_memory_error_without_a_limit_is_the_tasks_own() -> None:
    with fanmap.ProcessPoolExecutor(1) as pool:
        error = pool.submit(take_and_raise).exception(LIMIT)
        assert type(error) is MemoryError and error.args == ("mine",)


def test_what_a_program_had_before_it_forked_does_not_count() -> None:
    good("""
        import fanmap, multiprocessing, os
        large = b"x" * (300 << 20)
        def look(_):
            return os.getpid()
        context = multiprocessing.get_context("fork")
        limits = {"max_memory_per_worker": 64 << 20, "worker_memory_limit": 128 << 20}
        with fanmap.ProcessPoolExecutor(1, context, **limits) as pool:
            assert len({pool.submit(look, 1).result(40) for _ in range(3)}) == 1
            assert pool.submit(bytes, 64 << 20).exception(40) is None
            assert isinstance(pool.submit(bytes, 200 << 20).exception(40), fanmap.MemoryLimitExceeded)
    """)


@pytest.mark.parametrize("name", ["max_memory_per_worker", "worker_memory_limit"])
@pytest.mark.parametrize(("wrong", "kind"), [(0, ValueError), (-1, ValueError), (512, ValueError), (1e9, TypeError)])
def test_nonsense_is_refused(name: str, wrong: Any, kind: type[Exception]) -> None:
    for make in (fanmap.ProcessPoolExecutor, lambda **given: fanmap.map(abs, [1], **given)):
        with pytest.raises(kind, match=f"{name}.*bytes"):
            make(**{name: wrong})


def test_limits_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="never reached"):
        fanmap.ProcessPoolExecutor(max_memory_per_worker=3 * MIB, worker_memory_limit=2 * MIB)
    for executor in ("threads", fanmap.ThreadPoolExecutor(1)):
        with pytest.raises(ValueError, match="executor='processes'"):
            fanmap.map(abs, [1], executor=executor, max_memory_per_worker=2 * MIB)


def limited_map(x: int) -> list[int]:
    return list(fanmap.map(abs, [x], max_memory_per_worker=64 * MIB, executor="processes"))


def test_a_limit_inside_a_worker_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="give them to the outer map"):
        list(fanmap.map(limited_map, [1], executor="processes"))
