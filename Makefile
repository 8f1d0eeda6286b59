# Everything one does with this repository. `make` alone tells what there is.
# From nothing but make and Python 3.11+: each target sets up what it needs in .venv, once.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
# Parallel test runners, each with a PostgreSQL server of its own, and further arguments to pytest or the benchmark.
JOBS ?= auto
ARGS ?=

# What depends on the PostgreSQL version, repeated on every server version found: capture, reading, applying.
OTHERS := capture source target wal
ENGINE_TESTS := tests/unit/test_embedded.py $(OTHERS:%=tests/integration/test_postgres_%.py)

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-all test-others lint fmt bench build clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(VENV)/.dev ## a virtual environment in .venv with all that development needs

demo: $(VENV)/.demo ## watch two SQLite factories and a PostgreSQL one replicate, break and recover (ARGS=--keep)
	$(BIN)/replicator demo $(ARGS)

test: $(VENV)/.dev ## all tests but the long ones, on the first PostgreSQL found (ARGS=..., REPLICATOR_TEST_SERVER=..., JOBS=...)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

test-all: $(VENV)/.dev ## all tests, the long ones too, then those of the engines on every other PostgreSQL found
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not bench" $(ARGS)
	$(MAKE) test-others

test-others: $(VENV)/.dev ## the tests of the engines on every PostgreSQL found but the first
	@set -e; for label in $$($(BIN)/python -m tests.fixtures.others); do \
		echo "== $$label"; \
		REPLICATOR_TEST_SERVER=$$label $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ENGINE_TESTS) -k "not sqlite-sqlite and not postgres-sqlite" -m "not slow and not long" $(ARGS); \
	done

lint: $(VENV)/.dev ## style, types and floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(VENV)/.dev ## put the style right
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(VENV)/.dev ## measure: cost at the source, drain, latency, memory (minutes; results as a table and JSON)
	$(BIN)/python -m tests.benchmarks $(ARGS)

build: $(VENV)/.dev ## sdist and wheel in dist/
	$(BIN)/python -m build --no-isolation --outdir dist

clean: ## remove what make made: .venv, dist, caches
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv installs in seconds where it works; pip knows every mirror and proxy of the machine, and stands in.
define install
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv 2>/dev/null || true
	@$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --editable '$(1)' 2>/dev/null \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '$(1)'
	@touch $@
endef

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer found; name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(call install,.[demo])

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(call install,.[demo$(comma)test$(comma)dev])
	@touch $(VENV)/.demo

comma := ,
