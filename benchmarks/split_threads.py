"""Two real oracles with one thread each against one with two: SmolLM2-135M on the demo task, in turns."""

import statistics
import time
from dataclasses import dataclass

from actors.pool.pool import Pool
from benchmarks.emulated import wait_until_up
from benchmarks.populations import Population
from benchmarks.texts import TextsName, batch
from distributed_tuner.config.oracle import Tile, TransformersOracleConfig
from distributed_tuner.oracles.local.loading import SMOLLM2
from distributed_tuner.values import PromptSpec

CANDIDATES = 8
TILE = 4  # candidates; what "auto" is on a CPU
LENGTH = 20
SPLITS = ((1, 2), (2, 1))  # actors x threads


@dataclass(frozen=True, slots=True)
class Found:
    """Seconds of requests of ``candidates``, the same ones, by each pool, in turns."""

    model: str
    candidates: int
    one_of_two_threads: tuple[float, ...]
    two_of_one_thread: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Queries a second of two oracles over those of one: the median of the turns."""
        turns = zip(self.one_of_two_threads, self.two_of_one_thread, strict=True)
        return statistics.median(one / two for one, two in turns)

    def rates(self) -> tuple[float, float]:
        """Return the queries a second of one oracle and of two, by the medians."""
        one, two = (statistics.median(each) for each in (self.one_of_two_threads, self.two_of_one_thread))
        return self.candidates / one, self.candidates / two


def measure(rounds: int, model: str = SMOLLM2, texts: TextsName = "quickstart") -> Found:
    """Start both pools and let them take turns."""
    pools: list[Pool] = []
    try:
        for actors, threads in SPLITS:
            config = TransformersOracleConfig(
                kind="transformers",
                model=model,
                device="cpu",
                actors=actors,
                threads=threads,
                tile=Tile(candidates=TILE),
            )
            pools.append(Pool.start(config, f"threads-{actors}x{threads}-{time.time_ns()}"))
            wait_until_up(pools[-1], actors)
        width = pools[0].oracle.info.width
        prompt = PromptSpec(LENGTH, "zeros", "", "prefix", "embedding")
        population = Population("ZOT", CANDIDATES, batch(texts), prompt, (0, "trial-0000", 0), width)
        taken: tuple[list[float], ...] = tuple([] for _ in pools)
        for step in range(1 + rounds):  # the first warms up
            for pool, seconds in zip(pools, taken, strict=True):
                began = time.perf_counter()
                pool.oracle.evaluate(population.request(step))
                if step:
                    seconds.append(time.perf_counter() - began)
        return Found(model, CANDIDATES, tuple(taken[0]), tuple(taken[1]))
    finally:
        for pool in pools:
            pool.stop()
