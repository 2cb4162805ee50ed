"""A trial and its run on Ray, stopped by the command line of another process, and resumed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE
from tuner_runs import (
    CMA,
    ROOT,
    ZOT,
    numbers,
    raw_rows,
    run_alone,
    say_to_tune,
    space,
    steps_written,
    wait_for,
    write_space,
)

from distributed_tuner.ledger.reader import read
from distributed_tuner.runs.directory import RunDirectory

pytestmark = pytest.mark.ray


def test_a_trial_then_its_run_are_stopped_and_resume_ends_what_was_not(
    ray_cluster: None, reviews: Path, tmp_path: Path
) -> None:
    oracle = {"kind": "analytic", "seconds": 0.05}  # of a tile
    tree = space(oracle, [ZOT, CMA], budget={"queries": 400}, eval_every=100)
    path, out = write_space(tree, reviews, "stopped.yaml"), tmp_path / "run"
    directory = RunDirectory(out)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tune.py"), "run", str(path), "--out", str(out)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(steps_written(out, 10))
    asked = say_to_tune("stop", out, "--trial", "zot-0000")
    assert asked.exit_code == 0 and asked.stdout.startswith(f"asked {out} to stop zot-0000"), asked.output
    wait_for(lambda: raw_rows(directory, "trial_end"))
    asked = say_to_tune("stop", out)
    assert asked.exit_code == 0 and asked.stdout.endswith(f"run --out {out} --resume\n"), asked.output
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, stderr
    assert stderr.splitlines() == [f"interrupted; continue with: python tune.py run {path} --out {out} --resume"]
    zot, cma = raw_rows(directory, "trial_end")
    assert (zot["trial_id"], zot["status"], cma["status"]) == ("zot-0000", "stopped", "interrupted")
    assert zot["reason"].startswith("stopped by ")
    assert [row["trial_id"] for row in raw_rows(directory, "event") if row["kind"] == "stop"] == ["zot-0000", None]
    assert json.loads(directory.summary.read_text())["status"] == "interrupted"
    steps = [row for row in raw_rows(directory, "step") if row["trial_id"] == "zot-0000"]

    done = say_to_tune("run", "--out", out, "--resume")
    assert done.exit_code == 0, done.output
    assert [row for row in raw_rows(directory, "step") if row["trial_id"] == "zot-0000"] == steps, "it stays stopped"
    ledger = read(directory.ledger)
    assert {end.trial_id: end.status for end in ledger.trial_ends} == {"zot-0000": "stopped", "cma-0001": "done"}
    alone = numbers(run_alone(path))
    assert all(value == alone[name] for name, value in numbers(ledger).items() if name[0] != "test")
