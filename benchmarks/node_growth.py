"""Wait for a new machine when the queue grows: an elastic pool on a cluster whose autoscaler adds nodes.

Nodes are raylets on this machine, which start at once; a cloud's machine takes its minutes on top. What is measured is
everything else: the pool asks for an actor, Ray's autoscaler (looking every second) sees it waiting and brings a node,
the actor starts there and is sent its first tile.
"""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from actors.pool.pool import Pool

SERVICE = 0.05  # seconds of a tile
PAIR = 2  # candidates of a tile
TILES = 600  # of the request that makes the queue grow: 30 s of one device
NODES = 3
LOOK_SECONDS = 0.02
Growth: TypeAlias = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Found:
    """first: seconds from the start of a pool to its first actor, on a node that was not there either.

    growth: of each further node, seconds from the request that made the queue grow until Ray lists the node, and until
    the actor on it is up, which is when it is sent its first tile.
    """

    first: float
    growth: Growth


def measure() -> Found:
    """Measure in a process of its own, which has not joined any other cluster.

    Raises:
        RuntimeError: it failed; says what it wrote last.
    """
    done = subprocess.run([sys.executable, "-m", "benchmarks.node_growth"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the pool could not be grown; the end of what was said:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Found(found["first"], tuple((node, actor) for node, actor in found["growth"]))


def measure_here() -> Found:
    """The same in this process, which must not have imported ray.

    Raises:
        RuntimeError: no node came while there was work.
    """
    from benchmarks.fake_cluster import autoscaling, kind

    with autoscaling({"CPU": 2}, {"worker": kind({"CPU": 1, "GPU": 1}, NODES)}):
        from actors.pool.pool import Pool
        from distributed_tuner.config.oracle import AnalyticOracleConfig, Elastic, Tile

        config = AnalyticOracleConfig(
            kind="analytic",
            function="flat",
            threads=1,
            gpus=1,
            actors=Elastic(min=1, max=NODES),
            tile=Tile(candidates=PAIR),
            seconds=SERVICE,
        )
        began = time.perf_counter()
        pool = Pool.start(config, "growing")
        first = time.perf_counter() - began
        try:
            return Found(first, _grow(pool))
        finally:
            pool.stop()


def _grow(pool: "Pool") -> Growth:
    import ray

    from benchmarks.emulated import PROMPT, WIDTH
    from benchmarks.populations import Population
    from benchmarks.texts import batch

    alive = _alive(ray.nodes())
    request = Population("ZOT", PAIR * TILES, batch("quickstart"), PROMPT, (0, "trial-0000", 0), WIDTH).request(0)
    nodes: list[float] = []
    actors: list[float] = []
    with ThreadPoolExecutor(1) as thread:
        began = time.perf_counter()
        asked = thread.submit(pool.oracle.evaluate, request)
        while len(actors) < NODES - 1 and not asked.done():
            now = time.perf_counter() - began
            nodes += [now] * (_alive(ray.nodes()) - alive - len(nodes))
            actors += [now] * (pool.statistics().up - 1 - len(actors))
            time.sleep(LOOK_SECONDS)
        asked.result()
    if not actors:
        raise RuntimeError(f"a queue of {TILES} tiles must make the pool grow, but it was done before a node came")
    return tuple(zip(nodes, actors, strict=False))


def _alive(nodes: list[dict[str, Any]]) -> int:
    return sum(node["Alive"] for node in nodes)


if __name__ == "__main__":
    print(json.dumps(asdict(measure_here())))
