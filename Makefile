# `make demo` needs python3, make and a network for pip, nothing else; `make test` a C++ compiler, too.
# The environment lives in .venv and is made here; a second run only checks its stamps.

PYTHON ?= python3
VENV ?= .venv
DEMO_OUT ?= demo
DEMO_PHOTOS ?= $(addprefix examples/photos/,open.jpg pointing.jpg fist.jpg)

# Test files run side by side in so many processes, each with a copy of torch.
TEST_JOBS ?= auto --maxprocesses 4

ARM64_BUNDLE ?= light
TFLITE_BUNDLE ?= light

# What an app may import; the first is the public face.
DOCUMENTED := handmesh $(addprefix handmesh.,backends backends.onnx backends.tflite bundle detector \
  draw errors finding geometry imaging smoothing verification video)

# Each fuzz test runs that many cases, some a multiple: 100,000 and more in all.
FUZZ_CASES ?= 2500

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder
INPUTS := setup.py constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check dev docs bench wheel arm64 tflite-runtime fuzz clean

help:  ## List the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 16

demo: $(VENV)/.base  ## Run the shipped model on the example photos
	$(BIN)/handmesh predict $(DEMO_PHOTOS) --out $(DEMO_OUT)
	@echo "Look at $(DEMO_OUT)/*_hand.png (the mesh over the photo) and $(DEMO_OUT)/*_side.png;"
	@echo "the .glb files open in any 3D viewer, the .json files hold the joints."

test: $(VENV)/.dev  ## Run the tests, but for the slow ones
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-slow: $(VENV)/.dev  ## Run the slow tests
	$(PYTEST) -m slow $(PYTEST_ARGS)

check: $(VENV)/.dev  ## Lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks/suites

dev: $(VENV)/.dev  ## Install what development needs

docs: $(VENV)/.dev  ## Make pages of the docstrings, in build/docs
	$(BIN)/python -m pdoc --docformat google --no-show-source --output-directory build/docs $(DOCUMENTED)
	@echo "Open build/docs/handmesh.html"

# Outside the checkout, with the base install's packages alone: what `pip install handmesh` would give.
wheel: $(BIN)/python  ## Build the wheel and prove it in an environment of its own
	rm -rf build/lib build/bdist.* build/wheel
	$(PIP) wheel --quiet --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt \
	  build/wheel/handmesh-*.whl
	cd build/wheel && venv/bin/handmesh verify
	cd build/wheel && venv/bin/handmesh predict $(CURDIR)/examples/photos/open.jpg --out hand

# A run is compared with the one before it; what became slower is named and fails nothing, as a
# smoke run on a busy machine proves nothing.
bench: $(VENV)/.dev  ## Measure latency on this machine, and the parts of the code: a smoke run of minutes
	@for name in benchmark benchmark_suites; do \
	  if [ -f $$name.json ]; then mv -f $$name.json $$name.before.json; fi; done
	$(BIN)/handmesh bench --out benchmark.json
	$(BIN)/python -m pytest benchmarks/suites --benchmark-only --benchmark-max-time=0.2 \
	  --benchmark-min-rounds=3 --benchmark-json=benchmark_suites.json -q
	@for name in benchmark benchmark_suites; do \
	  if [ -f $$name.before.json ]; then \
	    $(BIN)/handmesh bench --compare $$name.before.json $$name.json || true; fi; done

tflite-runtime: $(VENV)/.dev  ## Prove the TFLite export in tflite-runtime 2.14 with NumPy 1 (Python 3.10 or 3.11)
	$(BIN)/handmesh export $(TFLITE_BUNDLE) --format tflite --out .tflite-runtime/bundle
	PYTHON=$(PYTHON) tests/tflite_runtime/verify.sh .tflite-runtime/bundle

arm64: $(VENV)/.dev  ## Prove the exports on emulated ARM64 (Debian, qemu-user-static, debootstrap, root)
	$(BIN)/handmesh export $(ARM64_BUNDLE) --format onnx,tflite --out .arm64/bundle
	PYTHON=$(BIN)/python tests/arm64/verify.sh .arm64/bundle

fuzz: $(VENV)/.dev  ## Hand over 100,000 broken photos, boxes, bundles and videos (an hour or so)
	FUZZ_CASES=$(FUZZ_CASES) $(BIN)/python -m pytest tests/fuzz -q -p no:cacheprovider --capture=no $(PYTEST_ARGS)

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

# Python compiles what is imported. All of it beforehand would be half of the installation's work.
$(VENV)/.dev: $(INPUTS) | $(BIN)/python
	$(PIP) install --quiet --no-compile -c constraints.txt -e ".[dev]"
	@touch $(VENV)/.base $@
