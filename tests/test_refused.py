"""Work that a pool refuses does not run, now or later, and nobody waits for it."""

from __future__ import annotations

import contextvars
import os
from pathlib import Path

import fanmap
from _scripts import good
from fanmap import _native, _outcome

# Seconds, for what comes at once unless it never comes.
LIMIT = 30


def test_a_task_is_not_queued_by_a_pool_whose_thread_cannot_be_started(tmp_path: Path) -> None:
    good(
        """
        import multiprocessing, os, resource, sys
        import fanmap

        folder = sys.argv[1]
        pool = fanmap.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        pool._prepare()  # all that takes memory but the thread
        pages = int(open("/proc/self/statm").read().split()[0])
        limits = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 19), limits[1]))
        try:
            pool.map(os.mkdir, [os.path.join(folder, "refused")])
        except OSError as error:
            resource.setrlimit(resource.RLIMIT_AS, limits)
            assert "start the thread" in str(error), error
        else:
            raise SystemExit("there was memory")
        assert pool._work_queue.qsize() == 0
        list(pool.map(os.mkdir, [os.path.join(folder, "taken")]))
        pool.shutdown()
        """,
        str(tmp_path),
    )
    assert os.listdir(tmp_path) == ["taken"]


def test_items_that_no_thread_will_take_have_that_as_their_outcome() -> None:
    pool = fanmap.ThreadPoolExecutor(4)
    run = _native.ThreadRun(pool._pool, abs, contextvars.copy_context(), False, None)
    pool.shutdown()
    try:
        run.push([1, 2, 3])
    except RuntimeError as error:
        assert "after shutdown" in str(error)
    outcomes = [run.pop(LIMIT) for _ in range(3)]
    assert [outcome and outcome[0] for outcome in outcomes] == [_outcome.BROKEN] * 3
    run.close()
