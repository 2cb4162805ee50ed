"""New rows of a known task: worded as its examples are, without labels. No data of the task are read for it."""

from typing import assert_never

from distributed_tuner.config.task import DemoTaskConfig, FileTaskConfig, HubTaskConfig, TaskConfig
from distributed_tuner.tasks.assemble import Render, fields_by_column
from distributed_tuner.tasks.demo import TEMPLATE
from distributed_tuner.tasks.hub import fields_of
from distributed_tuner.tasks.hub_table import HUB_TASKS
from distributed_tuner.tasks.table import Table
from distributed_tuner.tasks.templates import Template
from distributed_tuner.values import Example


def unlabelled(config: TaskConfig, table: Table) -> list[Example]:
    """Return the rows of a table as examples, whose label says nothing.

    Raises:
        TaskError: the table lacks a column of the task's template, or a row has no text there.
    """
    template, fields = _wording(config)
    for column in template.columns:
        if column != "connective":  # is made from another one
            table.need(column, "text")
    examples = []
    for i in range(len(table)):
        words = template.render(fields(table, i))
        examples.append(Example(f"row-{i}", words.text, words.cue, 0, words.tail))
    return examples


def _wording(config: TaskConfig) -> tuple[Template, Render]:
    match config:
        case DemoTaskConfig():
            template = Template.parse(config.template or TEMPLATE, config.model_family)
        case FileTaskConfig():
            template = Template.parse(config.template, config.model_family)
        case HubTaskConfig():
            spec = HUB_TASKS[config.kind]
            words = spec.causal if config.model_family == "causal" else spec.masked
            template = Template.parse(config.template or words.template, config.model_family)
            return template, fields_of(spec.clean, template)
        case _:
            assert_never(config)
    return template, fields_by_column(template)
