"""Runs as jobs of a cluster, submitted over its REST API as `ray job submit` does: logs, exit status, stop, resume."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE
from tuner_runs import (
    ROOT,
    ZOT,
    numbers,
    processes,
    raw_rows,
    run_alone,
    space,
    steps_written,
    wait_for,
    write_space,
)

from distributed_tuner.ledger.reader import read
from distributed_tuner.runs.directory import RunDirectory

pytestmark = pytest.mark.ray

STEP_SECONDS = 0.03  # of one tile: the run takes seconds, of which a part is over when it is stopped
GRACE = "60"  # seconds from SIGTERM to SIGKILL; Ray's own 3 are too few on a machine that is busy with tests
UPLOADED = ("tune.py", "actors", "distributed_tuner")


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    with ExitStack() as probes:
        sockets = [probes.enter_context(closing(socket.socket())) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]


@pytest.fixture(scope="module")
def jobs() -> Iterator[Any]:
    """Start a head with its dashboard; yield a client of its job server."""
    from ray.job_submission import JobSubmissionClient

    port, dashboard, agent, agent_grpc, metrics, client = free_ports(6)
    folder = tempfile.mkdtemp(prefix="rayjobs-", dir="/tmp")  # short: the paths of Ray's sockets have a limit
    options = {
        "port": port,
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": agent,
        "dashboard-agent-grpc-port": agent_grpc,
        "metrics-export-port": metrics,
        "ray-client-server-port": client,
        "node-ip-address": "127.0.0.1",
        "dashboard-host": "127.0.0.1",
        "temp-dir": folder,
        "num-cpus": 4,
        "disable-usage-stats": None,
    }
    arguments = [f"--{name}" if value is None else f"--{name}={value}" for name, value in options.items()]
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", *arguments],
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_JOB_STOP_WAIT_TIME_S": GRACE},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "Ray runtime started" in line:
            break
    try:
        yield wait_for(lambda: connected(JobSubmissionClient, f"http://127.0.0.1:{dashboard}"))
    finally:
        own = processes("", process.pid)
        process.terminate()
        process.communicate(timeout=PATIENCE)
        for pid in own:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, 9)
        shutil.rmtree(folder, ignore_errors=True)


def connected(client: Any, address: str) -> Any:
    try:
        return client(address)
    except (ConnectionError, RuntimeError):
        return None


def upload(reviews: Path, folder: Path, tree: dict[str, Any], note: str) -> Path:
    """Lay out what a person submits: the program, and a space beside its data. ``note``: makes it another upload."""
    for name in UPLOADED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    (folder / "mine").mkdir()
    for name in ("train.jsonl", "test.jsonl"):
        shutil.copy(reviews / name, folder / "mine" / name)
    write_space(tree, folder / "mine")
    (folder / "note.txt").write_text(note)
    return folder


def small(oracle: dict[str, Any]) -> dict[str, Any]:
    return space(oracle, [ZOT], budget={"queries": 240}, eval_every=60)


def submit(jobs: Any, folder: Path, arguments: str) -> str:
    job: str = jobs.submit_job(
        entrypoint=f"{sys.executable} tune.py {arguments}", runtime_env={"working_dir": str(folder)}
    )
    return job


def ended(jobs: Any, job: str) -> Any:
    """Return the job's details once it has ended."""
    wait_for(lambda: jobs.get_job_status(job).is_terminal())
    return jobs.get_job_info(job)


def test_a_job_is_stopped_and_another_upload_ends_it_as_if_nothing_had_been(
    jobs: Any, reviews: Path, tmp_path: Path
) -> None:
    alone = run_alone(write_space(small({"kind": "analytic"}), reviews, "job.yaml"))
    slow = small({"kind": "analytic", "seconds": STEP_SECONDS})
    directory = RunDirectory(tmp_path / "runs" / "mine")
    run = f"run mine/space.yaml --address auto --out {directory.path}"

    first = submit(jobs, upload(reviews, tmp_path / "first", slow, "first"), run)
    wait_for(steps_written(directory.path, 12))
    assert jobs.stop_job(first)
    info = ended(jobs, first)
    logs = jobs.get_job_logs(first)
    assert info.status == "STOPPED", logs
    assert "dev loss" in logs and "zot-0000" in logs
    assert "interrupted; continue with: python tune.py run" in logs
    assert raw_rows(directory, "run_end")[-1]["status"] == "interrupted", logs
    assert {row["status"] for row in raw_rows(directory, "trial_end")} == {"interrupted"}
    assert json.loads(directory.summary.read_text())["status"] == "interrupted"
    assert "interrupted" in directory.report.read_text()
    assert len(raw_rows(directory, "step")) < len(alone.steps)

    gone = Path(directory.read_config()["root"])
    shutil.rmtree(gone.parent)  # the upload, which Ray removes some time after the job
    second = submit(jobs, upload(reviews, tmp_path / "second", slow, "second"), f"{run} --resume")
    info, logs = ended(jobs, second), jobs.get_job_logs(second)
    assert info.status == "SUCCEEDED", logs
    assert "report: " in logs
    ledger = read(directory.ledger)
    assert numbers(ledger) == numbers(alone)
    assert [session.end.status for session in ledger.sessions if session.end] == ["interrupted", "done"]


def test_a_jobs_exit_status_is_the_runs(jobs: Any, reviews: Path, tmp_path: Path) -> None:
    folder = upload(reviews, tmp_path / "wrong", space({"kind": "analytic"}, [ZOT]), "wrong")
    job = submit(jobs, folder, "run nowhere.yaml")
    info = ended(jobs, job)
    assert info.status == "FAILED"
    assert info.driver_exit_code == 2
    assert "error: " in jobs.get_job_logs(job)
