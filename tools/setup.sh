#!/bin/sh
# Makes the virtual environment that everything else runs in, after looking for what a build needs.
#
#   usage: [PYTHON=python3.13] tools/setup.sh VENV
#
# Called by the Makefile, once for each environment. Each thing that is missing is told in one sentence, with the way
# out, and ends the script with 1: a wrong machine should say so here, not pages into a compiler's output.
# Python's C headers are not among them: PyO3 brings its own declarations, so a Python without headers will do.
# VENV/.made, written last, holds the name of the Python that was asked for or found.
set -eu
cd "$(dirname "$0")/.."

venv=${1:?usage: tools/setup.sh VENV}

die() {
    echo "setup: $*" >&2
    exit 1
}

# The minimum versions are written once, in the manifests.
min_python=$(sed -n 's/^requires-python = ">=\([0-9.]*\)".*/\1/p' pyproject.toml)
min_rust=$(sed -n 's/^rust-version = "\([0-9.]*\)".*/\1/p' Cargo.toml)

# at_least 1.85 1.100: whether the second version is no older than the first.
at_least() {
    [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]
}

# The version of the Python named $1; fails if it does not run (a pyenv shim of an inactive version is such a one).
python_version() {
    "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null
}

find_python() {
    seen=""
    if [ -n "${PYTHON:-}" ]; then
        version=$(python_version "$PYTHON") || die "PYTHON=$PYTHON does not run as a Python interpreter."
        at_least "$min_python" "$version" ||
            die "PYTHON=$PYTHON is Python $version, but fanmap needs $min_python or newer."
        python=$PYTHON
        return
    fi
    for python in python3 python3.15 python3.14 python3.13 python3.12 python3.11 python; do
        version=$(python_version "$python") || continue
        at_least "$min_python" "$version" && return
        seen="$seen, $python is $version"
    done
    die "fanmap needs Python $min_python or newer, and none is on the PATH${seen}; install one, or name it:" \
        "make demo PYTHON=/path/to/python3"
}

check_python() {
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        die "$python (Python $version) cannot make virtual environments; install its venv module" \
            "(Debian, Ubuntu: apt install python3-venv)."
}

check_rust() {
    rust=$(rustc --version 2>/dev/null && cargo --version >/dev/null 2>&1) ||
        die "no Rust compiler on the PATH; install Rust $min_rust or newer from https://rustup.rs"
    rust=$(echo "$rust" | cut -d ' ' -f 2)
    at_least "$min_rust" "$rust" ||
        die "this is Rust $rust, but fanmap needs $min_rust or newer; with rustup: rustup update stable"
}

# Rust links through the C compiler. Linking an empty program is the true test: cc may be there without the C library.
check_linker() {
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    echo 'fn main() {}' | rustc --crate-name empty --out-dir "$scratch" - >"$scratch/log" 2>&1 ||
        die "Rust cannot link a program: $(sed -n '1s/^error: //p' "$scratch/log"); install a C compiler" \
            "(Debian, Ubuntu: apt install build-essential)."
}

check_system() {
    [ "$(uname -s)" = Linux ] ||
        die "fanmap builds on Linux only so far (it needs memfd, eventfd and pidfd), and this is $(uname -s)."
}

make_venv() {
    # --clear empties what it finds, so it must be an environment, or what an interrupted run left of one.
    if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ]; then
        die "$venv exists and is not a virtual environment; move it away."
    fi
    "$python" -m venv --clear "$venv" || die "could not make the virtual environment $venv (see above)."
    # Dependency groups need pip 25.1.
    "$venv/bin/python" -m pip install --quiet --upgrade 'pip>=25.1' ||
        die "pip could not fetch packages from PyPI (see above); is there a network, or a proxy to set?"
    echo "${PYTHON:-$python}" >"$venv/.made"
}

check_system
find_python
check_python
check_rust
check_linker
echo "    Python $version ($python), Rust $rust"
make_venv
