"""Export of the head: its fitted arrays, as safetensors, and the words that it reads, as JSON.

With it and any program that tells the scores of the named words behind the prompt, a label is a matter of a few lines
of numpy: docs/heads.md has them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from distributed_tuner import heads
from distributed_tuner.config.head import HeadConfig, reads_words
from distributed_tuner.errors import HeadError, TunerError
from distributed_tuner.prompts.tensors import read_tensors
from distributed_tuner.storage.files import write_bytes, write_text
from distributed_tuner.storage.json_files import Told, read_told
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Array64, LabelRule

FACTS, TENSORS = "head.json", "head.safetensors"


@dataclass(frozen=True, eq=False, slots=True)
class ExportedHead:
    """A fitted head, and whose answers it reads.

    words: whose scores are its features, the label words first. labels: what the data call the classes.
    """

    config: HeadConfig
    words: tuple[str, ...]
    labels: tuple[str, ...]
    label_words: tuple[str, ...]
    model: str
    state: Mapping[str, Array64]
    label_rule: LabelRule = "single"

    def head(self) -> heads.Head:
        """Return the head, fitted."""
        return heads.restore(self.config, len(self.labels), self.state)

    def require_model(self, model: str) -> None:
        """Check that the head goes with a model.

        Raises:
            HeadError: it was fitted to answers of another.
        """
        if model != self.model:
            raise HeadError(
                f"a head reads the answers of the model that it was fitted to, {self.model!r}, but the oracle's is"
                f" {model!r}; tune again, or set the model back"
            )

    def require_for(self, model: str, task: Task) -> None:
        """Check that the head goes with a model and a task.

        Raises:
            HeadError: it was fitted to answers of another model, or to other label words.
        """
        self.require_model(model)
        if task.label_words != self.label_words:
            raise HeadError(
                f"a head reads the label words that it was fitted to, {list(self.label_words)}, but the task has"
                f" {list(task.label_words)}; take the run's own template and label words"
            )


def exported_head(config: HeadConfig, task: Task, model: str, state: Mapping[str, Array64]) -> ExportedHead:
    """Return a prompt's head with all that is needed to use it elsewhere."""
    words = (*task.label_words, *(task.answer_words if reads_words(config) else ()))
    return ExportedHead(config, words, task.label_names, task.label_words, model, state, task.label_rule)


def write_head(head: ExportedHead, directory: Path) -> list[Path]:
    """Write head.json and, where something was fitted, head.safetensors."""
    from safetensors.numpy import save

    directory.mkdir(parents=True, exist_ok=True)
    facts, tensors = directory / FACTS, directory / TENSORS
    described = {
        "head": head.config.model_dump(mode="json", exclude={"answer_words"}),
        "model": head.model,
        "labels": list(head.labels),
        "label_words": list(head.label_words),
        "label_rule": head.label_rule,
        "words": list(head.words),
    }
    write_text(facts, json.dumps(described, indent=1, ensure_ascii=False) + "\n")
    if not head.state:
        tensors.unlink(missing_ok=True)
        return [facts]
    write_bytes(tensors, save({name: np.ascontiguousarray(value) for name, value in sorted(head.state.items())}))
    return [facts, tensors]


def read_head(directory: Path) -> ExportedHead | None:
    """Read a head back; None where a prompt has none, as those of older runs.

    Raises:
        HeadError: its files are not whole.
    """
    facts, tensors = directory / FACTS, directory / TENSORS
    if not facts.is_file():
        return None
    try:
        told = read_told(facts, _Facts)
        state = read_tensors(tensors) if tensors.is_file() else {}
        config = told.head
        if reads_words(config):
            config = config.model_copy(update={"answer_words": told.words[len(told.label_words) :]})
        heads.restore(config, len(told.labels), state, len(told.words))
    except TunerError as error:
        raise HeadError(f"the exported head cannot be read: {error}") from None
    return ExportedHead(config, told.words, told.labels, told.label_words, told.model, state, told.label_rule)


class _Facts(Told):
    """Content of head.json."""

    head: HeadConfig
    model: str
    labels: tuple[str, ...] = Field(min_length=2)
    label_words: tuple[str, ...]
    label_rule: LabelRule
    words: tuple[str, ...]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len({*self.labels}) < len(self.labels) or len(self.labels) != len(self.label_words):
            raise ValueError("each label needs a name of its own and a label word")
        if self.words[: len(self.labels)] != self.label_words:
            raise ValueError("the label words must come first of the words that the head reads")
        return self
