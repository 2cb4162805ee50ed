"""A small run as a real one would write it: three methods by three seeds, one failed trial, failed candidates."""

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from distributed_tuner.ledger import (
    CostRow,
    EvalRow,
    EventRow,
    LedgerWriter,
    MeasureRow,
    Row,
    RunEndRow,
    RunRow,
    StepRow,
    TrialEndRow,
    TrialRow,
)

START = 1_760_000_000.0
SHOTS, DEV, TEST, TOKENS = 32, 32, 872, 50
FAILED = "cma-2"


@dataclass(frozen=True)
class Method:
    """How a made-up method behaves: queries a step, steps an evaluation, seconds a query, and where its loss goes."""

    name: str
    popsize: int
    every: int
    pace: float
    floor: float
    rate: float
    gain: float


METHODS = (
    Method("zot", 2, 25, 0.08, 0.28, 600.0, 0.17),
    Method("cma", 20, 5, 0.07, 0.36, 900.0, 0.12),
    Method("random_search", 10, 10, 0.07, 0.52, 1500.0, 0.03),
)


def trial_rows(method: Method, seed: int) -> Iterator[Row]:
    """Yield the rows of one trial of about 2000 queries; the failed one dies early."""
    trial_id = f"{method.name}-{seed}"
    drawn = {"stages.0.optimizer.learning_rate": 0.05 * (seed + 1)}
    at = START + 5.0
    yield TrialRow(time=at, trial_id=trial_id, method=method.name, seed=seed, split_seed=seed, drawn=drawn)
    spent, step, best, price = CostRow(), 0, -1.0, 2e-9

    def paid(queries: int, rows: int) -> tuple[CostRow, CostRow]:
        forwards = queries * rows
        cost = CostRow(
            queries=queries,
            forwards=forwards,
            tokens=forwards * TOKENS,
            seconds=0.05 * queries,
            usd=forwards * TOKENS * price,
        )
        return cost, CostRow.of(spent.value() + cost.value())

    limit = 300 if trial_id == FAILED else 2000
    while True:
        progress = 1 - math.exp(-spent.queries / method.rate)
        wobble = 0.02 * math.sin(1.7 * seed + spent.queries / 130)
        loss = 0.69 - (0.69 - method.floor) * progress + wobble
        metric = round((0.75 + (method.gain + 0.02 * seed) * progress) * DEV) / DEV
        if step % method.every == 0:
            cost, spent = paid(2, SHOTS)
            yield EvalRow(
                time=at,
                trial_id=trial_id,
                stage=0,
                step=step,
                train_loss=loss,
                dev_loss=loss + 0.05,
                dev_metric=metric,
                dev_metrics={"accuracy": metric},
                selected=metric > best,
                cost=cost,
                spent=spent,
                elapsed=method.pace * spent.queries,
            )
            best = max(best, metric)
        if spent.queries + method.popsize + 2 > limit:
            break
        step += 1
        cost, spent = paid(method.popsize, SHOTS)
        broken = step % 37 == 0
        at = START + 5.0 + method.pace * spent.queries
        yield StepRow(
            time=at,
            trial_id=trial_id,
            stage=0,
            step=step,
            loss=math.nan if broken else loss + 0.02 * math.sin(step * step),
            best_loss=math.nan if broken else loss - 0.02,
            failed=method.popsize if broken else 0,
            cost=cost,
            spent=spent,
            elapsed=method.pace * spent.queries,
            metrics={"sigma": math.inf if broken else 0.9**step},
        )
    wall = method.pace * spent.queries
    if trial_id == FAILED:
        message = "OracleError: the model gave no finite logits <script>alert('x')</script>"
        yield EventRow(time=at, trial_id=trial_id, kind="trial_failed", message=message)
        yield TrialEndRow(time=at, trial_id=trial_id, status="failed", reason=message, wall_seconds=wall)
        return
    yield measure(trial_id, "selected", "test", seed, best - 0.02)
    yield TrialEndRow(time=at, trial_id=trial_id, status="done", reason="budget: queries", wall_seconds=wall)


def measure(trial_id: str | None, what: Any, split: Any, seed: int, metric: float) -> MeasureRow:
    """Return a measurement over the whole of a split."""
    rows = TEST if split == "test" else DEV
    cost = CostRow(queries=1, forwards=rows, tokens=rows * TOKENS, seconds=1.0, usd=rows * TOKENS * 2e-9)
    return MeasureRow(
        time=START + 1,
        trial_id=trial_id,
        what=what,
        split=split,
        split_seed=seed,
        loss=0.6,
        metric=metric,
        metrics={"accuracy": metric},
        cost=cost,
    )


def run_rows(*, end: bool = True) -> Iterator[Row]:
    """Yield the rows of the whole run; without an ``end`` it died."""
    names = [method.name for method in METHODS]
    yield RunRow(time=START, name="movie reviews", version="0.1.0", seed=0, methods=names)
    for seed in range(3):
        yield measure(None, "manual_prompt", "dev", seed, 0.75 + 0.03125 * seed)
        yield measure(None, "manual_prompt", "test", seed, 0.79)
    for method in METHODS:
        for seed in range(3):
            yield from trial_rows(method, seed)
    yield EventRow(time=START + 71, kind="oracle_restart", message="Oracle actor 1 died and was started again.")
    yield EventRow(time=START + 72, trial_id="zot-1", kind="tile_retry", message="Tile 17 was evaluated again.")
    if end:
        yield RunEndRow(
            time=START + 700,
            status="done",
            wall_seconds=700.0,
            oracle_busy_seconds=1190.0,
            oracle_actors=2,
            tiles=8123,
            retries=1,
        )


def run_config() -> dict[str, Any]:
    """Return ``config.json`` as a run resolves it."""
    template = "{text} It was{label_word}"
    return {
        "experiment": {
            "name": "movie reviews",
            "task": {"kind": "sst2", "template": template, "manual_prompt": "Classify the <b>movie</b> review."},
            "prompt": {"length": 20, "init": "text"},
            "budget": {"queries": 2000, "tokens": None, "usd": 0.01},
            "oracle": {"kind": "transformers", "model": "smollm2-135m", "actors": 2},
        },
        "trials": [
            {
                "trial_id": f"{method.name}-{seed}",
                "method": method.name,
                "seed": seed,
                "split_seed": seed,
                "drawn": {"stages.0.optimizer.learning_rate": 0.05 * (seed + 1)},
                "config": {"name": "movie reviews", "budget": {"queries": 2000}},
            }
            for method in METHODS
            for seed in range(3)
        ],
        "task": {
            "name": "sst2",
            "metric": "accuracy",
            "label_words": [" terrible", " great"],
            "train": SHOTS,
            "dev": DEV,
            "test": TEST,
        },
        "model": {"model": "HuggingFaceTB/SmolLM2-135M", "width": 576, "dtype": "float32", "device": "cpu"},
        "versions": {"distributed_tuner": "0.1.0", "torch": "2.13.0", "ray": "2.60.0"},
        "command": "python tune.py run search_spaces/sst2_methods.yaml --set oracle.actors=2",
    }


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run directory, with a saved best prompt; to be read only."""
    path = tmp_path_factory.mktemp("run")
    build(path)
    return path


@pytest.fixture
def run_dir(finished_run: Path, tmp_path: Path) -> Path:
    """A finished run directory of the test's own."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def build(run_dir: Path) -> None:
    """Write what a finished run leaves, but for its report."""
    with LedgerWriter(run_dir / "ledger.jsonl", sync_every=10_000) as writer:
        for row in run_rows():
            writer.write(row)
    (run_dir / "config.json").write_text(json.dumps(run_config()))
    words = ["Class", "ify", " the", " movie", " review", ".", " sentiment", "</script>", " is", " good", ":"]
    tokens = [{"token": word, "cosine": 0.97 - 0.05 * place} for place, word in enumerate(words)]
    prompt = {"nearest_tokens": tokens, "layout": "prefix", "length": len(tokens), "model": "SmolLM2-135M"}
    (run_dir / "best").mkdir()
    (run_dir / "best" / "prompt.json").write_text(json.dumps({**prompt, "trial_id": "zot-1"}))
