"""Large buffers go to workers and back as the objects they are: nobody sees where their bytes lie."""

from __future__ import annotations

import functools
import itertools
import os
import pickle
import signal
import time
from pathlib import Path
from typing import Any

import fanmap
import numpy as np
import pytest
from _scripts import LIMIT, Gate, good
from fanmap._fixed import fix

# Past the size at which a buffer travels out of band (`_raw.LARGE`), and small enough to send many.
SIZE = 200_000
MEBIBYTE = 1 << 20
KEPT: list[Any] = []


@pytest.fixture
def pool() -> Any:
    with fanmap.ProcessPoolExecutor(2) as pool:
        yield pool


def describe(array: Any) -> tuple[bool, bool, bool, float]:
    return array.flags.writeable, array.flags.c_contiguous, array.flags.f_contiguous, float(array.sum())


def itself(x: Any) -> Any:
    return x


def double(array: Any) -> Any:
    array *= 2
    return array


def keep(array: Any) -> int:
    KEPT.append(array)
    return os.getpid()


def kept(_: Any) -> tuple[int, list[tuple[float, float]]]:
    return os.getpid(), [(float(array.min()), float(array.max())) for array in KEPT]


def readonly(array: Any) -> Any:
    array.flags.writeable = False
    return array


def arrays() -> list[Any]:
    flat = np.arange(float(SIZE))
    square = flat.reshape(400, -1)
    return [
        flat,
        square,
        np.asfortranarray(square),
        square.T,
        square[10:50],
        square[:, ::2],
        flat[::-1],
        flat.astype("S8"),
        readonly(flat.copy()),
    ]


def test_an_array_arrives_as_it_was_sent(pool: Any) -> None:
    sent = arrays()
    for array, back in zip(sent, pool.map(itself, sent), strict=True):
        assert back.dtype == array.dtype and back.shape == array.shape and (back == array).all()
        assert back.flags.f_contiguous == array.flags.f_contiguous or not array.flags.forc
        assert back.flags.writeable == array.flags.writeable


def test_a_worker_may_write_to_an_array_iff_its_sender_may(pool: Any) -> None:
    sent = [array for array in arrays() if array.dtype == float]
    for array, (writeable, *_, total) in zip(sent, pool.map(describe, sent), strict=True):
        assert (writeable, total) == (array.flags.writeable, array.sum())


def test_what_a_worker_writes_is_its_own(pool: Any) -> None:
    sent = [np.full(SIZE, float(n)) for n in range(20)]
    for n, back in enumerate(pool.map(double, sent)):
        assert (back == 2 * n).all()
        assert (sent[n] == n).all()
        back[:] = -1
        assert (sent[n] == n).all()


def test_one_array_sent_twice_is_two_in_the_workers(pool: Any) -> None:
    array = np.ones(SIZE)
    assert all((back == 2).all() for back in pool.map(double, [array] * 10))


def test_an_array_that_a_task_keeps_is_never_written_over() -> None:
    with fanmap.ProcessPoolExecutor(1) as pool:
        for n in range(10):
            pool.submit(keep, np.full(SIZE, float(n))).result()
            list(pool.map(double, [np.full(SIZE, -1.0)] * 5))
        assert pool.submit(kept, None).result()[1] == [(n, n) for n in range(10)]


def test_a_result_that_is_kept_is_never_written_over(pool: Any) -> None:
    results = [pool.submit(np.full, SIZE, float(n)).result() for n in range(10)]
    list(pool.map(itself, [np.full(SIZE, -1.0)] * 10))
    for n, result in enumerate(results):
        assert (result == n).all()


def test_results_outlive_their_worker_and_their_pool() -> None:
    with fanmap.ProcessPoolExecutor(2) as pool:
        results = list(pool.map(np.full, [SIZE] * 10, range(10)))
    for n, result in enumerate(results):
        assert (result == n).all()
        result[:] = 0


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_plain_buffers_come_back_as_what_they_are(pool: Any, kind: type) -> None:
    sent = [kind([n]) * SIZE for n in range(10)]
    for plain, back in zip(sent, pool.map(itself, sent), strict=True):
        assert type(back) is kind and back == plain


def test_a_functions_array_is_the_same_for_every_task(pool: Any) -> None:
    array = np.ones(SIZE)

    def spoil(x: int) -> float:
        array[x] += 1
        return float(array[x])

    assert list(pool.map(spoil, range(50))) == [2.0] * 50
    assert (array == 1).all()
    array[:] = 5
    assert list(pool.map(lambda x: float(array[x]), range(50))) == [5.0] * 50


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_keeps_the_results_that_its_parent_drops(pool: Any) -> None:
    results = list(pool.map(np.full, [SIZE] * 10, range(10)))
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        good = False
        try:
            os.close(write)
            os.read(read, 1)
            good = all((result == n).all() for n, result in enumerate(results))
            results[0][:] = -1
        finally:
            os._exit(not good)
    os.close(read)
    first = results[0]
    del results
    list(pool.map(itself, [np.full(SIZE, -1.0)] * 20))
    os.close(write)
    assert os.waitpid(child, 0)[1] == 0
    assert (first == 0).all()


def shared_bytes() -> int:
    """Shared memory that exists because of this process and its workers: the files' own account."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        path = f"/proc/self/fd/{name}"
        try:
            if "fanmap-blobs" in os.readlink(path):
                told = os.stat(path)
                found[told.st_ino] = told.st_blocks * 512
        except OSError:
            continue
    return sum(found.values())


def ones(size: int) -> Any:
    return np.ones(size)


@pytest.mark.parametrize("bound", [None, 0])
def test_memory_is_kept_within_its_bound_and_results_live_on(bound: int | None) -> None:
    with fanmap.ProcessPoolExecutor(2, buffer_memory=bound) as pool:
        results = list(pool.map(ones, [SIZE] * 20))
        assert all(result.sum() == SIZE for result in results)
        assert shared_bytes() >= 20 * 8 * SIZE
        kept = results[3]
        del results
        # A few more, so that what was dropped is told to the workers.
        for _ in range(3):
            assert list(pool.map(np.sum, [np.ones(SIZE)] * 4)) == [SIZE] * 4
        if bound == 0:
            assert shared_bytes() <= 8 * 8 * SIZE, "what is idle goes back to the system at once"
    assert kept.sum() == SIZE, "a result outlives its pool"


@pytest.mark.parametrize("ends", ["the pool", "the worker"])
def test_a_result_that_is_kept_keeps_no_more_than_itself(ends: str) -> None:
    with fanmap.ProcessPoolExecutor(1) as pool:
        results = list(pool.map(ones, [SIZE] * 20))
        kept = results[3]
        del results
        if ends == "the worker":
            assert isinstance(pool.submit(os._exit, 1).exception(), fanmap.WorkerCrashed)
            pool.submit(abs, -1).result()  # a new one: the old one's end is settled
            assert shared_bytes() < 2 * 8 * SIZE
    assert shared_bytes() < 2 * 8 * SIZE
    assert kept.sum() == SIZE


def test_what_came_before_the_workers_are_told_to_end_is_never_written_over(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    pool = fanmap.ProcessPoolExecutor(1, buffer_memory=0)  # whatever is free goes at once
    first = pool.submit(ones, SIZE).result()
    held = pool.submit(hold_until_told, gate.name, np.full(SIZE, 7.0), str(tmp_path / "sum"))
    gate.wait()
    pool.terminate_workers()
    with pytest.raises(fanmap.BrokenProcessPool):
        held.result()
    # The worker goes on with what it was sent, as long as it likes.
    gate.open()
    pool.shutdown()
    assert (tmp_path / "sum").read_text() == str(7.0 * SIZE)
    assert (first == 1).all()
    gate.close()


def hold_until_told(name: str, array: Any, told: str) -> Any:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open(name, "wb", 0) as started:
        started.write(b"x")
    with open(name + ".gate", "rb") as gate:
        gate.read()
    Path(told).write_text(str(float(array.sum())))
    return array


def large_and_counted(item: int, directory: Path) -> bytes:
    (directory / str(item)).touch()
    return bytes([item]) * (4 * MEBIBYTE)


def counted(directory: Path, count: int) -> int:
    """How many calls there were, once there were so many."""
    until = time.monotonic() + LIMIT
    while (found := len(os.listdir(directory))) < count:
        assert time.monotonic() < until, f"{found} calls, and no more"
        time.sleep(0.01)
    return found


@pytest.mark.parametrize("ordered", [True, False])
def test_results_do_not_pile_up_before_a_consumer_that_is_slow(ordered: bool, tmp_path: Path) -> None:
    """Of the 64 items that are sent at first, 64 MiB of results are made, and what workers have already."""
    with fanmap.ProcessPoolExecutor(2) as pool:
        function = functools.partial(large_and_counted, directory=tmp_path)
        results = fanmap.map(function, range(100), executor=pool, ordered=ordered)
        first = next(results)
        counted(tmp_path, 16)
        for _ in range(20):  # other calls go past what waits
            assert pool.submit(abs, -1).result() == 1
        time.sleep(0.1)
        assert counted(tmp_path, 16) < 50
        came = [first[0], *(one[0] for one in results)]
    assert came == list(range(100)) if ordered else sorted(came) == list(range(100))


def test_a_pool_that_shuts_down_does_what_it_was_sent_though_nobody_takes_results(tmp_path: Path) -> None:
    pool = fanmap.ProcessPoolExecutor(2)
    results = fanmap.map(functools.partial(large_and_counted, directory=tmp_path), range(100), executor=pool)
    assert next(results)[0] == 0
    counted(tmp_path, 16)
    pool.shutdown()
    done = counted(tmp_path, 50)
    results.close()
    assert counted(tmp_path, 0) == done


def test_large_items_do_not_leave_a_worker_idle(tmp_path: Path) -> None:
    """An item is more than may be under way, and yet each worker has one: they meet."""
    items = [(index, bytes(65 * MEBIBYTE)) for index in range(2)]
    with fanmap.ProcessPoolExecutor(2) as pool:
        meet = functools.partial(meets, directory=tmp_path)
        assert list(fanmap.map(meet, items, executor=pool)) == [65 * MEBIBYTE] * 2


def meets(item: tuple[int, bytes], directory: Path) -> int:
    """Ends when a call with the other item has begun."""
    (directory / str(item[0])).touch()
    until = time.monotonic() + LIMIT
    while not (directory / str(1 - item[0])).exists():
        assert time.monotonic() < until, "it is alone"
        time.sleep(0.01)
    return len(item[1])


def test_a_negative_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="buffer_memory must not be negative"):
        fanmap.ProcessPoolExecutor(buffer_memory=-1)
    with pytest.raises(TypeError, match="buffer_memory must be an integer"):
        fanmap.ProcessPoolExecutor(buffer_memory="1 GB")  # type: ignore[arg-type]


def test_large_bytes_travel_both_ways_as_what_they_are(pool: Any) -> None:
    for data in (b"\x01" * SIZE, bytearray(b"\x02" * SIZE), b"", b"small"):
        for came in (pool.submit(itself, data).result(), next(iter(pool.map(itself, [data])))):
            assert came == data and type(came) is type(data)
    together = (b"\x03" * SIZE, bytearray(SIZE), 1)
    came = pool.submit(itself, together).result()
    assert came == together and [type(one) for one in came] == [bytes, bytearray, int]


def sames(*parts: Any) -> list[bool]:
    def flat(part: Any) -> list[Any]:
        return [inner for one in part for inner in flat(one)] if type(part) is tuple else [part]

    ones = flat(parts)
    return [part is parts[0] for part in parts] + [one is ones[0] for one in ones]


def of_two(data: Any, x: int) -> tuple[type, int, int]:
    return type(data), len(data), data[x] + x


def closure_over(data: Any) -> Any:
    return lambda x: of_two(data, x)


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize(
    "carry",
    [
        closure_over,
        lambda data: functools.partial(of_two, data),
        lambda data: functools.partial(lambda x, data: of_two(data, x), data=data),
        lambda data: fix(of_two, (itertools.repeat(data), [1, 2]))[0],
    ],
)
def test_large_bytes_that_a_function_carries_travel_beside_it(pool: Any, carry: Any, kind: Any) -> None:
    data = kind(bytes(range(250)) * 1000)
    function = carry(data)
    wanted = [(kind, len(data), 2 * x) for x in range(20)]
    for _ in range(2):
        buffers: list[Any] = []
        assert len(pool._encoder.encode_function(function, buffers)) < 5000 and len(buffers) == 1
        assert list(pool.map(function, range(20))) == wanted
    if kind is bytearray:
        data[3] = 100
        assert list(pool.map(function, range(4))) == [*wanted[:3], (kind, len(data), 103)]


def test_large_bytes_of_main_travel_beside_its_functions() -> None:
    good("""
        import fanmap
        DATA = bytes(range(250)) * 1000
        def look(x):
            return DATA[x], len(DATA)
        with fanmap.ProcessPoolExecutor(2) as pool:
            assert list(pool.map(look, range(20))) == [(x, 250_000) for x in range(20)]
            buffers = []
            pool._encoder.encode_function(look, buffers)
            assert len(buffers) == 1
            DATA = DATA[5:]
            assert list(pool.map(look, range(20))) == [(x + 5, 249_995) for x in range(20)]
    """)


@pytest.mark.parametrize("kind", [bytes, bytearray, lambda size: np.zeros(size, np.uint8)])
@pytest.mark.parametrize("size", [10, SIZE])
def test_what_occurs_twice_among_the_arguments_arrives_as_one(pool: Any, kind: Any, size: int) -> None:
    one, other = kind(size), kind(size)
    if size == 10 and kind is bytes:
        one, other = b"one", b"other"
    pair = (one, one)
    for args in ((one, one, other), (pair, pair, one), ((pair, other), one)):
        # As pickle has it.
        expected = sames(*pickle.loads(pickle.dumps(args)))
        assert pool.submit(sames, *args).result() == expected
        assert list(pool.map(sames, *[[arg] for arg in args])) == [expected]


@pytest.mark.parametrize(("bound", "held"), [(4 * 8 * SIZE, True), (4 * 8 * SIZE - 1, False), (0, False)])
def test_a_functions_arrays_are_held_for_the_next_call_only_if_they_are_small(bound: int, held: bool) -> None:
    with fanmap.ProcessPoolExecutor(1, buffer_memory=bound) as pool:
        assert pool.submit(functools.partial(np.sum, np.ones(SIZE))).result() == SIZE
        assert (pool._last_large is not None) == held


def test_a_worker_that_dies_with_arrays_costs_its_own_task_alone(pool: Any) -> None:
    arrays = [np.full(SIZE, float(x)) for x in range(20)]
    futures = [pool.submit(dies_on_seven, array) for array in arrays]
    for x, future in enumerate(futures):
        if x == 7:
            assert isinstance(future.exception(), fanmap.WorkerCrashed)
        else:
            assert (future.result() == x).all()


def dies_on_seven(array: Any) -> Any:
    if array[0] == 7:
        os._exit(1)
    return array


def test_results_that_cannot_be_mapped_are_copied() -> None:
    good("""
        import resource
        import numpy as np
        import fanmap

        def make(n):
            array = np.full(10_000, float(n))
            array.flags.writeable = n % 2 == 0
            return array

        with fanmap.ProcessPoolExecutor(2) as pool:
            # All else that takes address space is there then, and room in the heap for copies.
            early = list(pool.map(make, range(8)))
            room = [bytearray(90_000) for _ in range(500)]
            end = bytearray(90_000)
            del room
            pages = int(open("/proc/self/statm").read().split()[0])
            limits = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 10 * 80_000, limits[1]))
            results = list(pool.map(make, range(400)))
            # And as a part of a function that the workers are sent.
            sums = list(pool.map(lambda n: float(results[n].sum()), [399]))
            resource.setrlimit(resource.RLIMIT_AS, limits)
            for n, result in enumerate(results):
                assert (result == n).all() and result.flags.writeable == (n % 2 == 0)
            results[0][:] = 5
            assert (results[0] == 5).all() and sums == [399 * 10_000]
            with open("/proc/self/maps") as maps:
                assert 0 < sum("fanmap-blobs" in line for line in maps) < 400
    """)
