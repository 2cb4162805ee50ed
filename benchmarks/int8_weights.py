"""Would int8 weights do? Their speed on this processor, and whether the differences that a search steers by survive.

    python -m benchmarks.int8_weights --json runs/int8_weights.json

SmolLM2 on the quickstart's task with torch's dynamic quantization (int8 weights per channel, activations per tensor) of
every linear layer, beside float32 on the same layers: the signal-to-noise ratio of loss differences at each method's
step, as calibration measures it, and the CPU time of a query. One thread, in turns.
"""

import json
import statistics
import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.tables import table
from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.oracles.calibration import LIMIT, calibrate
from distributed_tuner.oracles.models import SMOLLM2, load_model, load_tokenizer
from distributed_tuner.oracles.transformers import TransformersOracle
from distributed_tuner.precision import cases
from distributed_tuner.preflight import prepare
from distributed_tuner.values import Point, Request

QUICKSTART = Path(__file__).resolve().parent.parent / "search_spaces" / "quickstart.yaml"
ENGINE = "onednn"
CANDIDATES = 2


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Timed queries of each; the median counts.")] = 3,
    model: Annotated[str, typer.Option(help="A hub id, a local directory, or smollm2-135m.")] = SMOLLM2,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows here as well.")] = None,
) -> None:
    """Measure both, print the table and the verdict."""
    config = TransformersOracleConfig(kind="transformers", model=model, device="cpu", dtype="float32", threads=1)
    oracles = {name: _oracle(config, int8=name == "int8") for name in ("float32", "int8")}
    prepared = prepare(QUICKSTART, [f"oracle.model={model}"])
    measured = cases([plan.experiment for plan in prepared.plans], prepared.tasks)
    seconds = _seconds(oracles, measured[0], rounds)
    rows = []
    for case in measured:
        for name, oracle in oracles.items():
            dim = case.prompt.length * oracle.info.width
            found = calibrate(oracle, case.batch(dim), case.prompt, case.asks(dim))
            rows.append({"weights": name, "method": case.optimizer.label, "signal": found.signal, "noise": found.noise})
            rows[-1] |= {"snr": found.snr, "suffices": not found.swamped, "cpu_seconds": seconds[name]}
    shown = [[_cell(value) for value in row.values()] for row in rows]
    print("\n".join(table(list(rows[0]), shown)))
    print(f"\nan SNR below {LIMIT:g}: rounding swamps the difference, and a run would refuse the weights")
    print(f"int8: {seconds['float32'] / seconds['int8']:.2f} times the queries a CPU second of float32")
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps({"rows": rows, "limit": LIMIT}, indent=1) + "\n", encoding="utf-8")


def _oracle(config: TransformersOracleConfig, int8: bool) -> TransformersOracle:
    """Return an oracle whose linear layers are transformers' own, or their quantized copies."""
    import torch

    model = load_model(config)
    if int8:
        torch.backends.quantized.engine = ENGINE
        quantization: Any = torch.ao.quantization
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch moves this to a package of its own
            quantization.quantize_dynamic(
                model.base_model,
                {torch.nn.Linear: quantization.per_channel_dynamic_qconfig},
                dtype=torch.qint8,
                inplace=True,
            )
    return TransformersOracle(config.model_copy(update={"linear": "plain"}), model, load_tokenizer(config))


def _seconds(oracles: dict[str, TransformersOracle], case: Any, rounds: int) -> dict[str, float]:
    """Return each oracle's CPU seconds of a query, the median of the rounds; the first only warms up."""
    taken: dict[str, list[float]] = {name: [] for name in oracles}
    for _ in range(1 + rounds):
        for name, oracle in oracles.items():
            dim = case.prompt.length * oracle.info.width
            points = tuple(Point(np.full(dim, 0.1 * i, dtype=np.float32)) for i in range(CANDIDATES))
            began = time.thread_time()
            oracle.evaluate(Request(points, case.batch(dim), case.prompt))
            taken[name].append((time.thread_time() - began) / CANDIDATES)
    return {name: statistics.median(found[1:]) for name, found in taken.items()}


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    typer.run(main)
