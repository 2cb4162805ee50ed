"""What a run survives: each fault of the matrix, made to happen to a real run in a cluster of its own."""

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


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_run_survives(fault: Fault, matrix: dict[str, dict[str, Any]]) -> None:
    row = matrix[fault.name]
    assert row["same"], "the numbers and the best prompt are those of the undisturbed run"
    assert row["lost"] == 0
    assert row["over"] == 0
    assert fault.event is None or fault.event in row["told"]
    assert row["held"]
