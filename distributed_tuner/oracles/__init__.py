"""Loss oracles: one protocol, one member a file, built from its config where it will live."""

from typing import assert_never

from distributed_tuner.config.oracle import AnalyticOracleConfig, OracleConfig, TransformersOracleConfig
from distributed_tuner.oracles.base import LossOracle


def build(config: OracleConfig) -> LossOracle:
    """Build the oracle of a config, here and now: loads the model.

    Raises:
        ModelError: the model cannot be found, loaded or used.
    """
    match config:
        case TransformersOracleConfig():
            from distributed_tuner.oracles.transformers import TransformersOracle

            return TransformersOracle(config)
        case AnalyticOracleConfig():
            from distributed_tuner.oracles.analytic import AnalyticOracle

            return AnalyticOracle(config)
        case _:
            assert_never(config)
