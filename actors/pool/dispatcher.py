"""The dispatcher: cuts requests into tiles and has them spread over as many oracle actors as there is work for.

It decides where and when a tile is computed, never what it is: tiles follow from the request alone, and every result is
counted once. A lost tile is evaluated again, a straggler is duplicated on another actor, and the first answer wins
(spreading.py). Trials share the pool fairly (fair_queue.py), and the pool follows the work (scaling.py, members.py).
Where a tile does not fit into memory, tiles become smaller for the whole pool, and requests that are not finished are
cut anew, so that the numbers of a request come from one cut.

Its process may die: Ray starts it again, it finds actors and memory at the supervisor, and clients ask again.
"""

import asyncio
import itertools
import logging
import math
import time
from collections import Counter as Tally
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from actors.metrics import PoolMetrics, run_of
from actors.pool.failures import cause_of
from actors.pool.messages import FETCHED, Packed, Recent, unpack
from actors.pool.scaling_policy import Lately, needed, wanted
from actors.pool.tile_scheduler import TileScheduler, TileTask
from actors.pool.worker_group import Worker, WorkerGroup
from distributed_tuner.config.oracle import OracleConfig, Tile
from distributed_tuner.errors import OracleError, OracleMemoryError, OracleTimeout
from distributed_tuner.oracles.cost_model import Counter, build_counter
from distributed_tuner.oracles.tile_size import shrunk, spelled
from distributed_tuner.oracles.tiling import Cut, cut, merge, tile_count
from distributed_tuner.runs.pool import Occupancy, Statistics
from distributed_tuner.values import (
    Answer,
    Cost,
    Evaluation,
    OracleInfo,
    Sampling,
)

log = logging.getLogger(__name__)

TRIES = 6  # actors lost over one question after which it fails
PATIENCE_SECONDS = 30.0  # after which a question that is no tile is put to another actor as well
TICK_SECONDS = 0.25  # between two looks at the size of the pool
WATCH_TICKS = 4  # ... of which so many lie between two looks at stragglers
DRAIN_TICKS = 8  # ... at machines that go away
MEMORY_TICKS = 20  # ... and between two notes of the statistics


class _CutAnew(OracleError):
    """Ends the wait for tiles of a size that is no longer in use."""


@dataclass(frozen=True, slots=True)
class _Memory:
    """State of a dispatcher for its restart."""

    planned: Tile
    tile: Tile
    fresh: bool
    statistics: Statistics
    info: OracleInfo | None


class Dispatcher:
    """Offers ``evaluate`` of one oracle on behalf of a pool. An asyncio actor: all methods may run at the same time.

    ``supervisor``: the name of the pool's supervisor, which ``find`` finds. A handle of it in here would keep Ray from
    starting this actor again.
    """

    def __init__(self, config: OracleConfig, supervisor: str, find: Callable[[str], Any] = ray.get_actor) -> None:
        self._config = config
        self._limits = config.pool
        self._supervisor_name, self._find = supervisor, find
        self._supervisor: Any = None
        self._counter: Counter = build_counter(config)
        self._planned = config.tile  # the size that those who ask reckon with
        self._tile = config.tile
        self._fetched = Recent(FETCHED)
        self._open: set[TileTask] = set()  # of requests under way
        self._questions = 0  # that wait for an actor and are no tiles
        self._members = WorkerGroup(config, self._event, self._members_changed)
        self._metrics = PoolMetrics(run_of(supervisor))
        self._scheduler = TileScheduler(
            self._members, config.may_ask_twice, self._too_large, self._event, self._metrics.tile_done
        )
        self._lately = Lately(self._limits.idle_seconds)
        self._begun: asyncio.Task[None] | None = None
        self._ticking: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return "dispatcher"

    # ------------------------------------------------------------------------------------------------ beginning
    async def _ready(self) -> None:
        """Begin to serve with the first call of any method: after a restart ``start`` is not called."""
        if self._begun is None:
            self._begun = asyncio.create_task(self._begin())
        await asyncio.shield(self._begun)

    async def _begin(self) -> None:
        self._supervisor = self._find(self._supervisor_name)
        known, memory = await self._supervisor.begin.remote(self._config.first_actors)
        if isinstance(memory, _Memory):
            self._planned, self._tile = memory.planned, memory.tile
            self._scheduler.fresh, self._scheduler.statistics = memory.fresh, memory.statistics
            self._members.restarts, self._members.most_up = memory.statistics.restarts, memory.statistics.most_up
            self._members.info = memory.info
            self._event(
                "dispatcher_restart",
                f"the dispatcher died and is restarted; it continues with {len(known)} oracle actor(s). What it counted"
                " in its last seconds (device seconds, tiles, events) is missing from the totals",
            )
        self._members.begin(self._supervisor, known)
        await self._remember()
        self._ticking = asyncio.create_task(self._tick())

    async def start(self) -> OracleInfo:
        """Begin to serve; return the model's facts once the first actor has loaded it.

        Raises:
            ModelError: the model cannot be loaded.
        """
        await self._ready()
        self._questions += 1
        try:
            while self._members.info is None:
                if self._members.fatal is not None:
                    raise self._members.fatal
                await asyncio.sleep(0.05)
        finally:
            self._questions -= 1
        return self._members.info

    async def free_bytes(self) -> int | None:
        """Return the free memory of the first actor that is up; None where its device does not tell."""
        free: int | None = await self._on_any("free_bytes")
        return free

    async def use_tile(self, tile: Tile) -> None:
        """Cut requests by this size from here on."""
        await self._ready()
        self._planned = self._tile = tile
        await self._remember()

    async def leave_cache(self) -> None:
        """Have everything computed anew from here on, and kept no more."""
        await self._ready()
        self._scheduler.fresh = True
        await self._remember()

    async def cost(self, packed: Packed) -> Cost:
        """Return what a request costs."""
        return self._counter.cost(await unpack(packed, self._fetched))

    # ------------------------------------------------------------------------------------------------ requests
    @ray.method(max_task_retries=0)  # type: ignore[untyped-decorator]
    async def evaluate(
        self, packed: Packed, timeout: float = math.inf, client_id: str = "", priority: float = 1.0
    ) -> Evaluation:
        """Answer a request from its tiles.

        asker: who gets a fair share of the pool, a trial for example. priority: its share beside those of others.

        Raises:
            OracleTimeout: not done within ``timeout`` seconds; what is left of it is dropped.
            OracleMemoryError: not even its smallest tile fits into memory.
            OracleError: its tiles were lost again and again.
            TunerError: the oracle refused the request.
        """
        until = time.monotonic() + timeout
        await self._ready()
        request = await unpack(packed, self._fetched)
        planned = max(1, tile_count(request, self._planned))
        while True:
            size = self._tile
            cuts = cut(request, size)
            # More tiles than were reckoned with may keep more devices busy: the time shrinks as their number grows.
            left = (until - time.monotonic()) * planned / max(planned, len(cuts))
            try:
                answer = merge(request, cuts, await self._answers(packed, cuts, size, left, client_id, priority))
            except _CutAnew:
                continue
            self._metrics.request_done(answer.cost.queries)
            return answer

    async def _answers(
        self, packed: Packed, cuts: list[Cut], size: Tile, timeout: float, client_id: str, priority: float
    ) -> list[Evaluation]:
        if self._members.fatal is not None:
            raise self._members.fatal
        loop = asyncio.get_running_loop()
        tile_tasks = [TileTask(packed, one, size, loop.create_future()) for one in cuts]
        self._open.update(tile_tasks)
        self._scheduler.add(client_id, tile_tasks, priority)
        self._fit()
        try:
            limit = None if math.isinf(timeout) else timeout
            return list(await asyncio.wait_for(asyncio.gather(*(tile_task.answer for tile_task in tile_tasks)), limit))
        except TimeoutError:
            raise OracleTimeout(f"no answer within {timeout:.1f} s; the request was given up") from None
        finally:
            self._open.difference_update(tile_tasks)
            for tile_task in tile_tasks:
                tile_task.answer.cancel()  # of those without an answer
            if any(tile_task.answer.cancelled() or tile_task.answer.exception() for tile_task in tile_tasks):
                self._scheduler.forget(tile_tasks)

    def _too_large(self, tile_task: TileTask, error: OracleMemoryError) -> None:
        """Make tiles smaller and have all open requests cut anew. Of tiles that run out together, the first does it."""
        if tile_task.answer.done() or tile_task.size != self._tile:
            return
        (c0, c1), (e0, e1) = tile_task.cut.candidates, tile_task.cut.examples
        smaller = shrunk(self._tile, c1 - c0, e1 - e0)
        if smaller is None:
            smallest = f"{c1 - c0} candidate(s) on {e1 - e0} example(s)"
            advice = "use a smaller model, a shorter prompt, shorter texts, or a device with more memory"
            tile_task.fail(OracleMemoryError(f"{error}; {smallest} is the smallest tile: {advice}"))
            return
        sizes = f"{spelled(smaller)} instead of {spelled(self._tile)}"
        self._event("tile_halved", f"tiles are {sizes} from here on, for the whole pool: {error}")
        self._tile = smaller
        self._members.beside(self._remember())
        for other in self._open:
            other.fail(_CutAnew())

    # ------------------------------------------------------------------------------------------------ questions
    async def ask(self, method: str, *arguments: Any) -> Any:
        """Answer a question to the model's codec: what its ``method`` returns. ``RemoteCodec`` has it typed."""
        return await self._on_any("ask", method, *arguments)

    async def write(self, instruction: str, sampling: Sampling) -> Answer:
        """Have the model answer an instruction in words.

        Raises:
            ProposerError: there is no answer.
            OracleError: no oracle lives long enough to give it.
        """
        answer: Answer = await self._on_any("write", instruction, sampling)
        return answer

    async def statistics(self) -> Statistics:
        """Return what the pool has done; the events since the last call are handed over."""
        current = self._counted()
        self._scheduler.statistics.events = []
        return current

    async def occupancy(self) -> Occupancy:
        """Return how the pool stands at this moment."""
        return Occupancy(self._members.number_up, self._scheduler.busy, self._scheduler.waiting)

    def _counted(self) -> Statistics:
        statistics, members = self._scheduler.statistics, self._members
        return replace(
            statistics,
            counts=Tally(statistics.counts),
            restarts=members.restarts,
            tile=self._tile,
            up=members.number_up,
            most_up=members.most_up,
        )

    async def _on_any(self, method: str, *arguments: Any) -> Any:
        """Ask one actor, another where it dies, and another as well where it is silent: it may hang. One that is late
        with its tiles is asked last, however little it has to do."""
        await self._ready()
        asked: dict[asyncio.Future[Any], Worker] = {}
        losses = 0
        self._questions += 1
        try:
            while losses < TRIES:
                if self._members.fatal is not None:
                    raise self._members.fatal
                others = [one for one in self._members.up if one not in asked.values()]
                others.sort(key=self._scheduler.late.__contains__)
                if others and (not asked or self._config.may_ask_twice):
                    one = others[losses % len(others)]
                    asked[asyncio.ensure_future(_answer_of(one, method, arguments))] = one
                if not asked:  # no worker is up
                    await asyncio.sleep(TICK_SECONDS)
                    continue
                done, _ = await asyncio.wait(asked, timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                for future in done:
                    del asked[future]
                    try:
                        return future.result()
                    except RayTaskError as error:
                        raise cause_of(error) from None
                    except RayError:
                        losses += 1
                        await asyncio.sleep(2 * TICK_SECONDS)
        finally:
            self._questions -= 1
            for future in asked:
                future.cancel()
        raise OracleError(f"no oracle actor answered {method} in {TRIES} tries; see the oracles' logs in Ray")

    # ------------------------------------------------------------------------------------------------ the pool
    def _members_changed(self) -> None:
        if self._members.fatal is not None:
            for tile_task in self._open:
                tile_task.fail(self._members.fatal)
        self._scheduler.members_changed()

    async def _tick(self) -> None:
        """Look after the pool, for ever."""
        for tick in itertools.count():
            self._fit()
            self._show()
            if tick % WATCH_TICKS == 0:
                self._scheduler.watch(time.monotonic())
            try:
                if tick % DRAIN_TICKS == 0:
                    self._drain(await self._supervisor.drained.remote())
                if tick % MEMORY_TICKS == 0:
                    await self._remember()
            except RayError as error:
                log.warning("the supervisor does not answer: %s", error)
            await asyncio.sleep(TICK_SECONDS)

    def _fit(self) -> None:
        """Have as many actors as there is work for."""
        late = self._scheduler.late
        enough = needed(self._limits, self._scheduler.load + self._questions, len(late))
        most = wanted(self._limits, enough, self._lately.note(enough, time.monotonic()))
        self._members.fit(most, {member.node for member in late})

    def _show(self) -> None:
        """Update the metrics of the pool."""
        counted = self._counted()
        self._metrics.update(
            up=counted.up,
            busy=self._scheduler.busy,
            waiting=self._scheduler.waiting,
            retries=counted.retries,
            duplicates=counted.duplicates,
            restarts=counted.restarts,
        )

    def _drain(self, nodes: set[str]) -> None:
        """Leave machines that are going away."""
        leaving = self._members.on(nodes)
        if leaving:
            names = ", ".join(member.name for member in leaving)
            self._event("oracle_leaves", f"the machine of {names} is going away; another actor is asked for")
            self._scheduler.leave(leaving)
            self._fit()

    async def _remember(self) -> None:
        """Have the supervisor keep what a dispatcher in this one's place would need; no events, which would come
        twice."""
        statistics = replace(self._counted(), events=[])
        memory = _Memory(self._planned, self._tile, self._scheduler.fresh, statistics, self._members.info)
        await self._supervisor.remember.remote(memory)

    def _event(self, kind: str, message: str) -> None:
        log.warning("%s: %s", kind, message)
        self._scheduler.statistics.events.append((kind, message))


async def _answer_of(member: Worker, method: str, arguments: tuple[Any, ...]) -> Any:
    return await getattr(member.actor, method).remote(*arguments)


DispatcherActor = ray.remote(num_cpus=0, max_concurrency=1000, max_restarts=-1, max_task_retries=-1)(Dispatcher)
