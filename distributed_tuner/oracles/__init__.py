"""Loss oracles: one protocol, one member a file, built from its config where it will live."""

from typing import assert_never

from distributed_tuner.config.oracle import (
    AnalyticOracleConfig,
    CustomOracleConfig,
    GivenOracleConfig,
    OpenAIOracleConfig,
    OracleConfig,
    TransformersOracleConfig,
    VllmOracleConfig,
)
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.base import LossOracle


def build(config: OracleConfig) -> LossOracle:
    """Build the oracle of a config, here and now: loads the model, and opens the cache of its answers if it has one.

    Raises:
        ModelError: the model cannot be found, loaded or used.
    """
    oracle = _build(config)
    if config.cache is None:
        return oracle
    from distributed_tuner.oracles.wrappers.cached import CachedOracle

    return CachedOracle(oracle, config.cache, config)


def _build(config: OracleConfig) -> LossOracle:
    match config:
        case GivenOracleConfig() | TransformersOracleConfig(given=True):
            raise ModelError(
                "the model of this run was handed in by a Python program, and is not kept with it; hand it in again"
                " (distributed_tuner.load(path, model=...))"
            )
        case TransformersOracleConfig():
            from distributed_tuner.oracles.local.oracle import TransformersOracle

            return TransformersOracle(config)
        case AnalyticOracleConfig():
            from distributed_tuner.oracles.analytic import AnalyticOracle

            return AnalyticOracle(config)
        case VllmOracleConfig():
            from distributed_tuner.oracles.served.vllm import VllmOracle

            return VllmOracle(config)
        case OpenAIOracleConfig():
            from distributed_tuner.oracles.served.openai import OpenAIOracle

            return OpenAIOracle(config)
        case CustomOracleConfig():
            from distributed_tuner.oracles.custom import build_custom

            return build_custom(config)
        case _:
            assert_never(config)
