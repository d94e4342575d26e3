# One word for each check; CI runs the same words. `make` alone lists them.
#
# Everything lives in .venv and target/, and stamp files in .venv remember what was done, so that a second run does only
# what changed sources ask for. The stamps die with the environment they tell of.
#
# Variables: PYTHON=python3.13 makes .venv from that interpreter (and anew when it was another one).

VENV := .venv
BIN := $(VENV)/bin
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)

# What the user's shell has activated must not leak into the build: maturin asks these which environment to install to.
export VIRTUAL_ENV := $(abspath $(VENV))
unexport CONDA_PREFIX PYTHONHOME PYTHONPATH
# rustup's place, for shells opened before Rust was installed.
export PATH := $(PATH):$(HOME)/.cargo/bin

EXAMPLES := examples/scientists.py examples/crunch.py examples/scrape.py
RUST_EXAMPLES := $(basename $(notdir $(wildcard crates/fanmap/examples/*.rs)))
BENCHES := $(filter-out benches/_%,$(wildcard benches/*.py))
# Directories are in it too: removing a file changes its directory's time.
ENGINE_SOURCES := $(shell find crates/*/src crates/*/Cargo.toml crates/*/build.rs Cargo.toml Cargo.lock 2>/dev/null)

say = @echo "==> $(1)"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo build test test-rust test-loom test-python conformance lint bench docs clean FORCE

help: ## list these words
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
		awk -F'|' '{printf "%-20s %s\n", $$1, $$2}'

# ---- what the words stand on ----

# Made anew when PYTHON names another interpreter than the one it was made from.
MADE_FROM := $(shell cat $(VENV)/.made 2>/dev/null)
$(VENV)/.made: $(if $(and $(PYTHON),$(filter-out $(PYTHON),$(MADE_FROM))),FORCE)
	$(call say,looking for Python$(comma) Rust and a linker$(comma) and making $(VENV))
	@tools/setup.sh $(VENV)

# pip needs pyproject.toml for the names of the packages alone, and does nothing when they are there.
$(VENV)/.maturin: pyproject.toml $(VENV)/.made
	$(call say,installing maturin into $(VENV))
	@$(call pip,--group build)
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.made
	$(call say,installing the test and lint tools into $(VENV))
	@$(call pip,--group test --group lint)
	@touch $@

# The package is installed in place: python/fanmap is imported from the tree, so only Rust sources ask for a build.
$(VENV)/.built: $(ENGINE_SOURCES) pyproject.toml $(VENV)/.maturin
	$(call say,building the engine and installing fanmap into $(VENV) (the first time takes minutes))
	@$(BIN)/maturin develop --release
	@touch $@

comma := ,
pip = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(1) || \
	{ echo "setup: pip could not install these packages (see above); is there a network, or a proxy to set?" >&2; exit 1; }

# ---- the words ----

build: $(VENV)/.built ## build fanmap and install it into .venv

demo: $(VENV)/.built ## build, install, and run the three examples
	@set -e; for example in $(EXAMPLES); do \
		echo "==> running $$example"; $(BIN)/python $$example; echo; \
	done

test: test-rust test-loom test-python ## run every test
	$(call say,all tests passed)

test-rust: $(VENV)/.made ## the engine's tests, its doc tests and its examples
	$(call say,Rust tests)
	@if cargo nextest --version >/dev/null 2>&1; then cargo nextest run; else cargo test --lib --bins --tests; fi
	$(call say,Rust doc tests)
	@cargo test --quiet --doc
	@set -e; for example in $(RUST_EXAMPLES); do \
		echo "==> Rust example $$example"; FANMAP_DEMO=small cargo run --quiet -p fanmap --example $$example; \
	done

# Its own target directory: the flag would otherwise rebuild everything at each change of word.
test-loom: $(VENV)/.made ## the models of the lock-free algorithms
	$(call say,loom models of the algorithms between processes and between threads)
	@RUSTFLAGS="$(RUSTFLAGS) --cfg loom" CARGO_TARGET_DIR=$(TARGET)/loom cargo test -p fanmap-shm -p fanmap --release --lib

# tests/test_examples.py runs the Python examples, tests/test_readme.py the code in the pages.
test-python: $(VENV)/.built $(VENV)/.dev ## the package's tests and doc tests, the examples, the pages' code
	$(call say,Python tests)
	@FANMAP_DEMO=small $(BIN)/python -m pytest --doctest-modules tests python/fanmap

# PYTHONS=/path/to/python3.13 (or several) asks for these alone; CONFORMANCE=--with-suite for the newest that has the tests.
conformance: $(VENV)/.maturin ## CPython's own tests of concurrent.futures against fanmap, on every Python here
	$(call say,CPython's tests of concurrent.futures)
	@$(BIN)/python conformance/run.py $(foreach python,$(PYTHONS),--python $(python)) $(CONFORMANCE)

lint: $(VENV)/.dev ## formats, clippy, ruff, mypy and the layers' order
	@cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || \
		{ echo "lint: rustfmt or clippy is missing; with rustup: rustup component add rustfmt clippy" >&2; exit 1; }
	$(call say,cargo fmt)
	@cargo fmt --all --check
	$(call say,clippy)
	@PYO3_PYTHON=$(abspath $(BIN)/python) cargo clippy --quiet --workspace --all-targets -- -D warnings
	$(call say,ruff)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || \
		{ echo "lint: ruff format would change files; to let it: $(BIN)/ruff format" >&2; exit 1; }
	$(call say,mypy)
	@$(BIN)/mypy
	$(call say,the order of the layers)
	@$(BIN)/python tools/check_layers.py

bench: $(VENV)/.built $(VENV)/.dev ## run the benchmarks against the installed package
	@set -e; for bench in $(BENCHES); do \
		echo "==> $$bench"; $(BIN)/python $$bench; echo; \
	done

docs: $(VENV)/.made ## the Rust documentation, in target/doc
	@RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

clean: ## remove everything that was made
	rm -rf .venv target .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find python tests examples benches tools -name __pycache__ -prune -exec rm -rf {} +
	rm -f python/fanmap/_native*.so

FORCE:
