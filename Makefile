# make demo [KEEP=1]   the whole job on real data; KEEP=1 leaves the servers and the worker running
# make test [COV=1]    the test suite; COV=1 measures its coverage, too
# make quick           tests of single functions and modules, about a minute
# make one T=tests/unit/test_construction.py::test_…   one test or file, with the output it prints
# make check           linters, types, layers, locks, compose file and Dockerfile
# make fmt             format, and fix what the linter can fix
# make matrix          install, demo and quick tests on each Python of this machine, in folders of their own
# make lock            the newest versions that pyproject.toml allows, into deploy/lock-*.txt
# make bench           measurements
# make shape           sizes of modules and functions, helpers used once, classes
# make soak            the long run under faults; SOAK='--requests 50000 --faults 500' makes it shorter
# make mutants         small changes to pure modules and to the server's scripts, each of which a test must notice
# make clean           stop and remove the local servers, their data, .venv and caches; data/ and artifacts/ stay
# PYTHON=/path/to/python picks the interpreter, 3.11 to 3.14.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test quick one check fmt matrix lock bench shape soak mutants clean

ifdef PYTHON
export PYTHON
endif
# Processes that test at once; tests of whole processes mostly wait for those to start, so one more than the cores of CI.
JOBS ?= 3
python = .venv/bin/python
QUICK ?= tests/unit

help:
	@sed -n 's/^# //p' Makefile | head -n 13

demo:
	@deploy/venv.sh demo
	@$(python) -m worker demo $(if $(filter-out 0 no false,$(KEEP)),--keep)

test:
	@deploy/venv.sh dev
	@$(python) -m pytest --numprocesses $(JOBS) --dist worksteal $(if $(filter-out 0 no false,$(COV)),--cov --cov-report=term)

quick:
	@deploy/venv.sh dev
	@$(python) -m pytest --numprocesses $(JOBS) --dist worksteal -m 'not slow' $(QUICK)

one:
	@deploy/venv.sh dev
	@$(if $(T),,echo 'make one T=tests/unit/test_construction.py::test_…' >&2; exit 2)
	@$(python) -m pytest -p no:randomly -s $(T)

check:
	@deploy/venv.sh dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(python) deploy/lock.py --check
	.venv/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	.venv/bin/hadolint Dockerfile

fmt:
	@deploy/venv.sh dev
	.venv/bin/ruff check --fix-only --quiet .
	.venv/bin/ruff format .

matrix:
	@deploy/matrix.sh

lock:
	@deploy/venv.sh dev
	@$(python) deploy/lock.py

bench:
	@deploy/venv.sh bench
	@$(python) -m tests.benchmarks --output docs/benchmarks.md

shape:
	@deploy/venv.sh dev
	@$(python) -m tests.shape

soak:
	@deploy/venv.sh dev
	@$(python) -m tests.faults.soak $(SOAK)

mutants:
	@deploy/venv.sh dev
	@$(python) -m tests.mutants.modules
	@$(python) -m tests.mutants.scripts

clean:
	@if [[ -x .venv/bin/python && -d .local ]]; then .venv/bin/python -m worker demo --stop || true; fi
	@if [[ -x .venv/bin/python && -d .local ]]; then .venv/bin/python -m worker local down --wipe || true; fi
	rm -rf .local .venv .uv .matrix .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* dist mutants
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
