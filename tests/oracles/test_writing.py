"""Oracles that write, and those that do not; room for an answer."""

import pytest

from distributed_tuner.config.oracle import AnalyticOracleConfig
from distributed_tuner.errors import ModelError, ProposerError
from distributed_tuner.oracles.analytic import AnalyticOracle
from distributed_tuner.oracles.generation import require_room, writer
from distributed_tuner.oracles.wrappers.base import WrappedOracle
from distributed_tuner.values import Answer, Sampling

SAMPLING = Sampling(8, 0.5, 1)


class WritingOracle(AnalyticOracle):
    def write(self, instruction: str, sampling: Sampling) -> Answer:
        return Answer(f"{instruction} {sampling.seed}")


@pytest.fixture
def config() -> AnalyticOracleConfig:
    return AnalyticOracleConfig(kind="analytic")


def test_an_oracle_that_writes_does_so_through_what_is_around_it(config: AnalyticOracleConfig) -> None:
    around = WrappedOracle(WrappedOracle(WritingOracle(config)))
    assert writer(around).write("Say", SAMPLING) == Answer("Say 1")


@pytest.mark.parametrize("wrapped", [False, True])
def test_one_that_does_not_says_what_does(wrapped: bool, config: AnalyticOracleConfig) -> None:
    oracle = AnalyticOracle(config)
    with pytest.raises(ModelError, match=r"AnalyticOracle does not; set oracle\.kind: vllm"):
        writer(WrappedOracle(oracle) if wrapped else oracle).write("Say", SAMPLING)


def test_an_answer_needs_room() -> None:
    require_room(92, SAMPLING, 100)
    with pytest.raises(ProposerError, match=r"100 tokens, but they may have 93 \+ 8; lower proposer\.max_tokens"):
        require_room(93, SAMPLING, 100)
