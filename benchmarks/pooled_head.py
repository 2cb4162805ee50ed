"""Are other prompts' answers a substitute for labelled rows when a head is fitted? Table of docs/heads.md.

    python -m benchmarks.pooled_head DATA --tasks sst2,agnews

A search passes many prompts, and each answers the same few labelled rows. Heads of one prompt, the instruction as a
soft prompt, are fitted to its own answers; to its own and those of prompts around it, as a generation of BBT has them;
to the others' alone; and, for comparison, to its own answers to as many other labelled rows. All are scored on the
same test rows.
"""

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from benchmarks.heads import TILE, file_settings
from benchmarks.tables import table
from distributed_tuner import tasks
from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.config.prompt import SoftPromptConfig
from distributed_tuner.config.task import DemoTaskConfig, FileTaskConfig, TaskConfig
from distributed_tuner.heads.vocabulary import VocabularyHead
from distributed_tuner.oracles import build
from distributed_tuner.oracles.base import LossOracle, labels_of
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.oracles.local.loading import SMOLLM2
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.prompts.spec import prompt_spec
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Batch, Candidate, Latent, Point, Projection, Request

WORDS = 1600
OTHERS = 3  # prompts around the one whose head is fitted
ALPHA = 0.3  # of BBT, as in search_spaces/heads.yaml
FITS = ("its own answers", "its own and the others'", "the others' alone", "its own, to four times the rows")


def around(width: int, length: int) -> list[Candidate]:
    """Return the instruction's own rows, and prompts around them as BBT draws them."""
    stream = np.random.default_rng(0)
    projection = Projection(seed=0, dim=500, alpha=ALPHA, sigma=1.0)
    drawn = [Latent(stream.standard_normal(500, dtype=np.float32), projection) for _ in range(OTHERS)]
    return [Point(np.zeros(length * width, dtype=np.float32)), *drawn]


def accuracies(task: Task, wide: Task, oracle: LossOracle) -> list[float]:
    """Return what heads of ``FITS`` reach on test. ``wide``: the same task with four times the rows in train."""
    config = SoftPromptConfig(length=16, init="text", layout="prefix")
    candidates, spec = around(oracle.info.width, config.length), prompt_spec(config, task)

    def answers(asked: list[Candidate], batch: Batch) -> npt.NDArray[Any]:
        features = oracle.evaluate(Request(tuple(asked), batch, spec)).features
        assert features is not None
        return np.asarray(features)

    train, more, test = task.read_batch("train"), wide.read_batch("train"), task.read_batch("test")
    known, own_of_more, own_of_test = (
        answers(candidates, train),
        answers(candidates[:1], more)[0],
        answers(candidates[:1], test)[0],
    )
    labels = labels_of(train)
    pooled, others = np.concatenate(list(known)), np.concatenate(list(known[1:]))
    fits = [
        (known[0], labels),
        (pooled, np.tile(labels, len(candidates))),
        (others, np.tile(labels, OTHERS)),
        (own_of_more, labels_of(more)),
    ]
    heads = [VocabularyHead(len(task.label_words)).fit(features, rows) for features, rows in fits]
    return [float(np.mean(head.predict(own_of_test).argmax(axis=1) == labels_of(test))) for head in heads]


def task_of(name: str, data: Path, split: int, shots: int, test_limit: int) -> Task:
    """Return a task with so many train rows a class."""
    drawn = {"split_seed": split, "test_limit": test_limit, "shots": shots}
    config: TaskConfig = (
        DemoTaskConfig.model_validate({"kind": "demo"} | drawn)
        if name == "demo"
        else FileTaskConfig.model_validate(file_settings(name, data) | drawn)
    )
    return tasks.build(config, Path())


def main(
    data: Annotated[Path, typer.Argument(help="Folder with a folder for each task, of train.jsonl and test.jsonl.")],
    names: Annotated[str, typer.Option("--tasks", help="Those of benchmarks.heads.")] = "sst2,agnews",
    splits: Annotated[str, typer.Option(help="Split seeds.")] = "0,1,2",
    shots: Annotated[int, typer.Option(help="Rows a class; four times as many are drawn for comparison.")] = 16,
    test_limit: Annotated[int, typer.Option(help="Test rows.")] = 400,
    threads: Annotated[int, typer.Option(help="Threads of the model.")] = 1,
) -> None:
    """Print the table."""
    config = TransformersOracleConfig(kind="transformers", model=SMOLLM2, dtype="bfloat16", threads=threads)
    oracle = TiledOracle(build(config), TILE)
    rows = []
    for name in names.split(","):
        found = []
        for split in map(int, splits.split(",")):
            task = task_of(name, data, split, shots, test_limit)
            words = codec_of(oracle).answer_words(task.batch("train", [0]), WORDS)
            wide = task_of(name, data, split, (OTHERS + 1) * shots, test_limit)
            found.append(accuracies(replace(task, answer_words=words), replace(wide, answer_words=words), oracle))
        for fit, each in zip(FITS, zip(*found, strict=True), strict=True):
            rows.append([name, fit, f"{statistics.fmean(each):.3f}", " ".join(f"{one:.3f}" for one in each)])
    for line in table(["task", "fitted to", "accuracy", "each split"], rows):
        print(line)


if __name__ == "__main__":
    typer.run(main)
