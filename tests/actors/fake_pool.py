"""A dispatcher among fake actors: plain objects whose methods answer, hang or die as a test wants. No cluster."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray.exceptions import RayTaskError

from actors.pool.dispatcher import Dispatcher
from actors.pool.messages import Opener, Packed, Reply, Tiles, pack, reply
from distributed_tuner.config.oracle import AnalyticOracleConfig, Tile
from distributed_tuner.errors import OracleMemoryError, TunerError
from distributed_tuner.oracles.analytic import AnalyticOracle
from distributed_tuner.values import Batch, Evaluation, Example, OracleInfo, Point, PromptSpec, Request

CONFIG = AnalyticOracleConfig(kind="analytic", width=4, tile=Tile(candidates=2, examples=3))
PROMPT = PromptSpec(2, "zeros", "", "prefix", "paper")
ORACLE = AnalyticOracle(CONFIG)
WIDE = Tile(candidates=8, examples=4)
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
    """A supervisor's handle that has ``spare`` actors to start, in order; it starts fewer when there are no more."""

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


def dispatcher_of(supervisor: FakeKeeper, config: AnalyticOracleConfig = CONFIG) -> Dispatcher:
    return Dispatcher(config, "supervisor", lambda name: supervisor)


def with_pool(actors: list[FakeActor], body: Callable[[Dispatcher], Awaitable[Any]], tile: Tile = CONFIG.tile) -> Any:
    """Run ``body`` beside a dispatcher of these actors that has started."""
    config = CONFIG.model_copy(update={"tile": tile, "actors": len(actors)})
    return with_keeper(FakeKeeper(actors), body, config)


def with_keeper(
    supervisor: FakeKeeper, body: Callable[[Dispatcher], Awaitable[Any]], config: AnalyticOracleConfig = CONFIG
) -> Any:
    """Run ``body`` beside a dispatcher that has started."""

    async def main() -> Any:
        dispatcher = dispatcher_of(supervisor, config)
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


async def leisurely(tile: Request) -> Evaluation:
    await asyncio.sleep(0.02)
    return ORACLE.evaluate(tile)


def fitting(most: int, answer_of: Callable[[Request], Evaluation] = ORACLE.evaluate) -> Answering:
    """Return an actor's answer: tiles of more than ``most`` forwards do not fit into its memory."""

    async def evaluate(tile: Request) -> Evaluation:
        await asyncio.sleep(0)
        if len(tile.candidates) * len(tile.batch.examples) > most:
            raise OracleMemoryError("a tile must fit, but CUDA out of memory")
        return answer_of(tile)

    return evaluate
