"""`RayExecutor` over real clusters of Ray. They need Ray, which is large: `make test-cluster` has it."""

from __future__ import annotations

from pathlib import Path

import _scripts
import pytest
from _scripts import HOLD, run

pytest.importorskip("ray", reason="Ray is not installed: make test-cluster")


# A cluster takes many seconds to begin on a machine that is busy.
@pytest.fixture(autouse=True)
def time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_scripts, "LIMIT", 120)


# Workers find this in place of fanmap.
NOT_HERE = "raise ImportError('this worker has no fanmap')\n"

START = f"""
import os, sys, time
import fanmap, ray
from concurrent.futures import wait
from fanmap.ray import RayExecutor
{HOLD}
def leave(x):
    if x == 30:
        os._exit(3)
    return x
"""


def well(code: str, *args: str) -> None:
    """Runs a program that must end well; Ray talks on standard error, and leaves no process."""
    ended = run(START + code, *args)
    assert ended.status == 0, f"{ended.out}\n{ended.err}"


def test_on_one_machine_with_workers_that_cannot_import_fanmap(tmp_path: Path) -> None:
    (tmp_path / "fanmap.py").write_text(NOT_HERE)
    well(
        """
import numpy
ray.init(
    num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": sys.argv[1]}}
)
with RayExecutor() as pool:
    assert list(fanmap.map(lambda x: 2 * x, range(3000), executor=pool)) == list(range(0, 6000, 2))
    assert list(fanmap.map(pow, range(5), [2] * 5, executor=pool, ordered=False, on_error="skip"))
    (error,) = fanmap.map(lambda x: 1 / x, [0], executor=pool, on_error="return")
    assert type(error.error) is ZeroDivisionError and "in <lambda>" in str(error.error.__cause__)

    # What is large is in Ray's store, once; a result comes out of it.
    table = numpy.arange(1_000_000.0)
    assert list(fanmap.map(lambda at: table[at], range(50), executor=pool)) == list(range(50))
    assert numpy.array_equal(pool.submit(numpy.negative, table).result(), -table)

    # A lost worker costs its own call.
    came = list(fanmap.map(leave, range(60), executor=pool, on_error="return"))
    failed = came.pop(30)
    assert came == [x for x in range(60) if x != 30]
    assert isinstance(failed.error, fanmap.WorkerCrashed) and failed.error.item == 30, failed
    assert isinstance(failed.error.__cause__, ray.exceptions.WorkerCrashedError)

# Ray tries again, if it is asked to.
log = os.path.join(sys.argv[1], "log")
def at_the_third(x):
    with open(log, "a") as file:
        file.write("x")
    if os.path.getsize(log) < 3:
        os._exit(3)
    return x
with RayExecutor(max_retries=2) as pool:
    assert pool.submit(at_the_third, 7).result() == 7
assert ray.is_initialized(), "it was begun by the program"
""",
        str(tmp_path),
    )


def test_cancelled_is_never_run_running_is_the_truth_and_nothing_waits_behind_a_slow_call(tmp_path: Path) -> None:
    well(
        """
sys.path[:0] = [sys.argv[2]]  # of the tests
from _scripts import Gate
from pathlib import Path
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
with RayExecutor() as pool:
    gates = []
    for name in ("one", "two", "three"):
        os.mkdir(os.path.join(sys.argv[1], name))
        gates.append(Gate(Path(sys.argv[1], name)))
    two = gates[:2]
    slow = [pool.submit(hold, gate.name) for gate in two]
    for gate in two:
        gate.wait()
    others = [pool.submit(hold, "/nowhere/at/all") for _ in range(4)]
    assert all(future.running() and not future.cancel() for future in slow)
    assert not any(future.running() for future in others)
    assert all(future.cancel() for future in others)
    assert wait(others, 10).not_done == set()
    for gate in two:
        gate.open()
    assert [future.result() for future in slow] == [gate.name for gate in two]

    name = gates[0].name
    visit = lambda name: hold(name) if name else name
    assert list(fanmap.map(visit, [""] * 200, executor=pool)) == [""] * 200
    results = fanmap.map(visit, [*[""] * 100, name, *[""] * 100], executor=pool, ordered=False)
    assert [next(results) for _ in range(200)] == [""] * 200
    gates[0].wait()
    gates[0].open()
    assert list(results) == [name]

# Those that want no core are as many at a time as were asked for.
with RayExecutor(3, task_options={"num_cpus": 0}) as pool:
    waiting = [pool.submit(hold, gate.name) for gate in gates]
    for gate in gates:
        gate.wait()
    for gate in gates:
        gate.open()
    assert [future.result() for future in waiting] == [gate.name for gate in gates]
""",
        str(tmp_path),
        str(Path(__file__).parent),
    )


def test_over_two_nodes_one_of_which_is_lost(tmp_path: Path) -> None:
    well(
        """
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1, resources={"second": 1})
ray.init(address=cluster.address, log_to_driver=False)
def where(_):
    time.sleep(0.05)  # so that one node alone would take longer; nothing relies on it
    return ray.get_runtime_context().get_node_id()
with RayExecutor() as pool:
    while len(set(fanmap.map(where, range(20), executor=pool))) < 2:
        pass
started = sys.argv[1]
os.mkfifo(started)
def stay(_):
    with open(started, "w"):
        pass
    time.sleep(3600)
with RayExecutor(task_options={"resources": {"second": 1}}) as there, RayExecutor() as pool:
    lost = there.submit(stay, 1)
    open(started).read()
    cluster.remove_node(second, allow_graceful=False)
    error = lost.exception()
    assert isinstance(error, fanmap.WorkerCrashed) and error.call == "stay(1)", error
    assert list(fanmap.map(abs, range(-100, 0), executor=pool)) == list(range(100, 0, -1))
ray.shutdown()
cluster.shutdown()
""",
        str(tmp_path / "started"),
    )


def test_a_call_that_no_node_can_run_is_warned_of_and_does_not_hold_its_user() -> None:
    well("""
import warnings
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, resources={"seats": 1})
with warnings.catch_warnings():
    warnings.simplefilter("error")
    for options in ({}, {"num_cpus": None, "resources": {"seats": 1}}):
        with RayExecutor(task_options=options) as pool:
            assert pool.submit(abs, -1).result() == 1
for options, asked in (
    ({"num_cpus": 3}, "(3 CPU)"),
    ({"num_gpus": 1}, "(1 CPU, 1 GPU)"),
    ({"num_cpus": 0, "resources": {"seats": 2, "tables": 1}}, "(2 seats, 1 tables)"),
):
    with warnings.catch_warnings(record=True) as warned:
        pool = RayExecutor(task_options=options)
    with pool:
        (one,) = warned
        assert one.category is RuntimeWarning and one.filename == '<string>', one
        assert asked in str(one.message), one
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
""")


def test_a_ray_that_it_has_begun_it_ends(tmp_path: Path) -> None:
    well("""
with RayExecutor(max_workers=1) as pool:
    assert pool.submit(abs, -1).result() == 1
    assert ray.is_initialized()
assert not ray.is_initialized()
""")
