"""Models that a run tunes, as proposers ask them: an oracle of this process, and one that is made up."""

from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.oracles.generation import writer
from distributed_tuner.testing.proposers import WORDS, MadeUpModel
from distributed_tuner.values import Answer, Sampling, TokenSpace

__all__ = ["WORDS", "MadeUpModel", "OracleModel"]


class OracleModel:
    """The model of an oracle."""

    def __init__(self, oracle: LossOracle) -> None:
        self._oracle = oracle
        self.name = oracle.info.model

    def words(self) -> tuple[str, ...]:
        return codec_of(self._oracle).vocabulary(TokenSpace())

    def write(self, instruction: str, sampling: Sampling) -> Answer:
        return writer(self._oracle).write(instruction, sampling)
