PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test clean

demo: .venv/demo.installed ## from raw text to a tested assistant, in minutes, on a laptop CPU
	$(BIN)/smelt run recipes/demo.yaml

test: .venv/dev.installed ## lint, types, the order of rooms, and every test that is not marked slow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto -m "not slow"

clean: ## remove the environment; artifacts/ and runs/ stay
	rm -rf .venv

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "smelt needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv .venv

.venv/demo.installed: .venv/bin/pip pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[post]"
	@touch $@

.venv/dev.installed: .venv/bin/pip pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@
