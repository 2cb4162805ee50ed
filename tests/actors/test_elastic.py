"""Pools that grow, shrink and lose machines, with real processes: never a wrong number, never the end of a run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE
from tuner_runs import CMA, ZOT, numbers, run_alone, run_space, space, write_space

from actors.pool.pool import Pool
from distributed_tuner.config.oracle import AnalyticOracleConfig

pytestmark = [pytest.mark.ray]
HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def seen_by(script: str, *arguments: str) -> dict[str, Any]:
    """Run a script beside this one in a process of its own, beside the test run's cluster."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    seen: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return seen


def test_a_pool_on_an_autoscaled_cluster_comes_from_nothing_and_goes_back_to_it() -> None:
    seen = seen_by("autoscaled_runs.py")
    assert seen["before"] == 0
    assert seen["most"] == seen["spot"] == 2
    assert seen["steps"] >= 2
    assert seen["again"]


@pytest.mark.extended  # an autoscaled cluster stands for those whose machines come and go
def test_machines_that_fall_silent_cost_neither_a_number_nor_the_run() -> None:
    seen = seen_by("elastic_runs.py", "frozen")
    assert seen["one_silent"] >= 3
    assert seen["all_silent"] >= 1
    assert seen["events"] == ["pool_grows", "straggler"], "no death: Ray would take a minute to tell of it"


@pytest.mark.extended  # likewise
def test_a_machine_that_is_drained_is_left_and_loses_nothing() -> None:
    seen = seen_by("elastic_runs.py", "drained")
    assert seen["accepted"]
    assert seen["events"] == ["oracle_leaves"]
    assert (seen["retries"], seen["restarts"]) == (0, 0)
    assert seen["steps"] >= 2


@pytest.mark.extended  # likewise
@pytest.mark.usefixtures("ray_cluster")
def test_a_pool_that_grows_gives_the_bits_of_one_actor(reviews: Path, tmp_path: Path) -> None:
    limits = {"min": 1, "max": 3, "queue": 1, "idle_seconds": 1.0}
    path = write_space(
        space({"kind": "analytic", "seconds": 0.05, "actors": limits}, [ZOT, CMA]), reviews, "grows.yaml"
    )
    done = run_space(path, tmp_path / "run")
    assert numbers(done.ledger) == numbers(run_alone(path))
    assert "pool_grows" in [event.kind for event in done.ledger.events]
    assert done.ledger.end is not None and done.ledger.end.oracle_actors > 1


@pytest.mark.usefixtures("ray_cluster")
def test_dispatcher_and_keeper_are_on_the_head_and_hold_no_cpu() -> None:
    import ray

    pool = Pool.start(AnalyticOracleConfig(kind="analytic", threads=1), "placed")
    try:
        held = ray.cluster_resources()["node:__internal_head__"] - ray.available_resources()["node:__internal_head__"]
        assert held == pytest.approx(0.002)
    finally:
        pool.stop()
