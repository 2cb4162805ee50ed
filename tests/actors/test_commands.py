"""Whole runs from the command line: interrupted and resumed, on a cluster of one's own, on a model that cannot load."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE
from tuner_runs import (
    CMA,
    ROOT,
    ZOT,
    numbers,
    processes,
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

QUERIES = 400
STEP_SECONDS = 0.01  # of one tile


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "tune.py"), *map(str, arguments)]


def of_many_steps(methods: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Return a space that takes seconds, of which a part is over when the other begins."""
    return space({"kind": "analytic", "seconds": seconds}, methods, budget={"queries": QUERIES}, eval_every=100)


def interrupt_process(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGINT)


def interrupt_group(process: subprocess.Popen[str]) -> None:
    """As a terminal does: whatever Ray has started gets it too."""
    os.killpg(process.pid, signal.SIGINT)


def resume_apart(space: Path, out: Path) -> tuple[int, str, str]:
    again = command("run", space, "--out", out, "--resume")
    done = subprocess.run(again, cwd=out.parent, capture_output=True, text=True, timeout=PATIENCE)
    return done.returncode, done.stdout, done.stderr


def resume_here(space: Path, out: Path) -> tuple[int, str, str]:
    done = say_to_tune("run", space, "--out", out, "--resume")
    return done.exit_code, done.stdout, done.stderr


Resume = Callable[[Path, Path], tuple[int, str, str]]
INTERRUPTIONS = [  # a group's interrupt reaches what a process's does
    pytest.param(interrupt_process, resume_apart, [ZOT, CMA], id="process", marks=pytest.mark.extended),
    pytest.param(interrupt_group, resume_here, [ZOT], id="group"),
]


@pytest.mark.parametrize(("interrupt", "resume", "methods"), INTERRUPTIONS)
def test_ctrl_c_saves_the_run_and_resume_ends_it_as_if_nothing_had_been(
    interrupt: Callable[[subprocess.Popen[str]], None],
    resume: Resume,
    methods: list[dict[str, Any]],
    ray_cluster: None,
    reviews: Path,
    tmp_path: Path,
) -> None:
    alone = run_alone(write_space(of_many_steps(methods, 0.0), reviews, "quick_analytic.yaml"))
    long_space = write_space(of_many_steps(methods, STEP_SECONDS), reviews, "long_analytic.yaml")
    out = tmp_path / "run"
    directory = RunDirectory(out)
    process = subprocess.Popen(
        command("run", long_space, "--out", out),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(steps_written(out, 30))
    interrupt(process)
    stdout, stderr = process.communicate(timeout=PATIENCE)

    assert process.returncode == 130, stderr
    assert stderr.splitlines() == [f"interrupted; continue with: python tune.py run {long_space} --out {out} --resume"]
    assert_plain(stdout)
    assert raw_rows(directory, "run_end")[-1]["status"] == "interrupted"
    assert json.loads(directory.summary.read_text())["status"] == "interrupted"
    assert "interrupted" in directory.report.read_text()
    assert (directory.best / "prompt.safetensors").exists()
    assert raw_rows(directory, "trial_end")[-1]["status"] == "interrupted"
    before = len(raw_rows(directory, "step"))

    status, stdout, stderr = resume(long_space, out)
    assert status == 0, stderr
    assert stderr == ""
    assert_plain(stdout)
    ledger = read(directory.ledger)
    assert numbers(ledger) == numbers(alone)
    assert [session.end.status for session in ledger.sessions if session.end] == ["interrupted", "done"]
    assert {end.status for end in ledger.trial_ends} == {"done"}
    summary = json.loads(directory.summary.read_text())
    assert summary["status"] == "done"
    assert all(trial["queries"] <= QUERIES for trial in summary["trials"])
    written = len(raw_rows(directory, "step"))
    assert before < written, "the second process has written to the same ledger"
    assert written - len(ledger.steps) < before, "and its trials have not begun anew"
    assert len([row for row in raw_rows(directory, "measure") if row["what"] == "manual_prompt"]) == 2
    assert [row["layout"] for row in raw_rows(directory, "parity")] == ["prefix", "prefix"], (
        "the sanity check, once more"
    )

    status, _, stderr = resume(long_space, out)  # and of a run that is done nothing is left to do
    assert status == 0, stderr
    assert json.loads(directory.summary.read_text())["status"] == "done"
    assert len(raw_rows(directory, "step")) == written


def test_sigterm_to_all_processes_ends_a_run_as_one_to_its_driver_does(reviews: Path, tmp_path: Path) -> None:
    """As ``timeout`` sends it to a group, and a service or a batch system to all that has been started."""
    path = write_space(of_many_steps([ZOT], STEP_SECONDS), reviews, "terminated.yaml")
    out = tmp_path / "run"
    directory = RunDirectory(out)
    process = subprocess.Popen(
        command("run", path, "--out", out),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(steps_written(out, 30))
    started = processes("", process.pid)
    assert len(started) > 5
    os.killpg(process.pid, signal.SIGTERM)
    for pid in started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, stderr
    assert stderr.startswith("interrupted; continue with: ")
    assert raw_rows(directory, "run_end")[-1]["status"] == "interrupted"
    assert "interrupted" in directory.report.read_text()
    assert (directory.best / "prompt.json").exists()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started))


@pytest.mark.parametrize("source", ["RAY_ADDRESS", "--address"])
def test_a_cluster_that_is_not_there_is_one_line_and_leaves_nothing(reviews: Path, tmp_path: Path, source: str) -> None:
    path = write_space(space({"kind": "analytic"}, [ZOT]), reviews, "alone.yaml")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        done = subprocess.run(
            command("run", path, "--out", tmp_path / "runs" / "mine", *([source, address] if "-" in source else [])),
            cwd=tmp_path,
            env=os.environ | {"RAY_ADDRESS": "" if "-" in source else address},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: a run joins the cluster that {source} names, but '{address}' cannot be joined")
    assert ("unset RAY_ADDRESS" if source == "RAY_ADDRESS" else "leave --address out") in line
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def foreign_cluster(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Start a cluster as an administrator would; yield its address and the environment that fits it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    start = ["ray", "start", "--head", "--block", f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=3"]
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / start[0]), *start[1:], "--include-dashboard=false"],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "Ray runtime started" in line:
            break
    yield f"127.0.0.1:{port}", environment
    assert process.poll() is None, "runs leave the cluster running"
    own = processes("", process.pid)
    process.terminate()
    process.communicate(timeout=PATIENCE)
    for pid in own:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)


@pytest.mark.extended  # a job joins one as well
def test_a_run_joins_a_cluster_and_leaves_it_running(
    foreign_cluster: tuple[str, dict[str, str]], reviews: Path, tmp_path: Path
) -> None:
    address, environment = foreign_cluster
    path = write_space(space({"kind": "analytic"}, [ZOT]), reviews, "joining.yaml")
    out = tmp_path / "run"
    done = subprocess.run(
        command("run", path, "--out", out, "--address", address),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert_plain(done.stdout)
    assert f"joining the Ray cluster at {address} (--address)" in done.stdout.splitlines()[0]
    assert numbers(read(out / "ledger.jsonl")) == numbers(run_alone(path))


@pytest.mark.parametrize("actors", [1, pytest.param(2, marks=pytest.mark.extended)])
def test_a_model_that_cannot_be_loaded_is_one_line_and_exit_2(
    actors: int, ray_cluster: None, reviews: Path, llama: dict[str, Any], tmp_path: Path
) -> None:
    broken = shutil.copytree(llama["model"], tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    path = write_space(space({**llama, "model": str(broken), "actors": actors}, [ZOT]), reviews, "broken.yaml")
    result = say_to_tune("run", path, "--out", tmp_path / "run")
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert str(broken) in lines[0]


def assert_plain(stdout: str) -> None:
    """Check that up to the table at the end nothing but our own lines is on the console."""
    head, _, tail = stdout.partition("\n\n")
    for line in head.splitlines():
        assert re.match(r"\[\d\d:\d\d:\d\d\] ", line), line
    assert tail.startswith("method"), tail
    assert "report: " in tail
