"""Overhead of dispatcher and Ray for one query: the same request to an oracle in this process and to a pool of one.

The oracle is the analytic one, which takes as long in either place; both are asked in turns.
"""

import statistics
import time
from dataclasses import dataclass

import numpy as np

from actors.pool.pool import Pool
from benchmarks.populations import Asks, Population
from benchmarks.texts import batch
from distributed_tuner import oracles
from distributed_tuner.config.oracle import AnalyticOracleConfig, Tile
from distributed_tuner.values import PromptSpec

CASES: tuple[tuple[Asks, int], ...] = (("ZOT", 2), ("ZOT", 20), ("CMA-ES", 20))
TILE = 4  # candidates; what "auto" is on a CPU
WARM = 20  # requests


@dataclass(frozen=True, slots=True)
class Row:
    """Seconds of requests of ``candidates`` in so many tiles, directly and through the pool, in turns."""

    asks: Asks
    candidates: int
    tiles: int
    direct: tuple[float, ...]
    pooled: tuple[float, ...]

    @property
    def overhead(self) -> float:
        """Seconds that the pool adds to a request, by the medians."""
        return statistics.median(self.pooled) - statistics.median(self.direct)

    @property
    def overhead_a_query(self) -> float:
        """The same for one of its queries."""
        return self.overhead / self.candidates


def measure(rounds: int) -> list[Row]:
    """Measure every case on one pool.

    Raises:
        RuntimeError: an answer that came through the pool is not the one of the oracle itself.
    """
    prompt = PromptSpec(10, "zeros", "", "prefix", "paper")
    config = AnalyticOracleConfig(kind="analytic", function="quadratic", threads=1, tile=Tile(candidates=TILE))
    local = oracles.build(config)
    pool = Pool.start(config, f"round-trips-{time.time_ns()}")
    try:
        rows = []
        for asks, size in CASES:
            population = Population(asks, size, batch("quickstart"), prompt, (0, "trial-0000", 0), config.width)
            taken: tuple[list[float], list[float]] = ([], [])
            for step in range(WARM + rounds):
                request = population.request(step)
                marks = [time.perf_counter()]
                answers = []
                for oracle in (local, pool.oracle):
                    answers.append(oracle.evaluate(request).losses)
                    marks.append(time.perf_counter())
                if not np.array_equal(answers[0], answers[1]):
                    raise RuntimeError(f"the pool's losses must be the oracle's own, but {answers[1]} != {answers[0]}")
                if step >= WARM:
                    for each, began, ended in zip(taken, marks[:-1], marks[1:], strict=True):
                        each.append(ended - began)
            rows.append(Row(asks, size, -(-size // TILE), tuple(taken[0]), tuple(taken[1])))
        return rows
    finally:
        pool.stop()
