"""What a run survives: each fault of the matrix, made to happen to a real run in a cluster of its own.

``make test`` has three: the death of an oracle, whose tiles go to others; of the dispatcher, which is asked again; and
of the driver, whose run ``--resume`` ends. They stand for the others, which ``make test-all`` has as well.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE

from benchmarks.fault_kinds import FAULTS, Fault

pytestmark = pytest.mark.ray
ROOT = Path(__file__).resolve().parents[2]
KEPT = ("oracle killed", "dispatcher killed", "driver killed")
CASES = [
    pytest.param(fault, id=fault.name, marks=() if fault.name in KEPT else pytest.mark.extended) for fault in FAULTS
]


@pytest.fixture(scope="module")
def matrix(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return the rows of the command's table, by fault, of those that this test run has selected."""
    tests = [item for item in request.session.items if item.nodeid.startswith(request.node.nodeid)]
    names = [item.callspec.params["fault"].name for item in tests]  # type: ignore[attr-defined]
    found = tmp_path_factory.mktemp("faults") / "faults.json"
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", "--only", ",".join(names), "--json", str(found)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert found.exists(), done.stderr[-4000:]
    return {row["fault"]: row for row in json.loads(found.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("fault", CASES)
def test_a_run_survives(fault: Fault, matrix: dict[str, dict[str, Any]]) -> None:
    row = matrix[fault.name]
    assert row["same"], "the numbers and the best prompt are those of the undisturbed run"
    assert row["lost"] == 0
    assert row["over"] == 0
    assert fault.event is None or fault.event in row["told"]
    assert row["held"]
