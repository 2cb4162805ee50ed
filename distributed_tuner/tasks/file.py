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
from distributed_tuner.tasks.templates import LABEL_WORD, TARGET, Template
from distributed_tuner.tasks.text_metrics import DEFAULT_TEXT_METRICS

ALL_ROWS = ("rows",)  # in place of labels, of a task with targets


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
    template = Template.parse(config.template, config.model_family, TARGET if config.target else LABEL_WORD)
    columns = (config.text,) if isinstance(config.text, str) else config.text
    templates = [template, *(template.other(source, config.model_family) for source in others)]
    for one in templates:
        _check_use(one, columns, config)
    names = tuple(config.label_words or ())
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
        test = _drawable(config, rows)
        warnings += [*told, *repeats.across(pool, rows)]
    wording = Wording(
        name=name,
        description="write an answer to each text" if config.target else f"sort texts into {len(names)} classes",
        template=template,
        label_names=names or ALL_ROWS,
        label_words=tuple((config.label_words or {}).values()),
        manual_prompt="",
        fields=fields_by_column,
        others=tuple(templates[1:]),
        metrics=DEFAULT_TEXT_METRICS if config.target else ("accuracy",),
        target=config.target or "",
    )
    return assemble(config, wording, _drawable(config, pool), test, warnings)


def _drawable(config: OwnTaskConfig, rows: repeats.Rows) -> Labelled:
    """Return rows as splits are drawn from them: by their labels; those with targets are all of one sort."""
    labels = [min(label, 0) for label in rows.labels] if config.target else rows.labels
    return Labelled(rows.table, labels)


def _check_use(template: Template, columns: Sequence[str], config: OwnTaskConfig) -> None:
    if config.answer in template.columns:
        raise TaskError(
            f"the template {template.source!r} shows the {'target' if config.target else 'label'} column"
            f" {{{config.answer}}} to the model: take it out"
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
    what = "target" if config.target else "label"
    for column in columns:
        table.need(column, "text")
    for template in templates:
        template.check_columns(table.columns, table.source)
    shown = tuple(dict.fromkeys(column for template in templates for column in template.columns))
    table.need(config.answer, what)
    filled = table.filled((*shown, config.answer), config.on_empty)
    if config.target:
        labels, names = _targets(config, table, filled)
    else:
        names = tuple(config.label_words or ())
        index = {label_key(name): i for i, name in enumerate(names)}
        labels = table.labels(config.answer, index.get, names, filled)
    cells = [table.texts(i, shown) if kept else {} for i, kept in enumerate(filled)]
    texts = [tuple(row[column] for column in templates[0].columns) if row else () for row in cells]
    rows = repeats.Rows(table, texts, labels, names, what)
    told = repeats.within(rows)
    if dropped := filled.count(False):
        told.insert(0, f"{dropped} of {len(table)} rows of {table.source} have no text or no {what} and are left out")
    return rows, told


def _targets(config: OwnTaskConfig, table: Table, filled: Sequence[bool]) -> tuple[list[int], tuple[str, ...]]:
    """Return which of the different targets each row has (-1: it is left out), and these.

    Raises TaskError where a target is empty, no text, or holds a stop string, which would end it too early.
    """
    places: dict[str, int] = {}
    found = []
    for i, kept in enumerate(filled):
        if not kept:
            found.append(-1)
            continue
        target = table.texts(i, (config.answer,))[config.answer]
        if stop := next((stop for stop in config.decoding.stop if stop in target), None):
            raise TaskError(
                f"an answer ends at a stop string, but the target {config.answer!r} in {table.where(i)} holds {stop!r}:"
                " set other strings in task.decoding.stop, or change the target"
            )
        found.append(places.setdefault(target, len(places)))
    return found, tuple(places)
