"""The tasks of the literature, from hub data.

Owns how hub rows and labels become ours. Where the data come from belongs to ``hub_loading``, the wording to
``hub_table``. Rows are read only when they are drawn, since some of these pools hold half a million.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distributed_tuner.config.task import HubTaskConfig, label_key
from distributed_tuner.errors import TaskError
from distributed_tuner.tasks.assemble import Labelled, Wording, assemble
from distributed_tuner.tasks.base import Task
from distributed_tuner.tasks.hub_loading import HubRows, load_splits
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
    splits = load_splits(config.kind, spec, config.dataset, root)
    origin = config.dataset or spec.path
    pool, test = (
        _labelled(spec, templates, rows, f"{origin} ({part})")
        for rows, part in zip(splits, ("train", spec.test_split), strict=True)
    )
    return assemble(config, wording, pool, test)


def _in_order(spec: HubTask, label_words: Mapping[str, str]) -> tuple[str, ...]:
    """Return one's own label words in the order of the data's label index; keys are label names or indices."""
    index = {key: _index(spec, key) for key in label_words}
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
    if label == "-1" or (label.isdigit() and int(label) < len(names)):
        return int(label)
    return None


def _are_numbers(spec: HubTask) -> bool:
    """Tell whether the label names are numbers (Yelp's are "1" and "2"), and so cannot be told from indices."""
    return all(name.isdigit() for name in spec.label_names)


def _labelled(spec: HubTask, templates: Sequence[Template], rows: HubRows, source: str) -> Labelled:
    table = Table(source, "row", tuple(rows.column_names), rows, range(1, len(rows) + 1))
    columns = (
        (*table.columns, "connective") if spec.clean == "connective" and "question" in table.columns else table.columns
    )
    for template in templates:
        template.check_columns(columns, source)
    table.need("label", "label")
    # One column at a time: half a million rows as dictionaries would take minutes.
    values = [label_key(value) for value in rows["label"]]
    index = {value: _index(spec, value) for value in set(values)}
    unknown = [value for value, i in index.items() if i is None]
    if unknown:
        raise TaskError(f"{source} has the label {unknown[0]!r}, but the task's are {', '.join(spec.label_names)}")
    return Labelled(table, [i if (i := index[value]) is not None else -1 for value in values])


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
