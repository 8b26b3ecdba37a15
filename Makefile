# `make` lists the targets. Each creates the environment that it needs.
PYTHON ?= python3.11
VENV ?= .venv
PYTEST_ARGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test gpu lint format typecheck check clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## Train on made-up scans and draw the results into demo/
	rm -rf demo # what an earlier demo made
	$(BIN)/stitchnet demo --out demo

# One thread for each worker: torch's own threads would fight over the cores.
test: export OMP_NUM_THREADS = 1
test: export OMP_WAIT_POLICY = passive
test: $(INSTALLED) ## Run the tests (PYTEST_ARGS="-m 'not slow'" for the quick ones)
	$(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

gpu: $(INSTALLED) ## Run what needs a GPU and write gpu.md
	$(BIN)/python benchmarks/gpu_report.py --out gpu.md

lint: $(INSTALLED) ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED) ## Mend style and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(INSTALLED) ## Check the types
	$(BIN)/mypy

check: lint typecheck test ## All of the above checks

clean: ## Remove the environment, the demo and every cache
	rm -rf $(VENV) demo build dist site htmlcov .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -e '.[dev]'
	touch $@
