"""Tiles of a request: cutting, and merging of their answers.

The cut follows from the request and the tile size alone, never from how many actors there are, so that a tile's shapes
and with them its bits are the same on every worker. Both signs of a perturbation pair share a tile.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from distributed_tuner.config.oracle import Tile
from distributed_tuner.oracles.base import counted, evaluation
from distributed_tuner.oracles.decoding import evaluation_of_texts
from distributed_tuner.oracles.tile_size import even_candidates
from distributed_tuner.values import Array, Cost, Evaluation, Request


@dataclass(frozen=True, slots=True)
class Cut:
    """One tile of a request: which of its candidates and examples, as half-open ranges."""

    candidates: tuple[int, int]
    examples: tuple[int, int]

    def of(self, request: Request) -> Request:
        """Return the tile as a request of its own."""
        first, last = self.examples
        batch = replace(request.batch, examples=request.batch.examples[first:last])
        return replace(request, candidates=request.candidates[self.candidates[0] : self.candidates[1]], batch=batch)


def cut(request: Request, tile: Tile) -> list[Cut]:
    """Return the tiles of a request, candidates outermost."""
    candidates, examples = _sides(request, tile)
    return [Cut(some, rows) for some in candidates for rows in examples]


def tile_count(request: Request, tile: Tile) -> int:
    """Return how many tiles a request has: as many devices may be busy with it."""
    candidates, examples = _sides(request, tile)
    return len(candidates) * len(examples)


def merge(request: Request, cuts: list[Cut], answers: list[Evaluation]) -> Evaluation:
    """Put the tiles' logits, likelihoods or texts together and take the losses over all examples, in their order.

    Gradients are those of the tiles' mean losses, weighed by the tiles' examples. Queries are those of the request: a
    candidate cut into several tiles is still one query, and none if all of its tiles were kept from before.
    """
    logits = np.empty((len(request.candidates), len(request.batch.examples), request.batch.scores), dtype=np.float32)
    cost, kept = Cost(), np.ones(len(request.candidates), dtype=np.bool_)
    words = len(request.batch.label_words) + len(request.batch.answer_words)
    features = np.empty((*logits.shape[:2], words), dtype=np.float16) if request.batch.answer_words else None
    for piece, answer in zip(cuts, answers, strict=True):
        logits[slice(*piece.candidates), slice(*piece.examples)] = answer.logits
        if features is not None:
            features[slice(*piece.candidates), slice(*piece.examples)] = answer.features
        cost = cost + answer.cost
        kept[slice(*piece.candidates)] &= False if answer.kept is None else answer.kept
    asked = tuple(candidate for candidate, free in zip(request.candidates, kept, strict=True) if not free)
    cost = replace(cost, queries=counted(replace(request, candidates=asked), 0).queries)
    counts = sum((Counter(answer.counts) for answer in answers), Counter[str]())
    if request.batch.question == "texts":
        merged = evaluation_of_texts(_merged_texts(request, cuts, answers), request.batch, cost, counts)
    else:
        merged = evaluation(logits, request.batch, cost, _merged_gradients(request, cuts, answers), counts, features)
    return replace(
        merged,
        kept=kept if kept.any() else None,
        remarks=tuple(dict.fromkeys(remark for answer in answers for remark in answer.remarks)),
        tops=summed(answer.tops for answer in answers),
    )


def summed(tops: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Merge the listed tokens of several answers (``Evaluation.tops``)."""
    total: dict[str, float] = {}
    for one in tops:
        for token, chance in one.items():
            total[token] = total.get(token, 0.0) + chance
    return total


def _merged_texts(request: Request, cuts: list[Cut], answers: list[Evaluation]) -> list[list[str | None]]:
    """Return the texts (C)(E) of a request."""
    texts: list[list[str | None]] = [[None] * len(request.batch.examples) for _ in request.candidates]
    for piece, answer in zip(cuts, answers, strict=True):
        for row, told in zip(texts[slice(*piece.candidates)], answer.texts, strict=True):
            row[slice(*piece.examples)] = told
    return texts


def _merged_gradients(request: Request, cuts: list[Cut], answers: list[Evaluation]) -> Array | None:
    """Return the gradients (C, P) of a request, summed in float64 in the order of the cuts; None: not asked for."""
    if not request.gradient:
        return None
    parts = [answer.gradients for answer in answers if answer.gradients is not None]
    merged = np.zeros((len(request.candidates), parts[0].shape[1]))
    for piece, part in zip(cuts, parts, strict=True):
        first, last = piece.examples
        merged[slice(*piece.candidates)] += part * ((last - first) / len(request.batch.examples))
    return merged.astype(np.float32)


def _sides(request: Request, tile: Tile) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the ranges of candidates and of examples whose pairs are the tiles.

    The gradient of a profiled objective hangs on all examples at once, which are not parted then.
    """
    count = len(request.batch.examples)
    parted = request.batch.objective.plain or not request.gradient
    examples = _ranges(count, tile.examples if parted else max(1, count))
    return _ranges(len(request.candidates), even_candidates(tile)), examples


def _ranges(count: int, size: int) -> list[tuple[int, int]]:
    return [(at, min(at + size, count)) for at in range(0, count, size)]
