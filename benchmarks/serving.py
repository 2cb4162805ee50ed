"""A vLLM server for as long as a block of code runs, on this machine, in this environment's vLLM."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from distributed_tuner.oracles.local.loading import locate
from distributed_tuner.oracles.served.vllm_engine import SETTINGS

ENTRY = "vllm.entrypoints.openai.api_server"  # `vllm serve` of the CPU build asks for a package named vllm
START_SECONDS = 300.0  # the first start on a machine, beside other work
STOP_SECONDS = 20.0


@contextmanager
def serving(model: str, log: Path, more: Sequence[str] = ()) -> Iterator[str]:
    """Serve a model under its name, embeddings as prompts allowed; yield the URL up to ``/v1``.

    The server's head computes in float32, as the engine's of the oracle does. It writes to ``log``.

    Raises:
        RuntimeError: it ended, or did not answer in time; says what it wrote last.
    """
    port = _free_port()
    command = [sys.executable, "-m", ENTRY, "--model", locate(model), "--served-model-name", model]
    command += ["--host", "127.0.0.1", "--port", str(port), "--enable-prompt-embeds", "--dtype", "bfloat16"]
    command += ["--enforce-eager", "--hf-overrides", json.dumps({"head_dtype": "float32"}), *more]
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=_environment())
    try:
        _await(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _environment() -> dict[str, str]:
    own_processes = {name: value for name, value in SETTINGS.items() if "MULTIPROCESSING" not in name}
    return {**os.environ, **own_processes, "TORCHDYNAMO_DISABLE": "1"}  # or it compiles its sampler, eager or not


def _await(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1.0)
    said = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise RuntimeError(f"the vLLM server did not start; the end of {log}:\n{said}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
