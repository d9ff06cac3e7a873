# Two commands set up a fresh machine: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
BIN := .venv/bin
SETUP := $(PYTHON) contrib/setup.py

.PHONY: demo test check lint format clean

demo:            ## install what it needs, then one buyer, two sellers, one answer; Q="..." asks that
	@$(SETUP)
	@$(BIN)/lyceum demo $(if $(Q),"$(Q)")

test:            ## install what it needs, then run every test
	@$(SETUP) --dev
	@$(BIN)/python -m pytest

check: lint test ## format, lint, types, import directions, tests

lint:
	@$(SETUP) --dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format:
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
