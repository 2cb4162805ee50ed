"""One local oracle, asked tile by tile: the same bits as a pool of actors gives, without Ray."""

import logging
import math

from distributed_tuner.config.oracle import Tile
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.tiling import cut, merge
from distributed_tuner.oracles.wrappers.base import WrappedOracle
from distributed_tuner.values import Evaluation, Request

log = logging.getLogger(__name__)


class TiledOracle(WrappedOracle):
    """Wraps an oracle so that requests are cut as the dispatcher cuts them. What answers have to tell is logged, each
    sort once, except for examples that are refused."""

    def __init__(self, oracle: LossOracle, tile: Tile) -> None:
        super().__init__(oracle)
        self._tile = tile
        self._told: set[str] = set()

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        cuts = cut(request, self._tile)
        answer = merge(request, cuts, [self._oracle.evaluate(piece.of(request)) for piece in cuts])
        for kind, message in answer.remarks:
            if kind == "refused_example" or kind not in self._told:
                self._told.add(kind)
                log.warning("%s", message)
        return answer
