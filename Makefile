# `make demo` and `make test` need python3, make and a network for pip, nothing else.
# The environment lives in .venv and is made here; a second run only checks its stamps.

PYTHON ?= python3
VENV ?= .venv
DEMO_OUT ?= demo
DEMO_PHOTOS ?= $(addprefix examples/photos/,open.jpg pointing.jpg hooked.jpg)

ARM64_BUNDLE ?= light

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INPUTS := setup.py constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test check dev bench arm64 clean

help:  ## List the targets
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 10

demo: $(VENV)/.base  ## Run the shipped model on the example photos
	$(BIN)/handmesh predict $(DEMO_PHOTOS) --out $(DEMO_OUT)
	@echo "Look at $(DEMO_OUT)/*_hand.png (the mesh over the photo) and $(DEMO_OUT)/*_side.png;"
	@echo "the .glb files open in any 3D viewer, the .json files hold the joints."

test: $(VENV)/.dev  ## Run the tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.dev  ## Lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

dev: $(VENV)/.dev  ## Install what development needs

bench: $(VENV)/.dev  ## Measure latency on this machine, and the parts of the code: a smoke run of minutes
	$(BIN)/handmesh bench --out benchmark.json
	$(BIN)/python -m pytest benchmarks/suites --benchmark-only --benchmark-max-time=0.2 \
	  --benchmark-min-rounds=3 --benchmark-json=benchmark_suites.json -q

arm64: $(VENV)/.dev  ## Prove the exports on emulated ARM64 (Debian, qemu-user-static, debootstrap, root)
	$(BIN)/handmesh export $(ARM64_BUNDLE) --format onnx,tflite --out .arm64/bundle
	PYTHON=$(BIN)/python tests/arm64/verify.sh .arm64/bundle

clean:  ## Remove the environment, the demo's pictures and the tools' caches
	rm -rf $(VENV) $(DEMO_OUT) build dist .mypy_cache .pytest_cache .ruff_cache .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "handmesh needs Python 3.10 or newer; set PYTHON=..., e.g. make demo PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamp of the larger install also stands for the smaller one.
$(VENV)/.base: $(INPUTS) | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(INPUTS) | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e ".[dev]"
	@touch $(VENV)/.base $@
