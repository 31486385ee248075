# The targets for developers. CI and the README use the same ones.
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help

help: ## list all targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# build.txt contains runtime.txt and the packages that build syncd; one call of pip takes half the time of two. The locks
# are complete, hence --no-deps: pip would resolve a package with an extra to its newest version, which has no hash.
.venv/runtime: requirements/build.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/build.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

.venv/dev: .venv/runtime requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.txt
	@touch $@

install: .venv/runtime ## install syncd into .venv, from hashed requirements
.PHONY: help install

demo: .venv/runtime ## mirror a stand-in Albert, create, delete, reconcile, show the database
	$(BIN)/syncd demo
.PHONY: demo

# Without stored bytecode, each worker would compile all tests, and each started syncd all of its modules.
unexport PYTHONDONTWRITEBYTECODE

# A file is run by one worker. Without the option, files with few tests run last, and these are the slowest.
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder

test: .venv/dev ## run the tests, on all cores
	$(BIN)/python -m pytest -q $(PARALLEL) $(ARGS)
.PHONY: test

test-fast: .venv/dev ## run one case of each test that needs no other process; about a minute on two cores
	$(BIN)/python -m pytest -q $(PARALLEL) -m "not slow" $(ARGS)
.PHONY: test-fast

# An environment with the lowest version of each direct dependency, for PYTHON (3.11 in CI).
.venv-lowest/ready: .venv/dev pyproject.toml
	rm -rf .venv-lowest
	$(PYTHON) -m venv .venv-lowest
	$(COMPILE) --only-binary :all: --python .venv-lowest/bin/python --resolution lowest-direct \
		pyproject.toml --all-extras --group test --group build -o .venv-lowest/requirements.txt
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
		-r .venv-lowest/requirements.txt
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

NEED_DEV_TOOLS := --ignore tests/browser --ignore tests/container
test-lowest: .venv-lowest/ready ## run the fast tests with the lowest versions that pyproject.toml allows
	.venv-lowest/bin/python -m pytest -q $(PARALLEL) -m "not slow" -p no:cacheprovider $(NEED_DEV_TOOLS) $(ARGS)
.PHONY: test-lowest

coverage: .venv/dev ## run the tests and report untested lines and branches
	$(BIN)/python -m pytest -q $(PARALLEL) --cov --cov-report=term:skip-covered $(ARGS)
.PHONY: coverage

check: .venv/dev ## format, lint, types, imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
.PHONY: check

docs: .venv/dev ## write the generated pages and files (CONTRIBUTING.md lists them)
	$(BIN)/python -m docs.reference
	$(BIN)/python -m docs.generate
.PHONY: docs

# The model from SEED on, for SECONDS; every kill with three seeds; a lock of 30 s, a queue of a million operations.
soak: .venv/dev ## the reliability tests in their long form: make soak SECONDS=3600 SEED=1000000
	$(BIN)/python -m tests.model.soak --seconds $(or $(SECONDS),600) --first $(or $(SEED),1) --jobs $(or $(JOBS),2)
	$(BIN)/python -m tests.kills --seeds 3 --jobs $(or $(JOBS),2)
	LOCKED_SECONDS=30 QUEUED=1000000 $(BIN)/python -m pytest -q tests/hostile/test_hostile_machine.py
.PHONY: soak

soak-pg: .venv/dev ## 10,000 operations on four replicas on PostgreSQL, one of them killed every second (minutes)
	SOAK_PG_OPERATIONS=$${SOAK_PG_OPERATIONS:-10000} $(BIN)/python -m pytest -q -s tests/processes -k soak $(ARGS)
.PHONY: soak-pg

bench-replicas: .venv/dev ## operations a second of 1, 2 and 4 replicas on PostgreSQL (minutes)
	$(BIN)/python -m benchmarks.replicas
.PHONY: bench-replicas

format: .venv/dev ## format, and apply the automatic fixes of the linter
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
.PHONY: format

VERSION = $(shell sed -nE 's/^version = "(.+)"$$/\1/p' pyproject.toml)
version: ## print the version
	@echo $(VERSION)
.PHONY: version

# The wheel is built from the unpacked source distribution, as installers do. Both work without a network.
DIST ?= dist
dist: .venv/runtime ## build the source distribution and the wheel into dist/
	rm -rf $(DIST)
	$(BIN)/python -m hatchling build --target sdist --directory $(DIST)
	tar --extract --gzip --file $(DIST)/syncd-$(VERSION).tar.gz --directory $(DIST)
	cd $(DIST)/syncd-$(VERSION) && $(CURDIR)/$(BIN)/python -m hatchling build --target wheel --directory ..
	rm -r $(DIST)/syncd-$(VERSION)
.PHONY: dist

IMAGE ?= syncd
image: ## build the container image, as syncd and as syncd:VERSION
	docker build --tag $(IMAGE) --tag $(IMAGE):$(VERSION) --build-arg VERSION=$(VERSION) \
		--build-arg REVISION=$$(git rev-parse --short HEAD 2>/dev/null || echo unknown) $(OPTIONS) .
.PHONY: image

image-test: .venv/dev ## build the image and run it in a Docker engine of its own (root, docker.io, debootstrap)
	tests/container/run.sh $(ARGS)
.PHONY: image-test

bench: .venv/dev ## measure against the floors; writes results, plots and docs/performance.md (on a quiet machine)
	$(BIN)/python -m benchmarks $(ARGS)
.PHONY: bench

bench-profiles: .venv/dev ## write the profiles in docs/performance.md
	$(BIN)/python -m benchmarks.profile docs $(ARGS)
.PHONY: bench-profiles

.venv-peers/ready: requirements/peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/peers.txt
	@touch $@

bench-peers: .venv/dev .venv-peers/ready ## measure dlt, the official SDK and the Singer SDK on the same data
	$(BIN)/python -m benchmarks.compare .venv-peers/bin/python $(ARGS)
.PHONY: bench-peers

COMPILE := $(BIN)/uv pip compile --quiet --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links
LOCK := $(COMPILE) --universal --python-version 3.11
lock: .venv/dev ## write the hashed requirements
	$(LOCK) pyproject.toml -o requirements/runtime.txt
	$(LOCK) pyproject.toml --group build -c requirements/runtime.txt -o requirements/build.txt
	$(LOCK) requirements/peers.in -o requirements/peers.txt
	$(LOCK) pyproject.toml --all-extras --group dev -c requirements/runtime.txt -c requirements/build.txt -o requirements/dev.txt
.PHONY: lock
