# Every target sets up .venv first if it is missing. Needs Python >= 3.11, make and a C++ compiler.
PYTHON ?= python3
# Overridable, for machines that want another build: make test TORCH=torch==2.12.0
TORCH ?= torch
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-fast lint format doctor bench gpu-check clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## Set up .venv (torch first, pinned; then the package with its extras)

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "equilidar needs Python >= 3.11; call make with PYTHON=python3.11 or newer" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps waymo-open-dataset-tf-2-12-0==1.6.7
	@touch $@

quickstart: setup ## Simulate, pretrain, finetune from scratch and pretrained, evaluate, report (<= 15 min on 2 cores)
	$(BIN)/python tools/quickstart.py $(if $(FRESH),--fresh)

test: setup ## Run the whole CPU test suite; what a machine lacks is listed at the end
	$(BIN)/python -m pytest --numprocesses $(JOBS)

test-fast: setup ## Run all tests but the slow ones
	$(BIN)/python -m pytest --numprocesses $(JOBS) -m "not slow"

lint: setup ## Check style (ruff) and types (pyright)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: setup ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

doctor: setup ## Say what is installed and usable here, and what to do about the rest
	$(BIN)/python tools/doctor.py

bench: setup ## Print sweeps/s of the simulator and the time of the evaluator
	$(BIN)/python benchmarks/simulator.py
	$(BIN)/python benchmarks/kitti_evaluator.py

gpu-check: setup ## Run what needs a GPU
	$(BIN)/python -m pytest -m gpu

clean: ## Remove .venv and caches; runs/ stays
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis *.egg-info
