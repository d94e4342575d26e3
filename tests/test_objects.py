"""Objects of numpy, pandas, polars and torch as items and results: equal, of the same kind, private to the task.

What offers its buffers by pickle's protocol 5 travels out of band. That is what `out_of_band` states of each kind, so
that a change of a library or of ours is seen.
"""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, NamedTuple

import fanmap
import pytest
from fanmap._codec import Encoder, decode

LENGTH = 1 << 15  # eight bytes each: four times the size from which a buffer goes out of band


class Thing:
    """Of no library."""


class Kind(NamedTuple):
    """How to make an object, from the library and a directory, and whether its data travels out of band."""

    make: Callable[[Any, Path], Any]
    out_of_band: bool


def _structured(np: Any, _: Path) -> Any:
    array = np.zeros(LENGTH, dtype=[("number", "i8"), ("name", "S5"), ("point", "f4", (2,))])
    array["number"] = np.arange(LENGTH)
    array["name"] = b"fan"
    return array


def _mapped(np: Any, place: Path) -> Any:
    array = np.memmap(place / "array", dtype="f8", mode="w+", shape=(LENGTH,))
    array[:] = np.arange(LENGTH)
    return array


def _read_only(np: Any, _: Path) -> Any:
    array = np.arange(LENGTH)
    array.flags.writeable = False
    return array


ARRAYS = {
    "contiguous": Kind(lambda np, _: np.arange(2.0 * LENGTH).reshape(2, LENGTH), True),
    "in Fortran's order": Kind(lambda np, _: np.asfortranarray(np.arange(2.0 * LENGTH).reshape(2, LENGTH)), True),
    "transposed": Kind(lambda np, _: np.arange(2.0 * LENGTH).reshape(2, LENGTH).T, True),
    "rows of another": Kind(lambda np, _: np.arange(4.0 * LENGTH).reshape(4, LENGTH)[1:3], True),
    "strided": Kind(lambda np, _: np.arange(2.0 * LENGTH)[::2], False),
    "backwards": Kind(lambda np, _: np.arange(LENGTH)[::-1], False),
    "broadcast": Kind(lambda np, _: np.broadcast_to(np.float64(3), (LENGTH,)), False),
    "read-only": Kind(_read_only, True),
    "big-endian": Kind(lambda np, _: np.arange(LENGTH, dtype=">i8"), True),
    "complex": Kind(lambda np, _: np.arange(LENGTH) * 1j, True),
    "dates": Kind(lambda np, _: np.arange(LENGTH).astype("M8[s]"), False),
    "text": Kind(lambda np, _: np.array(["fan", "map"] * LENGTH), True),
    "structured": Kind(_structured, True),
    "of objects": Kind(lambda np, _: np.array([{"a": 1}, None, "text", 3.5] * 100, dtype=object), False),
    "mapped from a file": Kind(_mapped, False),
    "masked": Kind(lambda np, _: np.ma.masked_array(np.arange(LENGTH), mask=np.arange(LENGTH) % 3 == 0), False),
    "empty": Kind(lambda np, _: np.zeros((0, 3)), False),
    "of no dimension": Kind(lambda np, _: np.array(3.0), False),
    "scalar": Kind(lambda np, _: np.float32(3.5), False),
}

FRAMES = {
    "numbers": Kind(lambda pd, _: pd.DataFrame({"x": range(LENGTH), "y": [0.5] * LENGTH}), True),
    "texts": Kind(lambda pd, _: pd.DataFrame({"name": ["fan", None] * LENGTH}, dtype=object), False),
    "dates": Kind(lambda pd, _: pd.DataFrame({"at": pd.date_range("2020", periods=99, freq="h", tz="UTC")}), False),
    "two indices": Kind(
        lambda pd, _: pd.DataFrame({"x": range(4)}, index=pd.MultiIndex.from_product([[1, 2], ["a", "b"]])), False
    ),
    "series": Kind(lambda pd, _: pd.Series(range(LENGTH), name="x", dtype="f8"), True),
    "series with gaps": Kind(lambda pd, _: pd.Series([1, None] * LENGTH, dtype="Int64"), True),
    "series of categories": Kind(lambda pd, _: pd.Series(["a", "b"] * LENGTH, dtype="category"), True),
}

POLARS = {
    "frame": Kind(lambda pl, _: pl.DataFrame({"x": range(LENGTH), "name": ["fan", None] * (LENGTH // 2)}), False),
    "series": Kind(lambda pl, _: pl.Series("x", range(LENGTH)), False),
    "lazy frame": Kind(lambda pl, _: pl.LazyFrame({"x": [1, 2, 3]}).filter(pl.col("x") > 1), False),
}

TENSORS = {
    "contiguous": Kind(lambda torch, _: torch.arange(LENGTH), False),
    "strided": Kind(lambda torch, _: torch.arange(LENGTH * 2)[::2], False),
    "that wants a gradient": Kind(lambda torch, _: torch.ones(LENGTH, requires_grad=True), False),
}


def same_arrays(np: Any, one: Any, other: Any) -> None:
    np.testing.assert_array_equal(one, other, strict=True)
    assert one.dtype == other.dtype
    if isinstance(one, np.ma.MaskedArray):
        np.testing.assert_array_equal(one.mask, other.mask)


def same_frames(pd: Any, one: Any, other: Any) -> None:
    compare = pd.testing.assert_frame_equal if isinstance(one, pd.DataFrame) else pd.testing.assert_series_equal
    compare(one, other)


def same_in_polars(pl: Any, one: Any, other: Any) -> None:
    if isinstance(one, pl.LazyFrame):
        one, other = one.collect(), other.collect()
    assert one.equals(other)


def same_tensors(torch: Any, one: Any, other: Any) -> None:
    assert torch.equal(one, other)
    assert one.requires_grad == other.requires_grad


LIBRARIES: list[tuple[str, dict[str, Kind], Callable[[Any, Any, Any], None]]] = [
    ("numpy", ARRAYS, same_arrays),
    ("pandas", FRAMES, same_frames),
    ("polars", POLARS, same_in_polars),
    ("torch", TENSORS, same_tensors),
]


@pytest.fixture(scope="module", autouse=True)
def polars_has_its_threads() -> None:
    """They are made with its first query and stay: they are not left by the test that comes first."""
    with suppress(ImportError):
        import polars

        polars.LazyFrame({"x": [1]}).collect()


def there_and_back(item: Any) -> Any:
    return item


# Of all kinds at once: starting workers, and importing pandas in them, takes longer than all that is tested here.
@pytest.mark.parametrize("executor", ["threads", "processes"])
@pytest.mark.parametrize(("name", "kinds", "same"), LIBRARIES, ids=[name for name, _, _ in LIBRARIES])
def test_an_object_comes_back_equal_and_of_its_own_kind(
    executor: str, name: str, kinds: dict[str, Kind], same: Callable[[Any, Any, Any], None], tmp_path: Path
) -> None:
    library = pytest.importorskip(name, reason=f"{name} is not installed")
    items = [kind.make(library, tmp_path) for kind in kinds.values()]
    results = list(fanmap.map(there_and_back, items, executor=executor, workers=1))
    for title, item, result in zip(kinds, items, results, strict=True):
        assert type(result) is type(item), title
        same(library, item, result)


@pytest.mark.parametrize(
    ("library", "kind"),
    [
        pytest.param(name, kind, id=f"{name}-{title}")
        for name, kinds, _ in LIBRARIES
        if name != "torch"
        for title, kind in kinds.items()
    ],
)
def test_data_travels_out_of_band_where_its_type_offers_that(library: str, kind: Kind, tmp_path: Path) -> None:
    item = kind.make(pytest.importorskip(library, reason=f"{library} is not installed"), tmp_path)
    buffers: list[pickle.PickleBuffer] = []
    data = Encoder().encode(item, buffers=buffers)
    assert bool(buffers) == kind.out_of_band
    assert len(data) < 64 * 1024 or not kind.out_of_band


def add_one(array: Any) -> Any:
    array += 1
    return array


@pytest.mark.parametrize("title", ["contiguous", "strided", "mapped from a file", "masked"])
def test_what_a_task_does_to_an_array_is_its_own_and_not_the_callers(title: str, tmp_path: Path) -> None:
    np = pytest.importorskip("numpy", reason="numpy is not installed")
    array = ARRAYS[title].make(np, tmp_path)
    before = array.copy()
    (result,) = fanmap.map(add_one, [array], workers=1, executor="processes")
    same_arrays(np, array, before)
    np.testing.assert_array_equal(result, before + 1)


def test_what_torch_tells_multiprocessing_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """It hands the memory itself over, once; who else tells multiprocessing how to pickle something is heard."""

    def refuse(_: Any) -> Any:
        raise AssertionError("it was asked")

    def rename(_: Thing) -> Any:
        return str, ("renamed",)

    monkeypatch.setattr(ForkingPickler, "_extra_reducers", {})
    refuse.__module__ = "torch.multiprocessing.reductions"
    ForkingPickler.register(Thing, refuse)
    assert type(decode(Encoder().encode(Thing()))) is Thing
    ForkingPickler.register(Thing, rename)
    assert decode(Encoder().encode(Thing())) == "renamed"


@pytest.mark.parametrize("size", [80, 800_000])
def test_a_memoryview_arrives_as_the_bytes_that_it_shows(size: int) -> None:
    views = [memoryview(array("d", range(size // 8))), memoryview(bytearray(size))[::2], memoryview(b"whole")]
    with fanmap.ProcessPoolExecutor(1) as pool:
        there = list(pool.map(lambda view: (type(view), view), views))
        assert there == [(bytes, view.tobytes()) for view in views]
        back = list(pool.map(memoryview, there[0][1:]))
        assert [(type(one), one) for one in back] == [(bytes, views[0].tobytes())]
