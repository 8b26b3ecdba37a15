# `make` lists the targets. Each installs what it needs: the package alone, or also what is for
# developing it.
PYTHON ?= python3.11
VENV ?= .venv
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PACKAGE := $(VENV)/.package
DEV := $(VENV)/.dev

.DEFAULT_GOAL := help
.PHONY: help demo test gpu lint format typecheck docs notebooks figures results check clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(PACKAGE) ## Train on made-up scans and draw the results into demo/
	rm -rf demo # what an earlier demo made
	$(BIN)/stitchnet demo --out demo

# One thread for each worker: torch's own threads would fight over the cores.
test: export OMP_NUM_THREADS = 1
test: export OMP_WAIT_POLICY = passive
test: $(DEV) ## Run the tests (PYTEST_ARGS="-m 'not slow'" for the quick ones)
	$(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

gpu: $(DEV) ## Run what needs a GPU and write gpu.md
	$(BIN)/python benchmarks/gpu_report.py --out gpu.md

lint: $(DEV) ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

format: $(DEV) ## Fix style and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(DEV) ## Check the types
	$(BIN)/mypy

# The site's engine advertises on every build.
docs: export NO_MKDOCS_2_WARNING = 1
docs: $(DEV) ## Build the documentation into site/ and check its links
	$(BIN)/mkdocs build

# The warning is of a missing widget, which no page shows.
notebooks: export PYTHONWARNINGS = ignore:IProgress not found
notebooks: export PATH := $(abspath $(BIN)):$(PATH)
notebooks: $(DEV) ## Run the tutorials again and keep their outputs (some minutes)
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace docs/tutorials/*.ipynb

figures: MODEL := runs/counterfactuals/guided-128-350-40-60-0.pt
figures: $(DEV) ## Draw the figures of README and docs again (some minutes)
	$(BIN)/python benchmarks/counterfactuals.py --size 128 --steps 350 --out runs/counterfactuals
	$(BIN)/python docs/overview.py $(MODEL) --out docs/overview.png
	$(BIN)/python examples/queries.py $(MODEL) --size 128 --samples 4 --out runs/queries
	$(BIN)/python docs/images.py runs/counterfactuals runs/queries

results: $(PACKAGE) ## Write the result tables of README and docs again, from benchmarks/results
	$(BIN)/python docs/tables.py

check: lint typecheck test docs ## All of the above checks

clean: ## Remove the environment, the demo and every cache
	rm -rf $(VENV) demo build dist site htmlcov .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(PACKAGE): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -e .
	touch $@

$(DEV): $(PACKAGE)
	$(BIN)/pip install -e '.[dev]'
	touch $@
