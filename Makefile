# The commands of this project; .ci/run calls the very same ones. `make` alone lists them.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# Python may keep its bytecode: importing torch and ray takes twice as long without, in every worker.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help .venv demo test format-check format lint types contracts tests chaos bench-run bench-estimates bench-imagenet bench-queries bench-training bench-scheduling bench-coverage bench-driver bench-report scaling lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[.a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv: $(READY) ## make the environment (every target below does it when needed)
	@:

# uv installs the lock in a quarter of pip's time. It does not read pip's settings (a mirror, say), so pip stands in where uv fails;
# the lock's hashes hold for both.
$(READY): pyproject.toml requirements.lock | $(BIN)/uv
	@echo "setup: installing requirements.lock (the first time fetches about 3 GB on Linux, mostly torch)"
	@$(BIN)/uv pip install --quiet --no-config --python $(BIN)/python --require-hashes -r requirements.lock \
	  || { echo "setup: uv could not; installing with pip instead"; \
	       $(BIN)/python -m pip install -qq --no-deps --require-hashes -r requirements.lock; }
	@echo "setup: installing feldman itself, editable"
	@$(BIN)/python -m pip install -qq --no-deps --no-build-isolation --editable .
	@touch $@

$(BIN)/uv: | $(BIN)/python
	@echo "setup: installing uv"
	@awk '/^[^ #]/ {found = /^uv==/} found' requirements.lock > $(VENV)/uv.lock
	@$(BIN)/python -m pip install -qq --no-deps --require-hashes -r $(VENV)/uv.lock

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"setup: feldman needs Python 3.11 or newer, found {sys.version.split()[0]}; name another one: make PYTHON=python3.12")'
	@echo "setup: making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

demo: $(READY) ## train 2,000+ small models on the digits, print what was memorized
	$(BIN)/feldman run digits -o runs/digits
	$(BIN)/feldman memorized runs/digits --top 10
	$(BIN)/feldman pairs runs/digits --top 10
	@echo "The results lie in runs/digits: trials.zarr, memorization.parquet, influence.parquet, events.jsonl"

test: format-check lint types contracts tests ## all checks: formatting, lint, types, import contracts, tests

format-check: $(READY)
	$(BIN)/ruff format --check --quiet

format: $(READY) ## format the code and sort its imports
	$(BIN)/ruff check --quiet --select I --fix
	$(BIN)/ruff format

lint: $(READY) ## ruff
	$(BIN)/ruff check --quiet

types: $(READY) ## mypy, strict
	$(BIN)/mypy

contracts: $(READY) ## who may import whom
	$(BIN)/lint-imports --no-logo

tests: $(READY) ## pytest only; pass options with ARGS="-k planted"
	$(BIN)/python -m pytest $(ARGS)

chaos: export FELDMAN_CHAOS_ROUNDS ?= 50
chaos: $(READY) ## the chaos tests, long form; FELDMAN_CHAOS_ROUNDS=50 sets how long
	$(BIN)/python -m pytest -m chaos --timeout 7200 $(ARGS)

bench-run: $(READY) ## the main job on the digits beside a plain PyTorch loop; writes build/bench/run.json
	$(BIN)/python -m tests.benchmarks.bench_run

bench-estimates: $(READY) ## the engine at CIFAR-100's shape beside the dense formula, and as shapes double; build/bench/estimates.json
	$(BIN)/python -m tests.benchmarks.bench_estimates

bench-imagenet: $(READY) ## all pairs of ImageNet's shape on this machine; writes build/bench/imagenet.json
	$(BIN)/python -m tests.benchmarks.bench_imagenet

bench-queries: $(READY) ## questions to tables of up to ten million pairs; writes build/bench/queries.json
	$(BIN)/python -m tests.benchmarks.bench_queries

bench-training: $(READY) ## models a second beside a plain PyTorch loop; writes build/bench/training.json
	$(BIN)/python -m tests.benchmarks.bench_training

bench-scheduling: $(READY) ## how busy workers are, commits a second, memory of driver and workers; build/bench/scheduling.json
	$(BIN)/python -m tests.benchmarks.bench_scheduling

bench-driver: $(READY) ## one driver beside 1,000 simulated workers: its processor time and memory; build/bench/driver.json
	$(BIN)/python -m tests.benchmarks.bench_driver

bench-coverage: $(READY) ## how often intervals cover and chance looks significant, on known truths; writes build/bench/coverage.json
	$(BIN)/python -m tests.benchmarks.bench_coverage

bench-report: $(READY) ## the page of a run of CIFAR-100's shape: time, memory, size of the file; build/bench/report.json
	$(BIN)/python -m tests.benchmarks.bench_report

scaling: $(READY) ## remake the tables of cluster/SCALING.md: costs of the presets, measured costs of the driver, a simulation
	$(BIN)/python cluster/scaling_tables.py --seed 0 --write cluster/SCALING.md

lock: $(BIN)/uv ## resolve pyproject.toml anew into requirements.lock; UPGRADE=--upgrade takes the newest of everything
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
	  --no-config --no-header --no-emit-index-url --quiet $(UPGRADE) --output-file requirements.lock

clean: ## remove the environment, caches and build outputs; runs/ stays
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find feldman tests cluster -name __pycache__ -type d -prune -exec rm -rf {} +
