"""Fixtures of the analyses: tiny models that give gradients."""

from collections.abc import Callable

import pytest
from tiny_models import save_tiny

from distributed_tuner import oracles
from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.oracles.base import LossOracle


@pytest.fixture(scope="session")
def tiny_white(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LossOracle]:
    """Return the oracle of a tiny random model of an architecture, in float32."""

    def build(architecture: str) -> LossOracle:
        model = str(save_tiny(architecture, tmp_path_factory.mktemp(architecture)))
        return oracles.build(
            TransformersOracleConfig(
                kind="transformers", model=model, dtype="float32", device="cpu", threads=1, gradients=True
            )
        )

    return build
