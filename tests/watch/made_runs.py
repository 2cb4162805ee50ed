"""Runs as a driver would write them, without one: a ledger that grows row by row, settings, a heartbeat."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distributed_tuner.ledger import (
    CostRow,
    EvalRow,
    EventRow,
    ExchangeRow,
    LedgerWriter,
    RestartRow,
    Row,
    RunEndRow,
    RunRow,
    ScoredText,
    StepRow,
    TrialEndRow,
    TrialRow,
)
from distributed_tuner.report.html import write_report

QUERIES = 100
HOSTILE = "</script><script>window.stolen = true</script><img src=x onerror='window.stolen = true'>"


def config(name: str = "made", trials: tuple[str, ...] = ("zot-0",), rho: float = 0.1) -> dict[str, Any]:
    """Return what is in config.json."""
    settings = {
        "name": name,
        "budget": {"queries": QUERIES},
        "stages": [{"kind": "search", "optimizer": {"kind": "zot", "rho": rho}}],
    }
    plans = [
        {"trial_id": one, "index": number, "method": "zot", "seed": 0, "split_seed": 0, "drawn": {}, "config": settings}
        for number, one in enumerate(trials)
    ]
    return {
        "experiment": settings,
        "trials": plans,
        "task": {"name": "demo", "metric": "accuracy", "train": 32, "dev": 32, "test": 100},
        "model": {"model": "analytic"},
        "command": f"python tune.py run {name}.yaml",
    }


def paid(queries: int) -> dict[str, Any]:
    """Return the accounts of a row of two queries, of which there have been so many."""
    cost = CostRow(queries=2, forwards=64, tokens=640, seconds=0.2, usd=0.001)
    spent = CostRow(queries=queries, forwards=32 * queries, tokens=320 * queries, seconds=0.1 * queries)
    return {"cost": cost, "spent": spent, "elapsed": 0.1 * queries}


def begun(*trials: str, at: float | None = None, **changes: Any) -> Iterator[Row]:
    """Yield the beginning of a run and of its trials."""
    moment = time.time() if at is None else at
    given: dict[str, Any] = {"name": "made", "version": "1", "seed": 0, "methods": ["zot"]}
    yield RunRow(time=moment, **(given | changes))
    for trial in trials:
        yield TrialRow(time=moment, trial_id=trial, method="zot", seed=0, split_seed=0, drawn={"rho": 0.1})


def step(trial: str, number: int, at: float | None = None) -> StepRow:
    moment = time.time() if at is None else at
    loss = 1 / (1 + number)
    scores = {"loss": loss, "best_loss": loss, "failed": 0}
    return StepRow(time=moment, trial_id=trial, stage=0, step=number, **scores, **paid(2 * number))


def evaluation(trial: str, number: int, metric: float, text: str | None = None, at: float | None = None) -> EvalRow:
    moment = time.time() if at is None else at
    scores = {"train_loss": 1 / (1 + number), "dev_loss": 1 - metric, "dev_metric": metric, "score": 1 - metric}
    return EvalRow(
        time=moment, trial_id=trial, stage=0, step=number, selected=True, text=text, **scores, **paid(2 * number)
    )


def restarted(trial: str, text: str = "Sort the messages", answer: str = "1. Sort the messages") -> Iterator[Row]:
    """Yield a request to a proposer, its answer, and the restart that adopts it."""
    yield ExchangeRow(
        trial_id=trial, stage=1, number=0, proposer="local model", instruction=answer, answer=answer, texts=[text]
    )
    scored = [ScoredText(text=text, source="proposal", loss=0.4, metric=0.8)]
    yield RestartRow(
        trial_id=trial, stage=1, incumbent_loss=0.5, scored=scored, adopted="proposal", text=text, **paid(60)
    )


def ended(*trials: str, status: Any = "done", at: float | None = None) -> Iterator[Row]:
    moment = time.time() if at is None else at
    for trial in trials:
        yield TrialEndRow(time=moment, trial_id=trial, status="done", reason="all steps done", wall_seconds=9.0)
    counts = {"oracle_busy_seconds": 5.0, "oracle_actors": 1, "tiles": 9, "retries": 0}
    yield RunEndRow(time=moment, status=status, wall_seconds=10.0, **counts)


def write(folder: Path, *rows: Row, settings: dict[str, Any] | None = None) -> Path:
    """Append rows to the run in a folder, which is made where there is none; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if settings is not None or not (folder / "config.json").exists():
        (folder / "config.json").write_text(json.dumps(settings or config(folder.name)), encoding="utf-8")
    with LedgerWriter(folder / "ledger.jsonl") as writer:
        for row in rows:
            writer.write(row)
    return folder


def whole(folder: Path, metric: float = 0.8, rho: float = 0.1) -> Path:
    """Write a run that has ended, with its report."""
    rows = [*begun("zot-0"), *(step("zot-0", number) for number in range(1, 40)), evaluation("zot-0", 40, metric)]
    write(folder, *rows, *ended("zot-0"), settings=config(folder.name, rho=rho))
    write_report(folder)
    return folder


def beat(folder: Path, **changes: Any) -> None:
    """Write the heartbeat of a run."""
    given = {"time": time.time(), "workers": 2, "busy": 1, "waiting": 3}
    (folder / "heartbeat.json").write_text(json.dumps(given | changes), encoding="utf-8")


def noted(message: str) -> EventRow:
    return EventRow(kind="note", message=message)
