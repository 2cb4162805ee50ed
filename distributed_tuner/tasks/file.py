"""Your own data as a task.

Owns what is checked of the files before a split is drawn: columns, labels, empty texts, repeated texts.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from distributed_tuner.config.task import FileTaskConfig
from distributed_tuner.errors import TaskError
from distributed_tuner.tasks.assemble import Labelled, Wording, assemble, fields_by_column
from distributed_tuner.tasks.base import Task
from distributed_tuner.tasks.reading import read
from distributed_tuner.tasks.table import Table
from distributed_tuner.tasks.templates import Template

log = logging.getLogger(__name__)


def build_file(config: FileTaskConfig, root: Path, others: Sequence[str] = ()) -> Task:
    """Read the files of ``config`` and make the task. Raises TaskError for all that is wrong with them."""
    template = Template.parse(config.template, config.model_family)
    columns = (config.text,) if isinstance(config.text, str) else config.text
    templates = [template, *(template.other(source, config.model_family) for source in others)]
    for one in templates:
        _check_use(one, columns, config.label)
    names = tuple(config.label_words)
    pool = _labelled(config, templates, columns, read(config.train, root))
    present = set(pool.labels)
    empty = [name for i, name in enumerate(names) if i not in present]
    if empty:
        raise TaskError(
            f"label {empty[0]!r} has a label word but no example in {config.train}: take it out of label_words"
        )
    test = None if config.test is None else _labelled(config, templates, columns, read(config.test, root))
    if test is not None:
        _warn_of_repeats(pool.table, test.table, template.columns)
    wording = Wording(
        name=Path(config.train).stem,
        description=f"sort texts into {len(names)} classes",
        template=template,
        label_names=names,
        label_words=tuple(config.label_words.values()),
        manual_prompt="",
        fields=fields_by_column,
        others=tuple(templates[1:]),
    )
    return assemble(config, wording, pool, test)


def _check_use(template: Template, columns: Sequence[str], label: str) -> None:
    if label in template.columns:
        raise TaskError(
            f"the template {template.source!r} shows the label column {{{label}}} to the model: take it out"
        )
    unused = [column for column in columns if column not in template.columns]
    if unused:
        raise TaskError(
            f"text column {unused[0]!r} is not in the template {template.source!r}: add {{{unused[0]}}} to it"
        )


def _labelled(config: FileTaskConfig, templates: Sequence[Template], columns: Sequence[str], table: Table) -> Labelled:
    for column in columns:
        table.need(column, "text")
    for template in templates:
        template.check_columns(table.columns, table.source)
    read = tuple(dict.fromkeys(column for template in templates for column in template.columns))
    index = {name: i for i, name in enumerate(config.label_words)}
    labels = table.labels(config.label, index.get, tuple(index))
    for i in range(len(table)):
        table.texts(i, read)
    return Labelled(table, labels)


def _warn_of_repeats(pool: Table, test: Table, columns: Sequence[str]) -> None:
    tested = {tuple(test.texts(i, columns).values()) for i in range(len(test))}
    shared = sum(tuple(pool.texts(i, columns).values()) in tested for i in range(len(pool)))
    if shared:
        log.warning("%d of %d rows of %s are also in %s", shared, len(pool), pool.source, test.source)
