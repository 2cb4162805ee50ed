"""The package's exports, the cost of importing it, and the examples in docstrings."""

import doctest
import importlib
import subprocess
import sys

import pytest

import distributed_tuner

NAMES = [
    *("tune", "load", "Result", "PromptClassifier"),
    *("Callback", "StepEvent", "EvaluationEvent", "RestartEvent", "EndEvent"),
    *("Transformers", "Server", "Vllm", "Analytic", "Task"),
    *("SoftPrompt", "TextPrompt", "Budget"),
    *("Cma", "Zot", "RandomSearch", "Nevergrad", "TokenEdit", "AdamW", "Sgd"),
    *("LossOracle", "Optimizer", "Head", "TunerError"),
]
OPTIMIZERS = ("base", "zot", "cma", "surrogate", "random_search", "nevergrad", "first_order")
HEADS = ("base", "affine", "bias", "centroid", "label_words", "neighbours", "unlabelled", "vocabulary")
DOCUMENTED = [
    *("api", "callbacks", "classifier", "result", "oracles.base"),
    *("config.oracle", "config.server", "config.optimizer"),
    *(f"optimizers.{name}" for name in OPTIMIZERS),
    *(f"heads.{name}" for name in HEADS),
]


def test_the_public_surface_is_this() -> None:
    assert distributed_tuner.__all__ == NAMES
    assert set(NAMES) <= set(dir(distributed_tuner))


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_there_and_says_what_it_is(name: str) -> None:
    found = getattr(distributed_tuner, name)
    assert found.__doc__.strip()


def test_a_name_that_is_not_exported_is_none() -> None:
    with pytest.raises(AttributeError, match="tuna"):
        distributed_tuner.tuna  # noqa: B018


def test_importing_the_package_loads_nothing_else() -> None:
    code = "import sys, distributed_tuner\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded & {"numpy", "pydantic", "torch", "ray", "pandas", "sklearn", "transformers"} == set()


@pytest.mark.parametrize("module", DOCUMENTED)
def test_the_examples_of_docstrings_run(module: str) -> None:
    results = doctest.testmod(importlib.import_module(f"distributed_tuner.{module}"))
    assert results.attempted
    assert not results.failed
