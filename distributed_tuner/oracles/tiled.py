"""One local oracle, asked tile by tile: the same bits as a pool of actors gives, without Ray."""

import math

from distributed_tuner.config.oracle import Tile
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.tiling import cut, merge
from distributed_tuner.oracles.wrapped import WrappedOracle
from distributed_tuner.values import Evaluation, Request


class TiledOracle(WrappedOracle):
    """Wraps an oracle so that requests are cut as the dispatcher cuts them."""

    def __init__(self, oracle: LossOracle, tile: Tile) -> None:
        super().__init__(oracle)
        self._tile = tile

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        cuts = cut(request, self._tile)
        return merge(request, cuts, [self._oracle.evaluate(piece.of(request)) for piece in cuts])
