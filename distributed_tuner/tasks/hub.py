"""The tasks of the literature, from hub data.

Owns how hub rows and labels become ours. Where the data come from belongs to ``hub_loading``, the wording to
``hub_table``. Rows are read only when they are drawn, since some of these pools hold half a million.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from distributed_tuner.config.task import HubTaskConfig, label_key
from distributed_tuner.errors import TaskError
from distributed_tuner.tasks.assemble import Labelled, Wording, assemble
from distributed_tuner.tasks.base import Task
from distributed_tuner.tasks.hub_loading import load_splits
from distributed_tuner.tasks.hub_table import HUB_TASKS, Clean, HubTask
from distributed_tuner.tasks.table import Table
from distributed_tuner.tasks.templates import Template
from distributed_tuner.values import LabelRule

_CONNECTIVES = {"cause": "because", "effect": "so"}


def build_hub(config: HubTaskConfig, root: Path, others: Sequence[str] = ()) -> Task:
    """Load the data of ``config.kind`` and make the task.

    Raises TaskError where the data cannot be loaded, lack a column, or do not fit an override.
    """
    spec = HUB_TASKS[config.kind]
    words = spec.causal if config.model_family == "causal" else spec.masked
    template = Template.parse(config.template or words.template, config.model_family)
    templates = [template, *(template.other(source, config.model_family) for source in others)]
    # Words of one's own are held to one token; the published ones count by their first.
    rule: LabelRule = "first" if config.label_words is None else "single"
    wording = Wording(
        name=config.kind,
        description=spec.description,
        template=template,
        label_names=spec.label_names,
        label_words=words.label_words if config.label_words is None else _in_order(spec, config.label_words),
        manual_prompt=spec.manual_prompt,
        fields=lambda one: fields_of(spec.clean, one),
        others=tuple(templates[1:]),
        loss=spec.loss,
        label_rule=rule,
        metrics=spec.metrics,
    )
    tables = load_splits(config.kind, spec, config.dataset, root)
    (pool, lost), (test, lost_of_test) = (_labelled(config, spec, templates, table) for table in tables)
    return assemble(config, wording, pool, test, (*lost, *lost_of_test))


def _in_order(spec: HubTask, label_words: Mapping[str, str]) -> tuple[str, ...]:
    """Return one's own label words in the order of the data's label index; keys are label names or indices."""
    index = {key: _index(spec, label_key(key)) for key in label_words}
    order = sorted((i, label_words[key]) for key, i in index.items() if i is not None)
    if [i for i, _ in order] != list(range(len(spec.label_names))) or len(order) < len(label_words):
        raise TaskError(
            f"label_words must name each of the labels {', '.join(spec.label_names)} once (or 0 to "
            f"{len(spec.label_names) - 1}), got {', '.join(label_words)}"
        )
    return tuple(word for _, word in order)


def _index(spec: HubTask, label: str) -> int | None:
    """Return the index of a label written as its name or as its index; -1 stays -1, None is unknown."""
    names = [name.lower() for name in spec.label_names]
    if label.lower() in names and not _are_numbers(spec):
        return names.index(label.lower())
    if label == "-1" or (label.isdecimal() and int(label) < len(names)):
        return int(label)
    return None


def _are_numbers(spec: HubTask) -> bool:
    """Whether the label names are numbers (Yelp's are "1" and "2"), and so cannot be distinguished from indices."""
    return all(name.isdigit() for name in spec.label_names)


def _labelled(
    config: HubTaskConfig, spec: HubTask, templates: Sequence[Template], table: Table
) -> tuple[Labelled, list[str]]:
    """Return the rows with their labels, and warnings about them."""
    connective = spec.clean == "connective" and "question" in table.columns
    for template in templates:
        template.check_columns((*table.columns, "connective") if connective else table.columns, table.source)
    stored = dict.fromkeys(column for template in templates for column in stored_columns(spec.clean, template))
    table.need("label", "label")
    filled = table.filled((*stored, "label"), config.on_empty)
    labels = table.labels("label", cache(partial(_index, spec)), spec.label_names, filled)
    dropped = filled.count(False)
    told = f"{dropped} of {len(table)} rows of {table.source} have no text or no label and are left out"
    return Labelled(table, labels), [told] if dropped else []


def stored_columns(clean: Clean | None, template: Template) -> tuple[str, ...]:
    """Return the columns that a template reads as the data have them: COPA's connective is made from its question."""
    made = {"connective": "question"} if clean == "connective" else {}
    return tuple(dict.fromkeys(made.get(column, column) for column in template.columns))


def fields_of(clean: Clean | None, template: Template) -> Callable[[Table, int], dict[str, str]]:
    """Return how the template's columns are taken from a row."""
    match clean:
        case None:
            return lambda table, i: table.texts(i, template.columns)
        case "escaped_newlines":
            return lambda table, i: {k: _one_line(v) for k, v in table.texts(i, template.columns).items()}
        case "connective":
            stored = [column for column in template.columns if column != "connective"]
            return lambda table, i: {**table.texts(i, stored), "connective": _connective(table.rows[i])}


def _one_line(text: str) -> str:
    return " ".join(text.replace("\\n", " ").split())


def _connective(row: Mapping[str, Any]) -> str:
    return _CONNECTIVES.get(str(row["question"]), "so")
