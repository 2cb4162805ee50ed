"""Heads on a server that lists only its likeliest tokens: the untuned instruction of `benchmarks.heads`.

    python -m benchmarks.listed DATA --test-limit 300 --json runs/listed.json   # DATA/sst2, DATA/agnews
    python -m benchmarks.listed DATA --tasks demo                               # the demo task needs no DATA

The model answers on this machine, and of each answer the k likeliest tokens are kept, as a server tells them. Which
words a head reads follows from the answers that the sanity check asks for, as in a run.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.heads import Cell, rows_of, task_of
from benchmarks.tables import table
from distributed_tuner.config.head import (
    BiasHeadConfig,
    CentroidHeadConfig,
    HeadConfig,
    LabelWordsHeadConfig,
    NeighboursHeadConfig,
    VocabularyHeadConfig,
)
from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.oracles.base import answer
from distributed_tuner.oracles.checks.parity import EXAMPLES
from distributed_tuner.oracles.local.loading import SMOLLM2, load_chat_model, load_tokenizer
from distributed_tuner.oracles.served.logprobs import LabelTokens
from distributed_tuner.oracles.tiling import summed
from distributed_tuner.stages.reading import BOTH, WORDS_LISTED, Reader
from distributed_tuner.stages.validation import batches
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Batch, Cost, Evaluation, Example

LISTS = (5, 20, 100)
HEADS: dict[str, HeadConfig] = {
    "label words": LabelWordsHeadConfig(kind="label_words"),
    "bias": BiasHeadConfig(kind="bias"),
    "vocabulary": VocabularyHeadConfig(kind="vocabulary"),
    "centroid": CentroidHeadConfig(kind="centroid"),
    "knn": NeighboursHeadConfig(kind="knn"),
}


@dataclass(frozen=True, eq=False)
class Listing:
    """A model that tells the ``most`` likeliest tokens of an answer, as their texts."""

    model: Any
    tokenizer: Any
    most: int

    @cache  # noqa: B019  # as long as the benchmark
    def top(self, line: str) -> Mapping[str, float]:
        """Return the likeliest tokens that go on after a line, with their logarithmic probabilities."""
        import torch

        with torch.inference_mode():
            ids = torch.tensor([self.tokenizer(line)["input_ids"]])
            scores = self.model(ids).logits[0, -1].float().log_softmax(-1).topk(self.most)
        pairs = zip(scores.indices.tolist(), scores.values.tolist(), strict=True)
        return {self.tokenizer.decode([token]): value for token, value in reversed(list(pairs))}

    def answer(self, text: str, batch: Batch, most: int) -> Evaluation:
        """Return what heads read of a prompt's answers, of which ``most`` tokens are told."""
        labels = LabelTokens(batch.label_words, others=tuple((word,) for word in batch.answer_words))
        tops = [self._likeliest(text, example, most) for example in batch.examples]
        scores = np.stack([labels.scores(top).scores for top in tops])
        told = summed(labels.beside(top) for top in tops)
        return replace(answer(scores[None], batch, Cost()), tops=told)

    def _likeliest(self, text: str, example: Example, most: int) -> dict[str, float]:
        top = self.top((text + "\n" if text else "") + example.text + example.cue)
        return dict(sorted(top.items(), key=lambda pair: -pair[1])[:most])


def with_words(listing: Listing, task: Task, most: int) -> Task:
    """Return a task with the words that a run would choose at its sanity check."""
    batch = replace(task.batch("train", range(min(EXAMPLES, len(task.train)))), answer_words=())
    tops = summed(listing.answer(text, batch, most).tops for text in ("", task.manual_prompt))
    words = sorted(tops, key=lambda token: (-tops[token], token))
    return replace(task, answer_words=tuple(words[: WORDS_LISTED["openai"] - len(task.label_words)]))


def cells_of(name: str, split: int, task: Task, listing: Listing) -> list[Cell]:
    """Return what every head reaches on one split, by how many tokens are told."""
    found = []
    for most in LISTS:
        seen = with_words(listing, task, most)
        for label, config in HEADS.items():
            reader = Reader(seen, config, BOTH)
            train, dev = (listing.answer(task.manual_prompt, batch, most) for batch in batches(reader))
            read = reader.read(train, dev)
            if not math.isfinite(read.score):  # too few answers told of a label
                continue
            test = reader.batch("test")
            _, scores = reader.measure(read.state, [listing.answer(task.manual_prompt, test, most)], "test")
            words = f"{len(seen.answer_words)} words beside" if config.kind in ("vocabulary", "centroid", "knn") else ""
            told = f"{label}, {most} told"
            found.append(Cell(name, split, told, words, scores[task.metric], len(task.test)))
    return found


def main(
    data: Annotated[Path, typer.Argument(help="Folder with a folder for each task, of train.jsonl and test.jsonl.")],
    names: Annotated[str, typer.Option("--tasks", help="Of sst2, agnews, demo.")] = "sst2,agnews,demo",
    splits: Annotated[str, typer.Option(help="Split seeds.")] = "0,1,2",
    test_limit: Annotated[int | None, typer.Option(help="Test rows; all when left out.")] = 300,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the cells here as well.")] = None,
) -> None:
    """Print what each head reaches from 5, 20 and 100 tokens an answer, without any search."""
    config = TransformersOracleConfig(kind="transformers", model=SMOLLM2, dtype="float32")
    listing = Listing(load_chat_model(config), load_tokenizer(config), max(LISTS))
    cells = list[Cell]()
    for name in names.split(","):
        for split in map(int, splits.split(",")):
            cells += cells_of(name, split, task_of(name, data, split, test_limit), listing)
        mine = [replace(cell, on="train+dev") for cell in cells if cell.task == name]
        print(f"\n{name}, {mine[-1].test_rows:,} test rows: mean accuracy over the splits {splits}, 95 % intervals")
        for line in table(["head", "fitted to", "accuracy", "each split"], rows_of(mine, name)):
            print(line, flush=True)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps([asdict(cell) for cell in cells], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
