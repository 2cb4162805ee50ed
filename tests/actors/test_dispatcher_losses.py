"""The dispatcher among fake actors that cannot start, die, err, or are late."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_pool import (
    CONFIG,
    ORACLE,
    FakeActor,
    FakeKeeper,
    dispatcher_of,
    packed,
    raised,
    request,
    same,
    with_keeper,
    with_pool,
)
from ray.exceptions import ActorDiedError, ActorUnavailableError

from actors.pool import straggler_policy
from actors.pool.dispatcher import Dispatcher
from actors.pool.tile_scheduler import IN_FLIGHT, TILE_TRIES
from distributed_tuner.errors import ModelError, OracleError
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.values import Evaluation, OracleInfo, Request


def test_when_no_actor_can_start_its_error_is_the_answer() -> None:
    def failing() -> OracleInfo:
        raise raised(ModelError("the model cannot be loaded"))

    with pytest.raises(ModelError, match="the model cannot be loaded"):
        two = CONFIG.model_copy(update={"actors": 2})
        asyncio.run(dispatcher_of(FakeKeeper([FakeActor(info=failing), FakeActor(info=failing)]), two).start())


def test_the_pool_goes_on_without_an_actor_that_cannot_start() -> None:
    def failing() -> OracleInfo:
        raise raised(ModelError("the model cannot be loaded"))

    broken = FakeActor(info=failing)

    async def body(dispatcher: Dispatcher) -> None:
        assert np.isfinite((await dispatcher.evaluate(packed(request()))).losses).all()
        events = (await dispatcher.statistics()).events
        assert [kind for kind, _ in events] == ["oracle_lost"]
        assert "oracle-0 cannot start: the model cannot be loaded" in events[0][1]
        assert (await dispatcher.statistics()).events == []

    with_pool([broken, FakeActor()], body)
    assert broken.tiles == []


def test_tiles_that_die_with_an_actor_are_evaluated_again_and_one_death_is_one_restart() -> None:
    state = SimpleNamespace(dead=False, deaths=0)

    def info() -> OracleInfo:
        state.dead = False  # asked for: it has been restarted
        return ORACLE.info

    async def die_once(tile: Request) -> Evaluation:
        if state.deaths == 0:
            state.deaths, state.dead = 1, True
        if state.dead:
            raise ActorUnavailableError("killed", None)
        return ORACLE.evaluate(tile)

    actor = FakeActor(die_once, info)

    async def body(dispatcher: Dispatcher) -> None:
        wanted = request(8, 6)
        assert same(await dispatcher.evaluate(packed(wanted)), TiledOracle(ORACLE, CONFIG.tile).evaluate(wanted))
        statistics = await dispatcher.statistics()
        assert (statistics.tiles, statistics.retries, statistics.restarts) == (8, IN_FLIGHT, 1)
        assert [kind for kind, _ in statistics.events] == ["oracle_restart"]

    with_pool([actor], body)


def test_an_actor_gone_for_good_gets_no_more_tiles_and_costs_none() -> None:
    state = SimpleNamespace(gone=False)

    def info() -> OracleInfo:
        if state.gone:
            raise ActorDiedError()
        return ORACLE.info

    async def die(tile: Request) -> Evaluation:
        state.gone = True
        raise ActorDiedError()

    dying = FakeActor(die, info)

    async def body(dispatcher: Dispatcher) -> None:
        wanted = request(40, 6)
        for _ in range(3):
            assert same(await dispatcher.evaluate(packed(wanted)), TiledOracle(ORACLE, CONFIG.tile).evaluate(wanted))
        statistics = await dispatcher.statistics()
        assert statistics.tiles == 120
        assert "oracle_lost" in [kind for kind, _ in statistics.events]

    with_pool([dying, FakeActor()], body)
    assert 1 <= len(dying.tiles) <= IN_FLIGHT


def test_an_actor_gone_for_good_is_replaced() -> None:
    state = SimpleNamespace(gone=False)

    def info() -> OracleInfo:
        if state.gone:
            raise ActorDiedError()
        return ORACLE.info

    async def die(tile: Request) -> Evaluation:
        state.gone = True
        raise ActorDiedError()

    async def body(dispatcher: Dispatcher) -> None:
        wanted = request(12, 6)
        assert same(await dispatcher.evaluate(packed(wanted)), TiledOracle(ORACLE, CONFIG.tile).evaluate(wanted))

    with_keeper(FakeKeeper([FakeActor(die, info), FakeActor()]), body)


def test_when_the_last_actor_cannot_start_again_requests_fail_and_do_not_hang() -> None:
    state = SimpleNamespace(gone=False)

    def info() -> OracleInfo:
        if state.gone:
            raise raised(ModelError("the weights are gone"))
        return ORACLE.info

    async def die(tile: Request) -> Evaluation:
        state.gone = True
        raise ActorUnavailableError("killed", None)

    async def body(dispatcher: Dispatcher) -> None:
        for _ in range(2):
            with pytest.raises(ModelError, match="the weights are gone"):
                await dispatcher.evaluate(packed(request(12, 6)))

    with_pool([FakeActor(die, info)], body)


def test_what_goes_wrong_with_an_oracle_is_told_to_who_asked() -> None:
    async def broken(tile: Request) -> Evaluation:
        if tile.batch.examples[0].text.startswith("bad"):
            raise raised(KeyError("weight"))
        return ORACLE.evaluate(tile)

    async def body(dispatcher: Dispatcher) -> None:
        with pytest.raises(OracleError, match=r"an oracle failed: .*weight.*; see the oracle's log in Ray"):
            await dispatcher.evaluate(packed(request(name="bad")))
        assert np.isfinite((await dispatcher.evaluate(packed(request()))).losses).all()

    with_pool([FakeActor(broken)], body)


def test_an_actor_that_dies_whenever_it_loads_its_model_is_not_waited_for_for_ever() -> None:
    def info() -> OracleInfo:
        raise ActorDiedError()

    with pytest.raises(OracleError, match="The actor died unexpectedly"):
        asyncio.run(dispatcher_of(FakeKeeper([FakeActor(info=info)])).start())


def test_what_is_no_number_is_asked_of_another_actor() -> None:
    async def broken(tile: Request) -> Evaluation:
        answer = ORACLE.evaluate(tile)
        return replace(answer, logits=np.full_like(answer.logits, np.nan))

    async def body(dispatcher: Dispatcher) -> None:
        wanted = request(8, 6)
        assert same(await dispatcher.evaluate(packed(wanted)), TiledOracle(ORACLE, CONFIG.tile).evaluate(wanted))
        statistics = await dispatcher.statistics()
        assert [kind for kind, _ in statistics.events] == ["not_a_number"]
        assert 0 < statistics.retries <= statistics.tiles

    with_pool([FakeActor(broken), FakeActor()], body)


def test_what_is_no_number_twice_is_none() -> None:
    async def wild(tile: Request) -> Evaluation:
        answer = ORACLE.evaluate(tile)
        return replace(answer, logits=np.full_like(answer.logits, np.nan))

    fake = FakeActor(wild)

    async def body(dispatcher: Dispatcher) -> None:
        assert np.isnan((await dispatcher.evaluate(packed(request(2, 3)))).losses).all()
        assert len(fake.tiles) == 2

    with_pool([fake], body)


def test_an_error_that_nobody_foresaw_ends_its_request_and_no_other() -> None:
    async def surprising(tile: Request) -> Evaluation:
        if tile.batch.examples[0].text.startswith("odd"):
            raise RuntimeError("an answer that cannot be read")
        return ORACLE.evaluate(tile)

    async def body(dispatcher: Dispatcher) -> None:
        with pytest.raises(OracleError, match="an answer that cannot be read"):
            await dispatcher.evaluate(packed(request(name="odd")))
        assert np.isfinite((await dispatcher.evaluate(packed(request()))).losses).all()

    with_pool([FakeActor(surprising)], body)


def test_a_tile_lost_again_and_again_fails_its_request() -> None:
    async def die(tile: Request) -> Evaluation:
        if tile.batch.examples[0].text.startswith("killer"):
            raise ActorUnavailableError("killed", None)
        return ORACLE.evaluate(tile)

    async def body(dispatcher: Dispatcher) -> None:
        with pytest.raises(OracleError, match=f"lost {TILE_TRIES} times"):
            await dispatcher.evaluate(packed(request(2, 3, "killer")))
        assert np.isfinite((await dispatcher.evaluate(packed(request()))).losses).all()
        assert (await dispatcher.statistics()).retries == TILE_TRIES

    with_pool([FakeActor(die)], body)


def test_an_actor_that_is_late_with_its_tiles_is_asked_last_whatever_the_others_have_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(straggler_policy, "SECONDS", 0.2)
    gate, asked = asyncio.Event(), list[str]()

    async def hang(tile: Request) -> Evaluation:
        await gate.wait()
        return ORACLE.evaluate(tile)

    async def busy(tile: Request) -> Evaluation:
        await asyncio.sleep(0.01)
        return ORACLE.evaluate(tile)

    def answering(name: str) -> Any:
        async def free() -> int:
            asked.append(name)
            return 7

        return SimpleNamespace(remote=free)

    silent, sound = FakeActor(hang), FakeActor(busy)
    silent.free_bytes, sound.free_bytes = answering("silent"), answering("sound")  # type: ignore[attr-defined]

    async def body(dispatcher: Dispatcher) -> None:
        await dispatcher.evaluate(packed(request(20, 6)))  # by now the silent one is late
        more = asyncio.create_task(dispatcher.evaluate(packed(request(200, 6, "b"))))
        await asyncio.sleep(0.05)
        for _ in range(5):
            assert await dispatcher.free_bytes() == 7
        gate.set()
        await more
        assert asked == ["sound"] * 5

    with_pool([silent, sound], body)


def test_a_straggler_is_given_to_another_actor_and_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(straggler_policy, "SECONDS", 0.2)
    gate = asyncio.Event()
    hung: list[Request] = []

    async def hang_once(tile: Request) -> Evaluation:
        if not hung:
            hung.append(tile)
            await gate.wait()
        return ORACLE.evaluate(tile)

    slow, quick = FakeActor(hang_once), FakeActor()

    async def body(dispatcher: Dispatcher) -> None:
        wanted = request(20, 6)
        expected = TiledOracle(ORACLE, CONFIG.tile).evaluate(wanted)
        got = await dispatcher.evaluate(packed(wanted))
        gate.set()  # the slow answer comes too late
        await asyncio.sleep(0.05)
        assert same(got, expected)
        assert got.cost.forwards == expected.cost.forwards
        statistics = await dispatcher.statistics()
        assert (statistics.tiles, statistics.duplicates, statistics.retries) == (20, 1, 0)
        assert [kind for kind, _ in statistics.events] == ["straggler"]

    with_pool([slow, quick], body)
    assert len(slow.tiles) + len(quick.tiles) == 21
    names = [[(t.batch.examples[0].uid, float(t.candidates[0].vector[0])) for t in a.tiles] for a in (slow, quick)]
    assert names[0][0] in names[1]
