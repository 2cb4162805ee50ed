"""How a request is cut into tiles, and how their answers become one.

The cut follows from the request and the tile size alone, never from how many actors there are, so that a tile's shapes
and with them its bits are the same whoever computes it. Both signs of a perturbation pair share a tile.
"""

from dataclasses import dataclass, replace

import numpy as np

from distributed_tuner.config.oracle import Tile
from distributed_tuner.oracles.base import evaluation
from distributed_tuner.oracles.tile_size import even_candidates
from distributed_tuner.values import Cost, Evaluation, Request


@dataclass(frozen=True, slots=True)
class Cut:
    """One tile of a request: which of its candidates and examples, as half-open ranges."""

    candidates: tuple[int, int]
    examples: tuple[int, int]

    def of(self, request: Request) -> Request:
        """Return the tile as a request of its own."""
        first, last = self.examples
        batch = replace(request.batch, examples=request.batch.examples[first:last])
        return Request(request.candidates[self.candidates[0] : self.candidates[1]], batch, request.prompt)


def cut(request: Request, tile: Tile) -> list[Cut]:
    """Return the tiles of a request, candidates outermost."""
    even = even_candidates(tile)
    return [
        Cut(candidates, examples)
        for candidates in _ranges(len(request.candidates), even)
        for examples in _ranges(len(request.batch.examples), tile.examples)
    ]


def merge(request: Request, cuts: list[Cut], answers: list[Evaluation]) -> Evaluation:
    """Put the tiles' logits together and take the losses over all examples, in the request's order.

    Queries are those of the request: a candidate cut into several tiles is still one query.
    """
    logits = np.empty(
        (len(request.candidates), len(request.batch.examples), len(request.batch.label_words)), dtype=np.float32
    )
    cost = Cost()
    for piece, answer in zip(cuts, answers, strict=True):
        logits[slice(*piece.candidates), slice(*piece.examples)] = answer.logits
        cost = cost + answer.cost
    return evaluation(logits, request.batch, replace(cost, queries=len(request.candidates)))


def _ranges(count: int, size: int) -> list[tuple[int, int]]:
    return [(at, min(at + size, count)) for at in range(0, count, size)]
