"""Index arithmetic: rows into a sequence and its blocks, requests into tiles, tiles back into answers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import SPEC, batch_of

from distributed_tuner.config.oracle import AnalyticOracleConfig, Tile
from distributed_tuner.oracles.analytic import AnalyticOracle
from distributed_tuner.oracles.local.packing import BUCKET, plan_rows
from distributed_tuner.oracles.tiling import Cut, cut, merge, tile_count
from distributed_tuner.values import Center, Perturbation, Request

LENGTHS = st.lists(st.integers(1, 150), min_size=1, max_size=40)


@given(LENGTHS, st.integers(1, 4), st.integers(0, 30))
def test_every_row_of_every_candidate_lies_in_the_sequence_once_and_whole(
    lengths: list[int], candidates: int, start: int
) -> None:
    plan = plan_rows(lengths, candidates, start)
    assert len(plan.row) == candidates * sum(lengths)
    for candidate in range(candidates):
        for row, length in enumerate(lengths):
            at = np.flatnonzero((plan.row == row) & (plan.candidate == candidate))
            assert at.tolist() == list(range(at[0], at[0] + length))
            assert plan.offset[at].tolist() == list(range(length))
            assert plan.first[candidate, row] == start + at[0]


@given(LENGTHS, st.integers(1, 4), st.integers(0, 30))
def test_blocks_cover_the_sequence_and_gather_and_scatter_undo_each_other(
    lengths: list[int], candidates: int, start: int
) -> None:
    plan = plan_rows(lengths, candidates, start)
    at = start
    for block in plan.blocks:
        assert block.start == at
        at += block.tokens
        assert block.groups == candidates
        assert block.lengths.max() == block.slots
        assert block.padded == (block.lengths.min() < block.slots)
        gathered = block.places()
        assert gathered.shape == (block.groups * block.members * block.slots,)
        assert gathered[block.real()].tolist() == list(range(block.start, block.start + block.tokens))
        assert block.slots - block.lengths.min() < BUCKET  # rows of like length, so that little is padded
    assert at == start + candidates * sum(lengths)


def test_packing_by_hand() -> None:
    plan = plan_rows([3, 20, 2], candidates=2, start=10)
    assert [(b.start, b.groups, b.members, b.slots) for b in plan.blocks] == [(10, 2, 2, 3), (20, 2, 1, 20)]
    assert plan.first.tolist() == [[12, 20, 10], [17, 40, 15]]
    assert plan.blocks[0].places().tolist() == [10, 11, 10, 12, 13, 14, 15, 16, 15, 17, 18, 19]
    assert plan.blocks[0].real().tolist() == [0, 1, 3, 4, 5, 6, 7, 9, 10, 11]
    assert not plan.blocks[1].padded


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
    assert tile_count(request, Tile(candidates=wide, examples=tall)) == len(tiles)


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
