"""Labelled data given as Python objects: a data frame, lists or a task, turned into a task's settings and rows."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distributed_tuner import tasks
from distributed_tuner.config.task import BaseTaskConfig, RowsTaskConfig, TaskConfig, label_key
from distributed_tuner.custom import path_of
from distributed_tuner.errors import ConfigError
from distributed_tuner.handed_in import written
from distributed_tuner.tasks.base import Task
from distributed_tuner.tasks.file import build_rows
from distributed_tuner.tasks.rows import label_values, labelled_table

SHOTS = 16
CUE, TARGET_CUE = "\nLabel:{label_word}", "\nAnswer: {target}"
TARGET_INSTRUCTION = "Write the answer."


@dataclass(frozen=True, slots=True)
class Wishes:
    """Wording and draw of labelled data; None: the defaults."""

    text: tuple[str, ...]
    label: str
    target: str | None
    label_words: Mapping[Any, str] | None
    label_rule: str | None
    template: str | None
    instruction: str | None
    shots: int | None
    seed: int
    metric: Any = None

    def changed(self) -> dict[str, Any]:
        """Return what was wished for, by the names that a task's settings have for it."""
        named = {
            "label_words": self.label_words,
            "label_rule": self.label_rule,
            "template": self.template,
            "manual_prompt": self.instruction,
            "shots": self.shots,
            "metric": None if self.metric is None else _metrics(self.metric),
        }
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True, slots=True)
class LabelledData:
    """Data that was handed in.

    tree: the task's settings, as a search space has them. build: makes the task of them. values: the labels as they are
    in the data, by the text that they are known by.
    """

    tree: dict[str, Any]
    build: Callable[[TaskConfig, Path, tuple[str, ...]], Task] = tasks.build
    values: Mapping[str, Hashable] = field(default_factory=dict)

    @property
    def has_targets(self) -> bool:
        """Whether answers are texts, and not labels."""
        return self.tree.get("target") is not None or (self.tree.get("kind") == "given" and "loss" not in self.tree)


def labelled_data(data: Any, test: Any, wishes: Wishes) -> LabelledData:
    """Return what was handed in as data. ``test``: rows that are scored once; None: none.

    Raises:
        TaskError: it is no data, or has no such columns.
        ConfigError: a task cannot be had as is wished.
    """
    named = isinstance(data, BaseTaskConfig) or (isinstance(data, Mapping) and "kind" in data)
    if not named and not isinstance(data, Task):
        return _of_rows(data, test, wishes)
    if test is not None:
        raise ConfigError("a task has its own test examples; leave test out, or hand in the rows as data")
    if isinstance(data, Task):
        return _of_task(data, wishes)
    tree = dict(data) if isinstance(data, Mapping) else written(data)
    return LabelledData({"split_seed": wishes.seed} | tree | wishes.changed())


def _of_rows(data: Any, test: Any, wishes: Wishes) -> LabelledData:
    answer = wishes.target or wishes.label
    table = labelled_table(data, wishes.text, answer, "the data")
    tested = None if test is None else labelled_table(test, wishes.text, answer, "the test data")

    def build(config: TaskConfig, root: Path, others: tuple[str, ...]) -> Task:
        assert isinstance(config, RowsTaskConfig)
        return build_rows(config, table, tested, others)

    lines = "\n".join(f"{{{column}}}" for column in wishes.text)
    tree = {
        "kind": "rows",
        "text": list(wishes.text),
        "shots": SHOTS,
        "halve": wishes.shots is None,
        "split_seed": wishes.seed,
    }
    if wishes.target is not None:
        tree |= {"target": answer, "template": lines + TARGET_CUE, "manual_prompt": TARGET_INSTRUCTION}
        return LabelledData(tree | wishes.changed(), build)
    values = label_values(table, wishes.label)
    words = {name: f" {name}" for name in values}
    if wishes.label_words is not None:
        words = {label_key(name): word for name, word in wishes.label_words.items()}
        values = {label_key(name): values.get(label_key(name), name) for name in wishes.label_words}
    tree |= {
        "label": wishes.label,
        "label_words": words,
        "template": lines + CUE,
        "manual_prompt": _instruction([word.strip() for word in words.values()]),
    }
    return LabelledData(tree | wishes.changed() | {"label_words": words}, build, values)


def _of_task(task: Task, wishes: Wishes) -> LabelledData:
    if fixed := wishes.changed().keys() - {"manual_prompt"}:
        raise ConfigError(
            f"a Task is worded and drawn already, but {', '.join(sorted(fixed))} was given; change the task, or hand in"
            " its rows as data"
        )
    if wishes.instruction is not None:
        task = replace(task, manual_prompt=wishes.instruction)
    tree: dict[str, Any] = {"kind": "given"}
    if task.has_targets:
        tree["metric"] = [one if isinstance(one, str) else written(one) for one in task.text_metrics]
    else:
        words = dict(zip(task.label_names, task.label_words, strict=True))
        tree |= {"label_words": words, "loss": task.loss, "label_rule": task.label_rule}
    if task.template:
        tree["template"] = task.template
    return LabelledData(tree, lambda config, root, others: task)


def _metrics(given: Any) -> list[Any]:
    """Return metrics as a search space has them: names, and functions by their import path."""
    each = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    return [{"import_path": path_of(one)} if callable(one) else one for one in each]


def _instruction(names: Sequence[str]) -> str:
    return f"Classify the text as {', '.join(names[:-1])} or {names[-1]}."
