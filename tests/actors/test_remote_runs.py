"""Runs that are kept at a URI, in an S3 bucket: to their end, interrupted, and with the driver and its disk gone."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from object_store import ObjectStore, object_store
from tuner_runs import CMA, ROOT, ZOT, numbers, run_alone, space, wait_for, write_space

from actors.trial import STATE_FILE, Saved
from distributed_tuner.ledger.reader import Ledger, read
from distributed_tuner.run_directory import opened
from distributed_tuner.stages.state_classes import STATE_CLASSES
from distributed_tuner.states import decode

pytestmark = pytest.mark.ray

QUERIES = 400
STEP_SECONDS = 0.05  # of one tile


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as running:
        yield running


@pytest.fixture(scope="module")
def slow_space(reviews: Path) -> Path:
    tree = space({"kind": "analytic", "seconds": STEP_SECONDS}, [ZOT, CMA], budget={"queries": QUERIES}, look_every=100)
    return write_space(tree, reviews, "slow.yaml")


@pytest.fixture(scope="module")
def alone(reviews: Path) -> Ledger:
    """Return the ledger of the same run, undisturbed."""
    tree = space({"kind": "analytic"}, [ZOT, CMA], budget={"queries": QUERIES}, look_every=100)
    return run_alone(write_space(tree, reviews, "quick.yaml"))


def start(temporary: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start tune.py. ``temporary``: its machine's disk."""
    temporary.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tune.py"), *map(str, arguments)],
        cwd=temporary,
        env={**os.environ, "TMPDIR": str(temporary), "RAY_TMPDIR": "/tmp", "TUNE_GLOBAL_CHECKPOINT_S": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run_to_the_end(temporary: Path, *arguments: object) -> str:
    process = start(temporary, *arguments)
    stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stdout + stderr
    assert stderr == ""
    return stdout


def ledger_at(uri: str) -> Ledger:
    with opened(uri) as directory:
        return read(directory.ledger)


def checkpoints(store: ObjectStore, path: str) -> list[str]:
    return [name for name in store.names(path) if name.endswith(STATE_FILE)]


def snapshot_knows_checkpoints(store: ObjectStore, path: str) -> bool:
    """Tell whether Tune's snapshot at the store was written after both trials had a checkpoint."""
    time.sleep(0.3)  # between two looks
    snapshots = [name for name in store.names(path) if "/experiment_state-" in name]
    if not snapshots:
        return False
    pickled = re.findall(r"[0-9a-f]{100,}", store.read(f"{path}/{snapshots[-1]}").decode())
    return sum(b"checkpoint_0" in bytes.fromhex(hexed[: len(hexed) // 2 * 2]) for hexed in pickled) >= 2


def test_no_row_is_lost_when_the_drivers_machine_is(
    store: ObjectStore, slow_space: Path, alone: Ledger, tmp_path: Path
) -> None:
    place = store.uri("lost")
    process = start(tmp_path / "machine", "run", slow_space, "--out", place)
    try:
        wait_for(lambda: process.poll() is not None or snapshot_knows_checkpoints(store, "lost"), 120)
        assert process.poll() is None, process.communicate()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    shutil.rmtree(tmp_path / "machine")
    whole = store.read("lost/ledger.jsonl")
    kept = without_the_end(whole, store)
    store.write("lost/ledger.jsonl", kept)
    store.clear("lost/.claims")  # as if half a minute had passed

    run_to_the_end(tmp_path / "other", "run", slow_space, "--out", place, "--resume")
    ledger = ledger_at(place)
    assert numbers(ledger) == numbers(alone)
    assert len(ledger.steps) == len(alone.steps)
    assert len(ledger.looks) == len(alone.looks)
    dropped = [line for line in whole[len(kept) :].splitlines() if b'"type":"step"' in line]
    again = store.read("lost/ledger.jsonl").splitlines()
    assert any(line in again for line in dropped), "what only the checkpoints knew was written down again, as it was"
    assert all(again.count(line) == 1 for line in again), "and nothing twice"


def without_the_end(ledger: bytes, store: ObjectStore) -> bytes:
    """Return a ledger as it was some rows before the first checkpoint of each trial: none of those rows would be made
    again by a trial that goes on from there."""
    oldest: dict[str, str] = {}
    for name in sorted(checkpoints(store, "lost")):
        oldest.setdefault(name.split("/")[2], name)
    lines = ledger.splitlines(keepends=True)
    first = len(lines)
    for name in oldest.values():
        saved: Saved = decode(store.read(f"lost/{name}"), name, (Saved, *STATE_CLASSES))
        steps = [row for report in saved.reports for row in report if row["type"] == "step"]
        lost = steps[-4]
        marks = [b'"trial_id":"%s"' % lost["trial_id"].encode(), b'"step":%d,' % lost["step"], b'"type":"step"']
        first = min(first, next(i for i, line in enumerate(lines) if all(mark in line for mark in marks)))
    return b"".join(lines[:first])


def test_a_run_at_a_uri_is_stopped_resumed_and_read_by_every_command(
    store: ObjectStore, slow_space: Path, alone: Ledger, tmp_path: Path
) -> None:
    place = store.uri("mine")
    process = start(tmp_path / "machine", "run", slow_space, "--out", place)
    wait_for(lambda: process.poll() is not None or "ledger.jsonl" in store.names("mine"), 120)
    wait_for(lambda: process.poll() is not None or store.read("mine/ledger.jsonl").count(b'"step"') > 20, 120)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stdout + stderr
    assert stderr.startswith("interrupted; go on with: ") and place in stderr
    assert f"report: {store.uri('mine/report.html')}" in stdout
    assert {"config.json", "ledger.jsonl", "report.html", "summary.json"} <= set(store.names("mine"))
    assert json.loads(store.read("mine/summary.json"))["status"] == "interrupted"
    assert not any(name.startswith(".claims") for name in store.names("mine"))

    run_to_the_end(tmp_path / "other", "run", slow_space, "--out", place, "--resume")
    ledger = ledger_at(place)
    assert numbers(ledger) == numbers(alone)
    assert [session.end.status for session in ledger.sessions if session.end] == ["interrupted", "done"]
    assert list((tmp_path / "other").glob("prompt-tuner-*/*")) == [], "no local copy is left"

    summary = json.loads(store.read("mine/summary.json"))
    scores = run_to_the_end(tmp_path / "reader", "evaluate", place)
    assert f"accuracy {summary['best']['test_metric']:.6f}" in scores
    store.client.delete_object(Bucket="bucket", Key="mine/report.html")
    assert store.uri("mine/report.html") in run_to_the_end(tmp_path / "reader", "report", place)
    assert b"zot-0000" in store.read("mine/report.html")
    exported = run_to_the_end(tmp_path / "reader", "export", place, "--format", "text", "--out", store.uri("taken"))
    assert exported.split() == [store.uri("taken/prompt.txt")]
    assert store.names("taken") == ["prompt.txt"]


def test_an_analysis_of_a_run_at_a_uri_goes_to_a_uri(store: ObjectStore, slow_space: Path, tmp_path: Path) -> None:
    place = store.uri("tuned")
    tree = space({"kind": "analytic"}, [ZOT], budget={"queries": 120})
    quick = write_space(tree, slow_space.parent, "tuned.yaml")
    run_to_the_end(tmp_path / "machine", "run", quick, "--out", place)
    arguments: list[Any] = ["effective-dimension", place, "--quick", "--out", store.uri("curved")]
    said = run_to_the_end(tmp_path / "machine", "analyze", *arguments)
    assert f"analysis: {store.uri('curved/analysis.html')}" in said
    assert {"analysis.html", "analysis.json", "ledger.jsonl"} <= set(store.names("curved"))
