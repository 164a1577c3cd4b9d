# Every target sets up .venv first if it is missing. Needs Python >= 3.11, make and a C++ compiler.
PYTHON ?= python3
# Overridable, for machines that want another build: make test TORCH=torch==2.12.0
TORCH ?= torch
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2

NVCC ?= nvcc
# The interpreter that holds the CUDA build of torch: that of .venv if there is one.
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))

.DEFAULT_GOAL := help
.PHONY: help setup kernels kernels-report quickstart test test-learning test-fast lint format doctor bench bench-simulator gpu-check bundle bench-data bench-evaluators kernels-sanitize clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## Set up .venv (torch first, pinned; then the package with its extras)

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "equilidar needs Python >= 3.11; call make with PYTHON=python3.11 or newer" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps waymo-open-dataset-tf-2-12-0==1.6.7 nuscenes-devkit==1.2.0
	@touch $@

kernels: $(VENV)/.kernels ## Build and install the compiled kernels (cuda_ext/) into .venv; CUDA ones where nvcc and torch allow

KERNEL_SOURCES := $(wildcard cuda_ext/*.py cuda_ext/*.toml cuda_ext/csrc/* cuda_ext/csrc/bind/* cuda_ext/equilidar_kernels/*.py)
$(VENV)/.kernels: $(VENV)/.ready $(KERNEL_SOURCES)
	MAX_JOBS=$(JOBS) $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation ./cuda_ext
	@touch $@

kernels-report: ## Print registers and spills of every CUDA kernel (nvcc alone, no PyTorch, no GPU)
	@for source in cuda_ext/csrc/*.cu; do \
	  for arch in sm_80 sm_90; do \
	    echo "== $$source $$arch"; \
	    $(NVCC) -arch=$$arch -std=c++20 --fmad=false -Xptxas -v -c -Icuda_ext/csrc $$source -o /dev/null 2>&1 | c++filt \
	      | grep -E 'error|Compiling entry|Used|spill' || exit 1; \
	  done; \
	done

kernels-sanitize: setup ## Build the CPU kernels with address and undefined-behaviour sanitizers, run the ops' tests on them
	MAX_JOBS=$(JOBS) $(BIN)/python cuda_ext/sanitize.py

quickstart: setup kernels ## Simulate, pretrain, finetune from scratch and pretrained, evaluate, report (<= 15 min on 2 cores)
	$(BIN)/python tools/quickstart.py $(if $(FRESH),--fresh)

test: setup kernels ## Run the whole CPU test suite; what a machine lacks is listed at the end
	$(BIN)/python -m pytest --numprocesses $(JOBS) -m "not learning"

test-learning: setup kernels ## Run the tests that train for tens of minutes
	$(BIN)/python -m pytest --numprocesses $(JOBS) -m learning

test-fast: setup kernels ## Run all tests but the slow ones
	$(BIN)/python -m pytest --numprocesses $(JOBS) -m "not slow and not learning"

lint: setup ## Check style (ruff) and types (pyright)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: setup ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

doctor: setup ## Say what is installed and usable here, and what to do about the rest
	$(BIN)/python tools/doctor.py

bench: setup kernels ## Measure the kernels against what users run today; one table, and runs/bench.json
	-$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/bench.py

bench-simulator: setup ## Print sweeps/s of the simulator and the time of the KITTI evaluator
	$(BIN)/python benchmarks/simulator.py
	$(BIN)/python benchmarks/kitti_evaluator.py

gpu-check: ## Run what needs a GPU, all stages or STAGE=ops (PYTHON and BUNDLE=runs/bundle.tar.xz on an offline machine)
	$(GPU_PYTHON) benchmarks/gpu_check.py $(STAGE) $(if $(BUNDLE),--bundle $(BUNDLE))

bundle: setup ## Collect what an offline GPU machine lacks into runs/bundle.tar.xz (at most 64 MiB)
	$(BIN)/python benchmarks/bundle.py

bench-data: setup ## Print pairs/s of raw and packed sweeps, alone and with the pipeline, against OpenPCDet's way of loading
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/data.py

bench-evaluators: setup ## Time the evaluators at the size of the validation sets, beside the official tools where installed
	$(BIN)/python benchmarks/evaluators.py

clean: ## Remove .venv and caches; runs/ stays
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis *.egg-info
