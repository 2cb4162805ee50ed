"""Search and LLM stages alternating under Ray: the same as alone, the recorded lineage, a kill in an LLM stage."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE
from tuner_runs import (
    CMA,
    ROOT,
    ZOT,
    Done,
    Grid,
    numbers,
    run_alone,
    run_space,
    say_to_tune,
    space,
    wait_for,
    write_space,
)

from distributed_tuner.ledger.reader import Ledger, read
from distributed_tuner.ledger.rows import ExchangeRow

pytestmark = pytest.mark.ray

SEARCH = {"kind": "search", "optimizer": ZOT, "eval_every": 20}
Lineage = list[tuple[str, int, str, str]]


def lineage(ledger: Ledger) -> Lineage:
    return [(row.trial_id, row.stage, row.adopted, row.text) for row in ledger.restarts]


def alternating(proposer: dict[str, Any], **more: Any) -> dict[str, Any]:
    restart = {"kind": "restart", "proposer": proposer, **more.pop("restart", {})}
    task = space({}, [ZOT])["task"] | {"feedback": 2}
    settings = {"rounds": 3, "budget": {"queries": 120}, "task": task, "stages": [SEARCH, restart]}
    return space(more.pop("oracle", {"kind": "analytic"}), [ZOT], **(settings | more))


# --------------------------------------------------------------------------------------------------- recorded answers
RECORDED = {
    (1, 0): "1. <3> <17> <40> <8>\n2. <9> <9> <9> <9>",
    (3, 0): "no list here:",
    (3, 1): '["<200> <201> <202> <203>"]',
}


@pytest.fixture(scope="module")
def recorded(reviews: Path) -> Path:
    """Return a space whose proposer answers from a file."""
    rows = [
        ExchangeRow(
            trial_id="zot+replay-0000",
            stage=stage,
            number=number,
            proposer="someone",
            instruction="",
            answer=answer,
            texts=[],
        )
        for (stage, number), answer in RECORDED.items()
    ]
    (reviews / "answers.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))
    proposer = {"kind": "replay", "ledger": "answers.jsonl", "retries": 1}
    return write_space(alternating(proposer, restart={"adopt": "always"}), reviews, "recorded.yaml")


@pytest.fixture(scope="module")
def recorded_run(ray_cluster: None, recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    return run_space(recorded, tmp_path_factory.mktemp("recorded") / "run")


def test_recorded_answers_give_the_recorded_lineage(recorded_run: Done) -> None:
    assert recorded_run.status == "done"
    found = lineage(recorded_run.ledger)
    assert [entry[:3] for entry in found] == [
        ("zot+replay-0000", 1, "proposal"),
        ("zot+replay-0000", 3, "proposal"),
    ]
    assert [entry[3] for entry in found] == ["<9> <9> <9> <9>", "<200> <201> <202> <203>"]
    exchanges = recorded_run.ledger.exchanges
    assert [(row.stage, row.number, len(row.texts)) for row in exchanges] == [(1, 0, 2), (3, 0, 0), (3, 1, 1)]


def test_ray_changes_nothing(recorded: Path, recorded_run: Done) -> None:
    assert numbers(recorded_run.ledger) == numbers(run_alone(recorded))


@pytest.mark.extended  # a population's is
def test_the_run_of_a_ledger_is_replayed_from_it(recorded_run: Done, reviews: Path, tmp_path: Path) -> None:
    proposer = {"kind": "replay", "ledger": str(recorded_run.directory.ledger), "retries": 1}
    again = write_space(alternating(proposer, restart={"adopt": "always"}), reviews, "again.yaml")
    assert lineage(run_space(again, tmp_path / "run").ledger) == lineage(recorded_run.ledger)


# --------------------------------------------------------------------------------------------------- a real model
ADAMW = {"kind": "gradient", "optimizer": {"kind": "adamw", "batch_size": 8}, "eval_every": 20}
RANDOM_TEXTS = {"kind": "restart", "proposer": {"kind": "random"}}
COURSES = {
    "gradient": [ADAMW],
    "texts alone": [RANDOM_TEXTS],
    "reproduce_paper": [ADAMW, RANDOM_TEXTS | {"reproduce_paper": True}],
    "cma and texts": [{"kind": "search", "optimizer": CMA}, RANDOM_TEXTS | {"state": "inject", "adopt": "always"}],
}


@pytest.mark.parametrize(
    "courses",
    [
        pytest.param(("reproduce_paper", "cma and texts"), id="together"),  # all kinds of stages are among these
        pytest.param(("gradient", "texts alone"), id="alone", marks=pytest.mark.extended),
    ],
)
def test_every_kind_of_stage_runs_on_a_model_in_bfloat16(
    courses: tuple[str, ...], ray_cluster: None, llama: dict[str, Any], reviews: Path, tmp_path: Path
) -> None:
    oracle = llama | {"dtype": "bfloat16", "threads": 1}
    tree = alternating({}, stages=Grid([COURSES[name] for name in courses]), oracle=oracle, rounds=3)
    done = run_space(write_space(tree, reviews, "courses.yaml"), tmp_path / "run")
    assert done.status == "done"
    for stage_schedule, trial in zip(courses, done.summary["trials"], strict=True):
        assert trial["test_metric"] is not None, stage_schedule
        assert 60 < trial["queries"] <= 120 or stage_schedule == "texts alone"
        restarts = [row for row in done.ledger.restarts if row.trial_id == trial["trial_id"]]
        assert len(restarts) == {"gradient": 0, "texts alone": 3}.get(stage_schedule, 2), stage_schedule


# --------------------------------------------------------------------------------------------------- a kill
@dataclass
class Server:
    """Speaks chat completions; answers follow from the instruction. Holds one request back once, if asked to."""

    hold: int | None = None
    calls: int = 0
    held: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def answer(self, body: dict[str, Any]) -> str:
        self.calls += 1
        if self.calls == self.hold:
            self.held.set()
            self.release.wait(60)
        digest = hashlib.sha256(body["messages"][-1]["content"].encode()).digest()
        return "\n".join(f"<{a}> <{b}> <{a}> <{b}>" for a, b in (digest[:2], digest[2:4], digest[4:6]))


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            message = {"role": "assistant", "content": state.answer(body)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
            answer = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
            data = json.dumps(answer | {"choices": [choice], "usage": usage}).encode()
            try:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except BrokenPipeError:
                pass  # whoever asked was killed

        def log_message(self, *arguments: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield state
    state.release.set()
    http.shutdown()


def command(path: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, str(ROOT / "tune.py"), "run", str(path), "--out", str(out), *more]


@pytest.mark.extended  # one that is killed at a population's sync point stands for it
def test_a_driver_killed_in_an_llm_stage_goes_on_to_the_same_lineage(
    server: Server, reviews: Path, tmp_path: Path
) -> None:
    proposer = {"kind": "openai", "model": "m", "base_url": f"http://127.0.0.1:{server.port}/v1"}
    restart = {"adopt": "always", "state": "keep"}
    path = write_space(alternating(proposer, rounds=4, restart=restart), reviews, "served.yaml")
    whole, out = tmp_path / "whole", tmp_path / "run"
    subprocess.run(command(path, whole), cwd=tmp_path, check=True, capture_output=True, timeout=PATIENCE)
    assert server.calls == 3

    server.hold = server.calls + 2
    process = subprocess.Popen(
        command(path, out), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    wait_for(server.held.is_set)
    os.killpg(process.pid, signal.SIGKILL)  # driver, raylet and workers: nothing is told to anyone
    process.wait(timeout=PATIENCE)
    server.release.set()
    assert len(read(out / "ledger.jsonl").restarts) < 3

    subprocess.run(command(path, out, "--resume"), cwd=tmp_path, check=True, capture_output=True, timeout=PATIENCE)
    undisturbed, resumed = read(whole / "ledger.jsonl"), read(out / "ledger.jsonl")
    assert lineage(resumed) == lineage(undisturbed)
    assert len(lineage(resumed)) == 3
    assert numbers(resumed) == numbers(undisturbed)
    best = [(folder / "best" / "prompt.safetensors").read_bytes() for folder in (whole, out)]
    assert best[0] == best[1]


def test_other_trials_search_while_one_waits_for_its_proposer(
    ray_cluster: None, server: Server, reviews: Path, tmp_path: Path
) -> None:
    proposer = {"kind": "openai", "model": "m", "base_url": f"http://127.0.0.1:{server.port}/v1"}
    tree = alternating(proposer, budget={"queries": 240}, seed=Grid([0, 1]))
    path, out = write_space(tree, reviews, "two_trials.yaml"), tmp_path / "run"
    server.hold = 1

    def watch() -> None:
        wait_for(server.held.is_set)
        onward = re.compile(r'"type":"step".*"stage":2')  # whoever waits has made none behind its restart
        wait_for(lambda: onward.search((out / "ledger.jsonl").read_text()))
        assert not server.release.is_set()
        server.release.set()

    with ThreadPoolExecutor(1) as beside:
        watched = beside.submit(watch)
        done = run_space(path, out)
        watched.result()
    assert done.status == "done"
    assert len(lineage(done.ledger)) == 4


# --------------------------------------------------------------------------------------------------- a population
def population(proposer: dict[str, Any], mode: str, rates: Sequence[float]) -> dict[str, Any]:
    searches = Grid([{"kind": "zot", "points": 2, "learning_rate": rate} for rate in rates])
    stages = [{"kind": "search", "optimizer": searches, "eval_every": 20}, {"kind": "restart", "proposer": proposer}]
    explore = {"stages.0.optimizer.learning_rate": {"low": 0.0001, "high": 10.0}}
    schedule = {"kind": "population", "mode": mode, "quantile": 0.25, "explore": explore}
    return alternating(proposer) | {"stages": stages, "schedule": schedule, "budget": {"queries": 150}}


@pytest.mark.parametrize(
    "rates", [(0.001, 0.5), pytest.param((0.001, 0.3, 0.5, 3.0), marks=pytest.mark.extended)], ids=["two", "four"]
)
def test_a_population_whose_driver_is_killed_at_a_sync_point_goes_on_to_the_same_lineage(
    rates: Sequence[float], ray_cluster: None, reviews: Path, tmp_path: Path
) -> None:
    """The answers are recorded ones. All trials stand at their first sync point, decided or about to be, when all
    processes die; what the ledger knows by then must not change what a decision that is made again is made upon."""
    named = {"kind": "restart", "name": "llm", "proposer": {"kind": "random"}}
    tree = population({"kind": "random"}, "sync", rates)
    path = write_space(tree | {"stages": [tree["stages"][0], named]}, reviews, "recording.yaml")
    whole, out = run_space(path, tmp_path / "whole"), tmp_path / "run"
    replay = {"kind": "replay", "ledger": str(whole.directory.ledger)}
    path = write_space(tree | {"stages": [tree["stages"][0], named | {"proposer": replay}]}, reviews, "replayed.yaml")
    process = subprocess.Popen(
        command(path, out), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    ledger = out / "ledger.jsonl"
    wait_for(lambda: ledger.exists() and '"type":"exchange"' in ledger.read_text())
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=PATIENCE)
    assert len(read(ledger).restarts) < len(whole.ledger.restarts)

    done = say_to_tune("run", path, "--out", out, "--resume")
    assert done.exit_code == 0, done.output
    resumed = read(ledger)
    assert sorted(lineage(resumed)) == sorted(lineage(whole.ledger))
    assert numbers(resumed) == numbers(whole.ledger)
    assert (out / "best" / "prompt.safetensors").read_bytes() == whole.best
