"""Pools of emulated devices: how near a dispatcher and its actors come to the rate that the devices allow.

An emulated device is a real oracle actor whose tiles take a fixed time, slept: the analytic oracle, flat, with
``seconds``. Trials are processes of their own that hold a ``RemoteOracle`` and ask one request after another, as trials
do. A trial that is alone leaves devices idle at the end of each request, whoever spreads it; with a second request in
flight it does not, and what is left is what dispatcher and Ray lose.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from actors.pool.client import RemoteOracle
from actors.pool.pool import Pool
from benchmarks.populations import Asks, Population
from benchmarks.processes import private_bytes, snapshot, spent
from benchmarks.texts import batch
from distributed_tuner.config.oracle import AnalyticOracleConfig, Tile
from distributed_tuner.runs.pool import Statistics
from distributed_tuner.values import OracleInfo, PromptSpec

PAIR = 2  # candidates of a tile
PROMPT = PromptSpec(10, "zeros", "", "prefix", "paper")
WIDTH = 8
UP_SECONDS = 300.0  # in which all actors must have started
MARK_SECONDS = 60.0  # in which a loaded pool must answer a tile


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who asks: so many trials, each with so many requests in flight."""

    trials: int
    ahead: int = 1


@dataclass(frozen=True, slots=True)
class Load:
    """How a pool is loaded. service: seconds of a tile. depth: tiles that all trials have in flight, an actor.

    window: seconds that are measured, after as many as ``warm`` that are not.
    """

    service: float = 0.05
    depth: int = 16
    window: float = 8.0
    warm: float = 2.0


@dataclass(frozen=True, slots=True)
class Row:
    """What was found of one pool under one load. service 0: as fast as it goes.

    tiles: answered within ``seconds``. cpu: CPU seconds meanwhile, by kind of process. memory: private bytes of an
    oracle's process. retries, duplicates: tiles that were computed more than once.
    """

    actors: int
    trials: int
    ahead: int
    asks: Asks
    service: float
    seconds: float
    tiles: int
    population: int
    requests: int
    cpu: dict[str, float]
    memory: float | None
    retries: int
    duplicates: int

    @property
    def rate(self) -> float:
        """Tiles a second."""
        return self.tiles / self.seconds

    @property
    def share(self) -> float | None:
        """The rate over that of devices which never wait; None without a service time."""
        return self.rate * self.service / self.actors if self.service else None

    @property
    def dispatcher_share(self) -> float:
        """The part of the time that the dispatcher kept a core busy; more than 1 with its threads inside Ray."""
        return self.cpu.get("dispatcher", 0.0) / self.seconds

    @property
    def cpu_share(self) -> float:
        """Cores that everything together kept busy."""
        return sum(self.cpu.values()) / self.seconds

    def cpu_a_tile(self, *kinds: str) -> float:
        """CPU seconds a tile of some kinds of processes, of all without a name."""
        return sum(seconds for kind, seconds in self.cpu.items() if not kinds or kind in kinds) / max(1, self.tiles)


class Asker:
    """What of a trial matters here: a process that asks one request after another, of each population."""

    def __init__(self, dispatcher: Any, info: OracleInfo, asker: str, populations: Sequence[Population]) -> None:
        self._lines = [(RemoteOracle(dispatcher, info, asker), population) for population in populations]
        self._enough = False

    def ready(self) -> bool:
        """Answer once the process is up."""
        return True

    def stop(self) -> None:
        """Ask nothing more."""
        self._enough = True

    def ask(self) -> int:
        """Ask until told to stop; return the number of requests.

        Raises:
            RuntimeError: a loss is no number.
        """
        with ThreadPoolExecutor(len(self._lines)) as threads:
            counts = [threads.submit(self._ask, *line) for line in self._lines]
            return sum(count.result() for count in counts)

    def _ask(self, oracle: RemoteOracle, population: Population) -> int:
        step = 0
        while not self._enough:
            answer = oracle.evaluate(population.request(step))
            if not np.isfinite(answer.losses).all():
                raise RuntimeError(f"losses of an emulated device must be numbers, but got {answer.losses}")
            step += 1
        return step


AskerActor = ray.remote(num_cpus=0, max_concurrency=2)(Asker)  # asks, and is told to stop


def measure(
    actors: Sequence[int], crowds: Sequence[Crowd], asks: Sequence[Asks], load: Load, say: Callable[[str], None]
) -> list[Row]:
    """Measure every combination; the pool of each number of actors is started once."""
    rows = []
    for count in actors:
        say(f"starting {count} emulated device(s)")
        with pool(count, load.service) as one:
            for crowd in crowds:
                for kind in asks:
                    rows.append(measure_one(one, count, crowd, kind, load))
                    say(f"{count} device(s), {crowd.trials} x {crowd.ahead}, {kind}: {rows[-1].rate:.1f} tiles/s")
    return rows


@contextmanager
def pool(actors: int, service: float) -> Iterator[Pool]:
    """Run a pool of so many emulated devices, all of them up, for as long as a block of code runs."""
    config = AnalyticOracleConfig(
        kind="analytic",
        function="flat",
        width=WIDTH,
        actors=actors,
        threads=1,
        tile=Tile(candidates=PAIR),
        seconds=service,
    )
    started = Pool.start(config, f"scaling-{actors}-{time.time_ns()}")
    try:
        wait_until_up(started, actors)
        yield started
    finally:
        started.stop()


def wait_until_up(started: Pool, actors: int) -> None:
    """Wait until so many actors of a pool answer.

    Raises:
        RuntimeError: they do not within UP_SECONDS.
    """
    until = time.monotonic() + UP_SECONDS
    while (up := started.statistics().up) < actors:
        if time.monotonic() > until:
            raise RuntimeError(f"{actors} oracle actors must be up within {UP_SECONDS:.0f} s, but {up} are")
        time.sleep(0.2)


def _mark(started: Pool) -> tuple[Statistics, float]:
    """Return the statistics at a moment when a tile was just counted, and that moment.

    Between two of these nothing goes uncounted, which matters where few devices answer several tiles at once.

    Raises:
        RuntimeError: no tile was counted for MARK_SECONDS.
    """
    before = started.statistics().tiles
    until = time.monotonic() + MARK_SECONDS
    while time.monotonic() < until:
        now = started.statistics()
        if now.tiles != before:
            return now, time.perf_counter()
        time.sleep(0.002)
    raise RuntimeError(f"a loaded pool must answer tiles, but it has answered none for {MARK_SECONDS:.0f} s")


def measure_one(started: Pool, actors: int, crowd: Crowd, asks: Asks, load: Load) -> Row:
    """Load a pool with trials; count its tiles and everyone's CPU seconds in the middle of it."""
    tiles = max(1, math.ceil(actors * load.depth / (crowd.trials * crowd.ahead)))  # of a request
    examples = batch("quickstart")

    def asker(name: str) -> Any:
        keys = [(0, name, line) for line in range(crowd.ahead)]
        populations = [Population(asks, PAIR * tiles, examples, PROMPT, key, WIDTH) for key in keys]
        return AskerActor.remote(started.dispatcher, started.oracle.info, name, populations)

    askers = [asker(f"trial-{i:04d}") for i in range(crowd.trials)]
    try:
        ray.get([one.ready.remote() for one in askers], timeout=UP_SECONDS)
        warm = max(load.warm, 1.5 * load.service * load.depth)
        asked = [one.ask.remote() for one in askers]
        time.sleep(warm)
        busy_before = snapshot()
        before, began = _mark(started)
        time.sleep(load.window)
        after, ended = _mark(started)
        busy_after = snapshot()
        for one in askers:
            one.stop.remote()
        requests = sum(ray.get(asked, timeout=UP_SECONDS))
        memory = private_bytes("oracles")
    finally:
        for one in askers:
            ray.kill(one)
    scale = (ended - began) / (busy_after.time - busy_before.time)
    cpu = {kind: seconds * scale for kind, seconds in spent(busy_before, busy_after).items()}
    return Row(
        actors,
        crowd.trials,
        crowd.ahead,
        asks,
        load.service,
        ended - began,
        after.tiles - before.tiles,
        PAIR * tiles,
        requests,
        cpu,
        memory,
        after.retries - before.retries,
        after.duplicates - before.duplicates,
    )
