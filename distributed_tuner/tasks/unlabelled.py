"""New rows of a known task: worded as its examples are, without labels. No data of the task are read for it."""

from collections.abc import Sequence
from typing import assert_never

from distributed_tuner.config.task import (
    CustomTaskConfig,
    DemoTaskConfig,
    ExtractTaskConfig,
    FileTaskConfig,
    GivenTaskConfig,
    HubTaskConfig,
    OnEmpty,
    RowsTaskConfig,
    TaskConfig,
)
from distributed_tuner.errors import TaskError
from distributed_tuner.tasks.assemble import Render
from distributed_tuner.tasks.cells import missing
from distributed_tuner.tasks.demo import TEMPLATE
from distributed_tuner.tasks.hub import fields_of, stored_columns
from distributed_tuner.tasks.hub_table import HUB_TASKS
from distributed_tuner.tasks.table import Table
from distributed_tuner.tasks.templates import LABEL_WORD, TARGET, Template
from distributed_tuner.values import Example


def unlabelled(config: TaskConfig, table: Table) -> list[Example | None]:
    """Return the rows of a table as examples, whose label says nothing; None for those that the task's ``on_empty``
    drops.

    Raises:
        TaskError: the table lacks a column of the task's template, or a row has no text there.
    """
    template, stored, fields, on_empty = _wording(config)
    for column in stored:
        table.need(column, "text")
    examples: list[Example | None] = []
    for i, filled in enumerate(table.filled(stored, "drop")):
        if not filled and on_empty == "refuse":
            column = next(column for column in stored if missing(table.rows[i].get(column)))
            raise TaskError(
                f"every row needs text, but {column!r} is empty in {table.where(i)}: fill it or take it out"
            )
        words = template.render(fields(table, i)) if filled else None
        where = table.where(i)
        examples.append(None if words is None else Example(f"row-{i}", words.text, words.cue, 0, words.tail, where))
    return examples


def _wording(config: TaskConfig) -> tuple[Template, Sequence[str], Render, OnEmpty]:
    """Return the template, the columns that it needs, how they are taken from a row, and what to do with empty ones."""
    match config:
        case DemoTaskConfig():
            template, clean = Template.parse(config.template or TEMPLATE, config.model_family), None
        case FileTaskConfig() | ExtractTaskConfig() | CustomTaskConfig() | RowsTaskConfig():
            answer = TARGET if config.target else LABEL_WORD
            template, clean = Template.parse(config.template, config.model_family, answer), None
        case GivenTaskConfig():
            if config.template is None:
                raise TaskError(
                    "new rows are worded by the task's template, but the one that was handed in names none; give it one"
                    " (Task.template)"
                )
            answer = TARGET if f"{{{TARGET}}}" in config.template else LABEL_WORD
            template, clean = Template.parse(config.template, config.model_family, answer), None
        case HubTaskConfig():
            spec = HUB_TASKS[config.kind]
            words = spec.causal if config.model_family == "causal" else spec.masked
            template, clean = Template.parse(config.template or words.template, config.model_family), spec.clean
        case _:
            assert_never(config)
    on_empty = "refuse" if isinstance(config, DemoTaskConfig | GivenTaskConfig) else config.on_empty
    return template, stored_columns(clean, template), fields_of(clean, template), on_empty
