# Everything a fresh clone needs: `make demo`, `make test`, `make check`. Only python3 (3.11 or newer) must be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

ROWS ?= 200000
ONLY ?=

.PHONY: demo test chaos soak bench check lint wheel clean help

help:  ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

demo: $(VENV)/run  ## try everything on sample data with the offline models, then stop
	@$(BIN)/headrace demo

test: $(VENV)/dev  ## run the tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

chaos: $(VENV)/dev  ## run the long chaos campaigns: kills, outages, broken networks, hostile peers
	$(BIN)/python -m pytest tests/chaos --long --ignore=tests/chaos/test_soak.py

soak: $(VENV)/dev  ## send ROWS=200000 rows while all kinds of things go wrong
	$(BIN)/python -m pytest tests/chaos/test_soak.py --long --rows=$(ROWS)

bench: $(VENV)/dev  ## measure what is promised, as ratios side by side; one of them with ONLY=hop
	$(BIN)/python -m benchmarks $(ONLY)

check: lint test  ## lint, types and import rules, then the tests

lint: $(VENV)/dev  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

wheel: $(VENV)/dev  ## build the wheel into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "headrace needs Python 3.11 or newer: call make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/run: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[local]'
	@touch $@

$(VENV)/dev: $(VENV)/run
	$(PIP) --editable '.[dev]'
	@touch $@

clean:  ## remove the environment and what was built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
