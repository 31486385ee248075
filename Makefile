# What there is to do here; CI and the README call the same targets.
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help

help: ## list what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/runtime: requirements/runtime.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/runtime.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

.venv/dev: .venv/runtime requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

install: .venv/runtime ## install syncd into .venv, from hashed requirements
.PHONY: help install

demo: .venv/runtime ## mirror a stand-in Albert, create, delete, reconcile, show the database
	$(BIN)/syncd demo
.PHONY: demo

test: .venv/dev ## run the tests
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered -q $(ARGS)
.PHONY: test

SECONDS ?= 600
JOBS ?= 2
SEED ?= 1
soak: .venv/dev ## run the model from SEED for SECONDS, then kill syncd at every place it has, three seeds
	$(BIN)/python -m tests.model.soak --seconds $(SECONDS) --first $(SEED) --jobs $(JOBS)
	$(BIN)/python -m tests.kills --seeds 3 --jobs $(JOBS)
	QUEUED=1000000 $(BIN)/python -m pytest -q tests/hostile -k queue --timeout 900
.PHONY: soak

check: .venv/dev ## format, lint, types, imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
.PHONY: check

format: .venv/dev ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
.PHONY: format

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	--no-emit-index-url --no-emit-find-links
lock: ## write the hashed requirements anew
	$(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet uv
	$(LOCK) pyproject.toml -o requirements/runtime.txt
	$(LOCK) pyproject.toml --group build -c requirements/runtime.txt -o requirements/build.txt
	$(LOCK) pyproject.toml --all-extras --group dev -c requirements/runtime.txt -c requirements/build.txt -o requirements/dev.txt
.PHONY: lock
