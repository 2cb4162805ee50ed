"""The oracles that the suites run over: both analytic functions and a tiny model of every architecture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import plain_model, save_tiny

from distributed_tuner import oracles
from distributed_tuner.config.oracle import AnalyticOracleConfig, TransformersOracleConfig
from distributed_tuner.oracles.base import LossOracle


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return the directory of a tiny model, made at the first call."""
    made: dict[tuple[str, bool], Path] = {}

    def directory(architecture: str, bos: bool = False) -> Path:
        key = (architecture, bos)
        if key not in made:
            made[key] = save_tiny(architecture, tmp_path_factory.mktemp(f"{architecture}-bos{bos}"), bos)
        return made[key]

    return directory


@pytest.fixture(scope="session")
def tiny_config(tiny_directory: Callable[..., Path]) -> Callable[..., TransformersOracleConfig]:
    """Return the oracle settings of a tiny model."""

    def config(architecture: str, bos: bool = False, **more: Any) -> TransformersOracleConfig:
        settings = {"dtype": "float32", "device": "cpu", "threads": 1} | more
        return TransformersOracleConfig(kind="transformers", model=str(tiny_directory(architecture, bos)), **settings)

    return config


@pytest.fixture(scope="session")
def tiny_oracle(tiny_config: Callable[..., TransformersOracleConfig]) -> Callable[..., LossOracle]:
    """Return the oracle of a tiny model; one a setting and session."""
    built: dict[str, LossOracle] = {}

    def oracle(architecture: str, bos: bool = False, **more: Any) -> LossOracle:
        config = tiny_config(architecture, bos, **more)
        return built.setdefault(config.model_dump_json(), oracles.build(config))

    return oracle


@pytest.fixture(scope="session")
def plain(tiny_directory: Callable[..., Path]) -> Callable[..., tuple[Any, Any]]:
    """Return a tiny model and its tokenizer as transformers loads them."""
    loaded: dict[tuple[str, bool], tuple[Any, Any]] = {}

    def model(architecture: str, bos: bool = False) -> tuple[Any, Any]:
        key = (architecture, bos)
        if key not in loaded:
            loaded[key] = plain_model(tiny_directory(architecture, bos))
        return loaded[key]

    return model


@pytest.fixture(scope="session")
def analytic() -> Callable[..., LossOracle]:
    """Return an analytic oracle."""
    return lambda **more: oracles.build(AnalyticOracleConfig(kind="analytic", **more))
