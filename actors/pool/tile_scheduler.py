"""Tiles among the oracle actors: who gets which and when, what is lost, late or too large, and what is counted."""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ray.exceptions import RayActorError, RayError, RayTaskError

from actors.pool.failures import cause_of
from actors.pool.fair_queue import FairQueue
from actors.pool.messages import Packed, Reply, read_reply, tiles_of
from actors.pool.straggler_policy import Durations
from actors.pool.worker_group import Worker, WorkerGroup
from distributed_tuner.config.oracle import Tile
from distributed_tuner.errors import OracleError, OracleMemoryError, TunerError
from distributed_tuner.oracles.tiling import Cut
from distributed_tuner.runs.pool import Statistics
from distributed_tuner.values import Cost, Evaluation

IN_FLIGHT = 2  # calls sent to an actor at a time: one computes, one waits, the device never does
LONG_TILE_SECONDS = 0.2  # longer tiles go one at a time: the gap is nothing to them, and no tile waits twice
CALL_SECONDS = 0.2  # of short tiles, several of one request share a call that takes so long
CALL_TILES = 16  # most tiles of a call
TILE_TRIES = 6  # losses of one tile after which its request fails
REMARKS = {"refused_example": 50}  # most messages of each kind; of other kinds one


@dataclass(eq=False, slots=True)
class TileTask:
    """One tile of a request, and the answer that somebody waits for. size: that it was cut by. doubted: the actor whose
    answer was no number; another is asked as well."""

    packed: Packed
    cut: Cut
    size: Tile
    answer: "asyncio.Future[Evaluation]"
    losses: int = 0
    sent: float = math.inf  # for the first time, by time.monotonic
    again: bool = False  # waits to be computed once more
    runners: set[Worker] = field(default_factory=set)  # the actors that have it
    doubted: Worker | None = None

    @property
    def forwards(self) -> int:
        """Forwards that it takes: what it costs its asker's share."""
        (c0, c1), (e0, e1) = self.cut.candidates, self.cut.examples
        return (c1 - c0) * (e1 - e0)

    def fail(self, error: TunerError) -> None:
        """Set an error for the waiting caller, unless there is an answer."""
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(eq=False, slots=True)
class _Call:
    """Pieces of one request that an actor has, since a moment of ``time.monotonic``."""

    member: Worker
    tile_tasks: list[TileTask]
    started: float
    late: bool = False  # they are for another actor as well


class TileScheduler:
    """Gives tile tasks to actors until each has its answer.

    ``twice``: whether a tile task that takes long may be given to another actor as well. ``too_large``: called with a
    tile task that does not fit into memory. ``tell``: takes an event's kind and message. ``counted``: called with the
    cost of every tile task that is counted, and the seconds since it was first sent.
    """

    def __init__(
        self,
        members: WorkerGroup,
        twice: bool,
        too_large: Callable[[TileTask, OracleMemoryError], None],
        tell: Callable[[str, str], None],
        counted: Callable[[Cost, float], None] = lambda cost, seconds: None,
    ) -> None:
        self._members = members
        self._twice = twice
        self._too_large = too_large
        self._tell = tell
        self._counted = counted
        self._queue: FairQueue[TileTask] = FairQueue(lambda tile_task: tile_task.forwards)
        self._calls: set[_Call] = set()
        self._durations = Durations()
        self._tasks: set[asyncio.Task[None]] = set()
        self._told_of_nan = False
        self._remarked: set[tuple[str, str]] = set()
        self.fresh = False
        """Whatever oracles have kept is left aside."""
        self.statistics = Statistics()

    @property
    def load(self) -> int:
        """Pieces that wait or are computed."""
        return len(self._queue) + sum(len(call.tile_tasks) for call in self._calls)

    @property
    def waiting(self) -> int:
        """Tiles that no worker has."""
        return len(self._queue)

    @property
    def busy(self) -> int:
        """Actors that have tile tasks."""
        return len({call.member for call in self._calls})

    @property
    def late(self) -> set[Worker]:
        """Actors that cannot be counted on: what they have takes far longer than anything else."""
        return {call.member for call in self._calls if call.late and not call.member.leaving}

    def add(self, client_id: str, tile_tasks: list[TileTask], priority: float = 1.0) -> None:
        """Have the tile tasks of a request computed."""
        self._queue.put(client_id, tile_tasks, priority)
        self.assign()

    def forget(self, tile_tasks: Iterable[TileTask]) -> None:
        """Drop the tiles of a request that was cancelled."""
        self._queue.drop(set(tile_tasks).__contains__)

    def assign(self) -> None:
        """Assign waiting tiles to workers with room, the least busy first."""
        median = self._durations.median
        limit = IN_FLIGHT if median is None or median < LONG_TILE_SECONDS else 1
        while len(self._queue):
            most = self._tasks_a_call(median)
            for member in self._members.with_room(limit):
                taken = self._queue.take(most, lambda tile_task: self._may_run(tile_task, member))  # noqa: B023
                if taken:
                    self._send([tile_task for tile_task in taken if not tile_task.answer.done()], member)
                    break
            else:
                return

    def _may_run(self, tile_task: TileTask, member: Worker) -> bool:
        """Tell whether an actor may have a tile task that another had before."""
        return member not in tile_task.runners and (tile_task.doubted is not member or self._members.number_up == 1)

    def _tasks_a_call(self, median: float | None) -> int:
        """Return how many tile tasks of one request may share a call: as many as take little time together, as long as
        there are enough for all actors. A call costs Ray more than most tiles cost the dispatcher."""
        if not median:
            return 1
        share = len(self._queue) // (IN_FLIGHT * max(1, self._members.number_up))
        return max(1, min(CALL_TILES, int(CALL_SECONDS / median), share))

    def _send(self, tile_tasks: list[TileTask], member: Worker) -> None:
        if not tile_tasks:
            return
        call = _Call(member, tile_tasks, time.monotonic())
        self._calls.add(call)
        self._members.sent(member)
        for tile_task in tile_tasks:
            tile_task.again = False
            tile_task.sent = min(tile_task.sent, call.started)
            tile_task.runners.add(member)
        self._spawn(self._run(call))

    async def _run(self, call: _Call) -> None:
        """Have tile tasks computed, and see to what comes of it."""
        member, life, tile_tasks = call.member, call.member.life, call.tile_tasks
        try:
            tiles = tiles_of(tile_tasks[0].packed, [tile_task.cut for tile_task in tile_tasks], self.fresh)
            answers = await member.actor.evaluate.remote(tiles)
        except RayTaskError as error:
            for tile_task in tile_tasks:
                tile_task.fail(cause_of(error))
        except RayError as error:
            for tile_task in tile_tasks:
                self._lost(tile_task)
            if isinstance(error, RayActorError):
                self._members.lost(member, life)
        except Exception as error:  # unexpected, and the waiting caller must see it
            for tile_task in tile_tasks:
                tile_task.fail(cause_of(error))
            raise
        else:
            for tile_task, answer in zip(tile_tasks, answers, strict=True):
                self._take(tile_task, answer, member)
        finally:
            self._calls.discard(call)
            for tile_task in tile_tasks:
                tile_task.runners.discard(member)
            self._members.ended(member)
            self.assign()

    # ------------------------------------------------------------------------------------------------ what came of it
    def _take(self, tile_task: TileTask, answer: Reply | TunerError, member: Worker) -> None:
        match answer:
            case OracleMemoryError():
                self._too_large(tile_task, answer)
            case TunerError():
                tile_task.fail(answer)
            case _:
                self._receive(tile_task, read_reply(answer), member)

    def _receive(self, tile_task: TileTask, answer: Evaluation, member: Worker) -> None:
        """Count an answer. A NaN answer is retried once: the cause may be the device or the candidate."""
        if tile_task.answer.done() or tile_task.doubted or not self._twice or not np.isnan(answer.logits).any():
            self._count(tile_task, answer)
            return
        tile_task.doubted = member
        self.statistics.retries += 1
        if not self._told_of_nan:
            self._told_of_nan = True
            self._tell(
                "not_a_number",
                f"{member.name} returned NaN; the tile is retried once, then counted as failed; later NaN answers are"
                " treated the same without a message",
            )
        self._again(tile_task)

    def _count(self, tile_task: TileTask, answer: Evaluation) -> None:
        if answer.cost.forwards:  # what was kept from before says nothing of how long a tile takes
            self._durations.add(answer.cost.seconds)
        if not tile_task.answer.done():
            tile_task.answer.set_result(answer)
            self.statistics.tiles += 1
            self.statistics.busy_seconds += answer.cost.seconds
            self.statistics.counts.update(answer.counts)
            self._remark(answer.remarks)
            self._counted(answer.cost, time.monotonic() - tile_task.sent)

    def _remark(self, remarks: Iterable[tuple[str, str]]) -> None:
        """Tell what answers have to tell, each once."""
        for remark in remarks:
            told = sum(kind == remark[0] for kind, _ in self._remarked)
            if remark not in self._remarked and told < REMARKS.get(remark[0], 1):
                self._remarked.add(remark)
                self._tell(*remark)

    def _lost(self, tile_task: TileTask) -> None:
        tile_task.losses += 1
        if tile_task.answer.done():
            return
        self.statistics.retries += 1
        if self._members.fatal is not None:
            tile_task.fail(self._members.fatal)
        elif tile_task.losses < TILE_TRIES:
            self._again(tile_task)
        else:
            tile_task.fail(
                OracleError(f"a tile was lost {tile_task.losses} times with its actor; see the oracle's log in Ray")
            )

    def _again(self, tile_task: TileTask) -> None:
        if not tile_task.again:
            tile_task.again = True
            self._queue.put_first(tile_task)

    # ------------------------------------------------------------------------------------------------ what is late
    def watch(self, now: float) -> None:
        """Take note of calls that run far longer than others (``now``: of ``time.monotonic``), and of actors that hang:
        these are replaced."""
        if not self._twice:
            return
        for call in self._calls:
            since = now - call.started
            call.late |= since > self._durations.limit(len(call.tile_tasks), IN_FLIGHT)
            if call.member.up and since > self._durations.hang(len(call.tile_tasks), IN_FLIGHT):
                self._members.give_up(call.member, since)
        self.members_changed()

    def leave(self, members: Iterable[Worker]) -> None:
        """Send these actors nothing more; what they have is for others as well."""
        for member in members:
            self._members.leave(member)
            for call in self._calls:
                call.late |= self._twice and call.member is member
        self.members_changed()

    def members_changed(self) -> None:
        """Assign waiting tiles and duplicate late ones, on the present workers."""
        for call in self._calls:
            if call.late and any(one is not call.member and not one.leaving for one in self._members.up):
                self._double(call)
        self.assign()

    def _double(self, call: _Call) -> None:
        """Let another actor compute as well what a call has not answered."""
        tile_tasks = [
            one for one in call.tile_tasks if not one.answer.done() and not one.again and len(one.runners) == 1
        ]
        for tile_task in tile_tasks:
            self.statistics.duplicates += 1
            self._again(tile_task)
        if tile_tasks and not call.member.leaving:
            seconds = time.monotonic() - call.started
            self._tell(
                "straggler", f"a tile has run for more than {seconds:.1f} s; it is given to another actor as well"
            )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
