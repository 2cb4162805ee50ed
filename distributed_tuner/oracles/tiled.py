"""One local oracle, asked tile by tile: the same bits as a pool of actors gives, without Ray."""

import math
from collections.abc import Sequence

from distributed_tuner.config.oracle import Tile
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.tiling import cut, merge
from distributed_tuner.values import (
    Array,
    Candidate,
    Cost,
    Evaluation,
    Layout,
    OracleInfo,
    PromptSpec,
    Request,
    TokenSpace,
)


class TiledOracle:
    """Wraps an oracle so that requests are cut as the dispatcher cuts them."""

    def __init__(self, oracle: LossOracle, tile: Tile) -> None:
        self._oracle = oracle
        self._tile = tile

    @property
    def info(self) -> OracleInfo:
        return self._oracle.info

    def cost(self, request: Request) -> Cost:
        return self._oracle.cost(request)

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        cuts = cut(request, self._tile)
        return merge(request, cuts, [self._oracle.evaluate(piece.of(request)) for piece in cuts])

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
