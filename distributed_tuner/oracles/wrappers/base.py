"""An oracle around another: what it does not do itself, the inner one does."""

import math

from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.codec import PromptCodec, codec_of
from distributed_tuner.oracles.generation import writer
from distributed_tuner.values import (
    Answer,
    Cost,
    Evaluation,
    OracleInfo,
    Request,
    Sampling,
)


class WrappedOracle:
    """Hands everything on to ``oracle``."""

    def __init__(self, oracle: LossOracle) -> None:
        self._oracle = oracle

    @property
    def info(self) -> OracleInfo:
        return self._oracle.info

    def cost(self, request: Request) -> Cost:
        return self._oracle.cost(request)

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        return self._oracle.evaluate(request, timeout)

    @property
    def codec(self) -> PromptCodec:
        return codec_of(self._oracle)

    def write(self, instruction: str, sampling: Sampling) -> Answer:
        return writer(self._oracle).write(instruction, sampling)
