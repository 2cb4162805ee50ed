"""The loss oracle on a GPU, on random weights of published shapes: nothing but torch and transformers is needed.

    python -m benchmarks.gpu_loss_oracle --json runs/gpu.json           # LLaMA-7B's and RoBERTa-large's shape, bfloat16
    python -m benchmarks.gpu_loss_oracle --shape roberta-large --all    # all of BBT's 8,000 queries, none extrapolated
    python -m benchmarks.gpu_loss_oracle --small --device cpu           # tiny shapes, to see that it runs

LLaMA-7B: P = 20 candidates on 64 SST-2-like texts, 50 rows in front. RoBERTa-large: 8,000 queries, BBT's budget, on 32
such texts, 50 rows added on filler tokens. The plain way stands beside both.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.asking import request
from benchmarks.plain import Plain, candidate_rows
from benchmarks.random_models import ShapeName, make_model, make_tokenizer, shape, weights_of_trunk
from benchmarks.texts import TAIL, batch
from distributed_tuner.values import Batch, Layout

CANDIDATES = 20
LENGTH = 50
BUDGET = 8000  # queries of BBT
MATRIX = 8192
MATRIX_SMALL = 256
TARGET_SHARE = 0.5
TARGET_SECONDS = 60.0


class Which(StrEnum):
    """The shapes to measure."""

    llama = "llama-7b"
    roberta = "roberta-large"
    both = "both"


@dataclass(frozen=True, slots=True)
class Run:
    """What is asked of a shape. ``requests`` of P candidates are timed, after one that warms up."""

    shape: ShapeName
    layout: Layout
    rows: int
    requests: int
    tail: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured of a shape. ``budget``: seconds for BBT's 8,000 queries; extrapolated unless all were asked."""

    shape: str
    dtype: str
    device: str
    queries: int
    seconds_per_query: float
    packed_tokens_per_second: float
    useful_tflops: float
    matmul_tflops: float
    plain_seconds_per_query: float
    difference: float
    budget: float
    peak_gib: float | None

    @property
    def share(self) -> float:
        """Of the matrix product's rate."""
        return self.useful_tflops / self.matmul_tflops


LLAMA = Run("llama-7b", "prefix", 64, 5)
ROBERTA = Run("roberta-large", "add", 32, 15, tail=TAIL)


def main(
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    which: Annotated[Which, typer.Option("--shape", help="Which shape.")] = Which.both,
    small: Annotated[bool, typer.Option(help="Tiny shapes and few requests.")] = False,
    whole: Annotated[bool, typer.Option("--all", help="All 8,000 queries of RoBERTa-large.")] = False,
    dtype: Annotated[str, typer.Option(help="Of weights and activations.")] = "bfloat16",
    compiled: Annotated[bool, typer.Option("--compile", help="The oracle's oracle.compile.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the results here as well.")] = None,
) -> None:
    """Measure, print a few lines for each shape and the verdict on its target."""
    results = []
    for run in (LLAMA, ROBERTA):
        if which in (Which.both, run.shape):
            requests = BUDGET // CANDIDATES if whole and run is ROBERTA else 2 if small else run.requests
            result = measure(run, requests, device, dtype, small, compiled)
            results.append(result)
            print("\n".join(lines(result, small)), flush=True)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n", encoding="utf-8")


def measure(run: Run, requests: int, device: str, dtype: str, small: bool, compiled: bool) -> Result:
    """Make the model, measure the plain way, then the oracle with the same weights, a matrix product around each."""
    import torch

    config = shape(run.shape, small)
    examples = batch("SST-2", 4 if small else run.rows, tail=run.tail)
    model, tokenizer = make_model(config, device, dtype), make_tokenizer(bool(run.tail))
    trunk, width = weights_of_trunk(model), config.hidden_size
    rates = [matmul_rate(MATRIX_SMALL if small else MATRIX, device, getattr(torch, dtype))]
    rows = candidate_rows(0, LENGTH, width)
    plain = Plain(model, tokenizer, examples)
    losses = plain.example_losses(rows, run.layout)
    plain_seconds = timed(lambda: plain.example_losses(rows, run.layout), 3, device)
    tokens = tokens_of(run, plain)
    rates.append(matmul_rate(MATRIX_SMALL if small else MATRIX, device, getattr(torch, dtype)))
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    ask, answer = asking(model, tokenizer, examples, run, device, dtype, compiled)
    seconds = timed(ask, requests, device) / CANDIDATES
    rates.append(matmul_rate(MATRIX_SMALL if small else MATRIX, device, getattr(torch, dtype)))
    return Result(
        shape=run.shape,
        dtype=dtype,
        device=torch.cuda.get_device_name() if device == "cuda" else device,
        queries=requests * CANDIDATES,
        seconds_per_query=seconds,
        packed_tokens_per_second=tokens / seconds,
        useful_tflops=2 * trunk * tokens / seconds / 1e12,
        matmul_tflops=statistics.median(rates) / 1e12,
        plain_seconds_per_query=plain_seconds,
        difference=float(abs(answer.example_losses[0] - losses).max()),
        budget=seconds * BUDGET,
        peak_gib=torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
    )


def asking(
    model: Any, tokenizer: Any, examples: Batch, run: Run, device: str, dtype: str, compiled: bool
) -> tuple[Callable[[], object], Any]:
    """Return what asks the oracle for P candidates, and its first answer, which warmed it up."""
    import torch

    from distributed_tuner.config.oracle import TransformersOracleConfig
    from distributed_tuner.oracles.local.oracle import TransformersOracle

    settings = TransformersOracleConfig.model_validate(
        {"kind": "transformers", "model": run.shape, "dtype": dtype, "device": device, "compile": compiled}
        | {"threads": torch.get_num_threads()}
    )
    oracle = TransformersOracle(settings, model=model, tokenizer=tokenizer)
    asked = request(run.layout, CANDIDATES, LENGTH, oracle.info.width, examples)
    return lambda: oracle.evaluate(asked), oracle.evaluate(asked)


def matmul_rate(size: int, device: str, dtype: Any) -> float:
    """Return the operations a second of a product of two square matrices, large enough to fill a card."""
    import torch

    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    _ = a @ b
    return 2.0 * size**3 / timed(lambda: a @ b, 20, device)


def tokens_of(run: Run, plain: Plain) -> int:
    """Return the tokens that a query must compute: each row whole in a masked model, else the prompt once."""
    lengths = plain.lengths(run.layout)
    if run.tail:
        return sum(LENGTH + length for length in lengths)
    return LENGTH + sum(lengths)


def timed(call: Callable[[], object], times: int, device: str) -> float:
    """Return the mean seconds of a call."""
    _wait(device)
    began = time.perf_counter()
    for _ in range(times):
        call()
    _wait(device)
    return (time.perf_counter() - began) / times


def lines(result: Result, small: bool) -> list[str]:
    """Return a result as text, with the verdict on the target of its shape."""
    found = [
        f"{result.shape}{' (tiny)' if small else ''}, {result.dtype}, {result.device}: {result.queries} queries",
        f"  {result.seconds_per_query:.5f} s/query, {result.packed_tokens_per_second:,.0f} packed tokens/s",
        f"  {result.useful_tflops:.3f} useful TFLOP/s, {result.share:.0%} of a matrix product's"
        f" {result.matmul_tflops:.3f}",
        f"  plain: {result.plain_seconds_per_query:.5f} s/query, {plain_ratio(result):.1f}x the time; losses differ by"
        f" {result.difference:.1e} at most",
    ]
    if result.peak_gib is not None:
        found.append(f"  peak device memory {result.peak_gib:.1f} GiB")
    return [*found, f"  {verdict(result, small)}"]


def plain_ratio(result: Result) -> float:
    """Return how many times the oracle's seconds a query the plain way takes."""
    return result.plain_seconds_per_query / result.seconds_per_query


def verdict(result: Result, small: bool) -> str:
    """Return the target of the shape and whether it was met; tiny shapes have none."""
    if result.shape == LLAMA.shape:
        target, met = f"useful rate >= {TARGET_SHARE:.0%} of the matrix product's", result.share >= TARGET_SHARE
    else:
        said = "all asked" if result.queries >= BUDGET else f"extrapolated from {result.queries}"
        target = f"{BUDGET:,} queries in < {TARGET_SECONDS:.0f} s: {result.budget:.1f} s, {said}"
        met = result.budget < TARGET_SECONDS
    return "no target for tiny shapes" if small else f"{'met' if met else 'MISSED'}: {target}"


def _wait(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


if __name__ == "__main__":
    typer.run(main)
