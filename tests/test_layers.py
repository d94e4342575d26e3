"""The check that imports in the engine run only one way (tools/check_layers.py)."""

from pathlib import Path

import pytest
from check_layers import PAGE, ROOT, SOURCES, read_order, violations

ORDER = ["error", "queue", "map"]


def check(tmp_path: Path, **files: str) -> list[str]:
    """The sentences for a source tree; `map__window` stands for map/window.rs."""
    for name, code in files.items():
        file = tmp_path / f"{name.replace('__', '/')}.rs"
        file.parent.mkdir(exist_ok=True)
        file.write_text(code)
    return list(violations(ORDER, tmp_path))


def test_the_order_is_read_from_the_one_fence() -> None:
    page = "# Layers\n```layers\nerror  what went wrong\nqueue  jobs\n```\n```sh\nmake\n```\n"
    assert read_order(page) == ["error", "queue"]


@pytest.mark.parametrize("page", ["no fence", "```layers\na\n```\n```layers\nb\n```\n"])
def test_none_or_two_fences_are_an_error(page: str) -> None:
    with pytest.raises(ValueError, match="one fence"):
        read_order(page)


def test_an_import_downward_or_within_is_allowed(tmp_path: Path) -> None:
    assert check(tmp_path, map="use crate::queue::Queue;\nuse crate::{error::Error, map::window};\n") == []


@pytest.mark.parametrize(
    "code",
    [
        "use crate::map::Map;",
        "pub(crate) use crate::map;",
        "use crate::{error::Error, map::{Map, Window}};",
        "use crate::{\n    error::{Error, Kind},\n    map::Map,\n};",
        "fn f() -> crate::map::Map {}",
        "use super::map::Map;",
    ],
)
def test_an_import_upward_is_a_sentence_with_file_line_and_both_layers(tmp_path: Path, code: str) -> None:
    (sentence,) = check(tmp_path, queue=f"//! Jobs.\n{code}\n")
    assert sentence == f"{SOURCES}/queue.rs:2: `queue` names `map`, a layer above it; imports run only downward"


def test_a_file_of_a_folder_belongs_to_the_folders_layer(tmp_path: Path) -> None:
    assert check(tmp_path, map__window="use crate::queue::Queue;\nuse super::reorder::Reorder;\n") == []
    (sentence,) = check(tmp_path, queue__inner="use super::super::map::Map;\n")
    assert "queue/inner.rs:1: `queue` names `map`" in sentence


def test_comments_and_exported_macros_are_no_imports(tmp_path: Path) -> None:
    comments = "//! [`crate::map::Map`]\n/// crate::map\nfn f() {} // crate::map\n"
    macros = "fn g() { crate::register!(f); $crate::map::h() }\n"
    assert check(tmp_path, queue=comments + macros) == []


def test_the_table_of_contents_may_name_everything(tmp_path: Path) -> None:
    assert check(tmp_path, lib="pub use crate::map::Map;\n") == []


def test_a_module_without_a_place_is_told(tmp_path: Path) -> None:
    (sentence,) = check(tmp_path, extra="")
    assert "`extra` has no place" in sentence


def test_a_reexport_hides_a_layer_so_it_is_told(tmp_path: Path) -> None:
    (sentence,) = check(tmp_path, queue="use crate::Error;\n")
    assert "`crate::Error` is no layer" in sentence


def test_this_tree_keeps_the_order() -> None:
    assert list(violations(read_order((ROOT / PAGE).read_text()), ROOT / SOURCES)) == []
