"""What goes to PyPI: built from the sources alone, and tried where nothing of this tree can be imported.

    tools/wheel.py            the source distribution, a wheel out of that, and both tried; they are kept in target/dist
    tools/wheel.py WHEEL      a wheel that is there is tried, by the interpreter that runs this

Called by `make wheel`, and by the workflow that builds the wheels of a release.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

from pages import ROOT, turned

DIST = ROOT / "target" / "dist"
# A few of the tests: they would all fail together if a wheel lacked something.
TESTS = ["test_import.py", "test_map.py", "test_buffers.py"]
# With `-W error`, so that it fails on a free-threaded Python if the engine brings the interpreter's lock back.
TRIAL = """\
import fanmap, fanmap._native
assert "site-packages" in fanmap.__file__, fanmap.__file__
print(fanmap.__version__, fanmap.__file__)
for executor in ("threads", "processes"):
    assert list(fanmap.map(lambda x: x + 1, range(1000), executor=executor)) == list(range(1, 1001))
"""


def main() -> None:
    if len(sys.argv) == 2:
        wheel = Path(sys.argv[1]).resolve()
    else:
        wheel = build()
        run(sys.executable, "-m", "twine", "check", "--strict", *sorted(map(str, DIST.iterdir())))
    refuse_debug_tables(wheel)
    with tempfile.TemporaryDirectory(prefix="fanmap-wheel-") as folder:
        try_out(wheel, Path(folder))
    print(f"==> {wheel} works")


def build() -> Path:
    """The source distribution and the wheel in `DIST`."""
    shutil.rmtree(DIST, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="fanmap-sdist-") as folder:
        stage(Path(folder))
        print("==> the source distribution")
        run("maturin", "sdist", "--out", str(DIST), cwd=folder)
    (sdist,) = DIST.iterdir()
    print("==> the wheel, out of that")
    # In an environment of its own, as where somebody installs it. What it compiles is kept for the next time.
    kept = {"CARGO_TARGET_DIR": str(ROOT / "target" / "wheel")}
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(DIST), str(sdist), env=kept)
    return next(DIST.glob("*.whl"))


def stage(to: Path) -> None:
    """The files that are in the repository, and no others; the README as PyPI can show it."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, to / name)
    readme = to / "README.md"
    readme.write_text(turned(readme.read_text(encoding="utf-8"), "README.md"), encoding="utf-8")


def refuse_debug_tables(wheel: Path) -> None:
    """They would be most of what is installed, and nobody needs them there."""
    with zipfile.ZipFile(wheel) as files:
        for name in files.namelist():
            # Ended as the name of a section is: Rust's own library has the word, too.
            if name.endswith(".so") and b".debug_info\0" in files.read(name):
                sys.exit(f"wheel: {name} has tables for debuggers; pyproject.toml has maturin strip them")


def try_out(wheel: Path, folder: Path) -> None:
    """Installs it into an environment of its own, and uses it from a folder that has nothing but the tests."""
    print("==> a fresh environment")
    venv.create(folder / "venv", with_pip=True)
    python = str(folder / "venv" / "bin" / "python")
    run(python, "-m", "pip", "install", "--quiet", "--upgrade", "pip>=25.1", cwd=folder)
    run(python, "-m", "pip", "install", "--quiet", str(wheel), cwd=folder)
    print("==> what it does without any other package")
    run(python, "-W", "error", "-c", TRIAL, cwd=folder)
    run(python, "-m", "fanmap", "doctor", cwd=folder)
    print("==> a few tests")
    run(python, "-m", "pip", "install", "--quiet", "--group", f"{ROOT / 'pyproject.toml'}:test", cwd=folder)
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    run(python, "-m", "pytest", "-q", *(f"tests/{name}" for name in TESTS), cwd=folder)


def run(*command: str, cwd: str | Path = ROOT, env: dict[str, str] | None = None) -> None:
    """Ends the program with the command's status if it fails: the command has said why."""
    without = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    status = subprocess.run(command, cwd=cwd, env=without | (env or {}), stdin=subprocess.DEVNULL).returncode
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main()
