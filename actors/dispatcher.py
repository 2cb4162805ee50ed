"""The dispatcher: cuts requests into tiles and spreads them over the oracle actors.

It decides where and when a tile is computed, never what it is: tiles follow from the request alone, and every result is
counted once. A lost tile is evaluated again, a straggler is duplicated on an idle actor, and the first answer wins.
Where a tile does not fit into memory, tiles become smaller for the whole pool, and requests that are not finished are
cut anew, so that the numbers of a request come from one cut.
"""

import asyncio
import contextlib
import logging
import math
import statistics
import time
from collections import Counter as Tally
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayTaskError

from actors.wire import Packed
from distributed_tuner.config.oracle import OracleConfig, Tile
from distributed_tuner.errors import OracleError, OracleMemoryError, OracleTimeout, TunerError
from distributed_tuner.oracles.counting import Counter, build_counter
from distributed_tuner.oracles.tile_size import shrunk, spelled
from distributed_tuner.oracles.tiling import Cut, cut, merge
from distributed_tuner.values import (
    Answer,
    Array,
    Cost,
    Evaluation,
    Layout,
    OracleInfo,
    Request,
    Sampling,
    TokenSpace,
)

log = logging.getLogger(__name__)

IN_FLIGHT = 2  # tiles sent to an actor at a time: one computes, one waits, the device never does
LONG_TILE_SECONDS = 0.2  # longer tiles go one at a time: the gap is nothing to them, and no tile waits twice
TILE_TRIES = 6  # losses of one tile after which its request fails
STRAGGLER_FACTOR = 4.0  # a tile slower than so many medians is given to an idle actor as well
STRAGGLER_SECONDS = 5.0  # ... but not before this time


@dataclass(eq=False, slots=True)
class _Tile:
    packed: Packed
    cut: Cut
    size: Tile  # that it was cut by
    answer: "asyncio.Future[Evaluation]"
    losses: int = 0
    started: float = math.inf
    runners: set[int] = field(default_factory=set)  # the actors that have it


class _CutAnew(OracleError):
    """Ends the wait for tiles of a size that is no longer in use."""


@dataclass(slots=True)
class Statistics:
    """What the pool has done so far. ``busy_seconds``: device seconds of counted tiles. ``counts``: what their answers
    told beside (``Evaluation.counts``). ``tile``: the size in use, None where it is not known."""

    tiles: int = 0
    retries: int = 0
    duplicates: int = 0
    restarts: int = 0
    busy_seconds: float = 0.0
    counts: Tally[str] = field(default_factory=Tally)
    events: list[tuple[str, str]] = field(default_factory=list)
    tile: Tile | None = None


class Dispatcher:
    """Offers ``evaluate`` of one oracle on behalf of a pool. An asyncio actor: all methods may run at the same time."""

    def __init__(self, config: OracleConfig, actors: list[Any]) -> None:
        self._config = config
        self._actors = actors
        self._counter: Counter = build_counter(config)
        self._planned = config.tile  # the size that those who ask reckon with
        self._tile = config.tile
        self._fresh = False  # whatever oracles have kept is left aside
        self._open: set[_Tile] = set()  # of requests under way
        self._queues: deque[deque[_Tile]] = deque()
        self._running: set[_Tile] = set()
        self._work = asyncio.Condition()
        self._lives = [0] * len(actors)  # how often each was restarted
        self._up: set[int] = set()
        self._gone: set[int] = set()  # for good
        self._fatal: TunerError | None = None
        self._durations: deque[float] = deque(maxlen=100)
        self._statistics = Statistics()
        self._info: OracleInfo | None = None
        self._workers: list[asyncio.Task[None]] = []

    async def start(self) -> OracleInfo:
        """Begin to serve; return the model's facts once the first actor has loaded it.

        Raises:
            ModelError: the model cannot be loaded.
        """
        for index, actor in enumerate(self._actors):
            self._workers.append(asyncio.create_task(self._serve(index, actor)))
        if self._config.may_ask_twice:
            self._workers.append(asyncio.create_task(self._watch_stragglers()))
        while self._info is None and self._fatal is None:
            await asyncio.sleep(0.05)
        if self._fatal is not None:
            raise self._fatal
        assert self._info is not None
        return self._info

    async def free_bytes(self) -> int | None:
        """Return the free memory of the first actor that is up; None where its device does not tell."""
        free: int | None = await self._on_any("free_bytes")
        return free

    async def use_tile(self, tile: Tile) -> None:
        """Cut requests by this size from here on."""
        self._planned = self._tile = tile

    async def leave_cache(self) -> None:
        """Have everything computed anew from here on, and kept no more."""
        self._fresh = True

    async def cost(self, request: Request) -> Cost:
        """Return what a request costs, centres not needed."""
        return self._counter.cost(request)

    async def evaluate(self, packed: Packed, timeout: float = math.inf) -> Evaluation:
        """Answer a request from its tiles.

        Raises:
            OracleTimeout: not done within ``timeout`` seconds; what is left of it is dropped.
            OracleMemoryError: not even its smallest tile fits into memory.
            OracleError: its tiles were lost again and again.
            TunerError: the oracle refused the request.
        """
        until = time.monotonic() + timeout
        planned = max(1, len(cut(packed.request, self._planned)))
        while True:
            size = self._tile
            cuts = cut(packed.request, size)
            # More tiles than were reckoned with may keep more devices busy: the time shrinks as their number grows.
            left = (until - time.monotonic()) * planned / max(planned, len(cuts))
            try:
                return merge(packed.request, cuts, await self._answers(packed, cuts, size, left))
            except _CutAnew:
                continue

    async def _answers(self, packed: Packed, cuts: list[Cut], size: Tile, timeout: float) -> list[Evaluation]:
        loop = asyncio.get_running_loop()
        tiles = [_Tile(packed, piece, size, loop.create_future()) for piece in cuts]
        queue = deque(tiles)
        async with self._work:
            if self._fatal is not None:
                raise self._fatal
            if size != self._tile:
                raise _CutAnew
            self._open.update(tiles)
            self._queues.append(queue)
            self._work.notify_all()
        try:
            limit = None if math.isinf(timeout) else timeout
            return list(await asyncio.wait_for(asyncio.gather(*(tile.answer for tile in tiles)), limit))
        except TimeoutError:
            raise OracleTimeout(f"no answer within {timeout:.1f} s; the request was given up") from None
        finally:
            queue.clear()
            self._open.difference_update(tiles)
            for tile in tiles:
                tile.answer.cancel()

    async def materialize(self, packed: Packed) -> Array:
        """Return the rows (L, D) of the request's first candidate."""
        vectors = await asyncio.gather(*packed.refs)
        from actors.wire import unpack

        request = unpack(packed.request, packed.ids, tuple(vectors))
        rows: Array = await self._on_any("materialize", request.candidates[0], request.prompt)
        return rows

    async def nearest_tokens(self, rows: Array, layout: Layout = "prefix") -> list[tuple[str, float]]:
        """Return each row's nearest token and its cosine."""
        tokens: list[tuple[str, float]] = await self._on_any("nearest_tokens", rows, layout)
        return tokens

    async def project(self, rows: Sequence[Array], layout: Layout, space: TokenSpace) -> list[str]:
        """Return each prompt's text."""
        texts: list[str] = await self._on_any("project", rows, layout, space)
        return texts

    async def token_count(self, text: str) -> int:
        """Return how many tokens a text has."""
        count: int = await self._on_any("token_count", text)
        return count

    async def vocabulary(self, space: TokenSpace) -> tuple[str, ...]:
        """Return the allowed tokens."""
        tokens: tuple[str, ...] = await self._on_any("vocabulary", space)
        return tokens

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
        current = replace(self._statistics, tile=self._tile)
        self._statistics = replace(current, counts=Tally(current.counts), events=[])
        return current

    # ------------------------------------------------------------------------------------------------ workers
    async def _serve(self, index: int, actor: Any) -> None:
        await self._until_ready(index, actor)
        await asyncio.gather(*(self._pull(index, actor, slot) for slot in range(IN_FLIGHT)))

    async def _until_ready(self, index: int, actor: Any) -> None:
        """Wait until an actor answers, or is gone for good; the pool goes on without it then."""
        while True:
            try:
                info = await actor.info.remote()
            except (ActorDiedError, RayTaskError) as error:  # Ray restarts it no more: its start failed
                await self._give_up(index, _cause(error))
                return
            except RayActorError:
                await asyncio.sleep(0.2)
                continue
            self._info = self._info or info
            async with self._work:
                self._up.add(index)
                self._work.notify_all()
            return

    async def _give_up(self, index: int, error: TunerError) -> None:
        self._event("oracle_lost", f"oracle {index} cannot start: {error}")
        async with self._work:
            self._gone.add(index)
            self._work.notify_all()
        if len(self._gone) == len(self._actors):
            self._fatal = error
            for tile in self._open:
                _fail(tile, error)

    async def _pull(self, index: int, actor: Any, slot: int) -> None:
        while (tile := await self._next(index, slot)) is not None:
            if tile.answer.done():
                continue
            life = self._lives[index]
            if not await self._run(tile, index, actor):
                await self._lost(tile)
                if life == self._lives[index]:  # of the tiles that one death takes, the first to tell of it
                    await self._restarted(index, actor)

    async def _next(self, index: int, slot: int) -> _Tile | None:
        """Return an actor's next tile once there is one and the actor is up; None when the actor is gone for good."""
        async with self._work:
            while index not in self._gone:
                ready = index in self._up and (slot == 0 or self._tiles_are_short())
                tile = self._pop(index) if ready else None
                if tile is not None:
                    return tile
                await self._work.wait()
        return None

    def _tiles_are_short(self) -> bool:
        return not self._durations or statistics.median(self._durations) < LONG_TILE_SECONDS

    def _pop(self, index: int) -> _Tile | None:
        """Take one tile from each request in turn, so that no large population starves the others.

        A straggler's duplicate is not for the actor that has it already.
        """
        for _ in range(len(self._queues)):
            queue = self._queues.popleft()
            if queue and index in queue[0].runners:
                self._queues.append(queue)
            elif queue:
                tile = queue.popleft()
                if queue:
                    self._queues.append(queue)
                return tile
        return None

    async def _run(self, tile: _Tile, index: int, actor: Any) -> bool:
        """Have a tile computed. False: it was lost with its actor."""
        tile.started = min(tile.started, time.monotonic())
        tile.runners.add(index)
        self._running.add(tile)
        try:
            request = tile.cut.of(tile.packed.request)
            if self._fresh:
                request = replace(request, fresh=True)
            answer = await actor.evaluate.remote(request, tile.packed.ids, *tile.packed.refs)
        except RayActorError:
            return False
        except RayTaskError as error:
            cause = _cause(error)
            if isinstance(cause, OracleMemoryError):
                self._out_of_memory(tile, cause)
            else:
                _fail(tile, cause)
        else:
            self._count(tile, answer)
        finally:
            tile.runners.discard(index)
            if not tile.runners:
                self._running.discard(tile)
        return True

    def _out_of_memory(self, tile: _Tile, error: OracleMemoryError) -> None:
        """Make tiles smaller and have all open requests cut anew. Of tiles that run out together, the first does it."""
        if tile.answer.done() or tile.size != self._tile:
            return
        (c0, c1), (e0, e1) = tile.cut.candidates, tile.cut.examples
        smaller = shrunk(self._tile, c1 - c0, e1 - e0)
        if smaller is None:
            smallest = f"{c1 - c0} candidate(s) on {e1 - e0} example(s)"
            advice = "use a smaller model, a shorter prompt, shorter texts, or a device with more memory"
            _fail(tile, OracleMemoryError(f"{error}; {smallest} is the smallest tile: {advice}"))
            return
        sizes = f"{spelled(smaller)} instead of {spelled(self._tile)}"
        self._event("tile_halved", f"tiles are {sizes} from here on, for the whole pool: {error}")
        self._tile = smaller
        for other in self._open:
            _fail(other, _CutAnew())

    def _count(self, tile: _Tile, answer: Evaluation) -> None:
        if answer.cost.forwards:  # what was kept from before says nothing of how long a tile takes
            self._durations.append(answer.cost.seconds)
        if not tile.answer.done():
            tile.answer.set_result(answer)
            self._statistics.tiles += 1
            self._statistics.busy_seconds += answer.cost.seconds
            self._statistics.counts.update(answer.counts)

    async def _lost(self, tile: _Tile) -> None:
        tile.losses += 1
        if tile.answer.done():
            return
        self._statistics.retries += 1
        if self._fatal is not None:
            _fail(tile, self._fatal)
        elif tile.losses < TILE_TRIES:
            await self._requeue(tile)
        else:
            _fail(tile, OracleError(f"a tile was lost {tile.losses} times with its actor; see the oracle's log in Ray"))

    async def _restarted(self, index: int, actor: Any) -> None:
        self._lives[index] += 1
        self._up.discard(index)
        self._statistics.restarts += 1
        self._event("oracle_restart", f"oracle {index} died and is restarted; its tiles go to whoever is free")
        await self._until_ready(index, actor)

    async def _requeue(self, tile: _Tile) -> None:
        async with self._work:
            self._queues.appendleft(deque([tile]))
            self._work.notify_all()

    async def _watch_stragglers(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            if len(self._durations) < 5 or any(self._queues) or len(self._up) < 2:
                continue
            limit = max(STRAGGLER_SECONDS, STRAGGLER_FACTOR * IN_FLIGHT * statistics.median(self._durations))
            late = time.monotonic() - limit
            for tile in [t for t in self._running if len(t.runners) == 1 and t.started < late and not t.answer.done()]:
                self._statistics.duplicates += 1
                self._event(
                    "straggler", f"a tile has run for more than {limit:.1f} s; it is given to another actor as well"
                )
                await self._requeue(tile)

    async def _on_any(self, method: str, *arguments: Any) -> Any:
        for attempt in range(TILE_TRIES):
            up = sorted(self._up) or range(len(self._actors))
            actor = self._actors[up[attempt % len(up)]]
            with contextlib.suppress(RayActorError):
                try:
                    return await getattr(actor, method).remote(*arguments)
                except RayTaskError as error:
                    raise _cause(error) from None
            await asyncio.sleep(0.5)
        raise OracleError(f"no oracle actor answered {method} in {TILE_TRIES} tries; see the oracles' logs in Ray")

    def _event(self, kind: str, message: str) -> None:
        log.warning("%s: %s", kind, message)
        self._statistics.events.append((kind, message))


def _fail(tile: _Tile, error: TunerError) -> None:
    if not tile.answer.done():
        tile.answer.set_exception(error)


def _cause(error: Exception) -> TunerError:
    """Return our own error behind one of Ray's, or an OracleError that tells what Ray said."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, TunerError):
        return cause
    for line in reversed(str(error).strip().splitlines()):
        if line.startswith("distributed_tuner.errors."):
            kind, _, message = line.removeprefix("distributed_tuner.errors.").partition(": ")
            from distributed_tuner import errors

            known = getattr(errors, kind, OracleError)
            return known(message) if isinstance(known, type) and issubclass(known, TunerError) else OracleError(message)
    return OracleError(f"an oracle failed: {str(error).strip().splitlines()[-1]}; see the oracle's log in Ray")


DispatcherActor = ray.remote(num_cpus=0, max_concurrency=1000)(Dispatcher)
