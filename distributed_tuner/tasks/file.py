"""Your own data as a task, from files or from rows that a program hands in.

Owns what is checked of them before a split is drawn: columns, labels, empty texts, repeated texts.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from distributed_tuner.config.task import FileTaskConfig, OwnTaskConfig, RowsTaskConfig, label_key
from distributed_tuner.errors import TaskError
from distributed_tuner.tasks import repeats
from distributed_tuner.tasks.assemble import Labelled, Wording, assemble, fields_by_column
from distributed_tuner.tasks.base import Task
from distributed_tuner.tasks.reading import read
from distributed_tuner.tasks.table import Table
from distributed_tuner.tasks.templates import Template


def build_file(config: FileTaskConfig, root: Path, others: Sequence[str] = ()) -> Task:
    """Read the files of ``config`` and make the task. Raises TaskError for all that is wrong with them."""
    return build_table(
        config,
        Path(config.train).stem,
        read(config.train, root),
        lambda: None if config.test is None else read(config.test, root),
        others,
    )


def build_rows(config: RowsTaskConfig, pool: Table, test: Table | None, others: Sequence[str] = ()) -> Task:
    """Make the task of rows that were handed in. Without ``test`` it has no test examples.

    Raises TaskError for all that is wrong with them.
    """
    return build_table(config, "rows", pool, lambda: test, others)


def build_table(
    config: OwnTaskConfig,
    name: str,
    table: Table,
    test_table: Callable[[], Table | None],
    others: Sequence[str],
) -> Task:
    """Make the task of a table, whose test rows are asked for once it is known to be sound.

    Raises TaskError for all that is wrong with them.
    """
    template = Template.parse(config.template, config.model_family)
    columns = (config.text,) if isinstance(config.text, str) else config.text
    templates = [template, *(template.other(source, config.model_family) for source in others)]
    for one in templates:
        _check_use(one, columns, config.label)
    names = tuple(config.label_words)
    pool, warnings = _checked(config, templates, columns, table)
    present = set(pool.labels)
    empty = [name for i, name in enumerate(names) if i not in present]
    if empty:
        raise TaskError(
            f"label {empty[0]!r} has a label word but no example in {table.source}: take it out of label_words"
        )
    test = None
    if (tested := test_table()) is not None:
        rows, told = _checked(config, templates, columns, tested)
        test = Labelled(rows.table, rows.labels)
        warnings += [*told, *repeats.across(pool, rows)]
    wording = Wording(
        name=name,
        description=f"sort texts into {len(names)} classes",
        template=template,
        label_names=names,
        label_words=tuple(config.label_words.values()),
        manual_prompt="",
        fields=fields_by_column,
        others=tuple(templates[1:]),
    )
    return assemble(config, wording, Labelled(pool.table, pool.labels), test, warnings)


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


def _checked(
    config: OwnTaskConfig, templates: Sequence[Template], columns: Sequence[str], table: Table
) -> tuple[repeats.Rows, list[str]]:
    """Return the rows of a table, and warnings about them."""
    for column in columns:
        table.need(column, "text")
    for template in templates:
        template.check_columns(table.columns, table.source)
    shown = tuple(dict.fromkeys(column for template in templates for column in template.columns))
    table.need(config.label, "label")
    names = tuple(config.label_words)
    index = {label_key(name): i for i, name in enumerate(names)}
    filled = table.filled((*shown, config.label), config.on_empty)
    labels = table.labels(config.label, index.get, names, filled)
    cells = [table.texts(i, shown) if kept else {} for i, kept in enumerate(filled)]
    texts = [tuple(row[column] for column in templates[0].columns) if row else () for row in cells]
    rows = repeats.Rows(table, texts, labels)
    told = repeats.within(rows, names)
    if dropped := filled.count(False):
        told.insert(0, f"{dropped} of {len(table)} rows of {table.source} have no text or no label and are left out")
    return rows, told
