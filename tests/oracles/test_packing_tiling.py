"""Index arithmetic: rows into packs, requests into tiles, tiles back into answers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import SPEC, batch_of

from distributed_tuner.config.oracle import AnalyticOracleConfig, Tile
from distributed_tuner.oracles.analytic import AnalyticOracle
from distributed_tuner.oracles.packing import PACK_TOKENS, pack
from distributed_tuner.oracles.tiling import Cut, cut, merge
from distributed_tuner.values import Center, Perturbation, Request

LENGTHS = st.lists(st.integers(1, 150), min_size=1, max_size=40)


@given(LENGTHS, st.integers(1, 120))
def test_every_row_lies_in_one_pack_once_and_in_order(lengths: list[int], capacity: int) -> None:
    packs = pack(lengths, capacity)
    flat_rows, flat_offsets = packs.row.reshape(-1), packs.offset.reshape(-1)
    assert (flat_rows >= 0).sum() == sum(lengths)
    for row, length in enumerate(lengths):
        at = np.flatnonzero(flat_rows == row)
        assert at.tolist() == list(range(at[0], at[0] + length))
        assert at[0] // packs.shape[1] == at[-1] // packs.shape[1]  # within one pack
        assert flat_offsets[at].tolist() == list(range(length))
        assert packs.end[row] == at[-1]


@given(LENGTHS, st.integers(1, 120))
def test_packs_hold_what_they_may_and_no_two_would_fit_into_one(lengths: list[int], capacity: int) -> None:
    packs = pack(lengths, capacity)
    room = max(capacity, max(lengths))
    filled = (packs.row >= 0).sum(axis=1)
    assert packs.shape[1] == filled.max() <= room
    assert all(a + b > room for i, a in enumerate(filled) for b in filled[i + 1 :])


@given(LENGTHS)
def test_packing_follows_from_the_lengths_alone(lengths: list[int]) -> None:
    first, second = pack(lengths), pack(list(lengths))
    for part in ("row", "offset", "end"):
        np.testing.assert_array_equal(getattr(first, part), getattr(second, part))


def test_packs_by_hand() -> None:
    packs = pack([3, 6, 2, 1], capacity=6)
    assert packs.row.tolist() == [[1] * 6, [0, 0, 0, 2, 2, 3]]
    assert packs.end.tolist() == [8, 5, 10, 11]
    assert pack([10] * 9).shape == (1, 90)
    assert pack([10] * 10).shape == (2, 90)
    assert pack([PACK_TOKENS + 7, 1]).shape == (2, PACK_TOKENS + 7)


def perturbations(pairs: int) -> tuple[Perturbation, ...]:
    center = Center("c", np.zeros(SPEC.length * 8, dtype=np.float32))
    return tuple(Perturbation(center, ("z", i), sign, 0.5) for i in range(pairs) for sign in (1, -1))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(2, 7), st.integers(1, 5))
def test_tiles_cover_everything_once_and_keep_pairs_together(pairs: int, rows: int, wide: int, tall: int) -> None:
    request = Request(perturbations(pairs), batch_of(["a"] * rows), SPEC)
    tiles = cut(request, Tile(candidates=wide, examples=tall))
    covered = np.zeros((2 * pairs, rows), dtype=int)
    for tile in tiles:
        covered[slice(*tile.candidates), slice(*tile.examples)] += 1
        piece = tile.of(request)
        assert 0 < len(piece.candidates) <= wide
        assert 0 < len(piece.batch.examples) <= tall
        keys = [candidate.key for candidate in piece.candidates if isinstance(candidate, Perturbation)]
        assert all(keys.count(key) == 2 for key in keys)
        assert piece.prompt == request.prompt
        assert piece.batch == replace(request.batch, examples=request.batch.examples[slice(*tile.examples)])
    assert (covered == 1).all()


def test_tiles_follow_from_sizes_alone() -> None:
    request = Request(perturbations(3), batch_of(["a", "bad", "slow"]), SPEC)
    other = Request(perturbations(3), batch_of(["the", "film", "plot"], " and"), replace(SPEC, layout="suffix"))
    tile = Tile(candidates=5, examples=2)
    expected = [Cut((0, 4), (0, 2)), Cut((0, 4), (2, 3)), Cut((4, 6), (0, 2)), Cut((4, 6), (2, 3))]
    assert cut(request, tile) == cut(other, tile) == expected


@given(st.permutations(range(9)))
def test_answers_come_back_in_the_requests_order_however_the_tiles_end(order: list[int]) -> None:
    request = Request(perturbations(3), batch_of(["a", "bad film", "slow", "the plot", "dull"]), SPEC)
    tiles = cut(request, Tile(candidates=2, examples=2))
    shuffled = [tiles[i] for i in order]
    oracle = AnalyticOracle(AnalyticOracleConfig(kind="analytic"))
    answers = [oracle.evaluate(tile.of(request)) for tile in shuffled]
    merged, whole = merge(request, shuffled, answers), oracle.evaluate(request)
    np.testing.assert_allclose(merged.logits, whole.logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(merged.losses, whole.losses, rtol=1e-5)
    assert (merged.cost.queries, merged.cost.forwards) == (6, 30)
    assert merged.cost.tokens == oracle.cost(request).tokens
    assert merged.cost.seconds == pytest.approx(sum(answer.cost.seconds for answer in answers))
