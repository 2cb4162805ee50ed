"""Profiled losses of searches at equal queries. In process, one thread: no head, no selection, no test.

    python -m benchmarks.searches DATA --tasks sst2,demo --methods surrogate,surrogate_of_answers,bbt --queries 240
    python -m benchmarks.searches DATA --tasks demo --methods surrogate --queries 40     # minutes; needs no DATA

The prompt is 16 rows in front of the text, started as the manual prompt; the loss is what the best bias leaves.
Settings are the same for all tasks. A row: the prompt that a search recommends after so many queries, on train, and on
dev with train's bias.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.heads import TILE, task_of
from benchmarks.tables import table
from distributed_tuner import optimizers
from distributed_tuner.config.optimizer import CmaConfig, OptimizerConfig, SurrogateConfig, ZotConfig
from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.maths.heads import fit_bias
from distributed_tuner.maths.losses import cross_entropy
from distributed_tuner.oracles import build
from distributed_tuner.oracles.base import LossOracle, labels_of
from distributed_tuner.oracles.local.loading import SMOLLM2
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Answers, Candidate, Objective, PromptSpec, Request

ROWS = 16
PROFILED = Objective(head="bias")
METHODS: dict[str, OptimizerConfig] = {
    "surrogate": SurrogateConfig(),
    "surrogate_of_answers": SurrogateConfig(of="answers"),
    "bbt": CmaConfig(popsize=20, alpha=0.3, recommend="mean"),
    "zot": ZotConfig(points=1, rho=0.3, learning_rate=3.0, clip=1.0),
}


@dataclass(frozen=True, slots=True)
class Mark:
    """What a search recommends after so many queries: profiled train loss, and dev loss with train's bias."""

    task: str
    split: int
    method: str
    queries: int
    train: float
    dev: float


def marks_of(
    name: str, task: Task, split: int, method: str, oracle: LossOracle, queries: int, every: int, seed: int = 0
) -> Iterator[Mark]:
    """Yield the start, and a mark after every so many queries and at the end; marks themselves are not counted."""
    task = replace(task, objective=PROFILED)
    spec = PromptSpec(ROWS, "text", task.manual_prompt, "prefix", "embedding")
    train, dev = task.batch("train"), task.batch("dev")

    def mark(candidate: Candidate, used: int) -> Mark:
        seen = oracle.evaluate(Request((candidate,), train, spec))
        unseen = oracle.evaluate(Request((candidate,), dev, spec)).logits[0]
        bias = fit_bias(seen.logits[0], labels_of(train), PROFILED.strength)
        loss = float(cross_entropy(unseen + bias, labels_of(dev)).mean())
        return Mark(name, split, method, used, float(seen.losses[0]), loss)

    config, dim = METHODS[method], ROWS * oracle.info.width
    per_step = optimizers.build(config, dim=dim, key=(seed, 0, 0), steps=1).queries_per_step
    search = optimizers.build(config, dim=dim, key=(seed, 0, 0), steps=max(1, queries // per_step))
    yield mark(search.recommend(), 0)
    used, due = 0, every
    while used + per_step <= queries:
        asked = search.ask()
        told = oracle.evaluate(Request(tuple(asked), train, spec))
        search.tell(told.losses, answers=Answers(told.logits, train) if search.wants_answers else None)
        used += len(asked)
        if used >= due or used + per_step > queries:
            due += every
            yield mark(search.recommend(), used)


def rows_of(marks: list[Mark]) -> list[list[str]]:
    """Return a table's rows."""
    return [[m.task, str(m.split), m.method, str(m.queries), f"{m.train:.3f}", f"{m.dev:.3f}"] for m in marks]


def main(
    data: Annotated[Path, typer.Argument(help="Folder with a folder for each task, of train.jsonl and test.jsonl.")],
    names: Annotated[str, typer.Option("--tasks", help="Of sst2, agnews, demo.")] = "sst2,demo",
    methods: Annotated[str, typer.Option(help=f"Of {', '.join(METHODS)}.")] = "surrogate,surrogate_of_answers,bbt,zot",
    splits: Annotated[str, typer.Option(help="Split seeds.")] = "0",
    queries: Annotated[int, typer.Option(help="Queries of each search.")] = 240,
    every: Annotated[int, typer.Option(help="Queries between two marks.")] = 100,
    threads: Annotated[int, typer.Option(help="Threads of the model.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the marks here as well.")] = None,
) -> None:
    """Print what each search has reached after so many queries."""
    config = TransformersOracleConfig(kind="transformers", model=SMOLLM2, threads=threads)
    oracle, marks = TiledOracle(build(config), TILE), list[Mark]()
    for name in names.split(","):
        for split in map(int, splits.split(",")):
            task = task_of(name, data, split, 1)
            for method in methods.split(","):
                marks += marks_of(name, task, split, method, oracle, queries, every)
    for line in table(["task", "split", "method", "queries", "train", "dev"], rows_of(marks)):
        print(line)
    if json_file is not None:
        told = {"marks": [asdict(mark) for mark in marks], "dtype": oracle.info.dtype}
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
