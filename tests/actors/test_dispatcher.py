"""The dispatcher among fake actors: plain objects whose methods answer, hang or die as a test wants. No cluster."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from actors import dispatcher as module
from actors import stragglers
from actors.dispatcher import Dispatcher
from actors.spreading import IN_FLIGHT, TILE_TRIES
from actors.wire import Opener, Packed, Reply, Tiles, pack, reply
from distributed_tuner.config.oracle import AnalyticOracleConfig, Elastic, Tile
from distributed_tuner.errors import (
    ModelError,
    OracleError,
    OracleMemoryError,
    OracleTimeout,
    TaskError,
    TunerError,
)
from distributed_tuner.oracles.analytic import AnalyticOracle
from distributed_tuner.oracles.tiled import TiledOracle
from distributed_tuner.values import (
    Batch,
    Cost,
    Evaluation,
    Example,
    OracleInfo,
    Point,
    PromptSpec,
    Request,
    TokenSpace,
)

CONFIG = AnalyticOracleConfig(kind="analytic", width=4, tile=Tile(candidates=2, examples=3))
PROMPT = PromptSpec(2, "zeros", "", "prefix", "paper")
ORACLE = AnalyticOracle(CONFIG)
Answering = Callable[[Request], Awaitable[Evaluation]]


def request(candidates: int = 4, examples: int = 6, name: str = "a") -> Request:
    """Return a request of (candidates / 2) * (examples / 3) tiles."""
    rows = tuple(Example(f"{name}-{i}", f"{name} good film {i}", " It was", i % 2) for i in range(examples))
    points = tuple(Point(np.full(8, 0.1 * i, dtype=np.float32)) for i in range(candidates))
    return Request(points, Batch(rows, (" bad", " good"), "train"), PROMPT)


async def answer(tile: Request) -> Evaluation:
    return ORACLE.evaluate(tile)


class FakeActor:
    """An oracle actor's handle. ``calls``: how many tiles each call held; ``tiles`` are those it was sent."""

    def __init__(
        self, evaluate: Answering = answer, info: Callable[[], OracleInfo] = lambda: ORACLE.info, node: str = "here"
    ) -> None:
        self.tiles: list[Request] = []
        self.calls: list[int] = []
        self._evaluate = evaluate
        self._info = info
        self._node = node
        self.evaluate = SimpleNamespace(remote=self._on_evaluate)
        self.info = SimpleNamespace(remote=self._on_info)
        self.node = SimpleNamespace(remote=self._on_node)

    async def _on_evaluate(self, tiles: Tiles) -> list[Reply | TunerError]:
        requests = Opener().open(tiles)
        self.calls.append(len(requests))
        answers: list[Reply | TunerError] = []
        for tile in requests:
            self.tiles.append(tile)
            await asyncio.sleep(0)
            try:
                answers.append(reply(await self._evaluate(tile)))
            except TunerError as error:
                answers.append(error)
        return answers

    async def _on_info(self) -> OracleInfo:
        await asyncio.sleep(0)
        return self._info()

    async def _on_node(self) -> str:
        return self._node


class FakeKeeper:
    """A keeper's handle that has ``spare`` actors to start, in order; it starts fewer when there are no more."""

    def __init__(self, spare: Iterable[FakeActor]) -> None:
        self.spare = list(spare)
        self.started: dict[str, FakeActor] = {}
        self.ended: list[str] = []
        self.memory: Any = None
        self.nodes: set[str] = set()
        self.avoided: set[str] = set()
        self._begun = False
        for name in ("begin", "start", "end", "remember", "drained"):
            setattr(self, name, SimpleNamespace(remote=getattr(self, f"_on_{name}")))

    async def _on_begin(self, count: int) -> tuple[dict[str, FakeActor], Any]:
        if not self._begun:
            self._begun = True
            await self._on_start(count)
        return {name: actor for name, actor in self.started.items() if name not in self.ended}, self.memory

    async def _on_start(self, count: int, avoid: Sequence[str] = ()) -> dict[str, FakeActor]:
        self.avoided |= set(avoid)
        await asyncio.sleep(0)
        chosen, self.spare = self.spare[:count], self.spare[count:]
        new = {f"oracle-{len(self.started) + i}": actor for i, actor in enumerate(chosen)}
        self.started |= new
        return new

    async def _on_end(self, names: list[str]) -> None:
        self.ended.extend(names)

    async def _on_remember(self, memory: Any) -> None:
        self.memory = memory

    async def _on_drained(self) -> set[str]:
        return self.nodes


def packed(wanted: Request) -> Packed:
    return pack(wanted, put=lambda value: value)


def dispatcher_of(keeper: FakeKeeper, config: AnalyticOracleConfig = CONFIG) -> Dispatcher:
    return Dispatcher(config, "keeper", lambda name: keeper)


def with_pool(actors: list[FakeActor], body: Callable[[Dispatcher], Awaitable[Any]], tile: Tile = CONFIG.tile) -> Any:
    """Run ``body`` beside a dispatcher of these actors that has started."""
    config = CONFIG.model_copy(update={"tile": tile, "actors": len(actors)})
    return with_keeper(FakeKeeper(actors), body, config)


def with_keeper(
    keeper: FakeKeeper, body: Callable[[Dispatcher], Awaitable[Any]], config: AnalyticOracleConfig = CONFIG
) -> Any:
    """Run ``body`` beside a dispatcher that has started."""

    async def main() -> Any:
        dispatcher = dispatcher_of(keeper, config)
        await dispatcher.start()
        async with asyncio.timeout(20):
            return await body(dispatcher)

    return asyncio.run(main())


async def until(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds."""
    while not condition():
        await asyncio.sleep(0.01)


def raised(error: Exception) -> Exception:
    """Return an error as Ray hands it on from a task."""
    wrapped = RayTaskError("evaluate", f"Traceback\n{error}", error).as_instanceof_cause()
    assert isinstance(wrapped, Exception)
    return wrapped


def same(a: Evaluation, b: Evaluation) -> bool:
    return bool(np.array_equal(a.logits, b.logits) and np.array_equal(a.losses, b.losses))


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


def test_an_actor_that_is_gone_for_good_is_replaced() -> None:
    died = False

    async def die(tile: Request) -> Evaluation:
        nonlocal died
        died = True
        raise ActorDiedError()

    def info() -> OracleInfo:
        if died:
            raise ActorDiedError()
        return ORACLE.info

    async def body(dispatcher: Dispatcher) -> None:
        wanted = request()
        assert same(await dispatcher.evaluate(packed(wanted)), TiledOracle(ORACLE, CONFIG.tile).evaluate(wanted))
        kinds = [kind for kind, _ in (await dispatcher.statistics()).events]
        assert kinds == ["oracle_restart", "oracle_lost"]

    with_keeper(FakeKeeper([FakeActor(die, info), FakeActor()]), body)


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


def test_a_straggler_is_given_to_another_actor_and_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stragglers, "SECONDS", 0.2)
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


# --------------------------------------------------------------------------------------------------- out of memory
WIDE = Tile(candidates=8, examples=4)


def fitting(most: int, answer_of: Callable[[Request], Evaluation] = ORACLE.evaluate) -> Answering:
    """Return an actor's answer: tiles of more than ``most`` forwards do not fit into its memory."""

    async def evaluate(tile: Request) -> Evaluation:
        await asyncio.sleep(0)
        if len(tile.candidates) * len(tile.batch.examples) > most:
            raise OracleMemoryError("a tile must fit, but CUDA out of memory")
        return answer_of(tile)

    return evaluate


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
    actor.project = SimpleNamespace(remote=refusing)  # type: ignore[attr-defined]

    async def body(dispatcher: Dispatcher) -> None:
        with pytest.raises(ModelError, match=r"^a text must have a token$") as caught:
            await dispatcher.project([], "prefix", TokenSpace())
        assert type(caught.value) is ModelError

    with_pool([actor], body)


# --------------------------------------------------------------------------------------------------- askers
def test_trials_share_the_pool_fairly_however_they_cut_their_asks() -> None:
    order: list[str] = []

    async def note(tile: Request) -> Evaluation:
        order.append(tile.batch.examples[0].text.split()[0])
        return ORACLE.evaluate(tile)

    async def body(dispatcher: Dispatcher) -> None:
        async def ask(name: str) -> None:
            await dispatcher.evaluate(packed(request(40, 3, name)), asker=name)

        many = [dispatcher.evaluate(packed(request(40, 3, "many")), asker="many") for _ in range(5)]
        await asyncio.gather(*many, ask("one"))

    with_pool([FakeActor(note)], body)
    assert len(order) == 120
    assert max(i for i, name in enumerate(order) if name == "one") < 60, "half of the pool, not a sixth"


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


# --------------------------------------------------------------------------------------------------- growing, shrinking
@pytest.fixture
def quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the dispatcher look at its pool a hundred times a second."""
    monkeypatch.setattr(module, "TICK_SECONDS", 0.01)


def elastic(least: int, most: int, queue: int = 2, idle_seconds: float = 0.2) -> AnalyticOracleConfig:
    limits = Elastic(min=least, max=most, queue=queue, idle_seconds=idle_seconds)
    return CONFIG.model_copy(update={"actors": limits})


async def leisurely(tile: Request) -> Evaluation:
    await asyncio.sleep(0.02)
    return ORACLE.evaluate(tile)


@pytest.mark.usefixtures("quick_ticks")
def test_a_pool_grows_with_what_waits_and_shrinks_to_nothing_when_idle() -> None:
    keeper = FakeKeeper([FakeActor(leisurely) for _ in range(9)])

    async def body(dispatcher: Dispatcher) -> None:
        await until(lambda: keeper.ended == ["oracle-0"])
        wanted = request(20, 6)
        expected = TiledOracle(ORACLE, CONFIG.tile).evaluate(wanted)
        assert same(await dispatcher.evaluate(packed(wanted)), expected)
        statistics = await dispatcher.statistics()
        assert (statistics.up, statistics.most_up) == (4, 4)
        assert statistics.tiles == 20
        await until(lambda: len(keeper.ended) == 5)
        assert (await dispatcher.statistics()).up == 0
        assert same(await dispatcher.evaluate(packed(wanted)), expected)
        kinds = [kind for kind, _ in statistics.events]
        assert kinds[0] == "pool_shrinks"
        assert kinds.count("pool_grows") == 1

    with_keeper(keeper, body, elastic(0, 4))
    assert len(keeper.started) == 9
    assert all(actor.tiles for name, actor in keeper.started.items() if name != "oracle-0")


@pytest.mark.usefixtures("quick_ticks")
def test_an_actor_works_as_soon_as_it_is_up_and_others_are_still_loading() -> None:
    loaded = asyncio.Event()

    class Loading(FakeActor):
        async def _on_info(self) -> OracleInfo:
            await loaded.wait()
            return ORACLE.info

    second, third = FakeActor(leisurely), Loading()
    keeper = FakeKeeper([FakeActor(leisurely), second, third])

    async def body(dispatcher: Dispatcher) -> None:
        await dispatcher.evaluate(packed(request(20, 6)))
        assert second.tiles and not third.tiles
        loaded.set()
        await until(lambda: len(keeper.started) == 3)
        await dispatcher.evaluate(packed(request(40, 6)))
        assert third.tiles

    with_keeper(keeper, body, elastic(1, 3))


@pytest.mark.usefixtures("quick_ticks")
def test_an_actor_that_is_let_go_ends_its_tiles_first() -> None:
    keeper = FakeKeeper([FakeActor(leisurely) for _ in range(3)])

    async def body(dispatcher: Dispatcher) -> None:
        await dispatcher.evaluate(packed(request(20, 6)))
        for _ in range(40):  # one tile at a time: one actor is enough
            await dispatcher.evaluate(packed(request(2, 3)))
        assert len(keeper.ended) == 2
        statistics = await dispatcher.statistics()
        assert (statistics.up, statistics.retries, statistics.restarts) == (1, 0, 0)

    with_keeper(keeper, body, elastic(1, 3, idle_seconds=0.3))


@pytest.mark.usefixtures("quick_ticks")
def test_the_actors_of_a_machine_that_goes_away_are_replaced_and_get_nothing_more() -> None:
    gate = asyncio.Event()

    async def slow(tile: Request) -> Evaluation:
        await gate.wait()
        return ORACLE.evaluate(tile)

    leaving, staying, coming = FakeActor(slow, node="spot"), FakeActor(node="other"), FakeActor(node="third")
    keeper = FakeKeeper([leaving, staying, coming])

    async def body(dispatcher: Dispatcher) -> None:
        wanted = request(8, 6)
        asked = asyncio.create_task(dispatcher.evaluate(packed(wanted)))
        await until(lambda: leaving.tiles)
        keeper.nodes = {"spot"}
        assert same(await asked, TiledOracle(ORACLE, CONFIG.tile).evaluate(wanted)), "its tiles went to others"
        assert keeper.ended == []
        sent = len(leaving.tiles)
        await until(lambda: len(keeper.started) == 3)
        await dispatcher.evaluate(packed(request(40, 6)))
        assert coming.tiles
        assert len(leaving.tiles) == sent
        gate.set()
        await until(lambda: keeper.ended == ["oracle-0"])
        statistics = await dispatcher.statistics()
        assert statistics.tiles == 8 + 40
        assert [kind for kind, _ in statistics.events] == ["oracle_leaves"]

    with_keeper(keeper, body, CONFIG.model_copy(update={"actors": 2}))


@pytest.mark.usefixtures("quick_ticks")
def test_what_a_silent_actor_has_goes_to_the_one_that_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stragglers, "FIRST_SECONDS", 0.1)

    async def never(tile: Request) -> Evaluation:
        await asyncio.Event().wait()
        raise AssertionError

    frozen, coming = FakeActor(never, node="frozen"), FakeActor()
    keeper = FakeKeeper([frozen, coming])

    async def body(dispatcher: Dispatcher) -> None:
        wanted = request(4, 3)
        assert same(await dispatcher.evaluate(packed(wanted)), TiledOracle(ORACLE, CONFIG.tile).evaluate(wanted))
        assert (await dispatcher.statistics()).tiles == 2

    with_keeper(keeper, body, elastic(1, 2, queue=100))
    assert len(coming.tiles) == 2
    assert keeper.avoided == {"frozen"}


@pytest.mark.usefixtures("quick_ticks")
def test_an_actor_that_hangs_is_ended_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stragglers, "LOST_SECONDS", 0.2)
    ended = asyncio.Event()

    async def hang_later(tile: Request) -> Evaluation:
        if len(hanging.tiles) > 6:
            await ended.wait()
            raise ActorDiedError()
        return ORACLE.evaluate(tile)

    hanging, coming = FakeActor(hang_later), FakeActor()
    keeper = FakeKeeper([hanging, coming])

    async def end(names: list[str]) -> None:
        keeper.ended.extend(names)
        ended.set()

    keeper.end = SimpleNamespace(remote=end)  # type: ignore[attr-defined]

    async def body(dispatcher: Dispatcher) -> None:
        for _ in range(8):
            await dispatcher.evaluate(packed(request(4, 3)))
        statistics = await dispatcher.statistics()
        assert keeper.ended == ["oracle-0"]
        assert [kind for kind, _ in statistics.events] == ["oracle_lost"]
        assert "has answered nothing for" in statistics.events[0][1]

    with_keeper(keeper, body)


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


# --------------------------------------------------------------------------------------------------- starting again
def test_a_dispatcher_that_is_started_again_finds_actors_tile_size_and_totals() -> None:
    keeper = FakeKeeper([FakeActor(), FakeActor()])
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

    with_keeper(keeper, before, two)
    with_keeper(keeper, after, two)
    assert len(keeper.started) == 2
    assert all(tile.fresh for actor in keeper.started.values() for tile in actor.tiles[-3:])


def test_after_a_restart_the_first_call_begins_whatever_it_is() -> None:
    keeper = FakeKeeper([FakeActor()])

    async def body() -> None:
        assert np.isfinite((await dispatcher_of(keeper).evaluate(packed(request()))).losses).all()

    asyncio.run(body())


def test_a_smaller_tile_survives_a_restart() -> None:
    keeper = FakeKeeper([FakeActor(fitting(8))])
    wide = CONFIG.model_copy(update={"tile": WIDE})

    async def before(dispatcher: Dispatcher) -> None:
        await dispatcher.evaluate(packed(request(8, 4)))
        await until(lambda: keeper.memory.tile != WIDE)

    async def after(dispatcher: Dispatcher) -> None:
        await dispatcher.evaluate(packed(request(8, 4)))
        assert [kind for kind, _ in (await dispatcher.statistics()).events] == ["dispatcher_restart"]

    with_keeper(keeper, before, wide)
    with_keeper(keeper, after, wide)
