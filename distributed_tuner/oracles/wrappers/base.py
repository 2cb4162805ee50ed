"""An oracle around another: what it does not do itself, the inner one does."""

import math
from collections.abc import Sequence

from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.generation import writer
from distributed_tuner.values import (
    Answer,
    Array,
    Batch,
    Candidate,
    Cost,
    Evaluation,
    Layout,
    OracleInfo,
    PromptSpec,
    Request,
    Sampling,
    TokenSpace,
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

    def materialize(self, candidate: Candidate, prompt: PromptSpec) -> Array:
        return self._oracle.materialize(candidate, prompt)

    def nearest_tokens(self, rows: Array, layout: Layout = "prefix") -> list[tuple[str, float]]:
        return self._oracle.nearest_tokens(rows, layout)

    def project(self, rows: Sequence[Array], layout: Layout, space: TokenSpace) -> list[str]:
        return self._oracle.project(rows, layout, space)

    def token_count(self, text: str) -> int:
        return self._oracle.token_count(text)

    def vocabulary(self, space: TokenSpace) -> tuple[str, ...]:
        return self._oracle.vocabulary(space)

    def answer_words(self, batch: Batch, count: int) -> tuple[str, ...]:
        return self._oracle.answer_words(batch, count)

    def write(self, instruction: str, sampling: Sampling) -> Answer:
        return writer(self._oracle).write(instruction, sampling)
