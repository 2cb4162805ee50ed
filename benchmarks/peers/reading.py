"""Scores of a peer's prompt: read by its label words, and by this project's head. Nothing is searched or tuned."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.heads import HEADS, MOST_WORDS
from benchmarks.peers.job import Shipped
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.prompts.export import ROWS, stored
from distributed_tuner.prompts.spec import NO_ROWS
from distributed_tuner.prompts.tensors import read_tensors
from distributed_tuner.stages.reading import Reader
from distributed_tuner.stages.validation import scores_of
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Candidate, PromptSpec, Request, Text

HEAD = HEADS["vocabulary, 1,600 words"]


def worded(task: Task, shipped: Shipped) -> Task:
    """Return the task with a peer's own cue and label words, where it has such."""
    if shipped.cue is None:
        return task
    cue = shipped.cue

    def cued(examples: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(replace(example, cue=cue) for example in examples)

    return replace(
        task,
        label_words=shipped.label_words or task.label_words,
        label_rule="first",
        train=cued(task.train),
        dev=cued(task.dev),
        test=cued(task.test),
    )


def asked_of(shipped: Shipped) -> tuple[Candidate, PromptSpec]:
    """Return what is shipped as an oracle is asked for it."""
    if shipped.adapter is None:
        assert shipped.words is not None
        return Text(shipped.words), NO_ROWS
    rows = read_tensors(Path(shipped.adapter) / "adapter_model.safetensors")[ROWS]
    return stored(rows.astype(np.float32), "prefix")


def shown_in(task: Task, shipped: Shipped) -> tuple[int, ...]:
    """Return the places in train of rows that stand in the prompt: no head is fitted to those."""
    words = shipped.words or ""
    return tuple(place for place, example in enumerate(task.train) if example.text in words)


def accuracies(task: Task, shipped: Shipped, oracle: LossOracle) -> tuple[float, float]:
    """Return the test accuracy of what is shipped: by its label words, and by a head fitted to train and dev."""
    task = worded(task, shipped)
    task = replace(task, answer_words=codec_of(oracle).answer_words(task.batch("train", [0]), MOST_WORDS))
    reader = Reader(task, HEAD)
    candidate, spec = asked_of(shipped)
    answers = [oracle.evaluate(Request((candidate,), reader.batch(split), spec)) for split in ("train", "dev", "test")]
    read = reader.read(answers[0], answers[1], None, shown_in(task, shipped))
    _, scores = reader.measure(read.state, [answers[2]], "test")
    return scores_of(task, answers[2], task.batch("test"))["accuracy"], scores["accuracy"]
