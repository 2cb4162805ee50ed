"""The dispatcher among fake actors whose memory is too small."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
from fake_pool import ORACLE, WIDE, FakeActor, fitting, packed, request, same, with_pool

from actors.pool.dispatcher import Dispatcher
from distributed_tuner.config.oracle import Tile
from distributed_tuner.errors import OracleMemoryError
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.values import Evaluation, Request


@pytest.mark.parametrize("count", [1, 3])
def test_a_tile_that_does_not_fit_makes_tiles_smaller_for_the_whole_pool_and_says_so_once(count: int) -> None:
    actors = [FakeActor(fitting(8)) for _ in range(count)]

    async def body(dispatcher: Dispatcher) -> None:
        wanted = request(24, 8)
        got = await dispatcher.evaluate(packed(wanted))
        expected = TiledOracle(ORACLE, Tile(candidates=2, examples=4)).evaluate(wanted)
        assert same(got, expected)
        assert (got.cost.queries, got.cost.forwards, got.cost.tokens) == (24, 192, expected.cost.tokens)
        statistics = await dispatcher.statistics()
        assert statistics.tile == Tile(candidates=2, examples=4)
        assert [kind for kind, _ in statistics.events] == ["tile_halved", "tile_halved"]
        assert "4 candidates x 4 examples instead of 8 candidates x 4 examples" in statistics.events[0][1]
        assert "2 candidates x 4 examples instead of 4 candidates x 4 examples" in statistics.events[1][1]
        sent = sum(len(actor.tiles) for actor in actors)
        later = request(6, 8, "later")
        assert same(await dispatcher.evaluate(packed(later)), TiledOracle(ORACLE, statistics.tile).evaluate(later))
        assert sum(len(actor.tiles) for actor in actors) == sent + 6, "the new size from the start"
        assert (await dispatcher.statistics()).events == []

    with_pool(actors, body, WIDE)


def test_the_numbers_of_a_request_come_from_one_cut() -> None:
    calls = SimpleNamespace(count=0)

    async def full_later(tile: Request) -> Evaluation:
        """The second half of the first cut does not fit; every answer tells the size of its tile."""
        calls.count += 1
        if len(tile.candidates) == 8 and calls.count > 3:
            raise OracleMemoryError("a tile must fit")
        exact = ORACLE.evaluate(tile)
        return Evaluation(
            exact.losses, exact.example_losses, np.full_like(exact.logits, len(tile.candidates)), exact.cost
        )

    async def body(dispatcher: Dispatcher) -> None:
        got = await dispatcher.evaluate(packed(request(40, 4)))
        assert (got.logits == 4).all()
        assert got.cost.forwards == 160

    with_pool([FakeActor(full_later)], body, WIDE)


def test_every_request_under_way_is_cut_anew() -> None:
    async def body(dispatcher: Dispatcher) -> None:
        requests = [request(16, 8, "first"), request(2, 1, "small"), request(8, 8, "last")]
        answers = await asyncio.gather(*(dispatcher.evaluate(packed(wanted)) for wanted in requests))
        oracle = TiledOracle(ORACLE, Tile(candidates=2, examples=2))
        for wanted, got in zip(requests, answers, strict=True):
            assert same(got, oracle.evaluate(wanted))
        statistics = await dispatcher.statistics()
        assert statistics.tile == Tile(candidates=2, examples=2)
        assert len(statistics.events) == 3

    with_pool([FakeActor(fitting(4)), FakeActor(fitting(4))], body, WIDE)


def test_a_single_candidate_that_does_not_fit_goes_straight_to_fewer_examples() -> None:
    async def body(dispatcher: Dispatcher) -> None:
        wanted = request(1, 8)
        assert same(
            await dispatcher.evaluate(packed(wanted)),
            TiledOracle(ORACLE, Tile(candidates=2, examples=2)).evaluate(wanted),
        )
        statistics = await dispatcher.statistics()
        assert len(statistics.events) == 1
        assert "2 candidates x 2 examples instead of 8 candidates x 4 examples" in statistics.events[0][1]

    with_pool([FakeActor(fitting(2))], body, WIDE)


def test_when_not_even_the_smallest_tile_fits_the_request_fails_and_others_go_on() -> None:
    async def huge(tile: Request) -> Evaluation:
        if tile.batch.examples[0].text.startswith("huge"):
            raise OracleMemoryError("a tile must fit, but it does not")
        return ORACLE.evaluate(tile)

    async def body(dispatcher: Dispatcher) -> None:
        fine = asyncio.create_task(dispatcher.evaluate(packed(request(name="fine"))))
        with pytest.raises(OracleMemoryError, match=r"2 candidate\(s\) on 1 example\(s\) is the smallest tile: use a"):
            await dispatcher.evaluate(packed(request(4, 4, "huge")))
        assert np.isfinite((await fine).losses).all()
        assert (await dispatcher.statistics()).tile == Tile(candidates=2, examples=1)

    with_pool([FakeActor(huge)], body, WIDE)
