"""Whole runs on a server that refuses, hangs, breaks off, dies and comes back, with an actor killed beside it; and on
one that says no."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from completions_server import HANGS, Asked, CompletionsServer, Reply, opinion, refusal
from patience import PATIENCE
from tuner_runs import (
    ROOT,
    numbers,
    processes,
    raw_rows,
    run_space,
    say_to_tune,
    space,
    steps_written,
    wait_for,
    write_space,
)

from distributed_tuner.ledger.reader import read
from distributed_tuner.runs.directory import RunDirectory

pytestmark = pytest.mark.ray

KEY = "sk-RECOGNISABLE-0123456789"
QUERIES = 40


@pytest.fixture
def server() -> Iterator[CompletionsServer]:
    state = CompletionsServer()
    state.start()
    yield state
    state.stop()


@pytest.fixture
def sessions() -> Iterator[Path]:
    """Return where Ray writes its logs; its sockets' paths must be short."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def served(server: CompletionsServer, **oracle: Any) -> dict[str, Any]:
    price = {"usd_per_million_input_tokens": 10.0, "usd_per_million_output_tokens": 20.0}
    settings = {"kind": "openai", "model": "m", "base_url": server.url, "api": "completions", "api_key_env": "MY_KEY"}
    return space(
        settings | {"actors": 2, "price": price, "timeout": 10.0, "breaker_seconds": 0.5, "cache": "kept", **oracle},
        [{"kind": "token_edit", "popsize": 4}],
        prompt={"kind": "text", "length": 5, "vocabulary": "task"},
        budget={"queries": QUERIES, "usd": 1.0},
    )


def start(path: Path, out: Path, sessions: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tune.py"), "run", str(path), "--out", str(out)],
        cwd=path.parent,
        env=os.environ | {"MY_KEY": KEY, "RAY_TMPDIR": str(sessions)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_the_key_is_nowhere(*places: Path) -> None:
    files = [file for place in places for file in place.rglob("*") if file.is_file() and not file.is_symlink()]
    assert len(files) > 20
    assert not [file for file in files if KEY.encode() in file.read_bytes()]


def test_a_server_that_fails_in_every_way_and_restarts_and_a_killed_actor_change_nothing(
    ray_cluster: None, server: CompletionsServer, reviews: Path, sessions: Path, tmp_path: Path
) -> None:
    keyless = served(server, cache=None, timeout=2.0, api_key_env="NO_KEY")
    undisturbed = run_space(write_space(keyless, reviews, "keyless.yaml"), tmp_path / "whole")
    assert undisturbed.status == "done"
    asked = len(server.asked)

    turns = iter(range(10**9))

    def moody(asked: Asked) -> Reply:
        match next(turns) % 60:
            case 7:
                return refusal(429, f"too many requests with {asked.key}", retry_after="0.1")
            case 17:
                return refusal(500, str(asked.key))
            case 27:
                return HANGS
            case 37:
                return replace(opinion(asked), cut=True)
            case 47:
                return Reply(f'{{"id": "{asked.key}", "choices": [{{')
            case _:
                return opinion(asked)

    server.answer = moody
    path = write_space(served(server, cache=None, timeout=2.0), reviews, "served.yaml")
    out = tmp_path / "run"
    process = start(path, out, sessions)
    wait_for(steps_written(out, 3))
    os.kill(processes("ray::OracleWorker", process.pid)[0], signal.SIGKILL)
    server.stop()
    back = threading.Timer(1.0, server.start)
    back.start()
    said = process.communicate(timeout=PATIENCE)
    back.join()
    assert process.returncode == 0, said[1]

    assert numbers(read(out / "ledger.jsonl")) == numbers(undisturbed.ledger)
    assert len(server.asked) - asked > asked, "some were asked again"
    (trial,) = read_summary(out)["trials"]
    assert trial["queries"] <= QUERIES and 0 < trial["usd"] < 1.0
    assert any(row["kind"] == "oracle_restart" for row in raw_rows(RunDirectory(out), "event"))
    assert_the_key_is_nowhere(out, sessions)
    assert KEY not in said[0] + said[1]


@pytest.mark.extended  # kept answers of an oracle of one's own stand for it
def test_what_was_asked_once_is_free_in_the_next_run(
    server: CompletionsServer, reviews: Path, sessions: Path, tmp_path: Path
) -> None:
    path = write_space(served(server, actors=1, cache=str(tmp_path / "kept")), reviews, "kept.yaml")
    totals = []
    for name in ("first", "again"):
        before = len(server.asked)
        process = start(path, tmp_path / name, sessions)
        said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said[1]
        totals.append((read_summary(tmp_path / name)["totals"], len(server.asked) - before))
    (first, asked_first), (again, asked_again) = totals
    assert first["usd"] > 0 and again["usd"] == 0 and again["queries"] == 0
    assert again["counts"]["cached_forwards"] > 0
    assert asked_again < asked_first, "the sanity check alone asks anew"


@pytest.mark.extended  # the refusal below stands for these, and of keys in logs the run above
@pytest.mark.parametrize(("status", "names"), [(401, "MY_KEY"), (404, "oracle.model")])
def test_a_server_that_says_no_ends_the_run_at_once_with_what_to_change(
    status: int, names: str, server: CompletionsServer, reviews: Path, sessions: Path, tmp_path: Path
) -> None:
    server.answer = lambda asked: refusal(status, f"no {asked.key}")
    process = start(write_space(served(server), reviews, "refused.yaml"), tmp_path / "run", sessions)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    (line,) = stderr.splitlines()
    assert line.startswith("error: ") and names in line and str(status) in line and KEY not in line
    assert len(server.asked) < 100
    assert_the_key_is_nowhere(reviews, tmp_path, sessions)


def test_a_server_that_says_no_ends_a_run_of_this_process(
    ray_cluster: None, server: CompletionsServer, reviews: Path, tmp_path: Path
) -> None:
    server.answer = lambda asked: refusal(401)
    done = say_to_tune(
        "run",
        write_space(served(server, cache=str(tmp_path / "kept")), reviews, "refused.yaml"),
        "--out",
        tmp_path / "run",
    )
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and "MY_KEY" in line and "401" in line
    assert len(server.asked) < 100


def read_summary(out: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary
