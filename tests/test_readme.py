"""The pages: their Python runs as it stands, their Rust is an example that runs, their links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def blocks_of_pages(language: str) -> list[object]:
    return [
        pytest.param(block, id=f"{page.name}-{number}")
        for page in PAGES
        for number, block in enumerate(blocks(page, language), start=1)
    ]


@pytest.mark.parametrize("block", blocks_of_pages("python"))
def test_a_python_block_runs_as_a_script(block: str, tmp_path: Path) -> None:
    script = tmp_path / "block.py"
    script.write_text(block, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr


def test_the_readmes_rust_is_the_example_that_make_test_runs() -> None:
    (block,) = blocks(ROOT / "README.md", "rust")
    example = (ROOT / "crates/fanmap/examples/readme.rs").read_text(encoding="utf-8")
    code = "".join(line for line in example.splitlines(keepends=True) if not line.startswith("//!"))
    assert block == code.lstrip("\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
