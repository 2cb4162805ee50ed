"""Faults that a run survives: deaths of its processes, and the whole matrix of faults in a cluster of its own.

``make test`` kills an oracle, the dispatcher and a trial of a run on the test run's cluster; a driver that is killed is
that of test_maao.py's population, whose ``--resume`` ends it. They stand for the matrix, which ``make test-all`` has.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE
from tuner_runs import ZOT, killing, numbers, raw_rows, run_alone, run_space, space, steps_written, write_space

from benchmarks.fault_kinds import DISPATCHER, FAULTS, ORACLE, TRIAL, Fault
from distributed_tuner.ledger.reader import Ledger

pytestmark = pytest.mark.ray
ROOT = Path(__file__).resolve().parents[2]


# ------------------------------------------------------------------------------------------------ one death
QUERIES = 160
TILE_SECONDS = 0.05
Happened = Callable[[], bool]


def small(seconds: float) -> dict[str, Any]:
    return space({"kind": "analytic", "seconds": seconds}, [ZOT], budget={"queries": QUERIES}, eval_every=60)


@pytest.fixture(scope="module")
def alone(reviews: Path) -> Ledger:
    """The run without Ray, undisturbed."""
    return run_alone(write_space(small(0.0), reviews, "undisturbed.yaml"))


def some_steps(out: Path) -> Happened:
    return steps_written(out, 5)


def a_checkpoint(out: Path) -> Happened:
    return lambda: any((out / "tune" / "trials").glob("*/checkpoint_*/*"))


@pytest.mark.parametrize(
    ("title", "when", "told"),
    [
        pytest.param(ORACLE, some_steps, "oracle_restart", id="oracle"),
        pytest.param(DISPATCHER, some_steps, "dispatcher_restart", id="dispatcher"),
        pytest.param(TRIAL, a_checkpoint, "trial_retry", id="trial"),
    ],
)
def test_the_death_of_a_process_changes_no_number(
    title: str,
    when: Callable[[Path], Happened],
    told: str,
    alone: Ledger,
    ray_cluster: None,
    reviews: Path,
    tmp_path: Path,
) -> None:
    out, killed = tmp_path / "run", []
    with killing(title, when(out), killed):
        done = run_space(write_space(small(TILE_SECONDS), reviews, "disturbed.yaml"), out)
    assert killed
    assert done.status == "done"
    assert numbers(done.ledger) == numbers(alone)
    assert [event.kind for event in done.ledger.events] == [told]
    assert [end.status for end in done.ledger.trial_ends] == ["done"]
    assert len(raw_rows(done.directory, "trial")) == (2 if title == TRIAL else 1)
    assert all(row.spent.queries <= QUERIES for row in (*done.ledger.steps, *done.ledger.evaluations))


# ------------------------------------------------------------------------------------------------ the matrix
@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return the rows of the command's table, by fault."""
    found = tmp_path_factory.mktemp("faults") / "faults.json"
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", "--json", str(found)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert found.exists(), done.stderr[-4000:]
    return {row["fault"]: row for row in json.loads(found.read_text(encoding="utf-8"))}


@pytest.mark.extended
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_run_survives(fault: Fault, matrix: dict[str, dict[str, Any]]) -> None:
    row = matrix[fault.name]
    assert row["same"], "the numbers and the best prompt are those of the undisturbed run"
    assert row["lost"] == 0
    assert row["over"] == 0
    assert fault.event is None or fault.event in row["told"]
    assert row["held"]
