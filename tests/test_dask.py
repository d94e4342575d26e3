"""`DaskExecutor` over real clusters of Dask. They need Dask: `make test-cluster` has it."""

from __future__ import annotations

from pathlib import Path

import _scripts
import pytest
from _scripts import run

pytest.importorskip("distributed", reason="Dask is not installed: make test-cluster")


@pytest.fixture(autouse=True)
def time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster takes many seconds to begin on a machine that is busy."""
    monkeypatch.setattr(_scripts, "LIMIT", 120)


def well(tmp_path: Path, code: str) -> None:
    """Runs a program, from a file, as Dask's workers import it; Dask talks on standard error, and leaves no process."""
    program = tmp_path / "program.py"
    program.write_text(code)
    ended = run("", str(tmp_path), str(Path(__file__).parent), command=(str(program),))
    assert ended.status == 0, f"{ended.out}\n{ended.err}"


def test_on_one_machine_with_workers_that_cannot_import_fanmap(tmp_path: Path) -> None:
    well(
        tmp_path,
        """
import logging, os, sys
def leave(x):
    if x == 30:
        os._exit(3)
    return x
def main():
    sys.path.append(sys.argv[2])
    import fanmap, numpy
    from _scripts import HOLD, Gate
    from concurrent.futures import wait
    from distributed import Client
    from fanmap.dask import DaskExecutor
    from pathlib import Path
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    names = {}
    exec(HOLD, names)
    hold = names["hold"]
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        client.run(lambda: sys.modules.update(fanmap=None))
        with DaskExecutor(client) as pool:
            assert list(fanmap.map(lambda x: 2 * x, range(3000), executor=pool)) == list(range(0, 6000, 2))
            (error,) = fanmap.map(lambda x: 1 / x, [0], executor=pool, on_error="return")
            assert type(error.error) is ZeroDivisionError and "in <lambda>" in str(error.error.__cause__)
            table = numpy.arange(1_000_000.0)
            assert list(fanmap.map(lambda at: table[at], range(50), executor=pool)) == list(range(50))
            assert numpy.array_equal(pool.submit(numpy.negative, table).result(), -table)

            gates = []
            for name in ("one", "two"):
                os.mkdir(os.path.join(sys.argv[1], name))
                gates.append(Gate(Path(sys.argv[1], name)))
            slow = [pool.submit(hold, gate.name) for gate in gates]
            for gate in gates:
                gate.wait()
            others = [pool.submit(hold, "/nowhere/at/all") for _ in range(4)]
            assert all(future.running() and not future.cancel() for future in slow)
            assert not any(future.running() for future in others)
            assert all(future.cancel() for future in others)
            assert wait(others, 10).not_done == set()
            for gate in gates:
                gate.open()
            assert [future.result() for future in slow] == [gate.name for gate in gates]

            name = gates[0].name
            visit = lambda name: hold(name) if name else name
            assert list(fanmap.map(visit, [""] * 200, executor=pool)) == [""] * 200
            results = fanmap.map(visit, [*[""] * 100, name, *[""] * 100], executor=pool, ordered=False)
            assert [next(results) for _ in range(200)] == [""] * 200
            gates[0].wait()
            gates[0].open()
            assert list(results) == [name]

            came = list(fanmap.map(leave, range(60), executor=pool, on_error="return"))
            failed = came.pop(30)
            assert came == [x for x in range(60) if x != 30], came
            assert isinstance(failed.error, fanmap.WorkerCrashed) and failed.error.item == 30, failed
        log = os.path.join(sys.argv[1], "log")
        def at_the_third(x):
            with open(log, "a") as file:
                file.write("x")
            if os.path.getsize(log) < 3:
                os._exit(3)
            return x
        with DaskExecutor(max_retries=2) as pool:  # of the current client
            assert pool.submit(at_the_third, 7).result() == 7
        with DaskExecutor(client) as pool:
            os.remove(log)
            assert isinstance(pool.submit(at_the_third, 7).exception(), fanmap.WorkerCrashed)
            assert os.path.getsize(log) == 1, "not again, though Dask would"
        assert client.status == "running", "it was begun by the program"
if __name__ == "__main__":
    main()
""",
    )


def test_a_cluster_that_it_has_begun_it_ends(tmp_path: Path) -> None:
    well(
        tmp_path,
        """
if __name__ == "__main__":
    from fanmap.dask import DaskExecutor
    with DaskExecutor(max_workers=1) as pool:
        assert pool.submit(abs, -1).result() == 1
""",
    )


def test_a_batch_that_ends_before_its_submit_has_returned_is_told_of(tmp_path: Path) -> None:
    well(
        tmp_path,
        """
if __name__ == "__main__":
    import fanmap, threading
    from distributed import Client, wait
    from fanmap.dask import DaskExecutor
    class Late(Client):
        told = threading.Event()
        def subscribe_topic(self, topic, handler):
            def hear(event):
                handler(event)
                self.told.set()
            return super().subscribe_topic(topic, hear)
        def submit(self, *arguments, **named):
            task = super().submit(*arguments, **named)
            wait(task)
            assert self.told.wait(60)
            return task
    with Late(processes=False, dashboard_address=None) as client, DaskExecutor(client) as pool:
        assert pool.submit(abs, -1).result(60) == 1
        large = pool.submit(bytes, 100_000)  # returned, and not told
        assert len(large.result(60)) == 100_000
""",
    )


def test_it_uses_the_scheduler_that_dask_is_configured_with(tmp_path: Path) -> None:
    well(
        tmp_path,
        """
if __name__ == "__main__":
    import dask
    from distributed import Client, LocalCluster
    from fanmap.dask import DaskExecutor
    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        with dask.config.set({"scheduler-address": cluster.scheduler_address}):
            with DaskExecutor() as pool:
                assert pool.submit(abs, -1).result(60) == 1
        with Client(cluster) as client:
            assert client.submit(abs, -2).result() == 2, "it is not the executor's to end"
""",
    )


def test_a_call_that_no_worker_can_run_is_warned_of_and_does_not_hold_its_user(tmp_path: Path) -> None:
    well(
        tmp_path,
        """
import warnings
if __name__ == "__main__":
    import fanmap
    from concurrent.futures import wait
    from distributed import Client
    from fanmap.dask import DaskExecutor
    with Client(processes=False, n_workers=1, resources={"seats": 1}, dashboard_address=None) as client:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            pool = DaskExecutor(client, task_options={"resources": {"seats": 1}})
        with pool:
            assert pool.submit(abs, -1).result() == 1
        with warnings.catch_warnings(record=True) as warned:
            pool = DaskExecutor(client, task_options={"resources": {"seats": 2}})
        with pool:
            (one,) = warned
            assert one.category is RuntimeWarning and one.filename == __file__, one
            assert "(2 seats)" in str(one.message), one
            future = pool.submit(abs, -1)
            assert wait([future], 0.1).not_done == {future} and not future.running()
            assert future.cancel()
            results = fanmap.map(abs, range(5), executor=pool, timeout=0.1)
            try:
                next(results)
            except TimeoutError:
                pass
            else:
                raise AssertionError("it ran")
""",
    )
