"""Gain of heads without a search: answers to an untuned instruction, read by each head. Tables of docs/results.md.

    python -m benchmarks.heads DATA --json runs/heads.json          # DATA/sst2 and DATA/agnews: train.jsonl, test.jsonl
    python -m benchmarks.heads DATA --tasks demo --test-limit 100   # seconds; the demo task needs no DATA

One query on train (and one on dev) fits a head; nothing is searched. Then what a query with many words costs beside one
with the label words alone.
"""

import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.tables import table
from distributed_tuner import tasks
from distributed_tuner.baselines import bag_of_words_scores
from distributed_tuner.config.head import (
    AffineHeadConfig,
    BatchHeadConfig,
    BiasHeadConfig,
    CentroidHeadConfig,
    ContextualHeadConfig,
    DomainHeadConfig,
    HeadConfig,
    LabelWordsHeadConfig,
    NeighboursHeadConfig,
    VocabularyHeadConfig,
)
from distributed_tuner.config.oracle import Tile, TransformersOracleConfig
from distributed_tuner.config.task import DemoTaskConfig, FileTaskConfig, TaskConfig
from distributed_tuner.maths.intervals import wilson
from distributed_tuner.oracles import build
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.oracles.local.loading import SMOLLM2
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.prompts.spec import NO_ROWS
from distributed_tuner.stages.reading import BOTH, Reader
from distributed_tuner.stages.validation import batches
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Batch, Evaluation, Point, PromptSpec, Request, Split, Text

INSTRUCTIONS = {
    "sst2": "Classify the sentiment of the movie review as terrible or great. Review:",
    "agnews": "Classify the news article as world, sports, business or technology.",
    "subjectivity": "Is this sentence from a film review, which tells an opinion, or from a summary of the plot?",
    "tweets": "Who wrote this tweet in the 2016 campaign, Clinton or Trump?",
}
WORDINGS: dict[str, dict[str, Any]] = {
    "sst2": {"template": "{text} It was{label_word}", "label_words": {"negative": " terrible", "positive": " great"}},
    "agnews": {
        "template": "{text} Topic:{label_word}",
        "label_words": {
            "world": " world",
            "sports": " sports",
            "business": " business",
            "technology": " technology",
        },
    },
    "subjectivity": {
        "template": "{text} This is from the{label_word}",
        "label_words": {"objective": " plot", "subjective": " review"},
    },
    "tweets": {
        "template": "{text} Written by{label_word}",
        "label_words": {"clinton": " Clinton", "trump": " Trump"},
    },
}
HEADS: dict[str, HeadConfig] = {
    "label words": LabelWordsHeadConfig(kind="label_words"),
    "contextual": ContextualHeadConfig(kind="contextual"),
    "domain": DomainHeadConfig(kind="domain"),
    "batch": BatchHeadConfig(kind="batch"),
    "bias": BiasHeadConfig(kind="bias"),
    "affine": AffineHeadConfig(kind="affine"),
    "knn, 1,600 words": NeighboursHeadConfig(kind="knn"),
    "centroid, 1,600 words": CentroidHeadConfig(kind="centroid"),
    "vocabulary, 100 words": VocabularyHeadConfig(kind="vocabulary", words=100),
    "vocabulary, 400 words": VocabularyHeadConfig(kind="vocabulary", words=400),
    "vocabulary, 1,600 words": VocabularyHeadConfig(kind="vocabulary"),
}
MOST_WORDS = 1600
BAG = "bag of words, no model"
TILE = Tile(candidates=2, examples=64)
COST_ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Cell:
    """What one head reaches on one split of one task, fitted to train or to train and dev, on all test rows."""

    task: str
    split: int
    head: str
    on: str
    accuracy: float
    test_rows: int


def task_of(name: str, data: Path, split: int, test_limit: int | None) -> Task:
    """Return a task as this benchmark words it: 16 shots a class, the demo task as it is shipped."""
    config: TaskConfig
    if name == "demo":
        config = DemoTaskConfig(split_seed=split, test_limit=test_limit)
    else:
        drawn = {"split_seed": split, "test_limit": test_limit}
        config = FileTaskConfig.model_validate(file_settings(name, data) | drawn)
    return tasks.build(config, Path())


def file_settings(name: str, data: Path) -> dict[str, Any]:
    """Return the settings of a task from files: 16 shots, an instruction, a template and its label words."""
    return {
        "kind": "file",
        "train": str((data / name / "train.jsonl").resolve()),
        "test": str((data / name / "test.jsonl").resolve()),
        "text": "text",
        "label": "label",
        "shots": 16,
        "manual_prompt": INSTRUCTIONS[name],
        **WORDINGS[name],
    }


class Answers:
    """Answers of one model to manual prompts, each asked for once: test rows are the same for every split."""

    def __init__(self, oracle: LossOracle) -> None:
        self._oracle = oracle
        self._known: dict[tuple[str, Batch], Evaluation] = {}

    def answer(self, text: str, batch: Batch) -> Evaluation:
        """Return the answer to a prompt in words."""
        key = (text, batch)
        if key not in self._known:
            self._known[key] = self._oracle.evaluate(Request((Text(text),), batch, NO_ROWS))
        return self._known[key]


def cells_of(name: str, split: int, task: Task, answers: Answers) -> list[Cell]:
    """Return what every head and the bag of words reach on one split."""
    found = []
    for label, config in HEADS.items():
        for on in (BOTH[:1], BOTH):
            if label in ("label words", "contextual", "domain") and on == BOTH:
                continue  # nothing of it is fitted to rows
            words = task.answer_words[: getattr(config, "words", MOST_WORDS) - len(task.label_words)]
            seen = replace(task, answer_words=words)
            reader = Reader(seen, config, on)
            wide = Reader(task, HEADS["vocabulary, 1,600 words"], on)
            asked = [answers.answer(task.manual_prompt, batch) for batch in batches(wide)]
            references = [answers.answer(task.manual_prompt, batch) for batch in batches(reader)[2:]]
            cut = [_cut(answer, len(task.label_words) + len(words)) for answer in (*asked, *references)]
            read = reader.read(cut[0], cut[1], cut[2] if references else None)
            test = _cut(answers.answer(task.manual_prompt, wide.batch("test")), len(task.label_words) + len(words))
            _, scores = reader.measure(read.state, [test], "test")
            found.append(Cell(name, split, label, "+".join(on), scores[task.metric], len(task.test)))
    for on in (BOTH[:1], BOTH):
        score = bag_of_words_scores(task, "test", on)[task.metric]
        found.append(Cell(name, split, BAG, "+".join(on), score, len(task.test)))
    return found


def _cut(answer: Evaluation, words: int) -> Evaluation:
    """Return an answer with its first words alone; heads centre their rows anew."""
    return answer if answer.features is None else replace(answer, features=answer.features[:, :, :words])


def main(
    data: Annotated[Path, typer.Argument(help="Folder with a folder for each task, of train.jsonl and test.jsonl.")],
    names: Annotated[
        str, typer.Option("--tasks", help="Of sst2, agnews, demo, subjectivity, tweets.")
    ] = "sst2,agnews,demo",
    splits: Annotated[str, typer.Option(help="Split seeds.")] = "0,1,2",
    test_limit: Annotated[int | None, typer.Option(help="Test rows; all when left out.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of the model.")] = 2,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the cells here as well.")] = None,
) -> None:
    """Print what each head reaches without any search, and what the features cost."""
    config = TransformersOracleConfig(kind="transformers", model=SMOLLM2, threads=threads)
    oracle = TiledOracle(build(config), TILE)
    answers, cells = Answers(oracle), list[Cell]()
    for name in names.split(","):
        for split in map(int, splits.split(",")):
            task = task_of(name, data, split, test_limit)
            words = codec_of(oracle).answer_words(task.batch("train", [0]), MOST_WORDS)
            cells += cells_of(name, split, replace(task, answer_words=words), answers)
        print(
            f"\n{name}, {cells[-1].test_rows:,} test rows: mean accuracy over the splits {splits}, with 95 % intervals"
        )
        for line in table(["head", "fitted to", "accuracy", "each split"], rows_of(cells, name)):
            print(line)
    task = task_of(names.split(",")[0], data, 0, 1)
    ratio = cost_ratio(
        oracle, replace(task, answer_words=codec_of(oracle).answer_words(task.batch("train", [0]), MOST_WORDS))
    )
    print(f"\na prefix query with {MOST_WORDS:,} words takes {ratio:.2f} times one with the label words (median)")
    if json_file is not None:
        told = {"cells": [asdict(cell) for cell in cells], "cost_ratio": ratio, "dtype": oracle.info.dtype}
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def rows_of(cells: list[Cell], name: str) -> list[list[str]]:
    """Return a table's rows: a head's mean over the splits. The interval is that of so many test rows, of one split."""
    grouped: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell.task == name:
            grouped.setdefault((cell.head, cell.on), []).append(cell)
    rows = []
    for (head, on), group in grouped.items():
        mean = statistics.fmean(cell.accuracy for cell in group)
        low, high = wilson(mean, group[0].test_rows)
        each = " ".join(f"{cell.accuracy:.3f}" for cell in group)
        rows.append([head, on.replace("+", " + "), f"{mean:.3f} ({low:.3f}-{high:.3f})", each])
    return rows


def cost_ratio(oracle: LossOracle, task: Task) -> float:
    """Return the median ratio of the seconds of one query with all words and with the label words, by turns."""
    spec = PromptSpec(16, "zeros", "", "prefix", "embedding")
    point = (Point(_zeros(spec.length * oracle.info.width)),)
    seconds: dict[str, list[float]] = {"wide": [], "narrow": []}
    asked: Mapping[str, Batch] = {"wide": _train(task, "wide"), "narrow": _train(task, "narrow")}
    for _ in range(1 + COST_ROUNDS):
        for name, batch in asked.items():
            began = time.perf_counter()
            oracle.evaluate(Request(point, batch, spec))
            seconds[name].append(time.perf_counter() - began)
    return statistics.median(w / n for w, n in zip(seconds["wide"][1:], seconds["narrow"][1:], strict=True))


def _train(task: Task, name: str) -> Batch:
    split: Split = "train"
    return task.read_batch(split) if name == "wide" else task.batch(split)


def _zeros(size: int) -> Any:
    import numpy as np

    return np.zeros(size, dtype=np.float32)


if __name__ == "__main__":
    typer.run(main)
