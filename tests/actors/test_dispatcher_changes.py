"""The dispatcher of a pool that grows, shrinks, loses machines, and is started again itself."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

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
    leisurely,
    packed,
    request,
    same,
    until,
    with_keeper,
    with_pool,
)
from ray.exceptions import ActorDiedError

from actors.pool import dispatcher as module
from actors.pool import straggler_policy
from actors.pool.dispatcher import Dispatcher
from distributed_tuner.config.oracle import AnalyticOracleConfig, Elastic, Tile
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.values import Evaluation, OracleInfo, Request


@pytest.fixture
def quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the dispatcher look at its pool a hundred times a second."""
    monkeypatch.setattr(module, "TICK_SECONDS", 0.01)


def elastic(least: int, most: int, queue: int = 2, idle_seconds: float = 0.2) -> AnalyticOracleConfig:
    limits = Elastic(min=least, max=most, queue=queue, idle_seconds=idle_seconds)
    return CONFIG.model_copy(update={"actors": limits})


@pytest.mark.usefixtures("quick_ticks")
def test_a_pool_grows_with_what_waits_and_shrinks_to_nothing_when_idle() -> None:
    supervisor = FakeKeeper([FakeActor(leisurely) for _ in range(9)])

    async def body(dispatcher: Dispatcher) -> None:
        await until(lambda: supervisor.ended == ["oracle-0"])
        wanted = request(20, 6)
        expected = TiledOracle(ORACLE, CONFIG.tile).evaluate(wanted)
        assert same(await dispatcher.evaluate(packed(wanted)), expected)
        statistics = await dispatcher.statistics()
        assert (statistics.up, statistics.most_up) == (4, 4)
        assert statistics.tiles == 20
        await until(lambda: len(supervisor.ended) == 5)
        assert (await dispatcher.statistics()).up == 0
        assert same(await dispatcher.evaluate(packed(wanted)), expected)
        kinds = [kind for kind, _ in statistics.events]
        assert kinds[0] == "pool_shrinks"
        assert kinds.count("pool_grows") == 1

    with_keeper(supervisor, body, elastic(0, 4))
    assert len(supervisor.started) == 9
    assert all(actor.tiles for name, actor in supervisor.started.items() if name != "oracle-0")


@pytest.mark.usefixtures("quick_ticks")
def test_an_actor_works_as_soon_as_it_is_up_and_others_are_still_loading() -> None:
    loaded = asyncio.Event()

    class Loading(FakeActor):
        async def _on_info(self) -> OracleInfo:
            await loaded.wait()
            return ORACLE.info

    second, third = FakeActor(leisurely), Loading()
    supervisor = FakeKeeper([FakeActor(leisurely), second, third])

    async def body(dispatcher: Dispatcher) -> None:
        await dispatcher.evaluate(packed(request(20, 6)))
        assert second.tiles and not third.tiles
        loaded.set()
        await until(lambda: len(supervisor.started) == 3)
        await dispatcher.evaluate(packed(request(40, 6)))
        assert third.tiles

    with_keeper(supervisor, body, elastic(1, 3))


@pytest.mark.usefixtures("quick_ticks")
def test_actors_compute_as_the_first_one_does_before_they_get_tiles() -> None:
    """Each chooses by a measurement of its own how it multiplies, and its bits hang on that."""
    asked: list[tuple[str, int]] = []

    class Choosing(FakeActor):
        def __init__(self, linear: str) -> None:
            super().__init__(leisurely, lambda: replace(ORACLE.info, extra={"linear": linear}))
            self.compute_as = SimpleNamespace(remote=self._on_compute_as)

        async def _on_compute_as(self, info: OracleInfo) -> None:
            await asyncio.sleep(0)
            asked.append((info.extra["linear"], len(self.tiles)))

    supervisor = FakeKeeper([Choosing("plain"), Choosing("packed"), Choosing("plain")])

    async def body(dispatcher: Dispatcher) -> None:
        await dispatcher.evaluate(packed(request(40, 6)))
        await until(lambda: all(actor.tiles for actor in supervisor.started.values()))

    with_keeper(supervisor, body, CONFIG.model_copy(update={"actors": 3}))
    assert asked == [("plain", 0)]


@pytest.mark.usefixtures("quick_ticks")
def test_an_actor_that_is_let_go_ends_its_tiles_first() -> None:
    supervisor = FakeKeeper([FakeActor(leisurely) for _ in range(3)])

    async def body(dispatcher: Dispatcher) -> None:
        await dispatcher.evaluate(packed(request(20, 6)))
        for _ in range(40):  # one tile at a time: one actor is enough
            await dispatcher.evaluate(packed(request(2, 3)))
        assert len(supervisor.ended) == 2
        statistics = await dispatcher.statistics()
        assert (statistics.up, statistics.retries, statistics.restarts) == (1, 0, 0)

    with_keeper(supervisor, body, elastic(1, 3, idle_seconds=0.3))


@pytest.mark.usefixtures("quick_ticks")
def test_the_actors_of_a_machine_that_goes_away_are_replaced_and_get_nothing_more() -> None:
    gate = asyncio.Event()

    async def slow(tile: Request) -> Evaluation:
        await gate.wait()
        return ORACLE.evaluate(tile)

    leaving, staying, coming = FakeActor(slow, node="spot"), FakeActor(node="other"), FakeActor(node="third")
    supervisor = FakeKeeper([leaving, staying, coming])

    async def body(dispatcher: Dispatcher) -> None:
        wanted = request(8, 6)
        asked = asyncio.create_task(dispatcher.evaluate(packed(wanted)))
        await until(lambda: leaving.tiles)
        supervisor.nodes = {"spot"}
        assert same(await asked, TiledOracle(ORACLE, CONFIG.tile).evaluate(wanted)), "its tiles went to others"
        assert supervisor.ended == []
        sent = len(leaving.tiles)
        await until(lambda: len(supervisor.started) == 3)
        await dispatcher.evaluate(packed(request(40, 6)))
        assert coming.tiles
        assert len(leaving.tiles) == sent
        gate.set()
        await until(lambda: supervisor.ended == ["oracle-0"])
        statistics = await dispatcher.statistics()
        assert statistics.tiles == 8 + 40
        assert [kind for kind, _ in statistics.events] == ["oracle_leaves"]

    with_keeper(supervisor, body, CONFIG.model_copy(update={"actors": 2}))


@pytest.mark.usefixtures("quick_ticks")
def test_what_a_silent_actor_has_goes_to_the_one_that_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(straggler_policy, "FIRST_SECONDS", 0.1)

    async def never(tile: Request) -> Evaluation:
        await asyncio.Event().wait()
        raise AssertionError

    frozen, coming = FakeActor(never, node="frozen"), FakeActor()
    supervisor = FakeKeeper([frozen, coming])

    async def body(dispatcher: Dispatcher) -> None:
        wanted = request(4, 3)
        assert same(await dispatcher.evaluate(packed(wanted)), TiledOracle(ORACLE, CONFIG.tile).evaluate(wanted))
        assert (await dispatcher.statistics()).tiles == 2

    with_keeper(supervisor, body, elastic(1, 2, queue=100))
    assert len(coming.tiles) == 2
    assert supervisor.avoided == {"frozen"}


@pytest.mark.usefixtures("quick_ticks")
def test_an_actor_that_hangs_is_ended_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(straggler_policy, "LOST_SECONDS", 0.2)
    ended = asyncio.Event()

    async def hang_later(tile: Request) -> Evaluation:
        if len(hanging.tiles) > 6:
            await ended.wait()
            raise ActorDiedError()
        return ORACLE.evaluate(tile)

    hanging, coming = FakeActor(hang_later), FakeActor()
    supervisor = FakeKeeper([hanging, coming])

    async def end(names: list[str]) -> None:
        supervisor.ended.extend(names)
        ended.set()

    supervisor.end = SimpleNamespace(remote=end)  # type: ignore[attr-defined]

    async def body(dispatcher: Dispatcher) -> None:
        for _ in range(8):
            await dispatcher.evaluate(packed(request(4, 3)))
        statistics = await dispatcher.statistics()
        assert supervisor.ended == ["oracle-0"]
        assert [kind for kind, _ in statistics.events] == ["oracle_lost"]
        assert "has answered nothing for" in statistics.events[0][1]

    with_keeper(supervisor, body)


def test_a_question_that_is_not_answered_is_put_to_another_actor_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.05)

    async def never() -> int:
        await asyncio.Event().wait()
        return 0

    async def free() -> int:
        return 7

    silent, sound = FakeActor(), FakeActor()
    silent.free_bytes = SimpleNamespace(remote=never)  # type: ignore[attr-defined]
    sound.free_bytes = SimpleNamespace(remote=free)  # type: ignore[attr-defined]

    async def body(dispatcher: Dispatcher) -> None:
        assert await dispatcher.free_bytes() == 7

    with_pool([silent, sound], body)


def test_a_dispatcher_that_is_started_again_finds_actors_tile_size_and_totals() -> None:
    supervisor = FakeKeeper([FakeActor(), FakeActor()])
    two = CONFIG.model_copy(update={"actors": 2})
    smaller = Tile(candidates=2, examples=2)

    async def before(dispatcher: Dispatcher) -> None:
        await dispatcher.evaluate(packed(request(8, 6)))
        await dispatcher.use_tile(smaller)
        await dispatcher.leave_cache()

    async def after(dispatcher: Dispatcher) -> None:
        wanted = request(8, 6)
        assert same(await dispatcher.evaluate(packed(wanted)), TiledOracle(ORACLE, smaller).evaluate(wanted))
        statistics = await dispatcher.statistics()
        assert (statistics.tile, statistics.tiles) == (smaller, 8 + 12)
        assert [kind for kind, _ in statistics.events] == ["dispatcher_restart"]
        assert "2 oracle actor(s)" in statistics.events[0][1]

    with_keeper(supervisor, before, two)
    with_keeper(supervisor, after, two)
    assert len(supervisor.started) == 2
    assert all(tile.fresh for actor in supervisor.started.values() for tile in actor.tiles[-3:])


def test_after_a_restart_the_first_call_begins_whatever_it_is() -> None:
    supervisor = FakeKeeper([FakeActor()])

    async def body() -> None:
        assert np.isfinite((await dispatcher_of(supervisor).evaluate(packed(request()))).losses).all()

    asyncio.run(body())


def test_a_smaller_tile_survives_a_restart() -> None:
    supervisor = FakeKeeper([FakeActor(fitting(8))])
    wide = CONFIG.model_copy(update={"tile": WIDE})

    async def before(dispatcher: Dispatcher) -> None:
        await dispatcher.evaluate(packed(request(8, 4)))
        await until(lambda: supervisor.memory.tile != WIDE)

    async def after(dispatcher: Dispatcher) -> None:
        await dispatcher.evaluate(packed(request(8, 4)))
        assert [kind for kind, _ in (await dispatcher.statistics()).events] == ["dispatcher_restart"]

    with_keeper(supervisor, before, wide)
    with_keeper(supervisor, after, wide)
