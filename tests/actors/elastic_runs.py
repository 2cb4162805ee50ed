"""Pools on clusters that change, each in a process of its own: ``python elastic_runs.py SCENARIO``.

The last line printed is JSON: what was seen. Emulated devices: the analytic oracle, whose tiles take a fixed time.
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import ray
from patience import PATIENCE
from ray._raylet import GcsClient
from ray.core.generated.autoscaler_pb2 import DrainNodeReason

from actors.cluster import lend_path
from actors.pool.pool import Pool
from benchmarks.machines import add_worker, by_hand, freeze
from distributed_tuner.config.oracle import AnalyticOracleConfig, Elastic, Tile
from distributed_tuner.oracles.analytic import AnalyticOracle
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.values import Batch, Example, Point, PromptSpec, Request

TILE = Tile(candidates=2, examples=4)
PROMPT = PromptSpec(2, "zeros", "", "prefix", "paper")
EXAMPLES = tuple(Example(f"e{i}", f"good film {i}", " It was", i % 2) for i in range(8))
EXACT = TiledOracle(AnalyticOracle(AnalyticOracleConfig(kind="analytic", width=4)), TILE)


def config(seconds: float, actors: int | dict[str, Any], **more: Any) -> AnalyticOracleConfig:
    """Return a pool of devices whose tiles take so long."""
    number = actors if isinstance(actors, int) else Elastic(**actors)
    return AnalyticOracleConfig(kind="analytic", width=4, threads=1, tile=TILE, seconds=seconds, actors=number, **more)


def request(step: int, tiles: int) -> Request:
    """Return a request of an even number of tiles, other ones at every step."""
    points = tuple(Point(np.full(8, 0.1 * i + step, dtype=np.float32)) for i in range(tiles))
    return Request(points, Batch(EXAMPLES, (" bad", " good"), "train"), PROMPT)


class Trials:
    """Threads that ask one request after another until they are told to stop, and compare what they get."""

    def __init__(self, pool: Pool, count: int, tiles: int) -> None:
        self._stop = threading.Event()
        self._executor = ThreadPoolExecutor(count)
        oracles = [pool.oracle.for_client(f"trial-{i}") for i in range(count)]
        self._futures = [self._executor.submit(self._ask, oracle, i, tiles) for i, oracle in enumerate(oracles)]

    def _ask(self, oracle: Any, trial: int, tiles: int) -> int:
        steps = 0
        while not self._stop.is_set():
            asked = request(1000 * trial + steps, tiles)
            answer, exact = oracle.evaluate(asked), EXACT.evaluate(asked)
            assert answer.logits.tobytes() == exact.logits.tobytes()
            assert answer.cost.forwards == exact.cost.forwards
            steps += 1
        return steps

    def stop(self) -> int:
        """Return how many steps there were, all with the right answers."""
        self._stop.set()
        return sum(future.result(timeout=PATIENCE) for future in self._futures)


def wait_for(condition: Callable[[], Any], seconds: float = PATIENCE) -> float:
    """Return the seconds until the condition held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it did not come to pass"
        time.sleep(0.1)
    return time.monotonic() - began


# ------------------------------------------------------------------------------------------------ scenarios
def frozen() -> dict[str, Any]:
    """One of two machines falls silent; then the only one does, until another comes."""
    with by_hand() as cluster:
        first, second = add_worker(cluster), add_worker(cluster)
        pool = Pool.start(config(0.05, {"min": 2, "max": 3, "queue": 50}), "frozen")
        wait_for(lambda: pool.statistics().up == 2)
        trials = Trials(pool, 2, 6)
        wait_for(lambda: pool.statistics().tiles > 20)
        freeze(first)
        wait_for(lambda: pool.statistics().duplicates > 0)
        one_silent = trials.stop()
        freeze(second)
        trials = Trials(pool, 1, 4)
        time.sleep(1.0)
        add_worker(cluster)
        all_silent = trials.stop()
        statistics = pool.statistics()
        pool.stop()
    kinds = {kind for kind, _ in statistics.events}
    return {"one_silent": one_silent, "all_silent": all_silent, "events": sorted(kinds)}


def drained() -> dict[str, Any]:
    """A machine is drained: its actor is replaced on another, and ends when its tiles have ended."""
    with by_hand() as cluster:
        add_worker(cluster)
        pool = Pool.start(config(0.3, 1), "drained")
        (before,) = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        trials = Trials(pool, 1, 4)
        wait_for(lambda: pool.statistics().tiles > 3)
        add_worker(cluster)
        deadline = (time.time_ns() // 10**6) + 60_000
        reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        accepted, _ = GcsClient(address=cluster.address).drain_node(before, reason, "spot", deadline)
        events: list[tuple[str, str]] = []

        def gone() -> bool:
            events.extend(pool.statistics().events)
            return before not in {node["NodeID"] for node in ray.nodes() if node["Alive"]}

        left = wait_for(gone)
        statistics = pool.statistics()
        steps = trials.stop()
        pool.stop()
    return {
        "accepted": accepted,
        "left": left,
        "steps": steps,
        "retries": statistics.retries,
        "restarts": statistics.restarts,
        "events": [kind for kind, _ in events],
    }


if __name__ == "__main__":
    lend_path()
    scenarios = {"frozen": frozen, "drained": drained}
    print(json.dumps(scenarios[sys.argv[1]]()))
