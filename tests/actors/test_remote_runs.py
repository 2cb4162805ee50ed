"""Runs that are kept at a URI, in an S3 bucket: to their end, interrupted, and with the driver and its disk gone."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from object_store import ObjectStore, object_store
from patience import PATIENCE
from tuner_runs import CMA, ROOT, ZOT, numbers, run_alone, say_to_tune, space, wait_for, write_space

from actors.trials.checkpoints import STATE_FILE, Saved
from actors.trials.tuner import CHECKPOINTS_KEPT
from distributed_tuner.ledger.reader import Ledger, read
from distributed_tuner.runs.directory import opened
from distributed_tuner.stages.state_classes import STATE_CLASSES
from distributed_tuner.storage.serialization import decode

pytestmark = pytest.mark.ray

QUERIES = 280
LOOK = 0.3  # seconds between two evaluations at the store: its server is in this process
STEP_SECONDS = 0.05  # of one tile


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as running:
        yield running


@pytest.fixture(scope="module")
def slow_space(reviews: Path) -> Path:
    tree = space({"kind": "analytic", "seconds": STEP_SECONDS}, [ZOT, CMA], budget={"queries": QUERIES}, eval_every=100)
    return write_space(tree, reviews, "slow.yaml")


@pytest.fixture(scope="module")
def alone(reviews: Path) -> Ledger:
    """Return the ledger of the same run, undisturbed."""
    tree = space({"kind": "analytic"}, [ZOT, CMA], budget={"queries": QUERIES}, eval_every=100)
    return run_alone(write_space(tree, reviews, "quick.yaml"))


def start(temporary: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start tune.py. ``temporary``: its machine's disk."""
    temporary.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tune.py"), *map(str, arguments)],
        cwd=temporary,
        env={**os.environ, "TMPDIR": str(temporary), "RAY_TMPDIR": "/tmp"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run_to_the_end(temporary: Path, *arguments: object) -> str:
    process = start(temporary, *arguments)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stdout + stderr
    assert stderr == ""
    return stdout


def done_here(*arguments: object) -> str:
    done = say_to_tune(*arguments)
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    return done.stdout


def ledger_at(uri: str) -> Ledger:
    with opened(uri) as directory:
        return read(directory.ledger)


def checkpoints(store: ObjectStore, path: str) -> list[str]:
    return [name for name in store.names(path) if name.endswith(STATE_FILE)]


def both_have_checkpoints(store: ObjectStore, path: str) -> bool:
    """Tell whether both trials have more behind them than are kept of each."""
    folders = [name.split("/") for name in checkpoints(store, path)]
    return len({trial for _, _, trial, folder, _ in folders if int(folder.rpartition("_")[2]) >= CHECKPOINTS_KEPT}) == 2


@pytest.mark.extended  # one that is stopped stands for it, and of dead drivers that of a population
def test_no_row_is_lost_when_the_drivers_machine_is(
    store: ObjectStore, slow_space: Path, alone: Ledger, tmp_path: Path
) -> None:
    place = store.uri("lost")
    process = start(tmp_path / "machine", "run", slow_space, "--out", place)
    try:
        wait_for(lambda: process.poll() is not None or both_have_checkpoints(store, "lost"), every=LOOK)
        assert process.poll() is None, process.communicate()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    shutil.rmtree(tmp_path / "machine")
    rows = rows_of_checkpoints(store)
    kept = without_the_end(store.read("lost/ledger.jsonl"), rows)
    store.write("lost/ledger.jsonl", kept)
    store.clear("lost/.claims")  # as if half a minute had passed

    run_to_the_end(tmp_path / "other", "run", slow_space, "--out", place, "--resume")
    ledger = ledger_at(place)
    assert numbers(ledger) == numbers(alone)
    assert len(ledger.steps) == len(alone.steps)
    assert len(ledger.evaluations) == len(alone.evaluations)
    again = store.read("lost/ledger.jsonl").splitlines()
    assert all(again.count(line) == 1 for line in again), "nothing is written down twice"
    before, after = steps_of(kept), steps_of(b"\n".join(again))
    lost = [steps for trial in rows if (steps := [row_key(row) for row in trial if row_key(row) not in before])]
    assert all(len(steps) >= 4 for steps in lost) and len(lost) == 2
    assert all(step in after for steps in lost for step in steps), "what only the checkpoints knew is there, as it was"


def rows_of_checkpoints(store: ObjectStore) -> list[list[dict[str, Any]]]:
    """Return for each trial the step rows of the oldest checkpoint that it may go on from."""
    oldest: dict[str, str] = {}
    for name in sorted(checkpoints(store, "lost")):
        oldest.setdefault(name.split("/")[2], name)
    rows = []
    for name in oldest.values():
        saved: Saved = decode(store.read(f"lost/{name}"), name, (Saved, *STATE_CLASSES))
        rows.append([row for report in saved.reports for row in report if row["type"] == "step"])
    return rows


def row_key(row: dict[str, Any]) -> tuple[str, int, float]:
    """Return what tells a step from the same step made again."""
    return row["trial_id"], row["step"], row["time"]


def steps_of(ledger: bytes) -> set[tuple[str, int, float]]:
    rows = (json.loads(line) for line in ledger.splitlines())
    return {row_key(row) for row in rows if row["type"] == "step"}


def without_the_end(ledger: bytes, rows: list[list[dict[str, Any]]]) -> bytes:
    """Return a ledger as it was before the last four of these rows of each trial: none of them would be made again by
    a trial that goes on from there. The ledger may end before them by itself: it is sent every few seconds."""
    lost = {row_key(trial[-4]) for trial in rows}
    lines = ledger.splitlines(keepends=True)
    parsed = map(json.loads, lines)
    first = next((i for i, row in enumerate(parsed) if row["type"] == "step" and row_key(row) in lost), len(lines))
    return b"".join(lines[:first])


def test_a_run_at_a_uri_is_stopped_resumed_and_read_by_every_command(
    ray_cluster: None,
    store: ObjectStore,
    slow_space: Path,
    alone: Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = store.uri("mine")
    process = start(tmp_path / "machine", "run", slow_space, "--out", place)
    wait_for(lambda: process.poll() is not None or "ledger.jsonl" in store.names("mine"), every=LOOK)
    wait_for(lambda: process.poll() is not None or store.read("mine/ledger.jsonl").count(b'"step"') > 20, every=LOOK)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, stdout + stderr
    assert stderr.startswith("interrupted; continue with: ") and place in stderr
    assert f"report: {store.uri('mine/report.html')}" in stdout
    assert {"config.json", "ledger.jsonl", "report.html", "summary.json"} <= set(store.names("mine"))
    assert json.loads(store.read("mine/summary.json"))["status"] == "interrupted"
    assert not any(name.startswith(".claims") for name in store.names("mine"))

    shutil.rmtree(tmp_path / "machine")
    (tmp_path / "other").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "other"))  # another machine's disk
    done_here("run", slow_space, "--out", place, "--resume")
    ledger = ledger_at(place)
    assert numbers(ledger) == numbers(alone)
    assert [session.end.status for session in ledger.sessions if session.end] == ["interrupted", "done"]
    assert list((tmp_path / "other").glob("prompt-tuner-*/*")) == [], "no local copy is left"

    summary = json.loads(store.read("mine/summary.json"))
    scores = done_here("evaluate", place)
    assert f"accuracy {summary['best']['test_metric']:.6f}" in scores
    store.client.delete_object(Bucket="bucket", Key="mine/report.html")
    assert store.uri("mine/report.html") in done_here("report", place)
    assert b"zot-0000" in store.read("mine/report.html")
    exported = done_here("export", place, "--format", "text", "--out", store.uri("taken"))
    assert exported.split() == [store.uri("taken/prompt.txt")]
    assert store.names("taken") == ["prompt.txt"]

    arguments = ("effective-dimension", place, "--quick", "--out", store.uri("curved"))
    said = done_here("analyze", *arguments)
    assert f"analysis: {store.uri('curved/analysis.html')}" in said
    assert {"analysis.html", "analysis.json", "ledger.jsonl"} <= set(store.names("curved"))
