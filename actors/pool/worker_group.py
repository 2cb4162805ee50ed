"""The oracle actors of a pool as its dispatcher knows them: who is up, who is asked for, who is let go, who is lost."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from ray.exceptions import ActorDiedError, RayActorError, RayError, RayTaskError

from actors.pool.failures import cause_of
from distributed_tuner.config.oracle import OracleConfig
from distributed_tuner.errors import TunerError
from distributed_tuner.values import OracleInfo

log = logging.getLogger(__name__)

AGAIN_SECONDS = 0.2  # between two questions whether an actor is back
BROKEN_SECONDS = 300.0  # for which an actor that could not start is not replaced


@dataclass(eq=False, slots=True)
class Worker:
    """One oracle actor. served: it has been up before. calls: those sent to it and not ended. life: how often it was
    restarted. node: the id of its machine. leaving: it gets nothing more, and is ended when it has nothing left to do.
    """

    name: str
    actor: Any
    up: bool = False
    served: bool = False
    leaving: bool = False
    calls: int = 0
    life: int = 0
    node: str = ""


class WorkerGroup:
    """Keeps a pool at the requested size. ``tell``: takes an event's kind and message. ``changed``: called when an
    actor has come up or has gone."""

    def __init__(
        self, config: OracleConfig, tell: Callable[[str, str], None], changed: Callable[[], None] = lambda: None
    ) -> None:
        self._limits = config.pool
        self._elastic = self._limits.min < self._limits.max
        self._tell = tell
        self._changed = changed
        self._supervisor: Any = None
        self._members: dict[str, Worker] = {}
        self._asked = 0  # of the supervisor, whose answer is not there yet
        self._broken: list[float] = []  # when an actor could not start
        self._tasks: set[asyncio.Task[None]] = set()
        self.info: OracleInfo | None = None
        self.fatal: TunerError | None = None
        """Why there is no pool and will be none."""
        self.restarts = 0
        self.most_up = 0

    def begin(self, supervisor: Any, known: dict[str, Any]) -> None:
        """Go on with the actors that the supervisor has."""
        self._supervisor = supervisor
        self._add(known)

    @property
    def up(self) -> list[Worker]:
        """Actors that answer, the least busy first, and last those that are to leave."""
        return sorted((one for one in self._members.values() if one.up), key=lambda one: (one.leaving, one.calls))

    @property
    def number_up(self) -> int:
        """Number of workers that answer."""
        return sum(one.up for one in self._members.values())

    def with_room(self, limit: int) -> list[Worker]:
        """Return the actors that may be sent another call, of ``limit`` at a time; the least busy first."""
        free = [one for one in self._members.values() if one.up and not one.leaving and one.calls < limit]
        return sorted(free, key=lambda one: one.calls)

    # ------------------------------------------------------------------------------------------------ how many
    def fit(self, wanted: int, avoid: Iterable[str] = ()) -> None:
        """Ask for actors, or let some go, until there are ``wanted``. What could not start is not asked for again.

        ``avoid``: ids of machines that do not answer. Ray does not know yet, and would have new actors wait for them.
        """
        now = time.monotonic()
        self._broken = [since for since in self._broken if now - since < BROKEN_SECONDS]
        staying = [one for one in self._members.values() if not one.leaving]
        missing = min(wanted, self._limits.max - len(self._broken)) - len(staying) - self._asked
        if missing > 0 and self.fatal is None:
            if self._elastic:
                self._tell("pool_grows", f"{missing} more oracle actor(s) are asked for; {self.number_up} are up")
            self._asked += missing
            self.beside(self._start(missing, sorted(avoid)))
        elif len(staying) > wanted:
            self._let_go(staying, len(staying) - wanted)

    async def _start(self, count: int, avoid: list[str]) -> None:
        try:
            started = await self._supervisor.start.remote(count, avoid)
        finally:
            self._asked -= count
        self._add(started)

    def _let_go(self, staying: list[Worker], count: int) -> None:
        """Let actors go: those that are not up yet, then those that do nothing on the emptiest machines."""
        beside = {one.node: 0 for one in staying}
        for one in staying:
            beside[one.node] += 1
        going = sorted(staying, key=lambda one: (one.up, one.calls, beside[one.node]))[:count]
        if self._elastic:
            self._tell("pool_shrinks", f"{len(going)} oracle actor(s) are not needed and let go")
        for one in going:
            self.leave(one)

    def leave(self, member: Worker) -> None:
        """Send an actor nothing more, and end it when it has nothing left to do."""
        member.leaving = True
        if member.calls == 0:
            self._end(member)

    def _end(self, member: Worker) -> None:
        if self._members.pop(member.name, None) is not None:
            self.beside(self._supervisor.end.remote([member.name]))

    # ------------------------------------------------------------------------------------------------ their lives
    def sent(self, member: Worker) -> None:
        """Count a call to an actor."""
        member.calls += 1

    def ended(self, member: Worker) -> None:
        """Count the end of a call, whatever came of it."""
        member.calls -= 1
        if member.leaving and member.calls == 0:
            self._end(member)

    def lost(self, member: Worker, life: int) -> None:
        """Take note that a call was lost with its actor in its ``life``; Ray restarts it. One death counts once."""
        if member.life != life or member.name not in self._members:
            return
        member.life += 1
        member.up = False
        if not member.leaving:
            self.restarts += 1
            self._tell("oracle_restart", f"{member.name} died and is restarted; its tiles go to free workers")
        self.beside(self._until_ready(member))

    def give_up(self, member: Worker, seconds: float) -> None:
        """End an actor that has answered nothing for so long, to have another in its place."""
        self._tell("oracle_lost", f"{member.name} has answered nothing for {seconds:.0f} s; it is ended and replaced")
        member.up = False
        self._end(member)

    def on(self, nodes: Iterable[str]) -> list[Worker]:
        """Return the actors on these machines that are not yet leaving."""
        there = set(nodes)
        return [one for one in self._members.values() if one.node in there and not one.leaving]

    def _add(self, started: dict[str, Any]) -> None:
        for name, actor in started.items():
            if name not in self._members:
                member = self._members[name] = Worker(name, actor)
                self.beside(self._until_ready(member))

    async def _until_ready(self, member: Worker) -> None:
        """Wait until an actor answers, or is gone for good; the pool goes on without it then."""
        while member.name in self._members:
            try:
                info = await member.actor.info.remote()
                self.info = self.info or info
                if info.extra != self.info.extra:
                    await member.actor.compute_as.remote(self.info)
                member.node = await member.actor.node.remote()
            except (ActorDiedError, RayTaskError) as error:  # Ray restarts it no more
                self._gone(member, error)
                return
            except RayError:
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            member.up = member.served = True
            self.most_up = max(self.most_up, self.number_up)
            self._changed()
            return

    def _gone(self, member: Worker, error: Exception) -> None:
        """Go on without an actor. One that could not start is not replaced for a while; without any, this is fatal."""
        if self._members.pop(member.name, None) is None or member.leaving:
            return
        cause = cause_of(error)
        if _could_not_start(error) or not member.served:
            self._broken.append(time.monotonic())
            self._tell("oracle_lost", f"{member.name} cannot start: {cause}")
            if not self._members and not self._asked:
                self.fatal = cause
        else:
            self._tell("oracle_lost", f"{member.name} is gone for good; another takes its place")
        self._changed()

    def beside(self, work: Any) -> None:
        """Run something in the background."""
        task = asyncio.ensure_future(_quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except RayError as error:  # of the supervisor; the next look at the pool makes up for it
        log.warning("the supervisor does not answer: %s", error)


def _could_not_start(error: Exception) -> bool:
    """Tell whether an actor failed in its constructor, by what Ray says or by an error of ours in its words."""
    failed = isinstance(error, RayTaskError) or (isinstance(error, RayActorError) and error.actor_init_failed)
    return failed or "distributed_tuner.errors." in str(error)
