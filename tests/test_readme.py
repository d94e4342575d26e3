"""The pages: their Python runs as it stands, their Rust is an example that runs, their links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pages
import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
# Too large for the tests' packages. A block that uses what is missing is skipped.
LARGE = {"dask", "distributed", "mpi4py", "parsl", "ray", "sklearn", "torch"}


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks_of_pages(language: str) -> list[object]:
    return [
        pytest.param(block, id=f"{name(page)}-{number}")
        for page in PAGES
        if page.parent.name != "moving"  # below, two at a time
        for number, block in enumerate(blocks(page, language), start=1)
    ]


@pytest.mark.parametrize("block", blocks_of_pages("python"))
def test_a_python_block_runs_as_a_script(block: str, tmp_path: Path) -> None:
    output(block, tmp_path)


def pairs() -> list[object]:
    """What stands side by side: another library's program, and ours."""
    found = []
    for page in sorted((ROOT / "docs" / "moving").glob("*.md")):
        programs = blocks(page, "python")
        assert programs and len(programs) % 2 == 0, page
        for number, pair in enumerate(zip(programs[::2], programs[1::2], strict=True), start=1):
            found.append(pytest.param(*pair, id=f"{page.stem}-{number}"))
    return found


@pytest.mark.parametrize(("theirs", "ours"), pairs())
def test_programs_side_by_side_print_the_same(theirs: str, ours: str, tmp_path: Path) -> None:
    assert "fanmap" in ours and "fanmap" not in theirs
    printed = output(theirs, tmp_path)
    assert printed and output(ours, tmp_path) == printed


def output(block: str, tmp_path: Path) -> str:
    """What a block prints, as a script."""
    for package in sorted(LARGE & set(re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE))):
        pytest.importorskip(package)
    script = tmp_path / "block.py"
    script.write_text(block, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readmes_rust_is_the_example_that_make_test_runs() -> None:
    (block,) = blocks(ROOT / "README.md", "rust")
    example = (ROOT / "crates/fanmap/examples/readme.rs").read_text(encoding="utf-8")
    code = "".join(line for line in example.splitlines(keepends=True) if not line.startswith("//!"))
    assert block == code.lstrip("\n")


def test_a_pages_rust_is_an_example_that_make_test_runs() -> None:
    taken = [block for page in PAGES if page.is_relative_to(ROOT / "docs") for block in blocks(page, "rust")]
    assert taken
    for block in taken:
        (example,) = re.findall(r'^--8<-- "(crates/fanmap/examples/.*\.rs)"\n$', block)
        assert (ROOT / example).exists()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_of_a_page_is_of_a_kind_that_is_looked_at(page: Path) -> None:
    """One that is indented, or of another language's, would stand there without ever having run."""
    openings = re.findall(r"^(.*)```(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)[::2]
    assert set(openings) <= {("", language) for language in ("python", "rust", "sh", "text", "layers")}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_word_of_make_that_a_page_names_is_one(page: Path) -> None:
    words = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`make ([a-z-]+)", text)
    named += re.findall(r"^make ([a-z-]+)", "".join(blocks(page, "sh")), re.MULTILINE)
    assert [word for word in named if word not in words] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_test_that_a_page_names_is_one(page: Path) -> None:
    named = set(re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8")))
    tests = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").glob("test_*.py"))
    assert named <= set(re.findall(r"def (test_\w+)", tests))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize(
    ("link", "page", "turned"),
    [
        ("../ARCHITECTURE.md", "docs/failures.md", "https://github.com/fanmap/fanmap/blob/main/ARCHITECTURE.md"),
        ("../map.md", "docs/moving/joblib.md", "../map.md"),
        ("../../benches/results/speed.svg", "docs/moving/joblib.md", "../figures/speed.svg"),
        ("docs/index.md", "README.md", "https://github.com/fanmap/fanmap/blob/main/docs/index.md"),
        ("benches/a.svg", "README.md", "https://github.com/fanmap/fanmap/raw/main/benches/a.svg"),
        ("https://peps.python.org", "README.md", "https://peps.python.org"),
        ("#a-heading", "README.md", "#a-heading"),
    ],
)
def test_a_link_leads_to_the_same_from_elsewhere(link: str, page: str, turned: str) -> None:
    assert pages.turned(f"[x]({link})", page) == f"[x]({turned})"
