# make demo [KEEP=1]   the whole job on real data; KEEP=1 leaves the servers and the worker running
# make test            the test suite, with coverage
# make check           linters, types, layers, compose file and Dockerfile
# make bench           measurements
# make soak          the long run under faults; SOAK='--requests 50000 --faults 500' makes it shorter
# make constraints     the newest versions that pyproject.toml allows, into deploy/constraints.txt
# make clean           stop and remove the local servers, their data, .venv and caches; data/ and artifacts/ stay
# PYTHON=/path/to/python picks the interpreter (3.11 or 3.12).

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test check bench soak constraints clean

ifdef PYTHON
export PYTHON
endif
# Processes that test at once; tests of whole processes mostly wait for those to start, so one more than the cores of CI.
JOBS ?= 3
# Where the system has no OpenMP runtime, deploy/venv.sh links the one that a wheel carries.
python = if [[ -d .venv/lib/openmp ]]; then export LD_LIBRARY_PATH="$$PWD/.venv/lib/openmp"; fi; .venv/bin/python

help:
	@sed -n 's/^# //p' Makefile | head -n 8

demo:
	@deploy/venv.sh demo
	@$(python) -m worker demo $(if $(filter-out 0 no false,$(KEEP)),--keep)

test:
	@deploy/venv.sh dev
	@$(python) -m pytest --numprocesses $(JOBS) --cov --cov-report=term

check:
	@deploy/venv.sh dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	.venv/bin/hadolint Dockerfile

bench:
	@deploy/venv.sh bench
	@$(python) -m tests.benchmarks --output docs/benchmarks.md

constraints:
	@head=$$(grep '^#' deploy/constraints.txt); echo "$$head" > deploy/constraints.txt
	rm -rf .venv
	@deploy/venv.sh dev
	@deploy/venv.sh bench
	@.venv/bin/python -m pip --disable-pip-version-check freeze --exclude-editable >> deploy/constraints.txt

soak:
	@deploy/venv.sh dev
	@$(python) -m tests.faults.soak $(SOAK)

clean:
	@if [[ -x .venv/bin/python && -d .local ]]; then .venv/bin/python -m worker demo --stop || true; fi
	@if [[ -x .venv/bin/python && -d .local ]]; then .venv/bin/python -m worker local down --wipe || true; fi
	rm -rf .local .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
