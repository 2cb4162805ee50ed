"""The proposer actor: the answers of the proposer alone, several requests at once, deaths, and templates of a run."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tuned_models import OracleModel
from tuner_runs import ZOT, processes, run_space, space, wait_for, write_space

from actors.pool.pool import Pool
from actors.proposer import Proposers, RemoteProposer
from distributed_tuner import proposers
from distributed_tuner.config.oracle import AnalyticOracleConfig
from distributed_tuner.config.validation import experiment_of
from distributed_tuner.errors import ModelError, ProposerError
from distributed_tuner.ledger.rows import ExchangeRow
from distributed_tuner.proposers.base import Ask

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

HOST = "ray::ProposerWorker"
ASK = Ask("Write a prompt.", 2, ("zot-0000", 1, 0))


def experiment(proposer: dict[str, Any]) -> Any:
    search, restart = {"kind": "search", "optimizer": ZOT}, {"kind": "restart", "proposer": proposer}
    return experiment_of({**space({"kind": "analytic"}, []), "stages": [search, restart], "rounds": 2})


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    started = Pool.start(AnalyticOracleConfig(kind="analytic"), "proposer-test")
    yield started
    started.stop()


@pytest.fixture
def start(pool: Pool, tmp_path: Path) -> Iterator[Callable[..., RemoteProposer]]:
    """Return a function that starts the proposer of these settings."""
    running: list[Proposers] = []

    def started(**settings: Any) -> RemoteProposer:
        made = experiment(settings)
        running.append(Proposers.start([made, made], f"test-{len(running)}", tmp_path, pool))
        (remote,) = running[-1].remote.values()  # trials with the same settings share it
        return remote

    yield started
    for each in running:
        each.stop()


@dataclass
class Server:
    """Speaks chat completions. The first ``hold`` requests wait until ``free``; ``arrived`` counts them."""

    url: str = ""
    hold: int = 0
    arrived: int = 0
    free: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            with state.lock:
                state.arrived += 1
                held = state.arrived <= state.hold
            if held:
                state.free.wait(60)
            data = b'{"id": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": "Say it"}}]}'
            with suppress(BrokenPipeError, ConnectionResetError):  # whoever asked was killed
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield state
    state.free.set()
    http.shutdown()
    http.server_close()


def test_a_server_is_asked_several_things_at_once(start: Callable[..., RemoteProposer], server: Server) -> None:
    server.hold = 4
    proposer = start(kind="openai", model="m", base_url=server.url)
    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(proposer.answer, ASK) for _ in range(4)]
        wait_for(lambda: server.arrived == 4)
        server.free.set()
    assert [answer.result().text for answer in answers] == ["Say it"] * 4
    assert proposer.label == "openai m"


@pytest.mark.parametrize("kind", ["random", "local"])
def test_the_actor_answers_as_the_proposer_alone(
    kind: str, start: Callable[..., RemoteProposer], pool: Pool, llama: dict[str, Any]
) -> None:
    settings = {"kind": kind} | ({"model": llama["model"], "max_tokens": 12} if kind == "local" else {})
    config = experiment(settings).stages[1].proposer
    alone = proposers.build(config, root=Path(), tuned=OracleModel(pool.oracle))
    remote = start(**settings)
    assert remote.answer(ASK).text == alone.answer(ASK).text != ""
    assert remote.label == alone.label


@pytest.mark.extended  # those of the oracle's actor arrive in the same way
def test_errors_arrive_as_they_are(start: Callable[..., RemoteProposer], llama: dict[str, Any]) -> None:
    proposer = start(kind="local", model=llama["model"], max_tokens=1000)
    with pytest.raises(ProposerError, match=r"lower proposer\.max_tokens"):
        proposer.answer(ASK)
    with pytest.raises(ModelError, match="no/model"):
        start(kind="local", model="./no/model")


@pytest.mark.parametrize("deaths", [pytest.param(1, marks=pytest.mark.extended), 2])  # the second comes after a first
def test_a_proposer_that_dies_is_asked_once_more(
    deaths: int, start: Callable[..., RemoteProposer], server: Server
) -> None:
    server.hold = deaths
    proposer = start(kind="openai", model="m", base_url=server.url)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(proposer.answer, ASK)
        for number in range(1, deaths + 1):
            wait_for(lambda number=number: server.arrived == number)
            for pid in processes(HOST):
                os.kill(pid, signal.SIGKILL)
    if deaths == 1:
        assert answer.result().text == "Say it"
        return
    with pytest.raises(ProposerError, match="process died"):
        answer.result()
    assert proposer.answer(ASK).text == "Say it"  # Ray starts it again for the next stage


def test_trials_are_given_the_template_itself(reviews: Path, tmp_path: Path) -> None:
    (reviews / "mine.txt").write_text("{{ count }} prompts for {{ metric }}, please")
    recorded = ExchangeRow(
        trial_id="zot+replay-0000", stage=1, number=0, proposer="someone", instruction="", answer="<9> <9>", texts=[]
    )
    (reviews / "recorded.jsonl").write_text(recorded.model_dump_json() + "\n")
    restart = {
        "kind": "restart",
        "proposer": {"kind": "replay", "ledger": "recorded.jsonl", "retries": 0, "instruction": "mine.txt"},
    }
    settings = space({"kind": "analytic"}, [ZOT], rounds=2, budget={"queries": 80})
    settings["task"] |= {"feedback": 2}
    path = write_space(settings | {"stages": [*settings["stages"], restart]}, reviews, "template.yaml")
    (exchange,) = run_space(path, tmp_path / "run").ledger.exchanges
    assert exchange.instruction == "3 prompts for accuracy, please\n"
