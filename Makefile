# One word for each check; CI runs the same words. `make` alone lists them.
#
# Everything lives in .venv and target/, and stamp files in .venv remember what was done, so that a second run does only
# what changed sources ask for. The stamps die with the environment they tell of.
#
# Variables: PYTHON=python3.13 makes .venv from that interpreter (and anew when it was another one). BENCH_PYTHON does the
# same for .venv-bench, where fanmap is measured beside its peers; without it both are made from the same interpreter.

VENV := .venv
BIN := $(VENV)/bin
BENCH_VENV := .venv-bench
BENCH_BIN := $(BENCH_VENV)/bin
CLUSTER_VENV := .venv-cluster
CLUSTER_BIN := $(CLUSTER_VENV)/bin
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)

# What the user's shell has activated must not leak into the build: maturin asks these which environment to install to.
export VIRTUAL_ENV := $(abspath $(VENV))
unexport CONDA_PREFIX PYTHONHOME PYTHONPATH
# rustup's place, for shells opened before Rust was installed.
export PATH := $(PATH):$(HOME)/.cargo/bin

EXAMPLES := examples/scientists.py examples/crunch.py examples/scrape.py
RUST_EXAMPLES := $(basename $(notdir $(wildcard crates/fanmap/examples/*.rs)))
# What the large peers are asked for with: WITH="ray dask".
WITH :=
# Directories are in it too: removing a file changes its directory's time.
ENGINE_SOURCES := $(shell find crates/*/src crates/*/Cargo.toml crates/*/build.rs Cargo.toml Cargo.lock 2>/dev/null)
PACKAGE_SOURCES := $(shell find python/fanmap -name '*.py')

say = @echo "==> $(1)"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo build test test-rust test-loom test-python test-cluster chaos fuzz soak conformance conformance-joblib \
	lint wheel bench bench-short bench-rust bench-peers bench-cluster bench-env docs clean FORCE

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

$(VENV)/.docs: pyproject.toml $(VENV)/.made
	$(call say,installing mkdocs into $(VENV))
	@$(call pip,--group docs)
	@touch $@

$(VENV)/.release: pyproject.toml $(VENV)/.made
	$(call say,installing twine into $(VENV))
	@$(call pip,--group release)
	@touch $@

# The package is installed in place: python/fanmap is imported from the tree, so only Rust sources ask for a build.
$(VENV)/.built: $(ENGINE_SOURCES) pyproject.toml $(VENV)/.maturin
	$(call say,building the engine and installing fanmap into $(VENV) (the first time takes minutes))
	@$(BIN)/maturin develop --release
	@touch $@

# The environment of the benchmarks: the peers by their pinned versions, and fanmap from a wheel, as its users have it.
BENCH_MADE_FROM := $(shell cat $(BENCH_VENV)/.made 2>/dev/null)
$(BENCH_VENV)/.made: $(if $(and $(BENCH_PYTHON),$(filter-out $(BENCH_PYTHON),$(BENCH_MADE_FROM))),FORCE) | $(VENV)/.made
	$(call say,making $(BENCH_VENV))
	@PYTHON="$${BENCH_PYTHON:-$$(cat $(VENV)/.made)}" tools/setup.sh $(BENCH_VENV)

$(BENCH_VENV)/.peers: pyproject.toml $(BENCH_VENV)/.made
	$(call say,installing the peers into $(BENCH_VENV))
	@$(call pip,--group bench,$(BENCH_BIN))
	@touch $@

$(BENCH_VENV)/.%: pyproject.toml $(BENCH_VENV)/.made
	$(call say,installing $* into $(BENCH_VENV))
	@$(call pip,--group bench-$*,$(BENCH_BIN))
	@touch $@

# The environment with Ray and Dask, which are large. It has the Python of .venv, for which the engine was built, and
# takes fanmap from the tree.
$(CLUSTER_VENV)/.made: $(VENV)/.made
	$(call say,making $(CLUSTER_VENV))
	@PYTHON="$$(cat $(VENV)/.made)" tools/setup.sh $(CLUSTER_VENV)

$(CLUSTER_VENV)/.test: pyproject.toml $(CLUSTER_VENV)/.made
	$(call say,installing the test tools into $(CLUSTER_VENV))
	@$(call pip,--group test,$(CLUSTER_BIN))
	@touch $@

$(CLUSTER_VENV)/.%: pyproject.toml $(CLUSTER_VENV)/.made
	$(call say,installing $* into $(CLUSTER_VENV) (Ray is large))
	@$(call pip,--group cluster-$* "cloudpickle>=3$(comma)<4",$(CLUSTER_BIN))
	@touch $@

# A target of its own: PyO3 is built for one interpreter, and for the next one anew.
$(BENCH_VENV)/.fanmap: $(ENGINE_SOURCES) $(PACKAGE_SOURCES) pyproject.toml $(VENV)/.maturin $(BENCH_VENV)/.peers
	$(call say,building the wheel of fanmap and installing it into $(BENCH_VENV))
	@rm -rf $(TARGET)/bench/wheels
	@CARGO_TARGET_DIR=$(TARGET)/bench $(BIN)/maturin build --release --quiet \
		--interpreter $(abspath $(BENCH_BIN)/python) --out $(TARGET)/bench/wheels
	@$(call pip,--no-deps --force-reinstall $(TARGET)/bench/wheels/*.whl,$(BENCH_BIN))
	@touch $@

comma := ,
pip = $(or $(2),$(BIN))/python -m pip install --quiet --disable-pip-version-check $(1) || \
	{ echo "setup: pip could not install these packages (see above); is there a network, or a proxy to set?" >&2; exit 1; }

# ---- the words ----

build: $(VENV)/.built ## build fanmap and install it into .venv

# With EXECUTOR=threads, processes, ray or dask: one job on that, which is installed beside if it has to be.
ifeq ($(EXECUTOR),)
demo: $(VENV)/.built ## build, install, and run the three examples; EXECUTOR=ray (or dask, ...) runs one job on that
	@set -e; for example in $(EXAMPLES); do \
		echo "==> running $$example"; $(BIN)/python $$example; echo; \
	done
else
demo: $(VENV)/.built $(if $(filter ray dask,$(EXECUTOR)),$(CLUSTER_VENV)/.$(EXECUTOR))
	@EXECUTOR=$(EXECUTOR) PYTHONPATH=$(abspath python) \
		$(if $(filter ray dask,$(EXECUTOR)),$(CLUSTER_BIN),$(BIN))/python examples/anywhere.py
endif

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
	@FANMAP_DEMO=small $(BIN)/python -m pytest --doctest-modules tests python/fanmap $(LARGE:%=--ignore=%)

# Ray and Dask are for `make test-cluster`, and so are the executors of others that need packages.
LARGE := python/fanmap/ray.py python/fanmap/dask.py
test-cluster: $(VENV)/.built $(addprefix $(CLUSTER_VENV)/.,test ray dask parsl mpi) ## what needs Ray, Dask, parsl or MPI
	$(call say,Ray$(comma) Dask$(comma) parsl and MPI)
	@FANMAP_DEMO=small PYTHONPATH=$(abspath python) $(CLUSTER_BIN)/python -m pytest -o faulthandler_timeout=180 --doctest-modules $(LARGE) \
		tests/test_ray.py tests/test_dask.py tests/test_cluster.py tests/test_any_executor.py tests/test_anywhere.py \
		tests/test_readme.py

chaos: $(VENV)/.built $(VENV)/.dev ## worker processes are killed, stopped and crashed; a short form is in `make test`
	$(call say,chaos)
	@$(BIN)/python tests/chaos.py

# In `make test` for a moment each. What is found is shown at its smallest.
FUZZ := 600
fuzz: ## workers that write whatever they like: FUZZ=600 seconds for each of the properties, side by side
	$(call say,fuzz)
	@FANMAP_FUZZ_SECONDS=$(FUZZ) cargo test -p fanmap --lib supervisor::hostile -- --nocapture

# PYTHONS=/path/to/python3.13 (or several) asks for these alone; CONFORMANCE=--with-suite for the newest that has the tests.
conformance: $(VENV)/.maturin ## CPython's own tests of concurrent.futures against fanmap, on every Python here
	$(call say,CPython's tests of concurrent.futures)
	@$(BIN)/python conformance/run.py $(foreach python,$(PYTHONS),--python $(python)) $(CONFORMANCE)

conformance-joblib: $(VENV)/.built $(VENV)/.dev ## joblib's own tests of Parallel against fanmap's backends for it
	$(call say,joblib's tests of Parallel)
	@$(BIN)/python conformance/run_joblib.py $(CONFORMANCE_JOBLIB)

lint: $(VENV)/.dev ## formats, clippy, ruff, mypy and the layers' order
	@cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || \
		{ echo "lint: rustfmt or clippy is missing; with rustup: rustup component add rustfmt clippy" >&2; exit 1; }
	$(call say,cargo fmt)
	@cargo fmt --all --check
	@cargo fmt --manifest-path $(PEERS) --check
	$(call say,no syntax newer than Rust 1.85)
	@# Clippy holds the library to it, not the syntax; what came since (chains of let) is refused in edition 2021.
	@rustfmt --edition 2021 --emit stdout $$(find crates -name '*.rs') >/dev/null
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

# On the PATH is .venv's maturin.
wheel: $(VENV)/.maturin $(VENV)/.release ## what goes to PyPI, in target/dist: built from the sources alone, and tried elsewhere
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python tools/wheel.py

bench-env: $(BENCH_VENV)/.fanmap $(foreach peer,$(WITH),$(BENCH_VENV)/.$(peer)) ## .venv-bench, with fanmap and its peers

bench: bench-rust bench-env ## every benchmark; figures are kept in benches/results (WITH="ray dask" for these peers)
	@set -e; for bench in import_time memory kinds choice joblib_search speed; do \
		echo "==> benches/$$bench.py"; $(BENCH_BIN)/python benches/$$bench.py --save \
			$$([ $$bench = speed ] && echo $(foreach peer,$(WITH),--with-$(peer))); echo; \
	done

bench-cluster: $(VENV)/.built $(CLUSTER_VENV)/.ray $(CLUSTER_VENV)/.dask ## our executors over Ray and Dask beside what these have themselves
	@PYTHONPATH=$(abspath python) $(CLUSTER_BIN)/python benches/cluster.py --save

bench-short: bench-env ## whole programs against the nearest peers, in less than three minutes
	@$(BENCH_BIN)/python benches/speed.py --short

soak: $(VENV)/.built ## 10,000,000 tasks and 2,000 pools in one process: memory and descriptors stay flat
	$(call say,soak)
	@$(BIN)/python benches/soak.py

bench-rust: $(VENV)/.made ## micro-benchmarks of the engine's parts
	$(call say,Rust benchmarks)
	@cargo bench --quiet --benches

# A workspace of its own, with a lock file of its own: nothing else builds the peers. TABLES="slice stream" makes these alone,
# and KEEP= keeps nothing.
PEERS := benches/peers/Cargo.toml
TABLES :=
KEEP := --save
bench-peers: $(VENV)/.made ## the Rust crate beside rayon, pariter, orx-parallel and procspawn; kept in benches/results/rust.md
	$(call say,fanmap beside its Rust peers (some minutes))
	@CARGO_TARGET_DIR=$(abspath $(TARGET))/peers cargo run --release --quiet --manifest-path $(PEERS) -- $(TABLES) $(KEEP)

docs: $(VENV)/.docs ## the docs as a site, in site/, with the Rust documentation; a warning is an error
	$(call say,Rust documentation)
	@RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps
	$(call say,the pages)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs --quiet build --strict
	@cp -r $(TARGET)/doc site/rust
	@echo "    site/index.html"

clean: ## remove everything that was made
	rm -rf .venv .venv-bench .venv-cluster target site .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find python tests examples benches tools -name __pycache__ -prune -exec rm -rf {} +
	rm -f python/fanmap/_native*.so

FORCE:
