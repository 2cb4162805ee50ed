"""Messages: requests, tiles and answers arrive as they were sent."""

import asyncio
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from actors.pool.messages import Opener, Packed, Recent, pack, read_reply, reply, tiles_of, unpack
from distributed_tuner.config.oracle import Tile
from distributed_tuner.oracles.tiling import cut
from distributed_tuner.values import (
    Batch,
    Candidate,
    Center,
    Cost,
    Evaluation,
    Example,
    Latent,
    Perturbation,
    Point,
    Projection,
    PromptSpec,
    Request,
    Text,
)

PROMPT = PromptSpec(2, "zeros", "", "prefix", "paper")
BATCH = Batch(tuple(Example(f"{i}", f"film {i}", " It was", i % 2) for i in range(5)), (" bad", " good"), "train")
HERE = Center("trial/3", np.arange(8, dtype=np.float32))
THERE = Center("trial/4", np.ones(8, dtype=np.float32))
PROJECTION = Projection(seed=1, dim=3, alpha=1.0, sigma=1.0)
CANDIDATES: tuple[Candidate, ...] = (
    Perturbation(HERE, (0, "trial", 3, 0), 1, 0.1),
    Perturbation(HERE, (0, "trial", 3, 0), -1, 0.1),
    Perturbation(THERE, (0, "trial", 4, 0), 1, 0.2),
    Latent(np.array([1.0, 2.0, 3.0], dtype=np.float32), PROJECTION, THERE),
    Latent(np.array([4.0, 5.0, 6.0], dtype=np.float32), PROJECTION),
    Point(np.full(8, 7.0, dtype=np.float32)),
    Text("Say it."),
)


def packed(request: Request) -> Packed:
    """Return the request as it arrives, with values in place of references."""
    sent: Packed = pickle.loads(pickle.dumps(pack(request, put=lambda value: value)))
    return sent


def told(candidate: Candidate, bare: bool = False) -> Any:
    """Return what a candidate is, in numbers that compare; ``bare``: without its centre's."""
    match candidate:
        case Perturbation(center=center, key=key, sign=sign, radius=radius):
            return (center.id, None if bare else center.vector.tolist(), key, sign, radius)
        case Latent(z=z, projection=projection, origin=origin):
            at = None if origin is None else (origin.id, None if bare else origin.vector.tolist())
            return (z.tolist(), projection, at)
        case Point(vector=vector):
            return vector.tolist()
        case _:
            return candidate


@pytest.mark.parametrize(("gradient", "fresh"), [(False, False), (True, False), (False, True)])
def test_a_request_arrives_as_it_was(gradient: bool, fresh: bool) -> None:
    request = Request(CANDIDATES, BATCH, PROMPT, gradient, fresh)
    (got,) = Opener().open(tiles_of(packed(request), cut(request, Tile(candidates=100, examples=100))))
    assert (got.batch, got.prompt, got.gradient, got.fresh) == (BATCH, PROMPT, gradient, fresh)
    assert [told(one) for one in got.candidates] == [told(one) for one in CANDIDATES]


def test_to_count_and_cut_a_request_its_centres_are_not_needed() -> None:
    got = asyncio.run(unpack(packed(Request(CANDIDATES, BATCH, PROMPT)), Recent(2)))
    assert [told(one, bare=True) for one in got.candidates] == [told(one, bare=True) for one in CANDIDATES]


def test_a_tile_arrives_with_its_candidates_and_examples() -> None:
    request = Request(CANDIDATES, BATCH, PROMPT)
    cuts = cut(request, Tile(candidates=2, examples=3))
    arrived = Opener().open(pickle.loads(pickle.dumps(tiles_of(packed(request), cuts))))
    assert len(arrived) == len(cuts) == 8
    for tile, piece in zip(arrived, cuts, strict=True):
        wanted = piece.of(request)
        assert tile.batch == wanted.batch
        assert [told(one) for one in tile.candidates] == [told(one) for one in wanted.candidates]


def test_a_centre_is_put_once_and_batch_and_prompt_once_for_many_requests() -> None:
    put: list[Any] = []

    def keep(value: Any) -> Any:
        put.append(value)
        return value

    kept = Recent(2)
    for _ in range(3):
        pack(Request(CANDIDATES, BATCH, PROMPT), kept, keep)
    assert [value for value in put if isinstance(value, tuple)] == [(BATCH, PROMPT)]
    assert len(put) == 1 + 3 * 2, "two centres a request"


def test_a_perturbation_takes_few_bytes() -> None:
    pairs = tuple(Perturbation(HERE, (0, "trial-0000", 0, 7, i // 2), 1 - 2 * (i % 2), 0.1) for i in range(40))

    def size(count: int) -> int:
        sent = pack(Request(pairs[:count], BATCH, PROMPT), put=lambda value: None)
        return len(pickle.dumps(sent))

    assert (size(40) - size(20)) / 20 <= 40


@pytest.mark.parametrize("kept", [None, np.array([True, False])])
@pytest.mark.parametrize("gradients", [None, np.ones((2, 8), dtype=np.float32)])
def test_an_answer_arrives_but_for_its_losses(gradients: Any, kept: Any) -> None:
    logits = np.arange(20, dtype=np.float32).reshape(2, 5, 2)
    cost = Cost(2, 10, 300, 0.5, 0.01, 20)
    answer = Evaluation(np.zeros(2), np.zeros((2, 5)), logits, cost, gradients, {"absent_labels": 3}, kept)
    answer = replace(answer, texts=(("a", None, "", "b", "c"),) * 2)
    got = read_reply(pickle.loads(pickle.dumps(reply(answer))))
    assert got.logits.dtype == np.float32 and np.array_equal(got.logits, logits)
    assert (got.cost, got.counts, got.texts) == (cost, {"absent_labels": 3}, answer.texts)
    for mine, wanted in ((got.gradients, gradients), (got.kept, kept)):
        assert (mine is None) == (wanted is None) and (mine is None or np.array_equal(mine, wanted))
