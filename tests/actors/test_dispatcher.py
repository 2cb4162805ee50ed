"""The dispatcher among fake actors: the right answers, refusals, time, fair shares."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_pool import (
    CONFIG,
    ORACLE,
    WIDE,
    FakeActor,
    FakeKeeper,
    dispatcher_of,
    fitting,
    packed,
    raised,
    request,
    same,
    with_pool,
)
from ray.exceptions import ActorDiedError

from actors.pool.dispatcher import Dispatcher
from actors.pool.tile_scheduler import IN_FLIGHT
from distributed_tuner.config.oracle import Tile
from distributed_tuner.errors import ModelError, OracleTimeout, TaskError
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.values import Cost, Evaluation, OracleInfo, Request, TokenSpace


@pytest.mark.parametrize("count", [1, 3])
def test_an_answer_is_that_of_one_tiled_oracle_whatever_the_number_of_actors(count: int) -> None:
    async def slower_first(tile: Request) -> Evaluation:
        await asyncio.sleep(0.02 if tile.batch.examples[0].uid.endswith("-0") else 0)  # answers come out of order
        return ORACLE.evaluate(tile)

    actors = [FakeActor(slower_first) for _ in range(count)]

    async def body(dispatcher: Dispatcher) -> None:
        wanted = request(5, 7)
        got = await dispatcher.evaluate(packed(wanted))
        expected = TiledOracle(ORACLE, CONFIG.tile).evaluate(wanted)
        assert same(got, expected)
        assert (got.cost.queries, got.cost.forwards, got.cost.tokens) == (5, 35, expected.cost.tokens)
        assert (await dispatcher.statistics()).tiles == 9 == sum(len(actor.tiles) for actor in actors)

    with_pool(actors, body)


def test_what_answers_tell_is_summed_over_counted_tiles_and_kept_answers_are_free() -> None:
    async def half_kept(tile: Request) -> Evaluation:
        full = ORACLE.evaluate(tile)
        kept = np.array([float(c.vector[0]) > 0.15 for c in tile.candidates])  # type: ignore[union-attr]
        cost = Cost() if kept.all() else full.cost
        return replace(full, cost=cost, kept=kept, counts={"cached_forwards": 3 * int(kept.sum())})

    async def body(dispatcher: Dispatcher) -> None:
        got = await dispatcher.evaluate(packed(request(4, 6)))
        assert same(got, TiledOracle(ORACLE, CONFIG.tile).evaluate(request(4, 6)))
        assert (got.cost.queries, got.cost.forwards) == (2, 12)
        assert got.kept is not None
        assert got.kept.tolist() == [False, False, True, True]
        assert got.counts == {"cached_forwards": 12}
        await dispatcher.evaluate(packed(request(4, 6)))
        statistics = await dispatcher.statistics()
        assert statistics.counts == {"cached_forwards": 24}
        await dispatcher.evaluate(packed(request(4, 6)))
        assert statistics.counts == {"cached_forwards": 24}, "what was handed over stays as it was"
        assert (await dispatcher.statistics()).counts == {"cached_forwards": 36}

    with_pool([FakeActor(half_kept), FakeActor(half_kept)], body)


def test_a_pool_whose_cache_is_left_aside_asks_for_everything_anew() -> None:
    actor = FakeActor()

    async def body(dispatcher: Dispatcher) -> None:
        await dispatcher.evaluate(packed(request(2, 3)))
        await dispatcher.leave_cache()
        await dispatcher.evaluate(packed(request(2, 3)))

    with_pool([actor], body)
    assert [tile.fresh for tile in actor.tiles] == [False, True]


def test_gradients_come_from_the_tiles_in_the_requests_order() -> None:
    async def slower_first(tile: Request) -> Evaluation:
        await asyncio.sleep(0.02 if tile.batch.examples[0].uid.endswith("-0") else 0)
        return ORACLE.evaluate(tile)

    actors = [FakeActor(slower_first) for _ in range(3)]

    async def body(dispatcher: Dispatcher) -> None:
        wanted = replace(request(3, 7), gradient=True)
        got = await dispatcher.evaluate(packed(wanted))
        expected = TiledOracle(ORACLE, CONFIG.tile).evaluate(wanted)
        assert same(got, expected)
        assert got.gradients is not None and expected.gradients is not None
        assert got.gradients.tobytes() == expected.gradients.tobytes()
        np.testing.assert_allclose(got.gradients, ORACLE.evaluate(wanted).gradients, rtol=1e-5, atol=1e-6)
        assert (got.cost.queries, got.cost.forwards) == (9, 63)
        assert got.cost.queries == (await dispatcher.cost(packed(wanted))).queries

    with_pool(actors, body)
    assert all(tile.gradient for actor in actors for tile in actor.tiles)


def test_requests_take_turns_so_that_a_large_one_does_not_starve_a_small_one() -> None:
    actor = FakeActor()

    async def body(dispatcher: Dispatcher) -> None:
        large = asyncio.create_task(dispatcher.evaluate(packed(request(20, 3, "large"))))
        small = asyncio.create_task(dispatcher.evaluate(packed(request(4, 3, "small"))))
        await small
        assert not large.done()
        await large

    with_pool([actor], body)
    order = [tile.batch.examples[0].text.split()[0] for tile in actor.tiles]
    assert order.count("large") == 10
    assert order.count("small") == 2
    assert max(i for i, name in enumerate(order) if name == "small") <= 6


def test_a_request_out_of_time_is_given_up_and_its_waiting_tiles_are_never_sent() -> None:
    gate = asyncio.Event()

    async def hang(tile: Request) -> Evaluation:
        await gate.wait()
        return ORACLE.evaluate(tile)

    actor = FakeActor(hang)

    async def body(dispatcher: Dispatcher) -> None:
        with pytest.raises(OracleTimeout, match=r"within 0\.1 s"):
            await dispatcher.evaluate(packed(request(20, 3, "late")), timeout=0.1)
        gate.set()
        wanted = request(name="next")
        assert same(await dispatcher.evaluate(packed(wanted)), TiledOracle(ORACLE, CONFIG.tile).evaluate(wanted))

    with_pool([actor], body)
    assert sum(tile.batch.examples[0].text.startswith("late") for tile in actor.tiles) == IN_FLIGHT


def test_an_oracles_refusal_arrives_as_itself_and_only_at_who_asked() -> None:
    async def refuse(tile: Request) -> Evaluation:
        if tile.batch.examples[0].text.startswith("bad"):
            raise TaskError("a row must fit, got 9 tokens")
        return ORACLE.evaluate(tile)

    async def body(dispatcher: Dispatcher) -> None:
        fine = asyncio.create_task(dispatcher.evaluate(packed(request(name="fine"))))
        with pytest.raises(TaskError, match="a row must fit, got 9 tokens"):
            await dispatcher.evaluate(packed(request(name="bad")))
        assert np.isfinite((await fine).losses).all()

    with_pool([FakeActor(refuse)], body)


def test_a_refusal_that_lost_its_type_on_the_way_is_recognised_by_its_text() -> None:
    lost = ActorDiedError()
    lost.error_msg = "The actor died\nTraceback\ndistributed_tuner.errors.ModelError: no weights in 'x'; check"

    def failing() -> OracleInfo:
        raise lost

    with pytest.raises(ModelError, match=r"^no weights in 'x'; check$"):
        asyncio.run(dispatcher_of(FakeKeeper([FakeActor(info=failing)])).start())


def test_time_is_shorter_for_more_tiles_than_the_budget_reckons_with() -> None:
    gate = asyncio.Event()

    async def hang(tile: Request) -> Evaluation:
        await gate.wait()
        return ORACLE.evaluate(tile)

    async def body(dispatcher: Dispatcher) -> None:
        await dispatcher.evaluate(packed(request(8, 4)))
        assert (await dispatcher.statistics()).tile == Tile(candidates=4, examples=4)
        actor._evaluate = hang
        with pytest.raises(OracleTimeout, match=r"within 0\.2 s"):
            await dispatcher.evaluate(packed(request(8, 4)), timeout=0.4)  # two tiles instead of one
        await dispatcher.use_tile(Tile(candidates=4, examples=4))
        with pytest.raises(OracleTimeout, match=r"within 0\.4 s"):
            await dispatcher.evaluate(packed(request(8, 4)), timeout=0.4)
        gate.set()

    actor = FakeActor(fitting(16))
    with_pool([actor], body, WIDE)


def test_the_free_memory_is_that_of_the_first_actor_that_is_up() -> None:
    def failing() -> OracleInfo:
        raise raised(ModelError("the model cannot be loaded"))

    broken, sound = FakeActor(info=failing), FakeActor()

    async def free() -> int:
        return 7

    sound.free_bytes = SimpleNamespace(remote=free)  # type: ignore[attr-defined]

    async def body(dispatcher: Dispatcher) -> None:
        assert await dispatcher.free_bytes() == 7

    with_pool([broken, sound], body)


def test_what_an_actor_refuses_arrives_as_our_error() -> None:
    async def refusing(*_: Any) -> None:
        raise raised(ModelError("a text must have a token"))

    actor = FakeActor()
    actor.ask = SimpleNamespace(remote=refusing)  # type: ignore[attr-defined]

    async def body(dispatcher: Dispatcher) -> None:
        with pytest.raises(ModelError, match=r"^a text must have a token$") as caught:
            await dispatcher.ask("project", [], "prefix", TokenSpace())
        assert type(caught.value) is ModelError

    with_pool([actor], body)


def test_trials_share_the_pool_fairly_however_they_cut_their_asks() -> None:
    order: list[str] = []

    async def note(tile: Request) -> Evaluation:
        order.append(tile.batch.examples[0].text.split()[0])
        return ORACLE.evaluate(tile)

    async def body(dispatcher: Dispatcher) -> None:
        async def ask(name: str) -> None:
            await dispatcher.evaluate(packed(request(40, 3, name)), client_id=name)

        many = [dispatcher.evaluate(packed(request(40, 3, "many")), client_id="many") for _ in range(5)]
        await asyncio.gather(*many, ask("one"))

    with_pool([FakeActor(note)], body)
    assert len(order) == 120
    assert max(i for i, name in enumerate(order) if name == "one") < 60, "half of the pool, not a sixth"


def test_a_trial_of_thrice_the_priority_gets_thrice_the_tiles() -> None:
    order: list[str] = []

    async def note(tile: Request) -> Evaluation:
        order.append(tile.batch.examples[0].text.split()[0])
        return ORACLE.evaluate(tile)

    async def body(dispatcher: Dispatcher) -> None:
        small = [
            dispatcher.evaluate(packed(request(4, 3, "urgent")), client_id="urgent", priority=3.0) for _ in range(30)
        ]
        large = dispatcher.evaluate(packed(request(120, 3, "patient")), client_id="patient")
        await asyncio.gather(large, *small)

    with_pool([FakeActor(note)], body)
    assert len(order) == 120
    last = max(i for i, name in enumerate(order) if name == "urgent")
    assert 15 <= order[:last].count("patient") <= 40, "about a third of the 60 that the urgent one had meanwhile"


def test_short_tiles_share_calls_as_long_as_there_is_enough_for_all() -> None:
    actors = [FakeActor() for _ in range(2)]

    async def body(dispatcher: Dispatcher) -> None:
        wanted = request(200, 6)
        for _ in range(2):
            assert same(await dispatcher.evaluate(packed(wanted)), TiledOracle(ORACLE, CONFIG.tile).evaluate(wanted))
        assert (await dispatcher.statistics()).tiles == 400

    with_pool(actors, body)
    calls = [size for actor in actors for size in actor.calls]
    assert sum(calls) == 400
    assert max(calls) > 4
    assert calls[-1] <= 2, "the last tiles are spread"
