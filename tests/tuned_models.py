"""Models that a run tunes, as proposers ask them: an oracle of this process, and one that is made up."""

from dataclasses import dataclass, field

from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.generation import require_room, writer
from distributed_tuner.seeds import generator
from distributed_tuner.values import Answer, Sampling, TokenSpace

WORDS = tuple(f" word{i}" for i in range(40))


class OracleModel:
    """The model of an oracle."""

    def __init__(self, oracle: LossOracle) -> None:
        self._oracle = oracle
        self.name = oracle.info.model

    def words(self) -> tuple[str, ...]:
        return self._oracle.vocabulary(TokenSpace())

    def write(self, instruction: str, sampling: Sampling) -> Answer:
        return writer(self._oracle).write(instruction, sampling)


@dataclass
class MadeUpModel:
    """Has words and writes some of them, by the seed; ``context`` is in words. ``asked``: what it was asked."""

    name: str = "made-up"
    vocabulary: tuple[str, ...] = WORDS
    context: int = 128
    asked: list[Sampling] = field(default_factory=list)

    def words(self) -> tuple[str, ...]:
        return self.vocabulary

    def write(self, instruction: str, sampling: Sampling) -> Answer:
        self.asked.append(sampling)
        count = len(instruction.split())
        require_room(count, sampling, self.context)
        drawn = generator((sampling.seed,)).choice(self.vocabulary, 5)
        return Answer("Say" + "".join(drawn), count, 6, 0.25, 0.001)
