"""A pool on a cluster that begins with no machine, in a process of its own that imports Ray once the cluster is there.

The last line printed is JSON: what was seen.
"""

import json
import time
from typing import Any

from actors.cluster import MARKET, lend_path
from benchmarks.fake_cluster import autoscaling, kind

KINDS = {
    "plain": kind({"CPU": 1}, 2, labels={MARKET: "on-demand"}),
    "spot": kind({"CPU": 1}, 2, labels={MARKET: "spot"}, priority=10),
}


def autoscaled() -> dict[str, Any]:
    """From no machine to two and back, with spot machines preferred."""
    import ray
    from elastic_runs import EXACT, Trials, config, request, wait_for

    from actors.pool.pool import Pool

    def machines() -> int:
        return sum(node["Alive"] for node in ray.nodes()) - 1  # beside the head

    before = machines()
    limits = {"min": 0, "max": 2, "queue": 2, "idle_seconds": 2.0}
    pool = Pool.start(config(0.05, limits, market="spot"), "autoscaled")
    trials = Trials(pool, 2, 8)
    wait_for(lambda: pool.statistics().up == 2)
    markets = [node["Labels"].get(MARKET) for node in ray.nodes() if node["Alive"]]
    time.sleep(1)
    steps = trials.stop()
    wait_for(lambda: pool.statistics().up == 0)
    wait_for(lambda: machines() == 0)
    asked = request(7, 4)  # from nothing again
    again = pool.oracle.evaluate(asked).logits.tobytes() == EXACT.evaluate(asked).logits.tobytes()
    statistics = pool.statistics()
    pool.stop()
    return {"before": before, "steps": steps, "again": again, "most": statistics.most_up, "spot": markets.count("spot")}


if __name__ == "__main__":
    lend_path()
    with autoscaling({"CPU": 0}, KINDS):
        print(json.dumps(autoscaled()))
