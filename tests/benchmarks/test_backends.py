"""The benchmark of the backends without vLLM: its request, its table, the relay that counts, one backend for real."""

import json
import socket
import socketserver
import threading
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import benchmarks.backends as command
from benchmarks.backends import Measured, Setup, measure, request_of, table
from benchmarks.relay import relaying
from distributed_tuner.values import Perturbation


def setup(model: Path, **more: object) -> Setup:
    return Setup(str(model), 4, 3, "prefix", 1, 1, 2, **{"dtype": "float32", **more})  # type: ignore[arg-type]


def test_candidates_are_pairs_on_the_demo_task(tiny_llama: Path) -> None:
    request = request_of(setup(tiny_llama), 8)
    signs = [one.sign for one in request.candidates if isinstance(one, Perturbation)]
    keys = [one.key for one in request.candidates if isinstance(one, Perturbation)]
    assert signs == [1, -1, 1, -1] and keys[0] == keys[1] != keys[2] == keys[3]
    assert len(request.batch.examples) == 4


def test_one_backend_is_measured_and_a_recipe_is_small(tiny_llama: Path) -> None:
    found = measure("transformers", setup(tiny_llama))
    assert len(found.seconds) == 2 and len(found.losses) == 4
    assert np.isfinite(found.losses).all()
    assert 0 < found.wire < 2000  # a quarter of four texts and a few numbers, no rows


def test_the_table_compares_with_the_first_row() -> None:
    rows = [Measured("transformers", (2.0, 4.0), (1.0, 2.0), 100.0), Measured("http", (1.0,), (1.5, 2.25), 9e5)]
    lines = table(rows)
    assert lines[2] == "| transformers | 0.67 | 1.500 | 2 | 100 | - |"
    assert lines[3] == "| vLLM over HTTP | 2.00 | 0.500 | 1 | 900000 | 0.5000 |"


def test_the_command_prints_and_writes(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Measured("transformers", (2.0,), (1.0, 2.0), 100.0)
    monkeypatch.setattr(command, "_alone", lambda backend, setup: row)
    app = command.typer.Typer()
    app.command()(command.main)
    file = tmp_path / "new" / "rows.json"
    answer = CliRunner().invoke(app, ["--backends", "transformers", "--json", str(file)])
    assert answer.exit_code == 0, answer.output
    assert "| transformers | 1.00 | 1.000 | 1 | 100 | - |" in answer.output
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["rows"][0]["losses"] == [1.0, 2.0]


def test_the_relay_counts_both_directions() -> None:
    class Doubling(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(2 * self.request.recv(100))

    with socketserver.TCPServer(("127.0.0.1", 0), Doubling) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        with relaying(server.server_address[1]) as relay, socket.create_connection(("127.0.0.1", relay.port)) as client:
            client.settimeout(10)
            client.sendall(b"12345")
            answer = b""
            while chunk := client.recv(100):
                answer += chunk
        thread.join(10)
    assert answer == b"1234512345"
    assert relay.bytes == 15
