"""tools/setup.sh tells each thing that is missing in one sentence, and makes nothing then."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ["sh", "dirname", "sed", "sort", "head", "cut", "uname", "mktemp", "rm"]

OLD_PYTHON = "#!/bin/sh\necho 3.9.2\n"
BARE_PYTHON = '#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; *) echo 3.12.0;; esac\n'
OLD_RUST = "#!/bin/sh\necho rustc 1.70.0\n"
RUST_WITHOUT_LINKER = (
    '#!/bin/sh\n[ "$1" = --version ] && echo rustc 1.99.0 && exit\n'
    'echo "error: linker \\`cc\\` not found" >&2\nexit 1\n'
)
CARGO = "#!/bin/sh\necho cargo 1.99.0\n"
PYTHON = f'#!/bin/sh\nexec {sys.executable} "$@"\n'


def setup(tmp_path: Path, programs: dict[str, str], **env: str) -> subprocess.CompletedProcess[str]:
    """Runs the script where only `programs` exist, beside the system's plainest."""
    place = tmp_path / "bin"
    place.mkdir()
    for name in NEEDED:
        found = shutil.which(name)
        assert found
        (place / name).symlink_to(found)
    for name, text in programs.items():
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    return subprocess.run(
        [ROOT / "tools/setup.sh", tmp_path / "venv"],
        env={"PATH": os.fspath(place), "HOME": os.fspath(tmp_path), **env},
        capture_output=True,
        text=True,
        timeout=50,
    )


@pytest.mark.parametrize(
    ("programs", "env", "words"),
    [
        ({}, {}, "needs Python 3.11 or newer, and none is on the PATH"),
        ({"python3": OLD_PYTHON}, {}, "python3 is 3.9.2"),
        ({"old": OLD_PYTHON}, {"PYTHON": "old"}, "PYTHON=old is Python 3.9.2, but fanmap needs 3.11"),
        ({"python3": PYTHON}, {"PYTHON": "absent"}, "PYTHON=absent does not run"),
        ({"python3": BARE_PYTHON}, {}, "install its venv module"),
        ({"python3": PYTHON}, {}, "no Rust compiler on the PATH"),
        ({"python3": PYTHON, "rustc": OLD_RUST, "cargo": CARGO}, {}, "this is Rust 1.70.0, but fanmap needs 1.85"),
        ({"python3": PYTHON, "rustc": RUST_WITHOUT_LINKER, "cargo": CARGO}, {}, "linker `cc` not found; install a C"),
    ],
)
def test_a_missing_thing_is_one_sentence(
    tmp_path: Path, programs: dict[str, str], env: dict[str, str], words: str
) -> None:
    done = setup(tmp_path, programs, **env)
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.startswith("setup: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "venv").exists()


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "precious").touch()
    rust = RUST_WITHOUT_LINKER.replace("exit 1", "exit 0")
    done = setup(tmp_path, {"python3": PYTHON, "rustc": rust, "cargo": CARGO})
    assert "is not a virtual environment" in done.stderr
    assert done.returncode == 1
    assert (tmp_path / "venv" / "precious").exists()
